//! A disk that is really full (H20): a small file system in memory, which takes the right to mount one.
//! Without it the test says that it did not run.

mod common;

use common::*;
use millpond_state::{ErrorKind, LocalSnapshotStore, Operator, OperatorSpec, Snapshot, StateStore, StoreOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn open(directory: &Path) -> (StateStore, Operator<String>, Arc<LocalSnapshotStore>, u64) {
    let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots")).unwrap());
    let newest = Snapshot::newest(snapshots.clone()).unwrap();
    assert_eq!(newest.rejected, [], "what was published is whole");
    let options = StoreOptions { shards: 8, partitions: 2, retained_snapshots: 2, ..Default::default() };
    let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options).unwrap();
    let texts = store.operator(OperatorSpec::new("texts", "test")).unwrap();
    (store, texts, snapshots, newest.snapshot.map_or(0, |snapshot| snapshot.batch()))
}

/// 5000 keys whose texts do not compress.
fn fill(store: &StateStore, texts: &Operator<String>, batch: u64) {
    let mut state = batch;
    let values: Vec<(String, String)> = (0..5000)
        .map(|n| {
            let text = (0..12).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{:016x}", state)
            });
            (n.to_string(), text.collect())
        })
        .collect();
    let changes: Vec<_> = values.iter().map(|(key, text)| (key.as_str(), Some(text.clone()))).collect();
    put(store, texts, &changes);
}

#[test]
fn h20_on_a_full_disk_the_error_is_clear_and_a_restart_with_room_goes_on_from_the_newest_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path(), "24m") else {
        println!("not run: no right to mount a small file system");
        return;
    };
    let ballast = directory.path().join("ballast");
    std::fs::write(&ballast, vec![1; 14 << 20]).unwrap();
    let (store, texts, snapshots, _) = open(directory.path());
    let mut published = 0;
    let error = loop {
        let batch = published + 1;
        assert!(batch < 100, "the disk never got full");
        fill(&store, &texts, batch);
        let frozen = freeze(&store, batch);
        if let Err(error) = store.write_behind(frozen) {
            // Memory and database no longer agree: nothing goes on.
            assert_eq!(store.freeze(batch, &millpond_state::on_this_thread).err().unwrap().kind(), ErrorKind::Poisoned);
            break error;
        }
        match store.checkpoint(batch, &*snapshots, Vec::new()) {
            Ok(_) => published = batch,
            Err(error) => break error,
        }
    };
    assert!(published > 0);
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let text = error.to_string();
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
    drop((store, texts, snapshots));
    std::fs::remove_file(ballast).unwrap();
    let (store, texts, snapshots, batch) = open(directory.path());
    assert_eq!(batch, published);
    assert_eq!(texts.keys(), 5000);
    assert_eq!(all(&texts).len(), 5000);
    fill(&store, &texts, batch + 1);
    store.write_behind(freeze(&store, batch + 1)).unwrap();
    store.checkpoint(batch + 1, &*snapshots, Vec::new()).unwrap();
}
