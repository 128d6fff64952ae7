//! A store in a temporary directory, driven one batch at a time.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use millpond_state::{
    Frozen, LocalSnapshotStore, Newest, Operator, OperatorSpec, Result, Snapshot, SnapshotInfo, SnapshotStore,
    StateStore, StateValue, StoreOptions, codec, on_this_thread,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub struct Pond {
    pub directory: TempDir,
    pub snapshots: Arc<LocalSnapshotStore>,
    pub options: StoreOptions,
}

impl Pond {
    pub fn new(options: StoreOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Arc::new(LocalSnapshotStore::open(&directory.path().join("snapshots")).unwrap());
        Pond { directory, snapshots, options }
    }

    pub fn small() -> Self {
        Pond::new(StoreOptions { shards: 8, partitions: 3, ..StoreOptions::default() })
    }

    pub fn live(&self) -> PathBuf {
        self.directory.path().join("live")
    }

    pub fn files(&self) -> PathBuf {
        self.directory.path().join("snapshots/files")
    }

    pub fn newest(&self) -> Newest {
        Snapshot::newest(self.snapshots.clone()).unwrap()
    }

    /// Opens the newest snapshot, as after a crash: the snapshot store is opened anew too.
    pub fn open(&self) -> StateStore {
        let snapshots = Arc::new(LocalSnapshotStore::open(&self.directory.path().join("snapshots")).unwrap());
        let newest = Snapshot::newest(snapshots).unwrap();
        StateStore::open(&self.live(), newest.snapshot.as_ref(), self.options.clone()).unwrap()
    }

    /// Opens the newest snapshot and one operator.
    pub fn open_with<V: StateValue>(&self, name: &str) -> (StateStore, Operator<V>) {
        let store = self.open();
        let operator = store.operator(OperatorSpec::new(name, "test")).unwrap();
        (store, operator)
    }

    pub fn checkpoint(&self, store: &StateStore, batch: u64) -> SnapshotInfo {
        store.write_behind(freeze(store, batch)).unwrap();
        store.checkpoint(batch, &*self.snapshots, b"meta".to_vec()).unwrap()
    }
}

pub fn freeze(store: &StateStore, batch: u64) -> Frozen {
    store.freeze(batch, &on_this_thread).unwrap()
}

pub fn encode_key(key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(key, &mut bytes).unwrap();
    bytes
}

pub fn decode_key(key: &[u8]) -> String {
    codec::decode(key).unwrap()
}

/// One task a partition that gives each key the value (None: removes it).
pub fn put<V: StateValue>(store: &StateStore, operator: &Operator<V>, changes: &[(&str, Option<V>)]) {
    try_put(store, operator, changes).unwrap();
}

pub fn try_put<V: StateValue>(store: &StateStore, operator: &Operator<V>, changes: &[(&str, Option<V>)]) -> Result<()> {
    let (shards, partitions) = (store.options().shards, store.options().partitions);
    for index in 0..partitions {
        let mut partition = operator.partition(index);
        let mut slots = Vec::new();
        for (key, value) in changes {
            let key = encode_key(key);
            let hash = codec::key_hash(&key);
            if codec::partition_of(hash, shards, partitions) == index {
                slots.push((partition.slot(hash, &key), value.clone()));
            }
        }
        partition.load_misses()?;
        for (slot, value) in slots {
            partition.put(slot, value);
        }
        partition.commit_task()?;
    }
    Ok(())
}

/// The value of a key, looked up in a task of its own.
pub fn get<V: StateValue>(store: &StateStore, operator: &Operator<V>, key: &str) -> Option<V> {
    let key = encode_key(key);
    let hash = codec::key_hash(&key);
    let index = codec::partition_of(hash, store.options().shards, store.options().partitions);
    let mut partition = operator.partition(index);
    let slot = partition.slot(hash, &key);
    partition.load_misses().unwrap();
    let value = partition.get(slot).cloned();
    partition.commit_task().unwrap();
    value
}

/// All keys and values, by visiting them; each must come once.
pub fn all<V: StateValue>(operator: &Operator<V>) -> BTreeMap<String, V> {
    let mut found = BTreeMap::new();
    for index in 0..operator.partitions() {
        let mut partition = operator.partition(index);
        partition
            .visit_all(|visit| -> Result<()> {
                if let Some(value) = visit.get() {
                    let before = found.insert(decode_key(visit.key()), value.clone());
                    assert!(before.is_none(), "key {:?} was visited twice", decode_key(visit.key()));
                }
                Ok(())
            })
            .unwrap();
        partition.commit_task().unwrap();
    }
    found
}

/// A file of the snapshot store that holds table data.
pub fn table_file(snapshots: &LocalSnapshotStore) -> String {
    snapshots.files().unwrap().into_iter().find(|name| name.ends_with(".sst")).unwrap()
}
