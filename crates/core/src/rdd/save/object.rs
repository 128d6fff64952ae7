//! A part of encoded values: docs/formats.md, "Object files". Also what a persisted `Rdd` spills.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_state::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::{CHUNK, Rdd};
use super::staging::{Part, PartWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Task;
use crate::sink::disk::failed;
use crate::source::{SourceOutput, SourcePartition};

const MAGIC: [u8; 8] = *b"MPOBJECT";
/// Format 1: values by the codec of `millpond_state::codec`.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CHUNK_HEADER_BYTES: usize = 12;
/// A chunk ends behind the first value with which it has so many bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// The most bytes of a chunk: one value at its limit behind an almost full chunk.
const CHUNK_LIMIT_BYTES: usize = CHUNK_BYTES + codec::VALUE_LIMIT_BYTES + 4;

pub(super) fn write_part<T: Serialize + DeserializeOwned + Send + 'static>(
    rdd: &Rdd<T>,
    task: &Task,
    part: Part,
) -> Result<()> {
    let (number, of) = (part.number, part.of);
    part.write(|out| {
        let mut writer = ObjectWriter::begin(out, number, of)?;
        rdd.op.compute(task.partition, task, &mut |chunk| writer.write(&chunk))?;
        writer.finish()
    })
}

/// Writes values in chunks.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut PartWriter,
    chunk: Vec<u8>,
    in_chunk: u32,
    records: u64,
}

impl<'a> ObjectWriter<'a> {
    pub(crate) fn begin(out: &'a mut PartWriter, part: usize, of: usize) -> Result<Self> {
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

/// One part file as a partition.
struct ObjectPart<T> {
    path: PathBuf,
    part: u32,
    of: u32,
    values: PhantomData<fn() -> T>,
}

/// The parts of a saved directory.
///
/// # Errors
/// A directory that is none of ours, or lacks a part.
pub(super) fn parts<T: DeserializeOwned + Send + 'static>(
    directory: &Path,
) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| crate::source::file_failed("read", directory, error))? {
        let entry = entry.map_err(|error| failed("list", directory, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b"part-") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let of = paths.len() as u32;
    if of == 0 {
        return Err(Error::new(ErrorKind::Restore, format!("{} holds no object files", directory.display())));
    }
    let mut parts: Vec<Arc<dyn SourcePartition<T>>> = Vec::with_capacity(paths.len());
    for (part, path) in paths.into_iter().enumerate() {
        let part = ObjectPart { path, part: part as u32, of, values: PhantomData };
        // Whether all are there is known before anything is computed.
        part.open()?;
        parts.push(Arc::new(part));
    }
    Ok(parts)
}

impl<T: DeserializeOwned + Send> SourcePartition<T> for ObjectPart<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut file = self.open()?;
        read_values(&self.path, &mut file, &mut |chunk| out.records(chunk)).map(drop)
    }

    fn records(&self) -> u64 {
        // Known when it has been read.
        0
    }
}

impl<T> ObjectPart<T> {
    fn open(&self) -> Result<BufReader<File>> {
        let (file, part, of) = open(&self.path)?;
        if (part, of) == (self.part, self.of) {
            return Ok(file);
        }
        Err(damaged(
            &self.path,
            &format!(
                "is part {part} of {of}, and stands where part {} of {} should: a part is missing",
                self.part, self.of
            ),
        ))
    }
}

/// Opens a file of values: its number, and how many belong together.
pub(crate) fn open(path: &Path) -> Result<(BufReader<File>, u32, u32)> {
    let file = File::open(path).map_err(|error| crate::source::file_failed("read", path, error))?;
    let mut file = BufReader::with_capacity(CHUNK_BYTES, file);
    let mut header = [0; HEADER_BYTES];
    read_exact(path, &mut file, &mut header)?;
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
    Ok((file, number(12), number(16)))
}

/// Reads all values behind the header; how many there were. What `out` fails with is passed on.
pub(crate) fn read_values<T: DeserializeOwned>(
    path: &Path,
    file: &mut BufReader<File>,
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
        payload.resize(length, 0);
        read_exact(path, file, &mut payload)?;
        if checksum(&header[..8], &payload) != number(8) {
            return Err(damaged(path, &format!("is damaged behind {records} values")));
        }
        if count == 0 {
            let whole = payload == records.to_le_bytes() && file.read(&mut [0]).is_ok_and(|more| more == 0);
            return if whole { Ok(records) } else { Err(damaged(path, "does not end where it says")) };
        }
        let mut values = Vec::with_capacity((count as usize).min(CHUNK));
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
            if values.len() == CHUNK {
                out(std::mem::take(&mut values))?;
            }
        }
        records += u64::from(count);
        if !values.is_empty() {
            out(values)?;
        }
    }
}

fn read_exact(path: &Path, file: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, "is cut short"),
        _ => failed("read", path, error),
    })
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Restore, format!("{} {what}: save it again, or restore it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/formats.md, "Object files".
    const PAGE: &str = "
        4d 50 4f 42 4a 45 43 54  01 00 00 00 02 00 00 00  03 00 00 00 3e 29 d1 0b
        0c 00 00 00 02 00 00 00  e7 1b 6c 0c  01 00 00 00 07  03 00 00 00 fb 2c 01
        08 00 00 00 00 00 00 00  67 d3 8d dd  02 00 00 00 00 00 00 00";

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("part");
        let mut file = PartWriter::create(&path).expect("created");
        let mut writer = ObjectWriter::begin(&mut file, 2, 3).expect("begun");
        writer.write(&[7_u64, 300]).expect("written");
        writer.finish().expect("finished");
        file.finish(false).expect("flushed");
        let bytes = std::fs::read(&path).expect("read");
        let page: Vec<u8> =
            PAGE.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect();
        assert_eq!(bytes, page, "{bytes:02x?}");
        let (mut file, part, of) = open(&path).expect("opened");
        let mut values = Vec::new();
        let records = read_values(&path, &mut file, &mut |chunk: Vec<u64>| {
            values.extend(chunk);
            Ok(())
        });
        assert_eq!((records.expect("read"), part, of, values), (2, 2, 3, vec![7_u64, 300]));
    }
}
