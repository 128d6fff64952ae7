//! The sink on a real directory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::sink::Shared;

fn start() -> SinkStart {
    SinkStart {
        name: "out".into(),
        application: "tests".into(),
        deployment: [1; 16],
        run: [2; 16],
        remembered: Vec::new(),
        shared: Arc::new(Shared::default()),
    }
}

fn cursor(batch: u64) -> Cursor {
    Cursor { deployment: [1; 16], run: [2; 16], batch: BatchTime::from_ms(batch), plans: 1, digest: 2, records: 3 }
}

fn records(lines: &[&str]) -> Records {
    let mut records = Records::new();
    lines.iter().for_each(|line| records.push(None, Some(line.as_bytes())));
    records
}

/// A sink that has been started, and the cursor it found.
fn open(directory: &Path) -> (FileSink, Option<BatchTime>) {
    let mut sink = FileSink::text(directory);
    let peeked = sink.peek(&start()).unwrap();
    let fenced = sink.fence(&start()).unwrap();
    assert_eq!(peeked, fenced);
    (sink, fenced.map(|cursor| cursor.batch))
}

fn prepare(sink: &mut FileSink, batch: u64, lines: &[&str]) {
    sink.begin(BatchTime::from_ms(batch), &[]).unwrap();
    sink.write(records(lines)).unwrap();
    sink.prepare(&cursor(batch)).unwrap();
}

/// What a reader sees: names that do not begin with `_` or `.`, with the text of their parts.
fn visible(directory: &Path) -> BTreeMap<String, String> {
    let list = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with(['_', '.']));
        names.sort();
        names
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    list(directory)
        .iter()
        .map(|batch| (name(batch), list(batch).iter().map(|part| fs::read_to_string(part).unwrap()).collect()))
        .collect()
}

fn batches<'a>(expected: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    expected.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

#[test]
fn h23_a_batch_appears_complete_at_its_commit() {
    let directory = TempDir::new().unwrap();
    let (mut sink, found) = open(directory.path());
    assert_eq!(found, None);
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&["a", "b"])).unwrap();
    sink.write(records(&[])).unwrap();
    sink.write(records(&["c"])).unwrap();
    assert_eq!(visible(directory.path()), batches([]));
    sink.prepare(&cursor(1000)).unwrap();
    assert_eq!(visible(directory.path()), batches([]));
    sink.commit().unwrap();
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "a\nb\nc\n")]));
    sink.close();
    assert_eq!(open(directory.path()).1, Some(BatchTime::from_ms(1000)));
}

#[test]
fn h23_an_empty_batch_moves_the_cursor_and_makes_no_directory() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&[])).unwrap();
    sink.prepare(&cursor(1000)).unwrap();
    sink.commit().unwrap();
    assert_eq!(visible(directory.path()), batches([]));
    drop(sink);
    assert_eq!(open(directory.path()).1, Some(BatchTime::from_ms(1000)));
}

#[test]
fn i13_a_batch_written_but_not_committed_leaves_one_complete_directory_after_the_replay() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    prepare(&mut sink, 1000, &["a"]);
    sink.commit().unwrap();
    prepare(&mut sink, 2000, &["b", "from the first try"]);
    drop(sink); // As SIGKILL would: nothing is tidied up.

    let (mut sink, found) = open(directory.path());
    assert_eq!(found, Some(BatchTime::from_ms(1000)));
    prepare(&mut sink, 2000, &["b"]);
    sink.commit().unwrap();
    drop(sink);
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "a\n"), ("batch-0000000002000", "b\n")]));
    let own: Vec<_> =
        fs::read_dir(directory.path().join(OWN)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(own.len(), 2, "only lock and cursor: {own:?}");
}

#[test]
fn h23_recovery_finishes_a_rename_that_the_commit_promised() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    prepare(&mut sink, 1000, &["a"]);
    // Death between the commit and the rename.
    cursor_file::commit(&sink.own()).unwrap();
    drop(sink);
    assert_eq!(visible(directory.path()), batches([]));
    let (mut sink, found) = open(directory.path());
    assert_eq!(found, Some(BatchTime::from_ms(1000)));
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "a\n")]));
    prepare(&mut sink, 2000, &["b"]);
    sink.commit().unwrap();
    assert_eq!(visible(directory.path()).len(), 2);
}

#[test]
fn h23_a_reader_that_moves_directories_away_does_not_set_the_cursor_back() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    prepare(&mut sink, 1000, &["a"]);
    sink.commit().unwrap();
    fs::remove_dir_all(directory.path().join("batch-0000000001000")).unwrap();
    drop(sink);
    assert_eq!(open(directory.path()).1, Some(BatchTime::from_ms(1000)));
    assert_eq!(visible(directory.path()), batches([]));
}

#[test]
fn an_aborted_batch_leaves_nothing_whatever_it_had_reached() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    sink.abort().unwrap();
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.abort().unwrap();
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&["a"])).unwrap();
    sink.abort().unwrap();
    prepare(&mut sink, 1000, &["a"]);
    sink.abort().unwrap();
    assert_eq!(fs::read_dir(sink.own()).unwrap().count(), 1, "the lock");
    assert_eq!(sink.fence(&start()).unwrap(), None);
    prepare(&mut sink, 1000, &["b"]);
    sink.commit().unwrap();
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "b\n")]));
}

#[test]
fn large_output_is_divided_into_parts() {
    let directory = TempDir::new().unwrap();
    let mut sink = FileSink::text(directory.path()).part_limit_bytes(1 << 20);
    sink.fence(&start()).unwrap();
    let line = "x".repeat(999);
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&vec![line.as_str(); 3000])).unwrap();
    sink.prepare(&cursor(1000)).unwrap();
    sink.commit().unwrap();
    let batch = directory.path().join("batch-0000000001000");
    assert_eq!(fs::read_dir(batch).unwrap().count(), 3);
    assert_eq!(visible(directory.path())["batch-0000000001000"].len(), 3_000_000);
}

#[test]
fn text_has_keys_and_json_has_not() {
    let mut output = Records::new();
    output.push(Some(b"k"), Some(b"1"));
    output.push(Some(b"gone"), None);
    for (sink, text) in [
        (FileSink::text as fn(PathBuf) -> FileSink, "k\t1\ngone\t\n"),
        (FileSink::json as fn(PathBuf) -> FileSink, "1\n\n"),
    ] {
        let directory = TempDir::new().unwrap();
        let mut sink = sink(directory.path().to_owned());
        sink.fence(&start()).unwrap();
        sink.begin(BatchTime::from_ms(1), &[]).unwrap();
        sink.write(output.clone()).unwrap();
        sink.prepare(&cursor(1)).unwrap();
        sink.commit().unwrap();
        assert_eq!(visible(directory.path())["batch-0000000000001"], text);
    }
}

#[test]
fn a_second_owner_of_the_directory_is_refused_and_may_look() {
    let directory = TempDir::new().unwrap();
    let (mut first, _) = open(directory.path());
    prepare(&mut first, 1000, &["a"]);
    first.commit().unwrap();
    prepare(&mut first, 2000, &["b"]);

    let mut second = FileSink::text(directory.path());
    assert_eq!(second.peek(&start()).unwrap(), Some(cursor(1000)));
    let error = second.fence(&start()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    first.commit().unwrap();
    assert_eq!(visible(directory.path()).len(), 2);
}

#[test]
fn a_damaged_cursor_is_refused_with_its_path() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    prepare(&mut sink, 1000, &["a"]);
    sink.commit().unwrap();
    drop(sink);
    fs::write(directory.path().join("_millpond/cursor"), b"MPFSgarbage").unwrap();
    let error = FileSink::text(directory.path()).peek(&start()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("_millpond/cursor"), "{error}");
}

#[test]
fn a_directory_of_somebody_else_under_the_batchs_name_is_never_touched() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    fs::create_dir(directory.path().join("batch-0000000001000")).unwrap();
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&["a"])).unwrap();
    let error = sink.prepare(&cursor(1000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("batch-0000000001000"), "{error}");
    sink.abort().unwrap();
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "")]));
}

#[test]
fn paths_that_cannot_be_written_are_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FileSink::text(&file).peek(&start()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    for inner in [file.clone(), file.join("inner")] {
        let error = FileSink::text(&inner).fence(&start()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }

    let locked = directory.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(locked.join("probe"), "").is_err() {
        // Not as root, who may write everywhere.
        let error = FileSink::text(&locked).fence(&start()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

#[test]
fn h20_a_failed_write_says_what_and_the_batch_can_be_written_again() {
    let directory = TempDir::new().unwrap();
    let (mut sink, _) = open(directory.path());
    sink.begin(BatchTime::from_ms(1000), &[]).unwrap();
    sink.write(records(&["a"])).unwrap();
    // A directory in the place of the part file stands for a disk that refuses.
    let part = sink.own().join("batch-0000000001000/part-00000");
    fs::create_dir(&part).unwrap();
    let error = sink.prepare(&cursor(1000)).unwrap_err();
    assert!(error.to_string().contains(&part.display().to_string()), "{error}");
    assert_eq!(sink.commit().unwrap_err().kind(), ErrorKind::Program);
    sink.abort().unwrap();
    prepare(&mut sink, 1000, &["a"]);
    sink.commit().unwrap();
    assert_eq!(visible(directory.path()), batches([("batch-0000000001000", "a\n")]));
}

#[test]
fn a_full_disk_is_told_from_a_missing_right() {
    let error = |kind: io::ErrorKind| failed("write to", Path::new("/out/part"), kind.into());
    assert_eq!(error(io::ErrorKind::StorageFull).kind(), ErrorKind::Retry);
    assert_eq!(error(io::ErrorKind::PermissionDenied).kind(), ErrorKind::Configuration);
    assert_eq!(error(io::ErrorKind::ReadOnlyFilesystem).kind(), ErrorKind::Configuration);
    assert!(error(io::ErrorKind::StorageFull).to_string().contains("/out/part"));
}
