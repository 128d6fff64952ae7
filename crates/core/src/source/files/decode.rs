//! From the bytes of a file to records: framing (lines, or records of a fixed length) and the
//! decoder that the program gives.

use std::fmt::Display;
use std::path::Path;

use super::super::RefusedRecord;
use super::super::refusal::Chunks;
use crate::error::Result;

/// How much of a record that does not fit its frame is shown.
const SHOWN: usize = 1024;

/// How a file is divided into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Lines of at most so many bytes, ended by `\n` or `\r\n`; the last one may lack its end.
    Lines { limit_bytes: usize },
    /// Binary records of so many bytes.
    FixedLength(usize),
}

impl Framing {
    /// How many of the bytes are whole records.
    pub(crate) fn whole_records(self, bytes: &[u8]) -> usize {
        match self {
            Framing::Lines { .. } => memchr::memrchr(b'\n', bytes).map_or(0, |last| last + 1),
            Framing::FixedLength(length) => bytes.len() / length * length,
        }
    }

    /// Whether these bytes of one line are more than a line may have.
    pub(crate) fn is_too_long(self, bytes: &[u8]) -> bool {
        matches!(self, Framing::Lines { limit_bytes } if bytes.len() > limit_bytes)
    }

    /// What is wrong with the frame of a record.
    #[inline]
    fn problem(self, record: &[u8]) -> Option<String> {
        match self {
            Framing::Lines { limit_bytes } if record.len() > limit_bytes => {
                Some(format!("the line is longer than the limit of {limit_bytes} bytes"))
            }
            Framing::FixedLength(length) if record.len() < length => {
                Some(format!("the file ends with {} bytes of a record of {length} bytes", record.len()))
            }
            _ => None,
        }
    }
}

/// One line of a file (or one binary record), borrowed: what a decoder is given.
#[derive(Clone, Copy, Debug)]
pub struct LineRef<'a> {
    bytes: &'a [u8],
    path: &'a Path,
    offset: u64,
}

impl<'a> LineRef<'a> {
    /// The bytes, without the end of the line.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The line as text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, std::str::Utf8Error> {
        std::str::from_utf8(self.bytes)
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Where in the file the record begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A run of whole records of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) path: &'a Path,
    /// Where in the file the run begins.
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
    pub(crate) framing: Framing,
}

impl<'a> Run<'a> {
    fn for_each(self, mut record: impl FnMut(LineRef<'a>) -> Result<()>) -> Result<()> {
        let Run { path, offset, bytes, framing } = self;
        match framing {
            Framing::Lines { .. } => {
                let mut from = 0;
                while from < bytes.len() {
                    let end = memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |found| from + found);
                    let line = &bytes[from..end];
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    record(LineRef { bytes: line, path, offset: offset + from as u64 })?;
                    from = end + 1;
                }
            }
            Framing::FixedLength(length) => {
                for (index, bytes) in bytes.chunks(length).enumerate() {
                    record(LineRef { bytes, path, offset: offset + (index * length) as u64 })?;
                }
            }
        }
        Ok(())
    }
}

/// Decodes runs of records. One dynamic call a run, none a record.
pub(crate) trait Decoder<T>: Send + Sync {
    fn decode(&self, run: Run<'_>, out: &mut Chunks<'_, T>) -> Result<()>;
}

/// The decoder that calls a function for each record.
pub(crate) struct EachRecord<F>(pub(crate) F);

impl<T, E, F> Decoder<T> for EachRecord<F>
where
    E: Display,
    F: Fn(&LineRef<'_>) -> Result<T, E> + Send + Sync,
{
    fn decode(&self, run: Run<'_>, out: &mut Chunks<'_, T>) -> Result<()> {
        run.for_each(|line| {
            if let Some(problem) = run.framing.problem(line.bytes) {
                return out.refuse(|| refused(&line, problem));
            }
            match (self.0)(&line) {
                Ok(record) => out.push(record),
                Err(reason) => out.refuse(|| refused(&line, reason.to_string())),
            }
        })
    }
}

fn refused(line: &LineRef<'_>, reason: String) -> RefusedRecord {
    RefusedRecord {
        origin: format!("{}, byte {}", line.path.display(), line.offset),
        reason,
        key: None,
        value: Some(line.bytes.to_vec()),
        headers: Vec::new(),
    }
}

/// What is told of a line of which only the beginning was read.
pub(crate) fn refused_part(path: &Path, offset: u64, bytes: &[u8], framing: Framing) -> RefusedRecord {
    let reason = framing.problem(bytes).unwrap_or_default();
    refused(&LineRef { bytes: &bytes[..bytes.len().min(SHOWN)], path, offset }, reason)
}

/// The decoder of text lines.
pub(crate) fn text(line: &LineRef<'_>) -> Result<String, String> {
    line.text().map(str::to_owned).map_err(|error| format!("not UTF-8: {error}"))
}
