//! An operator's state: its partitions, and what the store needs of it whatever its type.

use crate::StateValue;
use crate::error::{Error, ErrorKind, Result};
use crate::freeze::FrozenPart;
use crate::partition::Partition;
use crate::schema::{Schema, shape_of};
use crate::shared::{OperatorShared, Shared};
use crate::snapshot::OperatorRecord;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

/// What makes a value of the present type from an older version's stored bytes.
type Migrate<V> = Box<dyn Fn(&[u8]) -> Result<V> + Send + Sync>;

/// What an operator keeps: its name, its kind, the version of its values' structure and the way from
/// older ones.
///
/// ```
/// use millpond_state::OperatorSpec;
/// let plain = OperatorSpec::<u64>::new("counts", "update_state_by_key");
/// let migrated = OperatorSpec::<i64>::new("counts", "update_state_by_key").schema(2, |old: u64| old as i64);
/// ```
pub struct OperatorSpec<V> {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) version: u32,
    /// By kind and version of what is stored.
    pub(crate) migrations: BTreeMap<(String, u32), (String, Migrate<V>)>,
}

impl<V: StateValue> OperatorSpec<V> {
    /// An operator of schema version 1. The name is its place in the state: an operator of that name
    /// finds it again after a restart.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Self {
        OperatorSpec { name: name.into(), kind: kind.into(), version: 1, migrations: BTreeMap::new() }
    }

    /// Says that the structure is now `version`, and how a value of the version before is made into
    /// one. All values are migrated once, when the operator is opened on a snapshot of an older version.
    #[must_use]
    pub fn schema<Old: StateValue>(mut self, version: u32, migrate: impl Fn(Old) -> V + Send + Sync + 'static) -> Self {
        self.version = version;
        self.migrate_from(version.saturating_sub(1), migrate)
    }

    /// Says how a value of one particular older version is made into a present one.
    #[must_use]
    pub fn migrate_from<Old: StateValue>(
        self,
        version: u32,
        migrate: impl Fn(Old) -> V + Send + Sync + 'static,
    ) -> Self {
        let kind = self.kind.clone();
        self.migrate_from_kind(kind, version, migrate)
    }

    /// As [`migrate_from`](Self::migrate_from), from what an operator of another kind has stored under this name; the version
    /// may be the present one.
    #[must_use]
    pub fn migrate_from_kind<Old: StateValue>(
        mut self,
        kind: impl Into<String>,
        version: u32,
        migrate: impl Fn(Old) -> V + Send + Sync + 'static,
    ) -> Self {
        let migrate: Migrate<V> = Box::new(move |payload| Ok(migrate(crate::codec::decode::<Old>(payload)?)));
        self.migrations.insert((kind.into(), version), (shape_of::<Old>().text, migrate));
        self
    }

    /// Checks the name; finds the migration that the stored state needs, if it needs one.
    pub(crate) fn check(&self, schema: &Schema, stored: Option<&OperatorRecord>) -> Result<Option<&Migrate<V>>> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Mismatch, message));
        let name = &self.name;
        if name.is_empty() || name.len() > 200 {
            return refuse(format!("an operator's name must have 1 to 200 bytes, not {}: {name:.40}", name.len()));
        }
        let Some(stored) = stored else { return Ok(None) };
        let same_kind = stored.kind == self.kind;
        if !same_kind && self.migrations.keys().all(|(kind, _)| *kind != stored.kind) {
            return refuse(format!(
                "operator `{name}` is {} in this checkpoint, in the code it is {}. Give the new operator another name or go back",
                stored.kind, self.kind
            ));
        }
        let old = &stored.schema;
        if same_kind && old == schema {
            return Ok(None);
        }
        let both = format!(
            "operator `{name}` stores {} in this checkpoint (schema {}), the code now wants {}",
            old.shape, old.version, schema.shape
        );
        if same_kind && old.version == schema.version {
            return refuse(format!("{both}. Give the operator `.schema({}, migrate)` or go back.", old.version + 1));
        }
        if old.version > schema.version {
            return refuse(format!("{both} (schema {}), which is older. Start the newer program.", schema.version));
        }
        match self.migrations.get(&(stored.kind.clone(), old.version)) {
            None => refuse(format!(
                "{both} (schema {}), and there is no migration from schema {}: add `.migrate_from({}, migrate)`.",
                schema.version, old.version, old.version
            )),
            Some((shape, _)) if *shape != old.shape => refuse(format!(
                "{both} (schema {}), and its migration takes {shape}. Let it take {}.",
                schema.version, old.shape
            )),
            Some((_, migrate)) => Ok(Some(migrate)),
        }
    }
}

/// The state of one operator. Clones are handles of the same state.
pub struct Operator<V> {
    pub(crate) core: Arc<OperatorCore<V>>,
}

impl<V> Clone for Operator<V> {
    fn clone(&self) -> Self {
        Operator { core: self.core.clone() }
    }
}

impl<V: StateValue> Operator<V> {
    /// The name the user gave.
    pub fn name(&self) -> &str {
        &self.core.shared.name
    }

    /// Partitions, as many for every operator of a store.
    pub fn partitions(&self) -> usize {
        self.core.partitions.len()
    }

    /// Locks a partition for a task. Waits while another task or the store has it.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn partition(&self, index: usize) -> PartitionGuard<V> {
        let partition = self.core.partitions[index].lock_arc();
        self.core.shared.shared.tasks.fetch_add(1, Ordering::AcqRel);
        PartitionGuard { partition }
    }

    /// Keys with a value, exactly, as of the last ended task.
    pub fn keys(&self) -> u64 {
        self.core.shared.keys.load(Ordering::Relaxed).max(0) as u64
    }
}

/// A partition, locked for one task. Dropped without [`commit_task`](Partition::commit_task), also by
/// a panic, it rolls the task back. It owns its part of the store, so that a task can keep it until
/// all that comes after it in the task has ended too.
pub struct PartitionGuard<V: StateValue> {
    partition: ArcMutexGuard<RawMutex, Partition<V>>,
}

impl<V: StateValue> Deref for PartitionGuard<V> {
    type Target = Partition<V>;

    #[inline]
    fn deref(&self) -> &Partition<V> {
        &self.partition
    }
}

impl<V: StateValue> DerefMut for PartitionGuard<V> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Partition<V> {
        &mut self.partition
    }
}

impl<V: StateValue> Drop for PartitionGuard<V> {
    fn drop(&mut self) {
        if self.partition.task_open() {
            self.partition.rollback_task();
        }
        self.partition.operator.shared.tasks.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(crate) struct OperatorCore<V> {
    pub(crate) shared: Arc<OperatorShared>,
    /// A lock of `parking_lot`: a panicking task has been rolled back by its guard, the partition is sound.
    pub(crate) partitions: Box<[Arc<Mutex<Partition<V>>>]>,
}

impl<V: StateValue> OperatorCore<V> {
    pub(crate) fn new(shared: &Arc<Shared>, spec: &OperatorSpec<V>, schema: Schema, flat: bool, keys: u64) -> Self {
        let operator = Arc::new(OperatorShared {
            shared: shared.clone(),
            name: spec.name.clone(),
            schema,
            flat,
            keys: AtomicI64::new(keys as i64),
        });
        let partitions = (0..shared.options.partitions)
            .map(|index| Arc::new(Mutex::new(Partition::new(operator.clone(), index, keys == 0))))
            .collect();
        OperatorCore { shared: operator, partitions }
    }
}

/// What the store does with an operator whatever its type.
pub(crate) trait ErasedOperator: Send + Sync {
    fn operator(&self) -> &OperatorShared;
    /// `settled`: all earlier freezes have reached the database.
    fn freeze_partition(&self, index: usize, settled: bool) -> Result<FrozenPart>;
    fn evict_partition(&self, index: usize);
    /// Keys in memory and the bytes they take.
    fn resident(&self) -> (u64, u64);
}

impl<V: StateValue> ErasedOperator for OperatorCore<V> {
    fn operator(&self) -> &OperatorShared {
        &self.shared
    }

    fn freeze_partition(&self, index: usize, settled: bool) -> Result<FrozenPart> {
        let mut partition = self.partitions[index].lock();
        if settled {
            partition.forget_removed();
        }
        let rows = partition.freeze()?;
        let shared = &self.shared.shared;
        let mut part = FrozenPart::new(rows, std::mem::take(&mut partition.spills), shared);
        if shared.is_over() && !part.rows.is_empty() {
            // No room for a second copy of the changes. They stay readable in the table.
            part.spill()?;
        }
        Ok(part)
    }

    fn evict_partition(&self, index: usize) {
        // One that a task holds sees to itself when the task ends.
        if let Some(mut partition) = self.partitions[index].try_lock() {
            partition.evict_share();
        }
    }

    fn resident(&self) -> (u64, u64) {
        let parts = self.partitions.iter().map(|partition| {
            let partition = partition.lock();
            (partition.table.len() as u64, partition.bytes())
        });
        parts.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }
}
