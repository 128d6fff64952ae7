//! Real processes killed with SIGKILL: at every failpoint, and at random moments. Whatever is found
//! afterwards must be exactly the state after the newest snapshot's batch, and the next start goes on.

mod common;

use common::*;
use millpond_state::{LocalSnapshotStore, Operator, Snapshot, SnapshotStore, StateStore, StoreOptions, failpoints};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;
const BATCHES: u64 = 25;
/// Longest that a victim may take.
const LIMIT: Duration = Duration::from_secs(60);

fn options() -> StoreOptions {
    StoreOptions {
        shards: 8,
        partitions: 3,
        retained_snapshots: 2,
        memory_limit_bytes: 12_000,
        background_threads: 2,
        ..Default::default()
    }
}

/// What batch `batch` does to each key: None removes it.
fn changes(batch: u64) -> Vec<(String, Option<u64>)> {
    (0..60)
        .map(|n| {
            let key = (batch * 31 + n * 7) % 300;
            (format!("key {key}"), (n % 5 != 0).then_some(batch * 1000 + n))
        })
        .collect()
}

fn expected(batch: u64) -> BTreeMap<String, u64> {
    let mut state = BTreeMap::new();
    for batch in 1..=batch {
        for (key, value) in changes(batch) {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }
    state
}

/// The process that is killed: goes on from the newest snapshot, with a checkpoint each batch.
#[test]
fn victim() {
    let Ok(directory) = std::env::var("MILLPOND_STATE_VICTIM") else { return };
    let directory = Path::new(&directory);
    if let (Ok(point), Ok(hits)) = (std::env::var("MILLPOND_STATE_POINT"), std::env::var("MILLPOND_STATE_HITS")) {
        let left = AtomicU32::new(hits.parse().unwrap());
        fail::cfg_callback(point, move || {
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
                loop {
                    std::thread::park();
                }
            }
        })
        .unwrap();
    }
    let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots")).unwrap());
    let newest = Snapshot::newest(snapshots.clone()).unwrap();
    assert_eq!(newest.rejected, []);
    let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options()).unwrap();
    let state: Operator<u64> = store.operator(millpond_state::OperatorSpec::new("state", "test")).unwrap();
    let first = newest.snapshot.map_or(0, |snapshot| snapshot.batch()) + 1;
    // Batch n+1 runs in memory while n is written behind and published.
    let mut behind: Option<std::thread::JoinHandle<()>> = None;
    for batch in first..=BATCHES {
        let changes = changes(batch);
        let changes: Vec<_> = changes.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        put(&store, &state, &changes);
        if let Some(thread) = behind.take() {
            thread.join().unwrap();
        }
        let frozen = freeze(&store, batch);
        let (to, publish) = (store.clone(), snapshots.clone());
        let wait = store.over_limit();
        let thread = std::thread::spawn(move || {
            to.write_behind(frozen).unwrap();
            to.checkpoint(batch, &*publish, batch.to_le_bytes().to_vec()).unwrap();
        });
        if wait {
            thread.join().unwrap();
            store.evict();
        } else {
            behind = Some(thread);
        }
    }
    if let Some(thread) = behind {
        thread.join().unwrap();
    }
}

fn spawn(directory: &Path, point: Option<(&str, u32)>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim"]).env("MILLPOND_STATE_VICTIM", directory);
    if let Some((point, hits)) = point {
        command.env("MILLPOND_STATE_POINT", point).env("MILLPOND_STATE_HITS", hits.to_string());
    }
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Waits for the victim; true if it was killed, false if it ended well.
fn was_killed(mut child: Child) -> bool {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success() || status.signal() == Some(SIGKILL), "the victim failed: {status}");
            return !status.success();
        }
        assert!(start.elapsed() < LIMIT, "the victim hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The directory as it is must hold the state after some batch, whole; returns the batch.
fn check(directory: &Path) -> u64 {
    let snapshots = Arc::new(LocalSnapshotStore::open(&directory.join("snapshots")).unwrap());
    let newest = Snapshot::newest(snapshots.clone()).unwrap();
    assert_eq!(newest.rejected, []);
    let mut named: Vec<String> = Vec::new();
    for batch in snapshots.batches().unwrap() {
        let snapshot = Snapshot::open(snapshots.clone(), batch).unwrap();
        assert!(snapshot.verify(&|| true).unwrap().whole);
        assert_eq!(snapshot.meta(), batch.to_le_bytes());
        named.extend(snapshot.manifest().files.iter().map(|file| file.name.clone()));
    }
    named.sort();
    named.dedup();
    assert_eq!(snapshots.files().unwrap(), named, "nothing is left behind");
    let batch = newest.snapshot.as_ref().map_or(0, Snapshot::batch);
    let store = StateStore::open(&directory.join("live"), newest.snapshot.as_ref(), options()).unwrap();
    let state: Operator<u64> = store.operator(millpond_state::OperatorSpec::new("state", "test")).unwrap();
    assert_eq!(state.keys(), expected(batch).len() as u64);
    assert_eq!(all(&state), expected(batch), "after batch {batch}");
    batch
}

#[test]
fn h27_killed_at_each_failpoint_a_restart_goes_on_from_a_whole_batch() {
    for point in failpoints::ALL {
        let directory = tempfile::tempdir().unwrap();
        let mut last = 0;
        // The first hit is in the first checkpoint of the directory's life, before any manifest.
        for hits in [1, 2, 5] {
            assert!(was_killed(spawn(directory.path(), Some((point, hits)))), "{point} was not hit {hits} times");
            let batch = check(directory.path());
            assert!(batch >= last, "{point}: batch {batch} after {last}");
            last = batch;
        }
        assert!(!was_killed(spawn(directory.path(), None)));
        assert_eq!(check(directory.path()), BATCHES, "{point}");
    }
}

#[test]
fn killed_at_random_moments_a_restart_goes_on_from_a_whole_batch() {
    let mut seed = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0) | 1
    });
    println!("MILLPOND_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut kills = 0;
    for _ in 0..40 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut child = spawn(directory.path(), None);
        // The random moment is the fault itself.
        std::thread::sleep(Duration::from_micros(seed % 60_000));
        child.kill().unwrap();
        kills += u32::from(was_killed(child));
        if check(directory.path()) == BATCHES {
            std::fs::remove_dir_all(directory.path().join("snapshots")).unwrap();
        }
    }
    assert!(kills >= 10, "only {kills} of 40 victims were killed before their end");
    assert!(!was_killed(spawn(directory.path(), None)));
    assert_eq!(check(directory.path()), BATCHES);
}
