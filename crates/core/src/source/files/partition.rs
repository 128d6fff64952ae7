//! Reading the planned ranges of files: exactly the planned bytes, of exactly the planned file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::super::refusal::{Chunks, OnRefused};
use super::super::{SourceOutput, SourcePartition};
use super::decode::{Decoder, Framing, Run, refused_part};
use super::listing::{Found, cannot};
use super::plan::Range;
use super::progress::changed;
use crate::error::Result;

/// Bytes read at once.
const BLOCK: usize = 256 << 10;

/// Some ranges of files.
pub(crate) struct FilePartition<T> {
    pub(crate) ranges: Vec<Range>,
    pub(crate) framing: Framing,
    pub(crate) decoder: Arc<dyn Decoder<T>>,
    pub(crate) on_refused: OnRefused,
}

impl<T: Send> SourcePartition<T> for FilePartition<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut chunks = Chunks::new(out, self.on_refused);
        for range in &self.ranges {
            self.read(range, &mut chunks)?;
        }
        chunks.finish().map(drop)
    }

    fn records(&self) -> u64 {
        self.ranges.iter().map(|range| range.records).sum()
    }
}

impl<T: Send> FilePartition<T> {
    fn read(&self, range: &Range, chunks: &mut Chunks<'_, T>) -> Result<()> {
        let path = &range.path;
        let mut file = open(path)?;
        check(&file, range)?;
        let before = chunks.total();
        file.seek(SeekFrom::Start(range.from)).map_err(|error| cannot("read", path, error))?;
        self.read_range(&mut file, range, chunks)?;
        check(&file, range)?;
        if chunks.total() - before != range.records {
            return Err(changed(path, "has changed"));
        }
        Ok(())
    }

    fn read_range(&self, file: &mut File, range: &Range, chunks: &mut Chunks<'_, T>) -> Result<()> {
        let path = range.path.as_path();
        let mut buffer: Vec<u8> = Vec::with_capacity(BLOCK.min((range.to - range.from) as usize));
        // Where in the file the buffer begins, and where the next bytes are read.
        let (mut start, mut at) = (range.from, range.from);
        // Inside a line that is too long and has been refused.
        let mut passing = false;
        loop {
            if passing {
                let end = memchr::memchr(b'\n', &buffer);
                passing = end.is_none();
                let passed = end.map_or(buffer.len(), |end| end + 1);
                buffer.drain(..passed);
                start += passed as u64;
            }
            let at_end = at == range.to;
            let whole = if at_end { buffer.len() } else { self.framing.whole_records(&buffer) };
            self.decoder.decode(Run { path, offset: start, bytes: &buffer[..whole], framing: self.framing }, chunks)?;
            buffer.drain(..whole);
            start += whole as u64;
            if at_end {
                return Ok(());
            }
            if self.framing.is_too_long(&buffer) {
                chunks.refuse(|| refused_part(path, start, &buffer, self.framing))?;
                passing = true;
                start += buffer.len() as u64;
                buffer.clear();
            }
            let wanted = BLOCK.min((range.to - at) as usize);
            read_more(file, &mut buffer, wanted).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(path, "has become shorter"),
                _ => cannot("read", path, error),
            })?;
            at += wanted as u64;
        }
    }
}

/// Opens a file of a plan.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => changed(path, "has gone"),
        _ => cannot("read", path, error),
    })
}

/// The file must be the one that was planned.
fn check(file: &File, range: &Range) -> Result<()> {
    let metadata = file.metadata().map_err(|error| cannot("read", &range.path, error))?;
    let found = Found::new(range.path.clone(), &metadata);
    if (found.size, found.mtime_ns) == (range.size, range.mtime_ns) {
        Ok(())
    } else {
        Err(changed(&range.path, "has changed"))
    }
}

fn read_more(file: &mut File, buffer: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let held = buffer.len();
    buffer.resize(held + wanted, 0);
    file.read_exact(&mut buffer[held..])
}
