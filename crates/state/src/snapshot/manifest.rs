//! The manifest of a snapshot, byte by byte (docs/formats-state.md): magic, version, length, body, and
//! a CRC-32 over all of it. Written by hand: it must be readable by versions to come.

use crate::error::{Error, ErrorKind, Result};
use crate::schema::Schema;

const MAGIC: &[u8; 8] = b"MPSTATE\0";
const VERSION: u32 = 1;
/// Magic, version and length before the body.
const HEADER_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// Longest manifest that is written or read.
pub(crate) const MANIFEST_LIMIT_BYTES: usize = 256 << 20;
/// Longest name in a manifest.
const NAME_LIMIT_BYTES: usize = 4096;

/// What a snapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The batch after which this is the state.
    pub batch: u64,
    /// Shards the keys are spread over.
    pub shards: u16,
    /// Partitions that are worked on in parallel.
    pub partitions: u32,
    /// The operators, by name.
    pub operators: Vec<OperatorRecord>,
    /// The files.
    pub files: Vec<SnapshotFile>,
    /// The section that the caller of the checkpoint gave.
    pub meta: Vec<u8>,
}

/// An operator in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRecord {
    /// The name the user gave.
    pub name: String,
    /// What it is, as its maker calls it.
    pub kind: String,
    /// The structure of its values.
    pub schema: Schema,
    /// Keys with a value, exactly.
    pub keys: u64,
    /// Bytes of its table files, older versions of values included.
    pub table_bytes: u64,
}

/// A file in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name in the snapshot store.
    pub name: String,
    /// Its name in the database's directory.
    pub live_name: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 (IEEE) of its content.
    pub checksum: u32,
}

impl SnapshotFile {
    /// A table file, which is never written to again and may be linked; the others are copied.
    pub fn is_table(&self) -> bool {
        self.live_name.ends_with(".sst")
    }
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The manifest as it is published.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch) if a name or the whole is too long.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024 + self.files.len() * 96 + self.meta.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.batch.to_le_bytes());
        out.extend_from_slice(&self.shards.to_le_bytes());
        out.extend_from_slice(&self.partitions.to_le_bytes());
        put_count(self.operators.len(), &mut out);
        for operator in &self.operators {
            put_name(&operator.name, &mut out)?;
            put_name(&operator.kind, &mut out)?;
            out.extend_from_slice(&operator.schema.version.to_le_bytes());
            put_bytes(operator.schema.shape.as_bytes(), &mut out);
            out.extend_from_slice(&operator.keys.to_le_bytes());
            out.extend_from_slice(&operator.table_bytes.to_le_bytes());
        }
        put_count(self.files.len(), &mut out);
        for file in &self.files {
            put_name(&file.name, &mut out)?;
            put_name(&file.live_name, &mut out)?;
            out.extend_from_slice(&file.bytes.to_le_bytes());
            out.extend_from_slice(&file.checksum.to_le_bytes());
        }
        put_bytes(&self.meta, &mut out);
        let length = out.len() + CHECKSUM_BYTES;
        if length > MANIFEST_LIMIT_BYTES {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the manifest of batch {} takes {length} bytes, the limit is {MANIFEST_LIMIT_BYTES}",
                    self.batch
                ),
            ));
        }
        out[12..20].copy_from_slice(&(length as u64).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        Ok(out)
    }

    /// Reads a manifest back.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) saying what is wrong, [`Mismatch`](ErrorKind::Mismatch) for a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Manifest> {
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(Error::corrupt(format!("the manifest has only {} bytes", bytes.len())));
        }
        if &bytes[..8] != MAGIC {
            return Err(Error::corrupt("the manifest does not begin as one"));
        }
        let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        let found = crc32fast::hash(covered);
        let written = u32::from_le_bytes(checksum.try_into().expect("four bytes"));
        // The checksum comes first: a flipped bit in the version is damage, not a newer format.
        if found != written {
            return Err(Error::corrupt(format!("the manifest has checksum {found:08x}, written was {written:08x}")));
        }
        let mut rest = Reader(&covered[8..]);
        let version = rest.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "the manifest has format version {version}, this program reads version {VERSION}: use a newer one"
                ),
            ));
        }
        let length = rest.u64()?;
        if length != bytes.len() as u64 {
            return Err(Error::corrupt(format!("the manifest has {} bytes, written were {length}", bytes.len())));
        }
        let (batch, shards, partitions) = (rest.u64()?, rest.u16()?, rest.u32()?);
        let mut operators = Vec::new();
        for _ in 0..rest.u32()? {
            operators.push(OperatorRecord {
                name: rest.text()?,
                kind: rest.text()?,
                schema: Schema { version: rest.u32()?, shape: rest.text()? },
                keys: rest.u64()?,
                table_bytes: rest.u64()?,
            });
        }
        let mut files = Vec::new();
        for _ in 0..rest.u32()? {
            let (name, live_name) = (rest.text()?, rest.text()?);
            if [&name, &live_name].into_iter().any(|name| !is_file_name(name)) {
                return Err(Error::corrupt(format!("the manifest names a file {name:?} in {live_name:?}")));
            }
            files.push(SnapshotFile { name, live_name, bytes: rest.u64()?, checksum: rest.u32()? });
        }
        let meta = rest.bytes()?.to_vec();
        if !rest.0.is_empty() {
            return Err(Error::corrupt(format!("the manifest has {} bytes after its end", rest.0.len())));
        }
        Ok(Manifest { batch, shards, partitions, operators, files, meta })
    }
}

/// A plain file name: nothing that would lead out of a directory.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    // The limit on the whole is far below 2^32 entries; longer ones fail there.
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_name(name: &str, out: &mut Vec<u8>) -> Result<()> {
    if name.len() > NAME_LIMIT_BYTES {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!("a name of {} bytes is longer than the limit of {NAME_LIMIT_BYTES}: {name:.40}..", name.len()),
        ));
    }
    put_bytes(name.as_bytes(), out);
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| Error::corrupt("the manifest ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt("a name in the manifest is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            batch: 7,
            shards: 128,
            partitions: 16,
            operators: vec![OperatorRecord {
                name: "counts".into(),
                kind: "update_state_by_key".into(),
                schema: Schema { version: 1, shape: "u64".into() },
                keys: 3,
                table_bytes: 1000,
            }],
            files: vec![SnapshotFile {
                name: "000012-3e8-0badcafe.sst".into(),
                live_name: "000012.sst".into(),
                bytes: 1000,
                checksum: 0x0bad_cafe,
            }],
            meta: b"engine".to_vec(),
        }
    }

    #[test]
    fn a_manifest_comes_back() {
        assert_eq!(Manifest::decode(&sample().encode().unwrap()).unwrap(), sample());
    }

    /// The bytes as docs/formats-state.md gives them: a change here is a change of the format.
    #[test]
    fn the_bytes_are_as_documented() {
        let mut expected = Vec::new();
        expected.extend_from_slice(b"MPSTATE\0\x01\0\0\0\xa9\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x80\0\x10\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\0\x06\0\0\0counts\x13\0\0\0update_state_by_key");
        expected.extend_from_slice(b"\x01\0\0\0\x03\0\0\0u64\x03\0\0\0\0\0\0\0\xe8\x03\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\0\x17\0\0\x00000012-3e8-0badcafe.sst\x0a\0\0\x00000012.sst");
        expected.extend_from_slice(b"\xe8\x03\0\0\0\0\0\0\xfe\xca\xad\x0b\x06\0\0\0engine");
        let bytes = sample().encode().unwrap();
        let (body, checksum) = bytes.split_at(bytes.len() - 4);
        assert_eq!(body, expected);
        assert_eq!(checksum, crc32fast::hash(&expected).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample().encode().unwrap();
        for position in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[position / 8] ^= 1 << (position % 8);
            assert_eq!(Manifest::decode(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "bit {position}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..length]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = sample().encode().unwrap();
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        let error = Manifest::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "../x", "a/b", ".hidden", "a\0"] {
            assert!(!is_file_name(name), "{name:?}");
        }
        assert!(is_file_name("000012-3e8-0badcafe.sst"));
    }
}
