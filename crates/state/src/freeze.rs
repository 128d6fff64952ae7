//! A frozen batch: what changed since the freeze before, encoded, on its way to the database.

use crate::error::Result;
use crate::evict::spill_rows;
use crate::rows::Rows;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// From so many rows of an operator on, a sorted table file is faster than a write batch.
const TABLE_FILE_ROWS: usize = 4096;

/// What changed in one partition: rows in memory, and files written beside the database before.
pub(crate) struct FrozenPart {
    pub(crate) rows: Rows,
    pub(crate) files: Vec<PathBuf>,
    shared: Arc<Shared>,
    /// Bytes last reported to the meter.
    reported: u64,
}

impl FrozenPart {
    pub(crate) fn new(rows: Rows, files: Vec<PathBuf>, shared: &Arc<Shared>) -> Self {
        let mut part = FrozenPart { rows, files, shared: shared.clone(), reported: 0 };
        shared.meter.report(&mut part.reported, part.rows.memory_bytes() as u64);
        part
    }

    /// Moves the rows to a file beside the database.
    pub(crate) fn spill(&mut self) -> Result<()> {
        self.files.extend(spill_rows(&self.shared, std::mem::take(&mut self.rows))?);
        self.shared.meter.report(&mut self.reported, 0);
        Ok(())
    }
}

impl Drop for FrozenPart {
    fn drop(&mut self) {
        self.shared.meter.report(&mut self.reported, 0);
    }
}

/// The changes of a batch (and of those before it that were not frozen), encoded. Give it to
/// [`write_behind`](crate::StateStore::write_behind) once the batch has committed; dropped before that,
/// it leaves the store unusable, for memory and database then disagree.
#[must_use = "frozen changes must be written behind"]
pub struct Frozen {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) batch: u64,
    /// By operator: a part for each partition, in order.
    pub(crate) operators: Vec<(String, Vec<FrozenPart>)>,
    /// Keys of each operator at the freeze.
    pub(crate) keys: BTreeMap<String, u64>,
    pub(crate) written: bool,
}

impl Frozen {
    /// The batch after which this is the state.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Changed keys, those written beside the database not counted.
    pub fn rows(&self) -> usize {
        self.operators.iter().flat_map(|(_, parts)| parts).map(|part| part.rows.len()).sum()
    }

    /// Writes all of it into the database.
    pub(crate) fn write(&mut self) -> Result<()> {
        let database = &self.shared.database;
        let mut small = Vec::new();
        for (operator, parts) in &mut self.operators {
            let mut files: Vec<PathBuf> = parts.iter_mut().flat_map(|part| std::mem::take(&mut part.files)).collect();
            let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
            if rows >= TABLE_FILE_ROWS {
                // Partitions are runs of shards, so their sorted rows follow one another in key order.
                let mut file = database.table_file(self.shared.spill_file());
                for part in parts.iter_mut() {
                    part.rows.sort();
                    for (key, value) in part.rows.iter() {
                        file.put(key, value)?;
                    }
                }
                files.extend(file.finish()?);
            } else {
                small.extend(
                    parts.iter().filter(|part| !part.rows.is_empty()).map(|part| (operator.as_str(), &part.rows)),
                );
            }
            database.ingest(operator, files)?;
        }
        if !small.is_empty() {
            database.write(small.into_iter())?;
        }
        fail::fail_point!(crate::failpoints::STATE_WRITTEN);
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.written {
            self.shared.poison(&format!("the frozen changes of batch {} were dropped", self.batch));
        }
    }
}
