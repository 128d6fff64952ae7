//! What the embedded sources share on the way from bytes to records: chunks for the engine, and what
//! happens to a record that the decoder refuses.

use std::fmt;

use super::{RefusedRecord, SourceOutput};
use crate::chunk::{chunk, chunk_len};
use crate::error::{Error, ErrorKind, Result};

/// What happens to a refused record that no second stream of the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnRefused {
    /// The task fails, and with it the context.
    Stop,
    /// The record is counted and left out.
    Skip,
}

/// Collects decoded records into chunks, and deals with the refused ones.
pub(crate) struct Chunks<'a, T> {
    out: &'a mut dyn SourceOutput<T>,
    chunk: Vec<T>,
    on_refused: OnRefused,
    wants_refused: bool,
    skipped: u64,
    total: u64,
}

impl<'a, T> Chunks<'a, T> {
    pub(crate) fn new(out: &'a mut dyn SourceOutput<T>, on_refused: OnRefused) -> Self {
        let wants_refused = out.wants_refused();
        Chunks { out, chunk: Vec::new(), on_refused, wants_refused, skipped: 0, total: 0 }
    }

    /// The next record.
    #[inline]
    pub(crate) fn push(&mut self, record: T) -> Result<()> {
        if self.chunk.len() == chunk_len::<T>() {
            self.flush()?;
        }
        self.chunk.push(record);
        Ok(())
    }

    /// A record that the decoder refused. `record` is called only if somebody wants to see it.
    #[cold]
    pub(crate) fn refuse(&mut self, record: impl FnOnce() -> RefusedRecord) -> Result<()> {
        self.total += 1;
        if self.wants_refused {
            return self.out.refused(record());
        }
        if self.on_refused == OnRefused::Skip {
            self.skipped += 1;
            return Ok(());
        }
        let RefusedRecord { origin, reason, .. } = record();
        Err(Error::new(
            ErrorKind::Program,
            format!(
                "{origin}: {reason}. Correct the decoder, let the source leave such records out (`skip_refused`), \
                 or read them as a second stream (`split_refused`)"
            ),
        ))
    }

    /// Hands over what is left; returns how many records there were, refused ones included.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        if self.skipped > 0 {
            self.out.skipped(self.skipped);
        }
        Ok(self.total)
    }

    /// Records so far, refused ones included.
    pub(crate) fn total(&self) -> u64 {
        self.total + self.chunk.len() as u64
    }

    fn flush(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.total += self.chunk.len() as u64;
        self.out.records(std::mem::replace(&mut self.chunk, chunk()))
    }
}

impl<T> fmt::Debug for Chunks<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").field("waiting", &self.chunk.len()).field("total", &self.total).finish_non_exhaustive()
    }
}
