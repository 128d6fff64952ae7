//! What the parts of one open store share: the database, the memory meter, the numbers that order
//! freezes and writes, and the poison.

use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::Meter;
use crate::options::StoreOptions;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) options: StoreOptions,
    pub(crate) meter: Meter,
    /// Table files written beside the database until they are ingested.
    pub(crate) spill_directory: PathBuf,
    spill_files: AtomicU64,
    /// Number of the newest freeze.
    pub(crate) frozen: AtomicU64,
    /// Number of the newest freeze that has reached the database.
    pub(crate) written: AtomicU64,
    /// Number of the freeze that will carry the newest spilled changes.
    pub(crate) spilled: AtomicU64,
    /// No changes are written beside the database, whatever memory they take; see [`hold_changes`](Self::hold_changes).
    holding: AtomicBool,
    /// That this exceeds the limit has been said.
    excess_said: AtomicBool,
    /// Operators open.
    pub(crate) operators: AtomicU64,
    /// Partitions locked by tasks.
    pub(crate) tasks: AtomicU64,
    poison: OnceLock<String>,
}

impl Shared {
    pub(crate) fn new(database: Database, options: StoreOptions, spill_directory: PathBuf) -> Self {
        Shared {
            database,
            options,
            meter: Meter::default(),
            spill_directory,
            spill_files: AtomicU64::new(0),
            frozen: AtomicU64::new(0),
            written: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            holding: AtomicBool::new(false),
            excess_said: AtomicBool::new(false),
            operators: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
            poison: OnceLock::new(),
        }
    }

    /// A freeze has not reached the database: what it holds must stay in memory.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire) != self.written.load(Ordering::Acquire)
    }

    /// Changes lie in files beside the database that have not been ingested.
    pub(crate) fn is_spilled(&self) -> bool {
        self.spilled.load(Ordering::Acquire) > self.written.load(Ordering::Acquire)
    }

    pub(crate) fn hold_changes(&self, held: bool) {
        self.holding.store(held, Ordering::Release);
        self.excess_said.store(false, Ordering::Release);
    }

    /// Whether changes that alone exceed the limit are written beside the database.
    pub(crate) fn may_spill(&self) -> bool {
        if !self.holding.load(Ordering::Acquire) {
            return true;
        }
        if !self.excess_said.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                limit_bytes = self.options.memory_limit_bytes,
                bytes = self.meter.bytes(),
                "several batches that were planned as one change more state than the memory limit takes: it is exceeded until they are committed"
            );
        }
        false
    }

    /// Memory must be set free now: from seven eighths of the limit on. The last eighth is for what the
    /// running tasks look up and for the encoding of changes.
    pub(crate) fn is_over(&self) -> bool {
        self.meter.bytes() > self.options.memory_limit_bytes / 8 * 7
    }

    /// What all tables together are evicted to.
    pub(crate) fn eviction_target_bytes(&self) -> u64 {
        self.options.memory_limit_bytes / 8 * 5
    }

    /// Tables grow by reading ahead only up to here; the rest is for changes.
    pub(crate) fn has_room(&self) -> bool {
        self.meter.bytes() < self.options.memory_limit_bytes / 4 * 3 || !self.may_spill()
    }

    /// What a partition may take if all take the same.
    pub(crate) fn share_bytes(&self) -> u64 {
        let parts = self.operators.load(Ordering::Relaxed).max(1) * self.options.partitions as u64;
        self.options.memory_limit_bytes / 8 * 7 / parts
    }

    pub(crate) fn spill_file(&self) -> PathBuf {
        let number = self.spill_files.fetch_add(1, Ordering::Relaxed);
        self.spill_directory.join(format!("{number:08}.sst"))
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::Poisoned,
                format!("the state store cannot go on since: {why}. Drop it and open the newest snapshot again"),
            )),
        }
    }

    /// Makes every later call fail: memory and database no longer agree.
    pub(crate) fn poison(&self, why: &str) {
        let _ = self.poison.set(why.to_string());
    }

    /// Poisons on an error, and hands it on.
    pub(crate) fn guard<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::Misuse
        {
            self.poison(&error.to_string());
        }
        outcome
    }
}

/// What the partitions of one operator share.
pub(crate) struct OperatorShared {
    pub(crate) shared: std::sync::Arc<Shared>,
    pub(crate) name: String,
    pub(crate) schema: crate::schema::Schema,
    /// Values keep nothing on the heap.
    pub(crate) flat: bool,
    /// Keys with a value, exactly, as of the last ended task.
    pub(crate) keys: AtomicI64,
}
