//! What a batch takes from files, as bytes in the plan (docs/formats.md, "Plans and positions of sources").

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::bytes::{Reader, Writer};
use crate::error::Result;

const VERSION: u8 = 1;

/// A stretch of whole records of one file, with what the file looked like when it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) mtime_ns: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) records: u64,
}

impl Range {
    /// A limit on what the range takes in an encoded plan.
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.path.as_os_str().len() + 48
    }
}

/// The partitions of a batch: each some ranges.
pub(crate) fn encode(partitions: &[Vec<Range>]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.list(partitions, |out, ranges| {
        out.list(ranges, |out, range| {
            write_path(out, &range.path);
            for value in [range.size, range.mtime_ns, range.from, range.to, range.records] {
                out.u64(value);
            }
        });
    });
    out.into_bytes()
}

/// Reads what [`encode`] wrote. No bytes are an empty batch.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Vec<Range>>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = Reader::new("a plan of files", bytes);
    check_version(&mut bytes)?;
    let partitions = bytes.list(|bytes| {
        bytes.list(|bytes| {
            Ok(Range {
                path: read_path(bytes)?,
                size: bytes.u64()?,
                mtime_ns: bytes.u64()?,
                from: bytes.u64()?,
                to: bytes.u64()?,
                records: bytes.u64()?,
            })
        })
    })?;
    bytes.end()?;
    Ok(partitions)
}

pub(super) fn check_version(bytes: &mut Reader<'_>) -> Result<()> {
    match bytes.u8()? {
        VERSION => Ok(()),
        other => Err(bytes.broken(&format!("version {other}, this program reads version {VERSION}"))),
    }
}

pub(super) fn write_path(out: &mut Writer, path: &Path) {
    out.bytes(path.as_os_str().as_bytes());
}

pub(super) fn read_path(bytes: &mut Reader<'_>) -> Result<PathBuf> {
    Ok(PathBuf::from(OsString::from_vec(bytes.bytes()?.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let range = Range { path: PathBuf::from("/a"), size: 2, mtime_ns: 3, from: 4, to: 5, records: 6 };
        let mut expected = vec![1, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, b'/', b'a'];
        (2..=6_u64).for_each(|value| expected.extend(value.to_le_bytes()));
        assert_eq!(encode(&[vec![range]]), expected);
    }

    #[test]
    fn plans_come_back_as_written_and_cut_ones_are_errors() {
        let range =
            |from| Range { path: PathBuf::from("/in/a.txt"), size: 100, mtime_ns: 5, from, to: from + 10, records: 3 };
        let partitions = vec![vec![range(0), range(10)], vec![range(20)]];
        let bytes = encode(&partitions);
        assert_eq!(decode(&bytes).ok(), Some(partitions));
        for length in 1..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        assert!(decode(&[9]).is_err(), "a newer version");
    }
}
