//! The panes of one partition of a window: what each batch of its parent left there, in rows of keyed state.
//!
//! A pane is a row that says how many chunks it has and which pane comes next, and the chunks; one row more says where the list
//! begins and ends. So a batch touches what enters and what leaves, however long the window is, and an empty pane takes
//! nothing. Keys of rows are made so that they fall into the partition whose task needs them.

use std::sync::Arc;

use millpond_state::{Partition, PartitionGuard, Slot, codec};

use super::rows::List;
pub(super) use super::rows::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{RddEnv, Value};
use crate::stream::state::check_first;

/// Encoded bytes of a chunk, about: far below what a value of the state may have.
const CHUNK_BYTES: usize = 256 << 10;
/// The most records of a chunk.
const CHUNK_RECORDS: usize = 2048;

/// A pane that is not empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pane {
    pub(super) time: u64,
    chunks: u32,
    next: Option<u64>,
}

/// The panes of one partition, while a task has them.
pub(super) struct Panes<T: Value> {
    rows: PartitionGuard<Row<T>>,
    partition: usize,
    shards: u16,
    partitions: usize,
    pub(super) list: List,
    list_before: List,
    label: Arc<str>,
}

impl<T: Value> Panes<T> {
    pub(super) fn open(
        rows: PartitionGuard<Row<T>>,
        partition: usize,
        env: &RddEnv,
        label: &Arc<str>,
    ) -> Result<Panes<T>> {
        let list = List::default();
        let mut panes = Panes {
            rows,
            partition,
            shards: env.shards,
            partitions: env.partitions,
            list,
            list_before: list,
            label: label.clone(),
        };
        let slot = panes.slot(0, 0)?;
        panes.rows.load_misses()?;
        match panes.rows.get(slot) {
            None => {}
            Some(Row::List(list)) => (panes.list, panes.list_before) = (*list, *list),
            Some(_) => return Err(panes.damaged("its list")),
        }
        Ok(panes)
    }

    /// Which partition they are of.
    pub(super) fn partition(&self) -> usize {
        self.partition
    }

    /// Links a pane behind those that are there: it is newer than all. An empty one leaves nothing.
    pub(super) fn enter(&mut self, pane: Chunks<T>) -> Result<()> {
        let time = pane.time;
        let chunks = pane.finish(self)?;
        if chunks == 0 {
            return Ok(());
        }
        self.put(time, 0, Some(Row::Pane { chunks, next: None }))?;
        if let Some(newest) = self.list.newest {
            let slot = self.loaded(newest, 0)?;
            match self.rows.get_mut(slot) {
                Some(Row::Pane { next, .. }) => *next = Some(time),
                _ => return Err(self.damaged(&format!("the pane of {newest} ms"))),
            }
        }
        self.list.newest = Some(time);
        self.list.oldest.get_or_insert(time);
        self.list.entering.get_or_insert(time);
        Ok(())
    }

    /// The panes that no window has held, up to a time. From now on one has.
    pub(super) fn take_entering(&mut self, until: u64) -> Result<Vec<Pane>> {
        let entering = self.list.entering.take();
        self.walk(entering, until)
    }

    /// The panes from the oldest up to a time.
    pub(super) fn until(&mut self, until: u64) -> Result<Vec<Pane>> {
        self.walk(self.list.oldest, until)
    }

    fn walk(&mut self, from: Option<u64>, until: u64) -> Result<Vec<Pane>> {
        let (mut panes, mut next) = (Vec::new(), from);
        while let Some(time) = next.filter(|&time| time <= until) {
            let slot = self.loaded(time, 0)?;
            let Some(Row::Pane { chunks, next: after }) = self.rows.get(slot) else {
                return Err(self.damaged(&format!("the pane of {time} ms")));
            };
            panes.push(Pane { time, chunks: *chunks, next: *after });
            next = *after;
        }
        Ok(panes)
    }

    /// The records of a pane, chunk by chunk, in order.
    pub(super) fn read(&mut self, pane: &Pane, mut each: impl FnMut(&[T]) -> Result<()>) -> Result<()> {
        let slots: Vec<Slot> = (1..=pane.chunks).map(|index| self.slot(pane.time, index)).collect::<Result<_>>()?;
        self.rows.load_misses()?;
        for slot in slots {
            let Some(Row::Chunk(records)) = self.rows.get(slot) else {
                return Err(self.damaged(&format!("a chunk of the pane of {} ms", pane.time)));
            };
            each(records)?;
        }
        Ok(())
    }

    /// Puts other records in place of those of a pane.
    pub(super) fn replace(&mut self, pane: &Pane, records: Vec<T>) -> Result<()> {
        let mut chunks = Chunks::new(pane.time);
        chunks.push(self, records)?;
        let written = chunks.finish(self)?;
        for index in written + 1..=pane.chunks {
            self.put(pane.time, index, None)?;
        }
        self.put(pane.time, 0, Some(Row::Pane { chunks: written, next: pane.next }))
    }

    /// Deletes panes from the oldest on: `leaving` is what [`until`](Panes::until) gave.
    pub(super) fn delete(&mut self, leaving: &[Pane]) -> Result<()> {
        let Some(last) = leaving.last() else { return Ok(()) };
        for pane in leaving {
            for index in 0..=pane.chunks {
                self.put(pane.time, index, None)?;
            }
        }
        self.list.oldest = last.next;
        if last.next.is_none() {
            self.list.newest = None;
        }
        if self.list.entering.is_some_and(|entering| entering <= last.time) {
            self.list.entering = last.next;
        }
        Ok(())
    }

    /// What is to be staged.
    pub(super) fn finish(mut self) -> Result<PartitionGuard<Row<T>>> {
        if self.list != self.list_before {
            let kept = self.list != List::default();
            self.put(0, 0, kept.then_some(Row::List(self.list)))?;
        }
        Ok(self.rows)
    }

    fn put(&mut self, time: u64, index: u32, row: Option<Row<T>>) -> Result<()> {
        let slot = self.loaded(time, index)?;
        self.rows.put(slot, row);
        Ok(())
    }

    fn loaded(&mut self, time: u64, index: u32) -> Result<Slot> {
        let slot = self.slot(time, index)?;
        self.rows.load_misses()?;
        Ok(slot)
    }

    /// The slot of a row: of the pane's own at index 0, of its chunks from 1 on; of the list at time 0, which is no batch's.
    fn slot(&mut self, time: u64, index: u32) -> Result<Slot> {
        let mut key = Vec::with_capacity(24);
        for salt in 0_u32.. {
            key.clear();
            codec::encode(&(time, index, salt), &mut key)?;
            let hash = codec::key_hash(&key);
            if codec::partition_of(hash, self.shards, self.partitions) == self.partition {
                return Ok(Partition::slot(&mut self.rows, hash, &key));
            }
        }
        Err(self.damaged("a key for its partition"))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Restore,
            format!("the panes of window `{}` in partition {} lack {what}", self.label, self.partition),
        )
    }
}

/// The records of a pane on their way into its chunks.
pub(super) struct Chunks<T> {
    time: u64,
    written: u32,
    waiting: Vec<T>,
    /// The encoded bytes of what waits.
    bytes: Vec<u8>,
    checked: bool,
}

impl<T: Value> Chunks<T> {
    pub(super) fn new(time: u64) -> Self {
        Chunks { time, written: 0, waiting: Vec::new(), bytes: Vec::new(), checked: false }
    }

    pub(super) fn push(&mut self, panes: &mut Panes<T>, records: Vec<T>) -> Result<()> {
        for record in records {
            check_first(&mut self.checked, &record, &panes.label)?;
            codec::encode(&record, &mut self.bytes)
                .map_err(|error| Error::from(error).context(format!("a record of window `{}`", panes.label)))?;
            self.waiting.push(record);
            if self.waiting.len() >= CHUNK_RECORDS || self.bytes.len() >= CHUNK_BYTES {
                self.write(panes)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, panes: &mut Panes<T>) -> Result<()> {
        let records = std::mem::take(&mut self.waiting);
        self.bytes.clear();
        self.written += 1;
        panes.put(self.time, self.written, Some(Row::Chunk(records)))
    }

    /// The number of chunks written.
    fn finish(mut self, panes: &mut Panes<T>) -> Result<u32> {
        if !self.waiting.is_empty() {
            self.write(panes)?;
        }
        Ok(self.written)
    }
}
