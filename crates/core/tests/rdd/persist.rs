//! Persisted `Rdd`s: where they are kept, when they go, and what happens to damaged files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::rdd::StorageLevel;
use millpond_core::{BatchContext, Rdd};

use crate::eventually;

fn context(spill: &Path, memory: u64) -> BatchContext {
    let builder = BatchContext::builder().threads(2).spill_directory(spill).persist_memory_bytes(memory);
    builder.open().expect("within the limits")
}

/// Numbers in four partitions, counting how often one is computed.
fn counted(batch: &BatchContext) -> (Rdd<'static, u64>, Arc<AtomicU64>) {
    let computed = Arc::new(AtomicU64::new(0));
    let seen = computed.clone();
    let rdd = batch.parallelize(0..20_000_u64, 4).map(move |n| {
        seen.fetch_add(1, Ordering::Relaxed);
        n
    });
    (rdd, computed)
}

/// The files that are spilled.
fn spilled(place: &Path) -> Vec<PathBuf> {
    let entries =
        |path: &Path| fs::read_dir(path).expect("listed").map(|entry| entry.expect("read").path()).collect::<Vec<_>>();
    let mut files: Vec<PathBuf> = entries(place).iter().flat_map(|directory| entries(directory)).collect();
    files.sort();
    files
}

#[test]
fn every_level_computes_once_and_gives_the_same() {
    let place = tempfile::tempdir().expect("a temporary directory");
    // Room for two of the four partitions of 5000 numbers, each taken for at least 8 bytes.
    let batch = context(place.path(), 100_000);
    for (level, files) in [(StorageLevel::Memory, 0), (StorageLevel::MemoryAndDisk, 2), (StorageLevel::Disk, 4)] {
        let (rdd, computed) = counted(&batch);
        let kept = rdd.persist(level);
        assert_eq!(computed.load(Ordering::Relaxed), 0, "lazy");
        for _ in 0..3 {
            assert_eq!(kept.collect().expect("computed"), (0..20_000).collect::<Vec<u64>>(), "{level:?}");
        }
        assert_eq!(computed.load(Ordering::Relaxed), 20_000, "{level:?}");
        assert_eq!(spilled(place.path()).len(), files, "{level:?}");
        kept.unpersist();
        assert_eq!(spilled(place.path()).len(), 0, "{level:?}");
        assert_eq!(kept.count().expect("computed"), 20_000);
        assert_eq!(computed.load(Ordering::Relaxed), 40_000, "{level:?}: computed again");
        drop(kept);
        eventually("files go with it, and memory is given back", || spilled(place.path()).is_empty());
    }
    drop(batch);
    eventually("the directory goes with its context", || fs::read_dir(place.path()).expect("listed").count() == 0);
}

#[test]
fn a_damaged_file_is_computed_again_from_the_lineage() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let batch = context(place.path(), 0);
    let (rdd, computed) = counted(&batch);
    let sums = rdd.map(|n| (n, n)).reduce_by_key(|a, b| a + b).persist(StorageLevel::Disk);
    let before = sums.collect().expect("computed");
    let files = spilled(place.path());
    // At the beginning, behind some chunks, cut short, gone.
    for (file, at) in files.iter().zip([0, 12_000]) {
        let mut bytes = fs::read(file).expect("read");
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 0xFF;
        fs::write(file, bytes).expect("written");
    }
    let cut = fs::read(&files[2]).expect("read");
    fs::write(&files[2], &cut[..cut.len() / 2]).expect("written");
    fs::remove_file(&files[3]).expect("removed");
    assert_eq!(computed.load(Ordering::Relaxed), 20_000);
    assert_eq!(sums.collect().expect("computed again"), before);
    assert!(computed.load(Ordering::Relaxed) > 20_000);
}

#[test]
fn persisting_twice_and_joins_of_what_is_kept() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let batch = context(place.path(), 0);
    let pairs = batch.parallelize((0..100_u64).map(|n| (n % 10, n)).collect::<Vec<_>>(), 3).persist(StorageLevel::Disk);
    let again = pairs.clone().cache();
    assert_eq!(pairs.join(&again).count().expect("computed"), 1000);
}
