//! Saving and reading back: whole or not at all, and damage is told from values.

use std::fs;
use std::path::Path;

use millpond_core::{BatchContext, ErrorKind, Rdd};
use proptest::prelude::*;

use crate::eventually;

fn read<T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static>(
    path: &Path,
) -> millpond_core::Result<Vec<T>> {
    BatchContext::new().object_file::<T>(path)?.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn objects_come_back_in_their_partitions(records in prop::collection::vec((any::<i32>(), ".{0,40}"), 0..400), partitions in 1_usize..5) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("saved");
        let rdd = BatchContext::new().parallelize(records.clone(), partitions);
        rdd.save_as_object_file(&path).expect("saved");
        let back = BatchContext::new().object_file::<(i32, String)>(&path).expect("it is there");
        prop_assert_eq!(back.partitions(), partitions);
        prop_assert_eq!(back.clone().glom().collect().expect("read"), rdd.glom().collect().expect("computed"));
    }

    #[test]
    fn lines_come_back(lines in prop::collection::vec("[^\r\n]{0,40}", 0..200), partitions in 1_usize..5) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("saved");
        BatchContext::new().parallelize(lines.clone(), partitions).save_as_text_file(&path).expect("saved");
        prop_assert_eq!(BatchContext::new().text_file(&path).expect("it is there").collect().expect("read"), lines);
    }

    #[test]
    fn a_flipped_byte_is_an_error_that_names_the_file(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("saved");
        let records: Vec<u64> = (0..1000).collect();
        BatchContext::new().parallelize(records, 1).save_as_object_file(&path).expect("saved");
        let part = path.join("part-00000");
        let mut bytes = fs::read(&part).expect("read");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&part, bytes).expect("written");
        let error = read::<u64>(&path).expect_err("damaged");
        prop_assert!(error.kind() == ErrorKind::Restore && error.to_string().contains("part-00000"), "byte {}: {}", at, error);
    }

    #[test]
    fn a_file_cut_short_is_an_error(at in any::<prop::sample::Index>()) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("saved");
        BatchContext::new().parallelize((0..1000_u64).collect::<Vec<_>>(), 1).save_as_object_file(&path).expect("saved");
        let part = path.join("part-00000");
        let bytes = fs::read(&part).expect("read");
        fs::write(&part, &bytes[..at.index(bytes.len())]).expect("written");
        let error = read::<u64>(&path).expect_err("cut short");
        prop_assert!(error.to_string().contains("cut short"), "{}", error);
    }
}

#[test]
fn an_rdd_of_many_chunks_and_one_without_partitions() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let texts: Vec<String> = (0..20_000).map(|n| format!("{n:0100}")).collect();
    let batch = BatchContext::new();
    batch.parallelize(texts.clone(), 3).save_as_object_file(place.path().join("big")).expect("saved");
    assert_eq!(read::<String>(&place.path().join("big")).expect("read"), texts);

    fs::create_dir(place.path().join("none")).expect("made");
    let nothing: Rdd<String> = batch.text_file(place.path().join("none")).expect("an empty directory");
    assert_eq!(nothing.partitions(), 0);
    nothing.save_as_object_file(place.path().join("nothing")).expect("saved");
    assert_eq!(read::<String>(&place.path().join("nothing")).expect("read"), [""; 0]);
}

#[test]
fn a_save_that_fails_leaves_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let failing =
        BatchContext::new().parallelize(0..100_u64, 4).try_map(|n| if n == 70 { Err("no seventy") } else { Ok(n) });
    let error = failing.save_as_text_file(place.path().join("saved")).expect_err("a task fails");
    assert!(error.to_string().contains("no seventy"), "{error}");
    assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 0);
}

#[test]
fn a_directory_that_exists_is_left_alone_and_what_a_killed_save_left_goes() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (path, staged) = (place.path().join("saved"), place.path().join(".saved.saving"));
    fs::create_dir(&staged).expect("made");
    fs::write(staged.join(".part-00000.0"), "half").expect("written");
    let rdd = BatchContext::new().parallelize(["a", "b"].map(String::from), 2);
    rdd.save_as_text_file(&path).expect("saved");
    assert!(!staged.exists());
    let error = rdd.save_as_text_file(&path).expect_err("it exists");
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("exists already"), "{error}");
    let mut names: Vec<_> =
        fs::read_dir(&path).expect("listed").map(|entry| entry.expect("read").file_name()).collect();
    names.sort();
    assert_eq!(names, ["part-00000", "part-00001"]);
}

#[test]
fn a_missing_part_another_type_and_strangers_are_refused() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("saved");
    BatchContext::new().parallelize(0..10_u64, 3).save_as_object_file(&path).expect("saved");
    let error = read::<(String, String)>(&path).expect_err("another type");
    assert!(error.to_string().contains("holds other values"), "{error}");
    fs::remove_file(path.join("part-00001")).expect("removed");
    let error = read::<u64>(&path).expect_err("a part is missing");
    assert!(error.to_string().contains("a part is missing"), "{error}");
    let error = read::<u64>(&place.path().join("nowhere")).expect_err("not there");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let stranger = place.path().join("stranger");
    fs::create_dir(&stranger).expect("made");
    fs::write(stranger.join("part-00000"), "plain text, and long enough to be one").expect("written");
    let error = read::<u64>(&stranger).expect_err("a stranger");
    assert!(error.to_string().contains("is no object file"), "{error}");
}

#[test]
fn text_of_a_file_a_directory_and_a_pattern() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in [("a.txt", "1\n2\n"), ("b.txt", "3\r\n4"), ("c.log", "5\n"), (".hidden", "6\n")] {
        fs::write(place.path().join(name), text).expect("written");
    }
    let batch = BatchContext::new();
    let lines = |path: &Path| batch.text_file(path).and_then(|rdd| rdd.collect());
    assert_eq!(lines(&place.path().join("a.txt")).expect("read"), ["1", "2"]);
    assert_eq!(lines(place.path()).expect("read"), ["1", "2", "3", "4", "5"]);
    assert_eq!(lines(&place.path().join("*.txt")).expect("read"), ["1", "2", "3", "4"]);
    for missing in ["d.txt", "*.csv"] {
        let error = lines(&place.path().join(missing)).expect_err("not there");
        assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(missing), "{error}");
    }
    // What was looked at must stay as it was.
    let rdd = batch.text_file(place.path().join("a.txt")).expect("it is there");
    fs::write(place.path().join("a.txt"), "another\n").expect("written");
    let error = rdd.collect().expect_err("the file has changed");
    assert!(error.to_string().contains("a.txt") && error.to_string().contains("changed"), "{error}");
}

#[test]
fn a_checkpoint_cuts_the_lineage() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let held = std::sync::Arc::new(());
    let weak = std::sync::Arc::downgrade(&held);
    let rdd = BatchContext::new().parallelize(0..10_u64, 2).map(move |n| {
        let _ = &held;
        n + 1
    });
    let rdd = rdd.checkpoint(place.path().join("numbers")).expect("saved");
    eventually("what it was computed from is let go", || weak.upgrade().is_none());
    assert_eq!(rdd.collect().expect("read"), (1..=10).collect::<Vec<u64>>());
}
