//! Setting memory free: forgetting keys that are clean, by second chance, and spilling changes that
//! alone exceed the limit to sorted files beside the database, which the write-behind ingests once
//! their batch has committed (hard case H8).
//!
//! A clean entry may be forgotten only when the database holds it: while a freeze is on its way there,
//! nothing is.

use crate::StateValue;
use crate::error::Result;
use crate::partition::Partition;
use crate::rows::Rows;
use crate::shared::Shared;
use crate::table::{DIRTY, OCCUPIED, REFERENCED, STORED};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

impl<V: StateValue> Partition<V> {
    /// At the end of a task, with all tables together over the limit.
    pub(crate) fn relieve(&mut self) -> Result<()> {
        self.evict_share();
        let shared = self.operator.shared.clone();
        if shared.is_over() && self.bytes() > shared.share_bytes() && !self.dirty.is_empty() && shared.may_spill() {
            let outcome = self.spill_changes();
            shared.guard(outcome)?;
        }
        self.shrink_lists();
        self.report();
        Ok(())
    }

    /// Forgets clean keys until this partition has done its part for all tables together to come down
    /// to the eviction target. Does nothing while a freeze is on its way to the database.
    pub(crate) fn evict_share(&mut self) {
        let shared = self.operator.shared.clone();
        if shared.is_frozen() || self.task_open() {
            return;
        }
        let (bytes, all) = (self.bytes(), shared.meter.bytes().max(1));
        let aim = u128::from(shared.eviction_target_bytes());
        if u128::from(all) <= aim {
            return;
        }
        self.shrink_lists();
        self.evict_to((u128::from(bytes) * aim / u128::from(all)) as u64);
        self.report();
    }

    fn evict_to(&mut self, target_bytes: u64) {
        let each = (self.bytes() / self.table.len().max(1) as u64).max(1);
        let mut excess = self.bytes().saturating_sub(target_bytes).div_ceil(each);
        let mut forgotten = 0;
        let second_pass = {
            let idle =
                self.table.entries.iter().filter(|entry| entry.flags & (OCCUPIED | DIRTY | REFERENCED) == OCCUPIED);
            (idle.count() as u64) < excess
        };
        self.table.retain(|entry| {
            if entry.flags & DIRTY != 0 {
                return true;
            }
            if entry.value.is_none() {
                return false;
            }
            let spared = entry.flags & REFERENCED != 0 && !second_pass;
            entry.flags &= !REFERENCED;
            if excess > 0 && !spared {
                excess -= 1;
                forgotten += 1;
                return false;
            }
            true
        });
        if forgotten > 0 {
            self.complete = false;
        }
        self.removed = Vec::new();
        self.find_dirty_again();
    }

    /// Positions have changed: lists the dirty ones anew.
    fn find_dirty_again(&mut self) {
        let dirty = self.table.entries.iter().enumerate().filter(|(_, entry)| entry.flags & DIRTY != 0);
        self.dirty = dirty.map(|(position, _)| position as u32).collect();
    }

    /// Moves all changes since the last freeze to a sorted file. Their keys cannot be looked up until
    /// that has been ingested.
    fn spill_changes(&mut self) -> Result<()> {
        let mut rows = Rows::with_capacity(self.dirty.len());
        let version = self.operator.schema.version;
        for slot in self.dirty.drain(..) {
            let entry = &mut self.table.entries[slot as usize];
            if entry.flags & (OCCUPIED | DIRTY) == OCCUPIED | DIRTY {
                rows.push(entry.shard, entry.key.as_bytes(), entry.value.as_ref(), version)?;
                entry.flags &= !OCCUPIED;
            }
        }
        self.check_sample(&rows)?;
        tracing::debug!(
            operator = self.operator.name,
            partition = self.index,
            rows = rows.len(),
            "changes exceed the memory limit: written beside the database"
        );
        let file = spill_rows(&self.operator.shared, rows)?;
        self.spills.extend(file);
        self.table.retain(|_| true);
        self.removed = self
            .table
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.value.is_none() && entry.flags & (DIRTY | STORED) == STORED)
            .map(|(position, _)| position as u32)
            .collect();
        self.complete = false;
        self.note_spill();
        Ok(())
    }

    /// From here on, until the next freeze is written, this partition's absent keys are unknown.
    pub(crate) fn note_spill(&mut self) {
        let shared = &self.operator.shared;
        self.spilled_until = shared.frozen.load(Ordering::Acquire) + 1;
        shared.spilled.fetch_max(self.spilled_until, Ordering::AcqRel);
    }
}

/// Writes rows as a sorted table file beside the database.
pub(crate) fn spill_rows(shared: &Shared, mut rows: Rows) -> Result<Option<PathBuf>> {
    rows.sort();
    let mut file = shared.database.table_file(shared.spill_file());
    for (key, value) in rows.iter() {
        file.put(key, value)?;
    }
    file.finish()
}
