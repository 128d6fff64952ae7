//! Values in checksummed chunks, the bytes of an object file: docs/formats.md, "Object files".

use std::io::{self, Read};
use std::path::Path;

use millpond_state::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chunk::chunk_len;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::disk::failed;

const MAGIC: [u8; 8] = *b"MPOBJECT";
/// Format 1: values by the codec of `millpond_state::codec`.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CHUNK_HEADER_BYTES: usize = 12;
/// A chunk ends behind the first value with which it has so many bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// The most bytes of a chunk: one value at its limit behind an almost full chunk.
const CHUNK_LIMIT_BYTES: usize = CHUNK_BYTES + codec::VALUE_LIMIT_BYTES + 4;

/// What is written to.
pub(crate) trait Put {
    /// The next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Writes values in chunks.
pub(crate) struct ObjectWriter<'a, W> {
    out: &'a mut W,
    chunk: Vec<u8>,
    in_chunk: u32,
    records: u64,
}

impl<'a, W: Put> ObjectWriter<'a, W> {
    pub(crate) fn begin(out: &'a mut W, part: usize, of: usize) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        for (at, value) in [(8, VERSION), (12, part as u32), (16, of as u32)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let checksum = crc32fast::hash(&header[..20]);
        header[20..].copy_from_slice(&checksum.to_le_bytes());
        out.put(&header)?;
        Ok(ObjectWriter { out, chunk: Vec::new(), in_chunk: 0, records: 0 })
    }

    pub(crate) fn write<T: Serialize + DeserializeOwned>(&mut self, values: &[T]) -> Result<()> {
        for value in values {
            if self.records == 0 {
                // Types that do not come back are found out now, not when they are needed (hard case H16).
                codec::check_round_trip(value)?;
            }
            let at = self.chunk.len();
            self.chunk.extend_from_slice(&[0; 4]);
            codec::encode(value, &mut self.chunk)?;
            let length = (self.chunk.len() - at - 4) as u32;
            self.chunk[at..at + 4].copy_from_slice(&length.to_le_bytes());
            self.in_chunk += 1;
            self.records += 1;
            if self.chunk.len() >= CHUNK_BYTES {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    /// Bytes written so far, about.
    fn end_chunk(&mut self) -> Result<()> {
        if self.in_chunk > 0 {
            self.put_chunk()?;
        }
        Ok(())
    }

    fn put_chunk(&mut self) -> Result<()> {
        let mut header = [0; CHUNK_HEADER_BYTES];
        header[..4].copy_from_slice(&(self.chunk.len() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&self.in_chunk.to_le_bytes());
        let checksum = checksum(&header[..8], &self.chunk);
        header[8..].copy_from_slice(&checksum.to_le_bytes());
        self.out.put(&header)?;
        self.out.put(&self.chunk)?;
        self.chunk.clear();
        self.in_chunk = 0;
        Ok(())
    }

    /// The end: a chunk without values that holds how many there were.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.end_chunk()?;
        self.chunk.extend_from_slice(&self.records.to_le_bytes());
        self.put_chunk()
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads the header: the number of the part, and how many belong together.
pub(crate) fn read_header(path: &Path, file: &mut impl Read) -> Result<(u32, u32)> {
    let mut header = [0; HEADER_BYTES];
    read_exact(path, file, &mut header)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC {
        return Err(damaged(path, "is no object file"));
    }
    if number(20) != crc32fast::hash(&header[..20]) {
        return Err(damaged(path, "is damaged at its beginning"));
    }
    if number(8) != VERSION {
        return Err(damaged(path, &format!("has format {}, this version reads {VERSION}", number(8))));
    }
    Ok((number(12), number(16)))
}

/// Reads all values behind the header; how many there were. What `out` fails with is passed on.
pub(crate) fn read_values<T: DeserializeOwned>(
    path: &Path,
    file: &mut impl Read,
    out: &mut dyn FnMut(Vec<T>) -> Result<()>,
) -> Result<u64> {
    let mut records = 0_u64;
    let mut payload = Vec::new();
    loop {
        let mut header = [0; CHUNK_HEADER_BYTES];
        read_exact(path, file, &mut header)?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, count) = (number(0) as usize, number(4));
        if length > CHUNK_LIMIT_BYTES {
            return Err(damaged(path, "is damaged: a chunk is longer than any can be"));
        }
        read_payload(path, file, length, &mut payload)?;
        if checksum(&header[..8], &payload) != number(8) {
            return Err(damaged(path, &format!("is damaged behind {records} values")));
        }
        if count == 0 {
            let mut more = Vec::new();
            file.by_ref().take(1).read_to_end(&mut more).map_err(|error| failed("read", path, error))?;
            let whole = more.is_empty() && payload == records.to_le_bytes();
            return if whole { Ok(records) } else { Err(damaged(path, "does not end where it says")) };
        }
        let mut values = Vec::with_capacity((count as usize).min(chunk_len::<T>()));
        let mut rest = payload.as_slice();
        for _ in 0..count {
            let Some((length, behind)) = rest.split_first_chunk::<4>() else {
                return Err(damaged(path, "is damaged: a chunk holds fewer values than it says"));
            };
            let length = u32::from_le_bytes(*length) as usize;
            let Some((value, behind)) = behind.split_at_checked(length) else {
                return Err(damaged(path, "is damaged: a value is longer than its chunk"));
            };
            let value = codec::decode::<T>(value);
            values.push(
                value.map_err(|error| Error::from(error).context(format!("{} holds other values", path.display())))?,
            );
            rest = behind;
            if values.len() == chunk_len::<T>() {
                out(std::mem::take(&mut values))?;
            }
        }
        records += u64::from(count);
        if !values.is_empty() {
            out(values)?;
        }
    }
}

/// Reads a payload of this length. Takes memory as it comes: a damaged length asks for no more than the file has.
fn read_payload(path: &Path, file: &mut impl Read, length: usize, payload: &mut Vec<u8>) -> Result<()> {
    payload.clear();
    let read = file.take(length as u64).read_to_end(payload).map_err(|error| failed("read", path, error))?;
    if read < length { Err(damaged(path, "is cut short")) } else { Ok(()) }
}

fn read_exact(path: &Path, file: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, "is cut short"),
        _ => failed("read", path, error),
    })
}

pub(super) fn damaged(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Restore, format!("{} {what}: save it again, or restore it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ThenFails<'a>(&'a [u8]);

    impl Read for ThenFails<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                some => Ok(some),
            }
        }
    }

    impl Put for Vec<u8> {
        fn put(&mut self, bytes: &[u8]) -> Result<()> {
            self.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_is_no_damage() {
        let mut bytes = Vec::new();
        let mut writer = ObjectWriter::begin(&mut bytes, 0, 1).unwrap();
        writer.write(&[1_u64, 2, 3]).unwrap();
        writer.finish().unwrap();
        for cut in HEADER_BYTES..=bytes.len() {
            let mut file = ThenFails(&bytes[HEADER_BYTES..cut]);
            let error = read_values::<u64>(Path::new("/a/file"), &mut file, &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Retry, "cut at {cut}: {error}");
            assert!(error.to_string().contains("cannot read /a/file"), "cut at {cut}: {error}");
        }
    }
}
