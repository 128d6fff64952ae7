//! One partition of one operator's state, as the task that holds it sees it: slots, misses, an undo
//! log. Single-threaded, and the hot path of the engine.
//!
//! A task looks its keys up ([`slot`](Partition::slot)), reads what was missing
//! ([`load_misses`](Partition::load_misses)), changes values, and ends with
//! [`commit_task`](Partition::commit_task) or [`rollback_task`](Partition::rollback_task). Slots are
//! good until then. Dropping the guard without either rolls back.

use crate::StateValue;
use crate::codec;
use crate::error::{Error, Result};
use crate::key::KeyBytes;
use crate::memory::heap_estimate;
use crate::rows::{Rows, split_stored};
use crate::shared::OperatorShared;
use crate::slot::{KeyBlock, Slot};
use crate::table::{CHANGED, DIRTY, OCCUPIED, REFERENCED, STORED, Table, UNLOADED};
use crate::visit::Progress;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a slot was before the running task changed it.
struct Undo<V> {
    slot: u32,
    flags: u8,
    before: Before<V>,
}

enum Before<V> {
    Value(Option<V>),
    /// A value encoded in `undo_bytes`, at start and length.
    Encoded(usize, usize),
}

/// One partition of an operator's keyed state. Got from [`Operator::partition`](crate::Operator::partition).
pub struct Partition<V> {
    pub(crate) operator: Arc<OperatorShared>,
    pub(crate) index: usize,
    pub(crate) table: Table<V>,
    /// Every key of the partition is in the table: what is not there does not exist.
    pub(crate) complete: bool,
    /// Slots whose values have not been read yet.
    misses: Vec<u32>,
    /// Slots made by the running task.
    pub(crate) fresh: Vec<u32>,
    undo: Vec<Undo<V>>,
    pub(crate) undo_bytes: Vec<u8>,
    /// Slots changed since the last freeze; may name a slot twice or one that is clean again.
    pub(crate) dirty: Vec<u32>,
    dirty_before_task: usize,
    /// Slots without a value whose removal has been frozen.
    pub(crate) removed: Vec<u32>,
    /// Files of changes beside the database: of ended tasks, and of the running one.
    pub(crate) spills: Vec<PathBuf>,
    pub(crate) task_spills: Vec<PathBuf>,
    /// The freeze that carries the newest spill: until it is written, what is not in memory cannot be known.
    pub(crate) spilled_until: u64,
    pub(crate) visiting: Progress,
    /// Keys that the running task removed without loading them.
    pub(crate) task_removed: i64,
    task_open: bool,
    /// Bytes last reported to the meter.
    reported: u64,
}

impl<V: StateValue> Partition<V> {
    pub(crate) fn new(operator: Arc<OperatorShared>, index: usize, complete: bool) -> Self {
        Partition {
            operator,
            index,
            table: Table::new(),
            complete,
            misses: Vec::new(),
            fresh: Vec::new(),
            undo: Vec::new(),
            undo_bytes: Vec::new(),
            dirty: Vec::new(),
            dirty_before_task: 0,
            removed: Vec::new(),
            spills: Vec::new(),
            task_spills: Vec::new(),
            spilled_until: 0,
            visiting: Progress::default(),
            task_removed: 0,
            task_open: false,
            reported: 0,
        }
    }

    /// The slot of a key, made if need be. `hash` is [`codec::key_hash`] of `key`, the encoded key.
    ///
    /// A key that is not in memory is noted as a miss: call [`load_misses`](Self::load_misses) before
    /// its value is used.
    #[inline]
    pub fn slot(&mut self, hash: u64, key: &[u8]) -> Slot {
        match self.table.find(hash, key) {
            Some(slot) => {
                self.table.entries[slot as usize].flags |= REFERENCED;
                Slot(slot)
            }
            None => self.make_slot(hash, KeyBytes::new(key)),
        }
    }

    /// As [`slot`](Self::slot) for each key of a block, in order: appends their slots to `slots` and empties the block.
    /// Several times faster than one by one where the table is larger than the cache.
    pub fn slots(&mut self, block: &mut KeyBlock, slots: &mut Vec<Slot>) {
        self.table.find_all(&block.keys, &mut block.found);
        for ((hash, key), found) in block.keys.drain(..).zip(&block.found) {
            // A key that is new may have been made a few keys before.
            let found = found.or_else(|| self.table.find(hash, key.as_bytes()));
            slots.push(match found {
                Some(slot) => {
                    self.table.entries[slot as usize].flags |= REFERENCED;
                    Slot(slot)
                }
                None => self.make_slot(hash, key),
            });
        }
    }

    #[cold]
    fn make_slot(&mut self, hash: u64, key: KeyBytes) -> Slot {
        self.open_task();
        let shard = codec::shard_of(hash, self.operator.shared.options.shards);
        let unknown = if self.complete { 0 } else { UNLOADED };
        let slot = self.table.insert(hash, key, shard, REFERENCED | unknown);
        self.fresh.push(slot);
        if !self.complete {
            self.misses.push(slot);
        }
        Slot(slot)
    }

    #[inline]
    pub(crate) fn open_task(&mut self) {
        if !self.task_open {
            self.task_open = true;
            self.dirty_before_task = self.dirty.len();
        }
    }

    /// Reads the values of all misses with one sorted multi-get. Cheap if there are none.
    ///
    /// # Errors
    /// A failed or corrupt read; [`Misuse`](crate::ErrorKind::Misuse) while changes of this partition lie
    /// beside the database (see the crate's protocol).
    pub fn load_misses(&mut self) -> Result<()> {
        if self.misses.is_empty() {
            return Ok(());
        }
        self.operator.shared.check_poison()?;
        self.check_spills()?;
        let table = &mut self.table;
        let mut wanted: Vec<(Vec<u8>, u32)> = self
            .misses
            .iter()
            .map(|&slot| {
                let entry = &table.entries[slot as usize];
                (full_key(entry.shard, entry.key.as_bytes()), slot)
            })
            .collect();
        wanted.sort_unstable();
        let (keys, slots): (Vec<Vec<u8>>, Vec<u32>) = wanted.into_iter().unzip();
        let operator = &*self.operator;
        let mut found = 0;
        let outcome = operator.shared.database.get_sorted(&operator.name, &keys, |position, stored| {
            let entry = &mut table.entries[slots[position] as usize];
            if let Some(stored) = stored {
                let value: V = decode_stored(stored, operator.schema.version)
                    .map_err(|error| error.context(format_args!("operator `{}`", operator.name)))?;
                if !operator.flat {
                    entry.heap_bytes = heap_estimate(&value).min(u32::MAX as usize) as u32;
                    table.value_heap_bytes += entry.heap_bytes as usize;
                }
                entry.value = Some(value);
                entry.flags |= STORED;
                found += 1;
            }
            entry.flags &= !UNLOADED;
            Ok(())
        });
        outcome?;
        tracing::trace!(operator = operator.name, partition = self.index, misses = keys.len(), found, "loaded");
        self.misses.clear();
        self.report();
        Ok(())
    }

    /// Whether the last lookups left misses.
    #[inline]
    pub fn has_misses(&self) -> bool {
        !self.misses.is_empty()
    }

    /// The value of a key, None if it has none.
    ///
    /// # Panics
    /// If the slot is a miss that has not been loaded.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&V> {
        let entry = &self.table.entries[slot.index()];
        assert!(entry.flags & UNLOADED == 0, "load_misses comes before get");
        entry.value.as_ref()
    }

    /// The value of a key, to be changed: None removes the key. Marks it changed, whatever is done
    /// with it; what it was is kept until the task ends.
    ///
    /// # Panics
    /// If the slot is a miss that has not been loaded.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> &mut Option<V> {
        let flags = self.table.entries[slot.index()].flags;
        if flags & (CHANGED | UNLOADED) != CHANGED {
            self.begin_change(slot);
        }
        &mut self.table.entries[slot.index()].value
    }

    /// Takes the value out, to be put back with [`put`](Self::put); without that the key is removed.
    #[inline]
    pub fn take(&mut self, slot: Slot) -> Option<V> {
        self.get_mut(slot).take()
    }

    /// Gives the key a value; None removes it.
    #[inline]
    pub fn put(&mut self, slot: Slot, value: Option<V>) {
        *self.get_mut(slot) = value;
    }

    /// The encoded key of a slot.
    #[inline]
    pub fn key(&self, slot: Slot) -> &[u8] {
        self.table.entries[slot.index()].key.as_bytes()
    }

    #[inline]
    fn begin_change(&mut self, slot: Slot) {
        self.open_task();
        let entry = &mut self.table.entries[slot.index()];
        assert!(entry.flags & UNLOADED == 0, "load_misses comes before a change");
        let before = Before::Value(entry.value.clone());
        self.undo.push(Undo { slot: slot.0, flags: entry.flags, before });
        mark_changed(&mut entry.flags, &mut self.dirty, slot.0);
    }

    /// As `begin_change`, after the fact: from `start` on `undo_bytes` holds the encoded value from before.
    pub(crate) fn note_change(&mut self, slot: u32, start: usize) {
        let before = Before::Encoded(start, self.undo_bytes.len() - start);
        let entry = &mut self.table.entries[slot as usize];
        self.undo.push(Undo { slot, flags: entry.flags, before });
        mark_changed(&mut entry.flags, &mut self.dirty, slot);
    }

    /// Ends the task: what it changed stays.
    ///
    /// Sets memory free if all tables together are over the limit: keys that did not change are
    /// forgotten, and changes beyond this partition's share go to a sorted file beside the database.
    ///
    /// # Errors
    /// That file could not be written; the store is then unusable.
    pub fn commit_task(&mut self) -> Result<()> {
        let mut keys = -self.task_removed;
        let undo = std::mem::take(&mut self.undo);
        for change in &undo {
            let entry = &mut self.table.entries[change.slot as usize];
            entry.flags &= !CHANGED;
            let before = !matches!(change.before, Before::Value(None));
            match &entry.value {
                Some(value) => {
                    keys += i64::from(!before);
                    if !self.operator.flat {
                        let bytes = heap_estimate(value).min(u32::MAX as usize) as u32;
                        self.table.value_heap_bytes += bytes as usize;
                        self.table.value_heap_bytes -= entry.heap_bytes as usize;
                        entry.heap_bytes = bytes;
                    }
                }
                None => {
                    keys -= i64::from(before);
                    self.table.value_heap_bytes -= entry.heap_bytes as usize;
                    entry.heap_bytes = 0;
                    if entry.flags & STORED == 0 {
                        self.table.remove(change.slot);
                    }
                }
            }
        }
        self.undo = undo;
        self.operator.keys.fetch_add(keys, Ordering::Relaxed);
        if !self.task_spills.is_empty() {
            self.complete = false;
            self.spills.append(&mut self.task_spills);
            self.note_spill();
        }
        self.end_task();
        if self.operator.shared.is_over() {
            self.relieve()?;
        }
        Ok(())
    }

    /// Ends the task: nothing of what it changed stays.
    pub fn rollback_task(&mut self) {
        self.note_broken_visit();
        while let Some(change) = self.undo.pop() {
            let before = match change.before {
                Before::Value(value) => value,
                Before::Encoded(start, length) => {
                    let bytes = &self.undo_bytes[start..start + length];
                    match codec::decode(bytes) {
                        Ok(value) => Some(value),
                        Err(error) => {
                            // A type that does not come back: refused at the freeze too (H16).
                            self.operator.shared.poison(&error.to_string());
                            None
                        }
                    }
                }
            };
            let entry = &mut self.table.entries[change.slot as usize];
            entry.value = before;
            entry.flags = change.flags;
        }
        if self.task_open {
            self.dirty.truncate(self.dirty_before_task);
        }
        for file in self.task_spills.drain(..) {
            // A file left behind is thrown away with the live directory.
            let _ = std::fs::remove_file(file);
        }
        self.end_task();
    }

    fn end_task(&mut self) {
        self.misses.clear();
        for slot in std::mem::take(&mut self.fresh) {
            let entry = &self.table.entries[slot as usize];
            let unknown = entry.flags & UNLOADED != 0;
            let absent = entry.value.is_none() && entry.flags & STORED == 0;
            if entry.flags & OCCUPIED != 0 && (unknown || absent) {
                self.table.remove(slot);
            }
        }
        self.undo.clear();
        self.undo_bytes.clear();
        self.visiting = Progress::default();
        self.task_removed = 0;
        self.task_open = false;
        self.report();
    }

    /// Whether a task is under way: something was looked up anew or changed, and not ended.
    pub(crate) fn task_open(&self) -> bool {
        self.task_open
    }

    /// Fails while changes of this partition lie in files beside the database.
    pub(crate) fn check_spills(&self) -> Result<()> {
        let written = self.operator.shared.written.load(Ordering::Acquire);
        if self.spilled_until <= written && self.task_spills.is_empty() {
            return Ok(());
        }
        Err(Error::misuse(format!(
            "operator `{}` has spilled changes of partition {} to disk: freeze the batch and write it behind before the next one",
            self.operator.name, self.index
        )))
    }

    /// Encodes what changed since the last freeze and marks it clean.
    pub(crate) fn freeze(&mut self) -> Result<Rows> {
        let mut rows = Rows::with_capacity(self.dirty.len());
        let version = self.operator.schema.version;
        if self.dirty.len() > self.table.entries.len() / 4 {
            // One pass over the slab in order is faster than jumping about in it.
            self.dirty.clear();
            self.dirty.extend(0..self.table.entries.len() as u32);
        }
        for slot in self.dirty.drain(..) {
            let entry = &mut self.table.entries[slot as usize];
            if entry.flags & (OCCUPIED | DIRTY) != OCCUPIED | DIRTY {
                continue;
            }
            rows.push(entry.shard, entry.key.as_bytes(), entry.value.as_ref(), version)?;
            entry.flags = entry.flags & !DIRTY | STORED;
            if entry.value.is_none() {
                self.removed.push(slot);
            }
        }
        self.check_sample(&rows)?;
        self.report();
        Ok(rows)
    }

    /// Decodes one of the rows and encodes it again (hard case H16): what does not come back must not
    /// be committed.
    pub(crate) fn check_sample(&self, rows: &Rows) -> Result<()> {
        let Some(stored) = rows.first_value() else { return Ok(()) };
        let (_, payload) = split_stored(stored)?;
        codec::check_bytes_round_trip::<V>(payload)
            .map_err(|error| error.context(format_args!("operator `{}`", self.operator.name)))
    }

    /// Frees the slots of removed keys; their removals must have reached the database.
    pub(crate) fn forget_removed(&mut self) {
        for slot in self.removed.drain(..) {
            let entry = &self.table.entries[slot as usize];
            if entry.flags & (OCCUPIED | DIRTY) == OCCUPIED && entry.value.is_none() {
                self.table.remove(slot);
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let lists = self.misses.capacity() + self.fresh.capacity() + self.dirty.capacity();
        (self.table.bytes()
            + lists * size_of::<u32>()
            + self.undo.capacity() * size_of::<Undo<V>>()
            + self.undo_bytes.capacity()
            + self.removed.capacity() * size_of::<u32>()) as u64
    }

    /// Tells the meter how much memory this partition takes.
    pub(crate) fn report(&mut self) {
        let bytes = self.bytes();
        self.operator.shared.meter.report(&mut self.reported, bytes);
    }

    /// Gives the memory of empty work lists back.
    pub(crate) fn shrink_lists(&mut self) {
        if !self.task_open {
            self.misses = Vec::new();
            self.fresh = Vec::new();
            self.undo = Vec::new();
            self.undo_bytes = Vec::new();
            self.dirty.shrink_to_fit();
            self.removed.shrink_to_fit();
        }
    }
}

impl<V> Drop for Partition<V> {
    fn drop(&mut self) {
        self.operator.shared.meter.report(&mut self.reported, 0);
    }
}

#[inline]
fn mark_changed(flags: &mut u8, dirty: &mut Vec<u32>, slot: u32) {
    if *flags & DIRTY == 0 {
        dirty.push(slot);
    }
    *flags |= CHANGED | DIRTY;
}

/// The key as the database holds it.
pub(crate) fn full_key(shard: u16, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(crate::rows::SHARD_BYTES + key.len());
    full.extend_from_slice(&shard.to_be_bytes());
    full.extend_from_slice(key);
    full
}

/// Decodes a stored value of the present schema version.
pub(crate) fn decode_stored<V: StateValue>(stored: &[u8], schema_version: u32) -> Result<V> {
    let (version, payload) = split_stored(stored)?;
    if version != schema_version {
        return Err(Error::corrupt(format!(
            "a stored value has schema version {version}, all should have {schema_version}"
        )));
    }
    codec::decode(payload)
}
