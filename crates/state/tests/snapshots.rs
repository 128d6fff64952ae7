//! Snapshots: what is published, what is refused, what is kept, what is never changed.

mod common;

use common::*;
use millpond_state::{
    ErrorKind, LocalSnapshotStore, Manifest, MemorySnapshotStore, Operator, OperatorSpec, Snapshot, SnapshotStore,
    StateStore, StoreOptions, collect_garbage, conformance,
};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_local_store_does_what_the_trait_says() {
    let directory = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let store = LocalSnapshotStore::open(&directory.path().join("new/snapshots")).unwrap();
    conformance::snapshot_store(&store, scratch.path());
}

#[test]
fn the_memory_store_does_what_the_trait_says() {
    let scratch = tempfile::tempdir().unwrap();
    conformance::snapshot_store(&MemorySnapshotStore::new(), scratch.path());
}

#[test]
fn state_lives_on_snapshots_in_memory_too() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = MemorySnapshotStore::new();
    let open = || {
        let newest = Snapshot::newest(Arc::new(snapshots.clone())).unwrap();
        let options = StoreOptions { shards: 4, partitions: 2, ..Default::default() };
        StateStore::open(&directory.path().join("live"), newest.snapshot.as_ref(), options).unwrap()
    };
    {
        let store = open();
        let counts = store.operator(OperatorSpec::<u64>::new("counts", "test")).unwrap();
        put(&store, &counts, &[("a", Some(1))]);
        store.write_behind(freeze(&store, 1)).unwrap();
        store.checkpoint(1, &snapshots, Vec::new()).unwrap();
    }
    let store = open();
    let counts = store.operator(OperatorSpec::<u64>::new("counts", "test")).unwrap();
    assert_eq!(get(&store, &counts, "a"), Some(1));
}

/// Three snapshots; each new one has a table file of its own.
fn three_snapshots(pond: &Pond) -> (StateStore, Operator<u64>) {
    let (store, counts) = pond.open_with::<u64>("counts");
    for batch in 1..=3 {
        put(&store, &counts, &[("a", Some(batch)), ("b", Some(batch))]);
        pond.checkpoint(&store, batch);
    }
    (store, counts)
}

/// A table file of this snapshot that the one before has not.
fn own_file(pond: &Pond, batch: u64) -> String {
    let files = |batch| Snapshot::open(pond.snapshots.clone(), batch).unwrap().manifest().files.clone();
    let before = pond.snapshots.batches().unwrap().into_iter().rfind(|other| *other < batch).unwrap();
    let before = files(before);
    let own = files(batch).into_iter().find(|file| file.is_table() && !before.contains(file));
    own.expect("a table file of its own").name
}

fn flip_a_bit(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    // In place: a file linked elsewhere is damaged there too.
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&content).unwrap();
}

#[test]
fn an_unchanged_file_is_neither_read_nor_put_again() {
    let pond = Pond::small();
    let keys: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let changes: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(1))).collect();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &changes);
    let first = pond.checkpoint(&store, 1);
    put(&store, &counts, &[("5", Some(2))]);
    let second = pond.checkpoint(&store, 2);
    assert!(second.files > second.new_files);
    assert!(second.new_bytes * 10 < first.new_bytes, "{first:?} {second:?}");
    drop((store, counts));
    // Nor after a restart.
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("6", Some(2))]);
    let third = pond.checkpoint(&store, 3);
    assert!(third.new_bytes * 10 < first.new_bytes, "{first:?} {third:?}");
}

#[test]
fn snapshots_of_one_state_share_their_files_with_the_live_database() {
    let pond = Pond::small();
    let (_store, _counts) = three_snapshots(&pond);
    let links = fs::metadata(pond.files().join(table_file(&pond.snapshots))).unwrap().nlink();
    assert_eq!(links, 2, "one in the store, one in the live directory");
}

#[test]
fn only_the_newest_n_snapshots_stay_and_only_files_they_name() {
    let mut pond = Pond::small();
    pond.options.retained_snapshots = 2;
    let (store, counts) = pond.open_with::<u64>("counts");
    for batch in 1..=6 {
        put(&store, &counts, &[("a", Some(batch)), ("b", Some(batch))]);
        let info = pond.checkpoint(&store, batch);
        assert_eq!(info.oldest_batch, batch.saturating_sub(1).max(1));
    }
    assert_eq!(pond.snapshots.batches().unwrap(), [5, 6]);
    let mut named: Vec<String> = [5, 6]
        .into_iter()
        .flat_map(|batch| Snapshot::open(pond.snapshots.clone(), batch).unwrap().manifest().files.clone())
        .map(|file| file.name)
        .collect();
    named.sort();
    named.dedup();
    assert_eq!(pond.snapshots.files().unwrap(), named);
    drop((store, counts));
    let older = Snapshot::open(pond.snapshots.clone(), 5).unwrap();
    let store = StateStore::open(&pond.live(), Some(&older), pond.options.clone()).unwrap();
    let counts = store.operator(OperatorSpec::<u64>::new("counts", "test")).unwrap();
    assert_eq!(get(&store, &counts, "a"), Some(5), "an older snapshot can be opened as well");
}

#[test]
fn h22_a_file_of_the_wrong_size_is_found_before_it_is_used() {
    let pond = Pond::small();
    drop(three_snapshots(&pond));
    let name = own_file(&pond, 3);
    let file = fs::OpenOptions::new().write(true).open(pond.files().join(&name)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let newest = pond.newest();
    assert_eq!(newest.snapshot.unwrap().batch(), 2);
    assert_eq!(newest.rejected.len(), 1);
    assert_eq!(newest.rejected[0].batch, 3);
    assert!(newest.rejected[0].reason.contains(&name), "{}", newest.rejected[0].reason);
    let (store, counts) = pond.open_with::<u64>("counts");
    assert_eq!(get(&store, &counts, "a"), Some(2));
    // Batch 3 comes again, and its snapshot with it.
    put(&store, &counts, &[("a", Some(3)), ("b", Some(3))]);
    pond.checkpoint(&store, 3);
    let newest = pond.newest();
    assert_eq!((newest.snapshot.unwrap().batch(), newest.rejected.len()), (3, 0));
}

#[test]
fn h22_a_missing_file_or_a_damaged_manifest_rejects_the_snapshot() {
    let pond = Pond::small();
    drop(three_snapshots(&pond));
    fs::remove_file(pond.files().join(own_file(&pond, 2))).unwrap();
    flip_a_bit(&pond.directory.path().join("snapshots/manifests/00000000000000000003.manifest"));
    let newest = pond.newest();
    assert_eq!(newest.snapshot.unwrap().batch(), 1);
    assert_eq!(newest.rejected.iter().map(|rejected| rejected.batch).collect::<Vec<_>>(), [3, 2]);
    assert!(newest.rejected[0].reason.contains("checksum"), "{}", newest.rejected[0].reason);
    assert!(newest.rejected[1].reason.contains("missing"), "{}", newest.rejected[1].reason);
}

#[test]
fn h22_a_flipped_bit_is_found_by_verification_and_no_snapshot_with_that_file_is_used_again() {
    let pond = Pond::small();
    let (store, counts) = three_snapshots(&pond);
    let sound = pond.newest().snapshot.unwrap().verify(&|| true).unwrap();
    assert!(sound.whole && sound.files >= 5, "{sound:?}");
    // A file of batch 2, which batch 3 shares.
    let name = own_file(&pond, 2);
    flip_a_bit(&pond.files().join(&name));
    assert_eq!(pond.newest().snapshot.unwrap().batch(), 3, "sizes alone do not show it");
    let damaged = pond.newest().snapshot.unwrap().verify(&|| true).unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Corrupt);
    assert!(damaged.to_string().contains(&name), "{damaged}");
    // The live database links the same file: it cannot be checkpointed any more.
    put(&store, &counts, &[("c", Some(1))]);
    store.write_behind(freeze(&store, 4)).unwrap();
    let refused = store.checkpoint(4, &*pond.snapshots, Vec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    drop((store, counts));
    let newest = pond.newest();
    assert_eq!(newest.snapshot.unwrap().batch(), 1);
    assert_eq!(newest.rejected.len(), 2);
    assert!(newest.rejected[0].reason.contains("marked bad"), "{}", newest.rejected[0].reason);
    let (store, counts) = pond.open_with::<u64>("counts");
    assert_eq!(get(&store, &counts, "a"), Some(1));
}

#[test]
fn h22_snapshots_passed_over_do_not_push_out_sound_ones() {
    let mut pond = Pond::small();
    pond.options.retained_snapshots = 2;
    {
        let (store, counts) = pond.open_with::<u64>("counts");
        for batch in [1000, 2000, 3000] {
            put(&store, &counts, &[("a", Some(batch))]);
            pond.checkpoint(&store, batch);
        }
    }
    let name = own_file(&pond, 3000);
    fs::remove_file(pond.files().join(name)).unwrap();
    {
        // Back to 2000; the batches come again, with checkpoints at other times, before and after.
        let (store, counts) = pond.open_with::<u64>("counts");
        assert_eq!(get(&store, &counts, "a"), Some(2000));
        put(&store, &counts, &[("a", Some(2500))]);
        let info = pond.checkpoint(&store, 2500);
        assert_eq!(info.oldest_batch, 2000);
        assert_eq!(pond.snapshots.batches().unwrap(), [2000, 2500], "what was to come after 2500 is another now");
        put(&store, &counts, &[("a", Some(3500))]);
        pond.checkpoint(&store, 3500);
    }
    let newest = pond.newest();
    assert_eq!((newest.snapshot.unwrap().batch(), newest.rejected.len()), (3500, 0));
    // The one to fall back to goes bad: it does not count among the two.
    let name = own_file(&pond, 3500);
    pond.snapshots.mark_bad(&name, "a test").unwrap();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(4500))]);
    pond.checkpoint(&store, 4500);
    assert_eq!(pond.snapshots.batches().unwrap(), [2500, 4500]);
    assert!(pond.snapshots.bad().unwrap().is_empty(), "the bad file is gone with its manifest");
}

#[test]
fn h12_the_snapshot_of_a_batch_can_be_published_again_with_another_section() {
    let pond = Pond::small();
    drop(three_snapshots(&pond));
    {
        let (store, _counts) = pond.open_with::<u64>("counts");
        let new = store.operator(OperatorSpec::<u64>::new("new", "test")).unwrap();
        store.write_behind(freeze(&store, 3)).unwrap();
        store.checkpoint(3, &*pond.snapshots, b"changed graph".to_vec()).unwrap();
        drop(new);
    }
    let snapshot = pond.newest().snapshot.unwrap();
    assert_eq!((snapshot.batch(), snapshot.meta()), (3, &b"changed graph"[..]));
    assert_eq!(snapshot.manifest().operators.len(), 2);
    let (store, counts) = pond.open_with::<u64>("counts");
    assert_eq!(get(&store, &counts, "a"), Some(3));
}

#[test]
fn h22_with_no_sound_snapshot_left_nothing_is_started_empty() {
    let pond = Pond::small();
    drop(three_snapshots(&pond));
    for name in pond.snapshots.files().unwrap() {
        pond.snapshots.mark_bad(&name, "a test").unwrap();
    }
    let error = Snapshot::newest(pond.snapshots.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("none of the 3 snapshots"), "{error}");
}

#[test]
fn verification_stops_when_it_is_told_to() {
    let pond = Pond::small();
    let _open = three_snapshots(&pond);
    let verified = pond.newest().snapshot.unwrap().verify(&|| false).unwrap();
    assert!(!verified.whole);
}

#[test]
fn what_a_crash_left_behind_is_deleted_at_the_next_start() {
    let pond = Pond::small();
    drop(three_snapshots(&pond));
    let before = pond.snapshots.files().unwrap();
    fs::write(pond.files().join("000099-3-00000000.sst"), b"abc").unwrap();
    fs::write(pond.directory.path().join("snapshots/manifests/.00000000000000000004.aside"), b"half").unwrap();
    LocalSnapshotStore::open(&pond.directory.path().join("snapshots")).unwrap();
    assert_eq!(pond.snapshots.files().unwrap(), before);
    assert_eq!(fs::read_dir(pond.directory.path().join("snapshots/manifests")).unwrap().count(), 3);
    assert_eq!(collect_garbage(&*pond.snapshots).unwrap(), 0);
}

/// All that is in a directory, with contents.
fn picture(directory: &Path) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path.clone());
                found.push((path, None));
            } else {
                let content = fs::read(&path).unwrap();
                found.push((path, Some(content)));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn i1_a_directory_that_holds_something_else_is_refused_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("photos")).unwrap();
    fs::write(path.join("photos/cat"), "meow").unwrap();
    fs::write(path.join("newer"), "x").unwrap();
    fs::create_dir(path.join("future")).unwrap();
    fs::write(path.join("future/FORMAT"), "millpond snapshots 9\n").unwrap();
    let before = picture(path);
    let open_live = |name: &str| StateStore::open(&path.join(name), None, StoreOptions::default()).err().unwrap();
    let open_snapshots = |name: &str| LocalSnapshotStore::open(&path.join(name)).unwrap_err();
    for (error, kind, says) in [
        (open_live("photos"), ErrorKind::Foreign, "\"cat\""),
        (open_live("newer"), ErrorKind::Foreign, "is a file"),
        (open_snapshots("photos"), ErrorKind::Foreign, "\"cat\""),
        (open_snapshots("newer"), ErrorKind::Foreign, "is a file"),
        (open_snapshots("future"), ErrorKind::Mismatch, "snapshots 9"),
        (LocalSnapshotStore::open_read_only(&path.join("none")).unwrap_err(), ErrorKind::Foreign, "no snapshots"),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(picture(path), before);
}

#[test]
fn looking_at_snapshots_changes_nothing() {
    let pond = Pond::small();
    let (_store, _counts) = three_snapshots(&pond);
    let path = pond.directory.path().join("snapshots");
    fs::write(path.join("manifests/.00000000000000000004.aside"), b"being written").unwrap();
    let before = picture(&path);
    let store = Arc::new(LocalSnapshotStore::open_read_only(&path).unwrap());
    let snapshot = Snapshot::newest(store).unwrap().snapshot.unwrap();
    assert_eq!(snapshot.manifest().operators[0].name, "counts");
    assert_eq!(snapshot.manifest().operators[0].keys, 2);
    assert!(snapshot.manifest().operators[0].table_bytes > 0);
    assert!(snapshot.verify(&|| true).unwrap().whole);
    assert_eq!(picture(&path), before);
}

/// Creation is a row of steps; killed after any of them, the next open completes it. The steps are
/// taken from a finished directory, one entry fewer each time, in the order in which they are made.
#[test]
fn h27_creation_killed_after_any_step_is_completed_by_the_next_open() {
    let snapshots: [&[&str]; 6] = [
        &[],
        &[".FORMAT.aside"],
        &["FORMAT"],
        &["FORMAT", "bad/"],
        &["FORMAT", "bad/", "files/"],
        &["FORMAT", "bad/", "files/", "manifests/"],
    ];
    let live: [&[&str]; 7] = [
        &[],
        &[".LIVE.aside"],
        &["LIVE"],
        &["LIVE", "db/"],
        &["LIVE", "db/", "spill/"],
        &["LIVE", "db/", "spill/", "db/CURRENT"],
        &["LIVE", "db/", "spill/", "link.tmp/"],
    ];
    for made in snapshots.iter().map(|made| (made, true)).chain(live.iter().map(|made| (made, false))) {
        let (made, of_snapshots) = made;
        let pond = Pond::small();
        let target = if of_snapshots { pond.directory.path().join("half") } else { pond.live() };
        fs::create_dir(&target).unwrap();
        for entry in *made {
            match entry.strip_suffix('/') {
                Some(directory) => fs::create_dir(target.join(directory)).unwrap(),
                None if *entry == "FORMAT" => fs::write(target.join(entry), "millpond snapshots 1\n").unwrap(),
                None => fs::write(target.join(entry), "half").unwrap(),
            }
        }
        if of_snapshots {
            let scratch = tempfile::tempdir().unwrap();
            conformance::snapshot_store(&LocalSnapshotStore::open(&target).unwrap(), scratch.path());
        } else {
            let (store, counts) = pond.open_with::<u64>("counts");
            put(&store, &counts, &[("a", Some(1))]);
            pond.checkpoint(&store, 0);
        }
    }
}

/// The files that no manifest names.
fn unnamed(snapshots: &dyn SnapshotStore) -> Vec<String> {
    let manifests = snapshots.batches().unwrap().into_iter().map(|batch| snapshots.manifest(batch).unwrap());
    let named: Vec<String> =
        manifests.flat_map(|bytes| Manifest::decode(&bytes).unwrap().files).map(|file| file.name).collect();
    let mut files = snapshots.files().unwrap();
    files.retain(|name| !named.contains(name));
    files
}

#[test]
fn files_of_a_snapshot_that_came_to_nothing_or_was_replaced_go_with_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = LocalSnapshotStore::open(&directory.path().join("snapshots")).unwrap();
    let options = StoreOptions { shards: 4, partitions: 2, ..Default::default() };
    let store = StateStore::open(&directory.path().join("live"), None, options).unwrap();
    let counts = store.operator(OperatorSpec::<u64>::new("counts", "test")).unwrap();
    let checkpoint = |batch: u64, key: &str| {
        put(&store, &counts, &[(key, Some(batch))]);
        store.write_behind(freeze(&store, batch)).unwrap();
        store.checkpoint(batch, &snapshots, Vec::new()).unwrap();
    };
    let left = directory.path().join("left");
    fs::write(&left, "of a recovery from inside").unwrap();
    snapshots.put("left-1.sst", &left).unwrap();
    checkpoint(1, "a");
    assert_eq!(unnamed(&snapshots), [""; 0]);
    // The same batch once more, with other files.
    checkpoint(1, "b");
    assert_eq!(unnamed(&snapshots), [""; 0]);
    // Files are put, and the manifest cannot be.
    let manifests = directory.path().join("snapshots/manifests");
    fs::create_dir(manifests.join(format!(".{:020}.aside", 2))).unwrap();
    put(&store, &counts, &[("c", Some(2))]);
    store.write_behind(freeze(&store, 2)).unwrap();
    store.checkpoint(2, &snapshots, Vec::new()).unwrap_err();
    assert!(!unnamed(&snapshots).is_empty());
    checkpoint(3, "d");
    assert_eq!(unnamed(&snapshots), [""; 0]);
}

#[test]
fn a_file_that_could_not_be_put_leaves_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("snapshots");
    let snapshots = LocalSnapshotStore::open(&place).unwrap();
    let from = directory.path().join("from");
    fs::write(&from, "bytes").unwrap();
    // A directory is in the way of the rename.
    fs::create_dir(place.join("files/one-5.sst")).unwrap();
    snapshots.put("one-5.sst", &from).unwrap_err();
    let names: Vec<_> = fs::read_dir(place.join("files")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["one-5.sst"]);
}
