//! Visiting every key of a partition: first what is in memory, in one pass over the slab, then what
//! only the database holds, streamed in key order. Keys read on the way stay in memory while there is
//! room; changes to the others go straight into a sorted file beside the database (hard case H8).
//!
//! Whether a visit changed a value is decided by its encoding: a function that returns what it was
//! given costs no write.

use crate::StateValue;
use crate::codec;
use crate::error::{Error, Result};
use crate::key::KeyBytes;
use crate::memory::heap_estimate;
use crate::partition::{Partition, decode_stored};
use crate::rows::{SHARD_BYTES, encode_stored, split_stored};
use crate::slot::Slot;
use crate::table::{CHANGED, REFERENCED, STORED, UNLOADED};

/// Keys read between two looks at the memory limit.
const ROOM_EVERY: usize = 64;

/// One key and its value, in [`Partition::visit_all`].
pub struct Visit<'a, V> {
    slot: Option<Slot>,
    key: &'a [u8],
    value: &'a mut Option<V>,
    /// Where the encoding from before goes at the first change; None if nobody needs it.
    before: Option<&'a mut Vec<u8>>,
    progress: &'a mut Progress,
}

/// How far the visit of one key has come: what a rollback must know if the visiting function panics.
#[derive(Default)]
pub(crate) struct Progress {
    /// The slot being visited, unless its value from before is in the undo log already.
    slot: Option<u32>,
    /// Where in `undo_bytes` the value from before begins.
    start: usize,
    changed: bool,
    error: Option<Error>,
}

impl<V: StateValue> Visit<'_, V> {
    /// The encoded key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// The key's slot, None if it is not in memory. A key that the task looked up before has one.
    #[inline]
    pub fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// The value; there is one until it is taken.
    #[inline]
    pub fn get(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// The value, to be changed: None removes the key.
    #[inline]
    pub fn get_mut(&mut self) -> &mut Option<V> {
        if !self.progress.changed {
            self.progress.changed = true;
            if let (Some(before), Some(value)) = (&mut self.before, &*self.value)
                && let Err(error) = codec::encode(value, before)
            {
                self.progress.error = Some(error);
            }
        }
        self.value
    }

    /// Takes the value out, to be put back with [`put`](Self::put); without that the key is removed.
    #[inline]
    pub fn take(&mut self) -> Option<V> {
        self.get_mut().take()
    }

    /// Gives the key a value; None removes it.
    #[inline]
    pub fn put(&mut self, value: Option<V>) {
        *self.get_mut() = value;
    }
}

impl<V: StateValue> Partition<V> {
    /// Visits every key of the partition that has a value, also those that are on disk only, each
    /// once. The order is not promised. Keys that were looked up before ([`slot`](Self::slot),
    /// [`load_misses`](Self::load_misses)) and have a value are among them, with the same slots: deal with keys that have news
    /// first and pass over their slots here, or deal with them here and with those that still have no value afterwards.
    ///
    /// # Errors
    /// What `visit` returns; a failed or corrupt read; [`Misuse`](crate::ErrorKind::Misuse) with misses
    /// not loaded, or while changes of this partition lie beside the database.
    pub fn visit_all<E: From<Error>>(
        &mut self,
        mut visit: impl FnMut(&mut Visit<'_, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.operator.shared.check_poison()?;
        if self.has_misses() {
            return Err(Error::misuse("load_misses comes before visit_all").into());
        }
        self.check_spills()?;
        self.open_task();
        let mut scratch = Vec::new();
        for slot in 0..self.table.entries.len() as u32 {
            // Without a value: looked up and absent, or removed and on its way out.
            if self.table.entries[slot as usize].value.is_some() {
                self.visit_slot(slot, &mut scratch, &mut visit)?;
            }
        }
        if !self.complete {
            self.visit_stored(&mut scratch, &mut visit)?;
        }
        self.report();
        Ok(())
    }

    #[inline]
    fn visit_slot<E: From<Error>>(
        &mut self,
        slot: u32,
        scratch: &mut Vec<u8>,
        visit: &mut impl FnMut(&mut Visit<'_, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        let entry = &mut self.table.entries[slot as usize];
        debug_assert!(entry.flags & UNLOADED == 0);
        let known = entry.flags & CHANGED != 0;
        self.visiting =
            Progress { slot: (!known).then_some(slot), start: self.undo_bytes.len(), changed: false, error: None };
        let mut seen = Visit {
            slot: Some(Slot(slot)),
            key: entry.key.as_bytes(),
            value: &mut entry.value,
            before: (!known).then_some(&mut self.undo_bytes),
            progress: &mut self.visiting,
        };
        visit(&mut seen)?;
        if self.visiting.changed && !known {
            self.end_visit(slot, scratch)?;
        }
        self.visiting.slot = None;
        Ok(())
    }

    /// Notes the change that a visit made, unless the value is encoded as it was.
    fn end_visit(&mut self, slot: u32, scratch: &mut Vec<u8>) -> Result<()> {
        if let Some(error) = self.visiting.error.take() {
            // What was there cannot be written down, so it could not be brought back.
            self.operator.shared.poison(&error.to_string());
            return Err(error);
        }
        let start = self.visiting.start;
        if let Some(value) = &self.table.entries[slot as usize].value {
            scratch.clear();
            codec::encode(value, scratch)?;
            if scratch[..] == self.undo_bytes[start..] {
                self.undo_bytes.truncate(start);
                return Ok(());
            }
        }
        self.note_change(slot, start);
        Ok(())
    }

    /// Notes the change of a visit that failed or panicked half-way, for the rollback to undo it.
    pub(crate) fn note_broken_visit(&mut self) {
        let Progress { slot, start, changed, .. } = std::mem::take(&mut self.visiting);
        if let (Some(slot), true) = (slot, changed) {
            self.note_change(slot, start);
        }
    }

    fn visit_stored<E: From<Error>>(
        &mut self,
        scratch: &mut Vec<u8>,
        visit: &mut impl FnMut(&mut Visit<'_, V>) -> Result<(), E>,
    ) -> Result<(), E> {
        let operator = self.operator.clone();
        let shared = &operator.shared;
        let (from, to) = self.shard_range();
        let mut file = shared.database.table_file(shared.spill_file());
        let (mut has_room, mut since_look, mut streamed) = (shared.has_room(), 0, 0_u64);
        let outcome = shared.database.scan(&operator.name, &from, Some(to), |full, stored| -> Result<bool, E> {
            let key = full.get(SHARD_BYTES..).ok_or_else(|| {
                Error::corrupt(format!("operator `{}`: a stored key is shorter than its shard", operator.name))
            })?;
            let hash = codec::key_hash(key);
            if self.table.find(hash, key).is_some() {
                return Ok(true);
            }
            let value: V = decode_stored(stored, operator.schema.version)
                .map_err(|error| error.context(format_args!("operator `{}`", operator.name)))?;
            since_look += 1;
            if since_look >= ROOM_EVERY {
                since_look = 0;
                self.report();
                has_room = shared.has_room();
            }
            if has_room {
                let shard = codec::shard_of(hash, shared.options.shards);
                let slot = self.table.insert(hash, KeyBytes::new(key), shard, STORED | REFERENCED);
                let entry = &mut self.table.entries[slot as usize];
                if !operator.flat {
                    entry.heap_bytes = heap_estimate(&value).min(u32::MAX as usize) as u32;
                    self.table.value_heap_bytes += entry.heap_bytes as usize;
                }
                entry.value = Some(value);
                self.visit_slot(slot, scratch, visit)?;
                return Ok(true);
            }
            streamed += 1;
            let mut value = Some(value);
            let mut progress = Progress::default();
            let mut seen = Visit { slot: None, key, value: &mut value, before: None, progress: &mut progress };
            visit(&mut seen)?;
            if !progress.changed {
                return Ok(true);
            }
            match &value {
                None => {
                    self.task_removed += 1;
                    file.put(full, None)?;
                }
                Some(value) => {
                    scratch.clear();
                    encode_stored(value, operator.schema.version, scratch)?;
                    if scratch[..] != *stored {
                        if file.file_bytes() == 0 {
                            codec::check_bytes_round_trip::<V>(split_stored(scratch)?.1)?;
                        }
                        file.put(full, Some(scratch))?;
                    }
                }
            }
            Ok(true)
        });
        // A file is noted also if the visit failed, for the rollback to remove it.
        let finished = file.finish();
        if let Ok(Some(path)) = &finished {
            self.task_spills.push(path.clone());
        }
        outcome?;
        finished?;
        if streamed == 0 {
            self.complete = true;
        }
        Ok(())
    }

    /// The stored keys of this partition: from, and up to.
    fn shard_range(&self) -> (Vec<u8>, Vec<u8>) {
        let options = &self.operator.shared.options;
        let first = |partition: usize| {
            let shard = (partition * usize::from(options.shards)).div_ceil(options.partitions);
            (shard as u16).to_be_bytes().to_vec()
        };
        (first(self.index), first(self.index + 1))
    }
}
