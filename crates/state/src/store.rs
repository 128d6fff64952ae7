//! The store: one database, its operators, and the order of freeze, write-behind and checkpoint.

use crate::SnapshotInfo;
use crate::StateValue;
use crate::checkpoint::Checkpoints;
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::freeze::{Frozen, FrozenPart};
use crate::live::LiveDirectory;
use crate::migrate::migrate;
use crate::operator::{ErasedOperator, Operator, OperatorCore, OperatorSpec};
use crate::options::StoreOptions;
use crate::schema::{Schema, shape_of};
use crate::shared::Shared;
use crate::snapshot::{OperatorRecord, Snapshot, SnapshotStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Runs a function for 0..n, on as many threads as the caller likes: how
/// [`freeze`](StateStore::freeze) is given the caller's threads.
pub type ParallelFor<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// The [`ParallelFor`] of one thread.
pub fn on_this_thread(n: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..n).for_each(work);
}

/// Keyed state over one database. Clones are handles of the same store.
#[derive(Clone)]
pub struct StateStore {
    inner: Arc<Inner>,
}

struct Inner {
    // The operators hold the shared part too; the database closes when the last handle goes.
    shared: Arc<Shared>,
    live: LiveDirectory,
    operators: Mutex<Operators>,
    /// Held while frozen changes go to the database and while files are linked: never both at once.
    disk: Mutex<Disk>,
    checkpoints: Mutex<Checkpoints>,
}

struct Operators {
    open: Vec<Arc<dyn ErasedOperator>>,
    /// Operators of the snapshot, whether opened or not.
    stored: BTreeMap<String, OperatorRecord>,
    /// Batch of the newest freeze.
    frozen_batch: Option<u64>,
}

/// What the database holds.
struct Disk {
    /// The batch whose state it is.
    batch: Option<u64>,
    /// Keys by operator, as of that batch.
    keys: BTreeMap<String, u64>,
}

/// One operator's figures, from [`StateStore::statistics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorStatistics {
    /// The name the user gave.
    pub name: String,
    /// Keys with a value, exactly, as of the last ended task.
    pub keys: u64,
    /// Keys in memory.
    pub resident_keys: u64,
    /// Bytes that those take in memory.
    pub resident_bytes: u64,
    /// Bytes of the operator's table files.
    pub table_bytes: u64,
}

impl StateStore {
    /// Throws the live directory away, links it anew from `snapshot` (None: empty), and opens it.
    ///
    /// A store that was open on this directory must be gone with all its handles (clones, operators,
    /// partitions, frozen changes): the last one closes its database. The caller holds a lock against other
    /// processes.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign) if the directory holds something that is not live state (nothing is
    /// changed then), [`Mismatch`](ErrorKind::Mismatch) if shards or partitions are not those of the snapshot,
    /// failures to read or write.
    pub fn open(directory: &Path, snapshot: Option<&Snapshot>, options: StoreOptions) -> Result<StateStore> {
        options.validate()?;
        let mut stored = BTreeMap::new();
        if let Some(snapshot) = snapshot {
            let manifest = snapshot.manifest();
            if (manifest.shards, manifest.partitions as usize) != (options.shards, options.partitions) {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "the state was created with {} shards in {} partitions, the settings say {} in {}: \
                         these are fixed at creation",
                        manifest.shards, manifest.partitions, options.shards, options.partitions
                    ),
                ));
            }
            stored.extend(manifest.operators.iter().map(|operator| (operator.name.clone(), operator.clone())));
        }
        let live = LiveDirectory::create(directory)?;
        if let Some(snapshot) = snapshot {
            snapshot.restore(&live.database())?;
        }
        let names: Vec<String> = stored.keys().cloned().collect();
        let database = Database::open(&live.database(), &names, &options)?;
        let shared = Arc::new(Shared::new(database, options, live.spill()));
        let disk = Disk {
            batch: snapshot.map(Snapshot::batch),
            keys: stored.iter().map(|(name, record)| (name.clone(), record.keys)).collect(),
        };
        let frozen_batch = disk.batch;
        Ok(StateStore {
            inner: Arc::new(Inner {
                shared,
                live,
                operators: Mutex::new(Operators { open: Vec::new(), stored, frozen_batch }),
                disk: Mutex::new(disk),
                checkpoints: Mutex::new(Checkpoints::new(snapshot)),
            }),
        })
    }

    /// The settings the store was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.shared.options
    }

    /// Opens an operator's state: checks that its values have the structure that is stored, or migrates
    /// all of them, once, if the spec says how. Do this before the first freeze.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch) showing both structures if the type has changed without a version step;
    /// [`Misuse`](ErrorKind::Misuse) for a name that is open already.
    pub fn operator<V: StateValue>(&self, spec: OperatorSpec<V>) -> Result<Operator<V>> {
        let shared = &self.inner.shared;
        shared.check_poison()?;
        let shape = shape_of::<V>();
        let schema = Schema { version: spec.version, shape: shape.text };
        // No checkpoint between the column family and its record.
        let _checkpoints = lock(&self.inner.checkpoints);
        let mut operators = lock(&self.inner.operators);
        if operators.open.iter().any(|open| open.operator().name == spec.name) {
            return Err(Error::misuse(format!("operator `{}` is open already", spec.name)));
        }
        let stored = operators.stored.get(&spec.name);
        if let Some(convert) = spec.check(&schema, stored)? {
            if shared.is_frozen() {
                return Err(Error::misuse(format!("operator `{}` must be opened before a freeze", spec.name)));
            }
            let _disk = lock(&self.inner.disk);
            let stored = stored.expect("only stored values are migrated");
            shared.guard(migrate(shared, &spec.name, stored.schema.version, schema.version, convert.as_ref()))?;
        }
        let keys = stored.map_or(0, |record| record.keys);
        if stored.is_none() {
            shared.guard(shared.database.create_operator(&spec.name))?;
        }
        let core = Arc::new(OperatorCore::new(shared, &spec, schema.clone(), shape.flat, keys));
        let record = OperatorRecord { name: spec.name.clone(), kind: spec.kind, schema, keys, table_bytes: 0 };
        operators.stored.insert(spec.name, record);
        operators.open.push(core.clone());
        shared.operators.fetch_add(1, Ordering::Relaxed);
        Ok(Operator { core })
    }

    /// Operators that are stored but not open: of an older program.
    pub fn unopened_operators(&self) -> Vec<OperatorRecord> {
        let operators = lock(&self.inner.operators);
        let is_open = |name: &str| operators.open.iter().any(|open| open.operator().name == name);
        operators.stored.values().filter(|record| !is_open(&record.name)).cloned().collect()
    }

    /// Forgets the state of an operator that is not open, from the next checkpoint on.
    pub fn remove_operator(&self, name: &str) -> Result<()> {
        let shared = &self.inner.shared;
        shared.check_poison()?;
        let _checkpoints = lock(&self.inner.checkpoints);
        let mut operators = lock(&self.inner.operators);
        if operators.open.iter().any(|open| open.operator().name == name) {
            return Err(Error::misuse(format!("operator `{name}` is open and cannot be removed")));
        }
        if !operators.stored.contains_key(name) {
            return Err(Error::misuse(format!("there is no operator `{name}` to remove")));
        }
        let _disk = lock(&self.inner.disk);
        shared.guard(shared.database.drop_operator(name))?;
        operators.stored.remove(name);
        Ok(())
    }

    /// Encodes what has changed since the last freeze and marks it clean: the state after `batch`. To
    /// be called between batches, with no task open. The work is proportional to what has changed.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) naming the operator if a value does not come back from its encoding (hard case
    /// H16); [`Misuse`](ErrorKind::Misuse) with a task open or an earlier batch than frozen before.
    pub fn freeze(&self, batch: u64, run: ParallelFor<'_>) -> Result<Frozen> {
        let shared = &self.inner.shared;
        shared.check_poison()?;
        let mut operators = lock(&self.inner.operators);
        if let Some(last) = operators.frozen_batch.filter(|last| *last > batch) {
            return Err(Error::misuse(format!("batch {batch} cannot be frozen after batch {last}")));
        }
        match shared.tasks.load(Ordering::Acquire) {
            0 => {}
            tasks => return Err(Error::misuse(format!("batch {batch} cannot be frozen: {tasks} tasks are open"))),
        }
        let settled = !shared.is_frozen();
        let number = shared.frozen.load(Ordering::Acquire) + 1;
        // First of all: from here on nothing clean may be evicted.
        shared.frozen.store(number, Ordering::Release);
        let partitions = shared.options.partitions;
        let open = &operators.open;
        type Outcome = Option<Result<FrozenPart>>;
        let parts: Vec<Mutex<Outcome>> = (0..open.len() * partitions).map(|_| Mutex::new(None)).collect();
        run(parts.len(), &|job| {
            let part = open[job / partitions].freeze_partition(job % partitions, settled);
            *lock(&parts[job]) = Some(part);
        });
        let mut frozen = Frozen {
            shared: shared.clone(),
            number,
            batch,
            operators: Vec::with_capacity(open.len()),
            keys: BTreeMap::new(),
            written: false,
        };
        let mut parts = parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner));
        for operator in open {
            let operator = operator.operator();
            let parts: Result<Vec<FrozenPart>> = parts
                .by_ref()
                .take(partitions)
                .map(|part| {
                    part.unwrap_or_else(|| Err(Error::misuse("the parallel-for given to freeze left out a part")))
                })
                .collect();
            frozen.operators.push((operator.name.clone(), shared.guard(parts)?));
            frozen.keys.insert(operator.name.clone(), operator.keys.load(Ordering::Relaxed).max(0) as u64);
        }
        operators.frozen_batch = Some(batch);
        fail::fail_point!(crate::failpoints::STATE_FROZEN);
        Ok(frozen)
    }

    /// Brings frozen changes into the database: after their batch has committed, in the order in which
    /// they were frozen. May run beside later batches.
    ///
    /// # Errors
    /// A failed write (full disk); [`Misuse`](ErrorKind::Misuse) out of order. After either the store is unusable.
    pub fn write_behind(&self, mut frozen: Frozen) -> Result<()> {
        let shared = &self.inner.shared;
        shared.check_poison()?;
        let mut disk = lock(&self.inner.disk);
        let due = shared.written.load(Ordering::Acquire) + 1;
        if !Arc::ptr_eq(&frozen.shared, shared) || frozen.number != due {
            return Err(Error::misuse(format!("batch {} is written behind out of order", frozen.batch)));
        }
        shared.guard(frozen.write())?;
        frozen.written = true;
        disk.batch = Some(frozen.batch);
        disk.keys.append(&mut frozen.keys);
        shared.written.store(frozen.number, Ordering::Release);
        Ok(())
    }

    /// Publishes the state after `batch` as a snapshot, with `meta` for the caller's own use, replacing one of that batch.
    /// Then deletes snapshots beyond [`retained_snapshots`](StoreOptions::retained_snapshots), those that cannot be used, and
    /// those of later batches (left from before a fall-back to an older one). The batch must have been frozen and
    /// written behind, and nothing of a later one (hard case H8). May run beside later batches; a later
    /// `write_behind` waits until the files are linked.
    ///
    /// # Errors
    /// A failed write: nothing has been published, the store goes on unless the database failed;
    /// [`Misuse`](ErrorKind::Misuse) if the database holds another batch; [`Corrupt`](ErrorKind::Corrupt) if a file that the snapshot
    /// would name has been marked bad.
    pub fn checkpoint(&self, batch: u64, snapshots: &dyn SnapshotStore, meta: Vec<u8>) -> Result<SnapshotInfo> {
        let shared = &self.inner.shared;
        shared.check_poison()?;
        let mut checkpoints = lock(&self.inner.checkpoints);
        let linked = {
            let mut records: Vec<OperatorRecord> = lock(&self.inner.operators).stored.values().cloned().collect();
            let disk = lock(&self.inner.disk);
            if disk.batch != Some(batch) {
                return Err(Error::misuse(match disk.batch {
                    Some(other) => format!("batch {batch} cannot be checkpointed: the database holds batch {other}"),
                    None => format!("batch {batch} cannot be checkpointed: nothing has been written behind"),
                }));
            }
            shared.guard(checkpoints.link(&shared.database, &self.inner.live, &disk.keys, &mut records))?
        };
        checkpoints.publish(linked, batch, shared.options.clone(), snapshots, meta)
    }

    /// While changes are held, none are written beside the database: all keys can be looked up again and again, and what
    /// changes takes more memory than the limit if need be, with a warning. For a batch whose tasks run several times, each on what the one
    /// before changed. To be called between batches, when nothing lies beside the database; holds until it is taken back.
    pub fn hold_changes(&self, held: bool) {
        self.inner.shared.hold_changes(held);
    }

    /// Bytes of decoded state in memory, frozen changes included.
    pub fn memory_bytes(&self) -> u64 {
        self.inner.shared.meter.bytes()
    }

    /// Whether the next batch must wait: memory is over seven eighths of its limit, or changes lie beside
    /// the database.
    /// Then freeze, wait for the commit, write behind, [`evict`](Self::evict), and go on.
    pub fn over_limit(&self) -> bool {
        self.inner.shared.is_over() || self.inner.shared.is_spilled()
    }

    /// If [`over_limit`](Self::over_limit), forgets keys that are in the database, until all tables take five eighths
    /// of the limit. Does nothing while a freeze has not been written behind, and passes over partitions that tasks hold.
    pub fn evict(&self) {
        let shared = &self.inner.shared;
        let open = lock(&self.inner.operators).open.clone();
        // Each partition does its part of what is there when its turn comes. Far over the limit, as after held changes, that takes a few rounds.
        let mut before = u64::MAX;
        while shared.is_over() && shared.meter.bytes() < before {
            before = shared.meter.bytes();
            for operator in &open {
                for index in 0..shared.options.partitions {
                    operator.evict_partition(index);
                }
            }
        }
    }

    /// Figures of the open operators. Waits for running tasks, one partition after the other.
    pub fn statistics(&self) -> Result<Vec<OperatorStatistics>> {
        let table_bytes = self.inner.shared.database.table_bytes()?;
        let open = lock(&self.inner.operators).open.clone();
        Ok(open
            .iter()
            .map(|core| {
                let operator = core.operator();
                let (resident_keys, resident_bytes) = core.resident();
                OperatorStatistics {
                    name: operator.name.clone(),
                    keys: operator.keys.load(Ordering::Relaxed).max(0) as u64,
                    resident_keys,
                    resident_bytes,
                    table_bytes: table_bytes.get(&operator.name).copied().unwrap_or(0),
                }
            })
            .collect())
    }

    /// Waits until the database has no compaction to do: for measuring and tests.
    pub fn settle(&self) -> Result<()> {
        self.inner.shared.database.settle()
    }
}

/// None of these locks guards something that a panic could leave half-done.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
