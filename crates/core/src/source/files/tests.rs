//! The source on real files.

use std::fs::{self, File};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::source::testing::{Collected, ManualClock, collect, started};
use crate::source::{PlanRequest, SourceEvent};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file in place with an mtime.
    fn put(&self, name: &str, content: impl AsRef<[u8]>, mtime_ms: u64) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_modified(UNIX_EPOCH + Duration::from_millis(mtime_ms))
            .unwrap();
        path
    }
}

fn request(time_ms: u64) -> PlanRequest {
    PlanRequest { time: BatchTime::from_ms(time_ms), interval: Duration::from_secs(1), max_records: None }
}

fn plan<T: Send + 'static>(source: &mut FileSource<T>, time_ms: u64) -> Plan {
    source.plan(&request(time_ms)).unwrap()
}

/// The records of the batch at a time.
fn batch<T: Send + 'static>(source: &mut FileSource<T>, time_ms: u64) -> Vec<T> {
    let plan = plan(source, time_ms);
    read(source, &plan).records
}

fn read<T: Send + 'static>(source: &mut FileSource<T>, plan: &Plan) -> Collected<T> {
    let collected = collect(source, plan).unwrap();
    assert_eq!(
        collected.records.len() as u64 + collected.refused.len() as u64 + collected.skipped,
        plan.records,
        "the plan's count"
    );
    collected
}

#[test]
fn k11_new_files_are_taken_once_and_hidden_ones_are_not() {
    let folder = Folder::new();
    folder.put("a.txt", "one\ntwo\n", 500);
    folder.put(".hidden", "no\n", 500);
    folder.put("later.txt", "four\r\nfive", 1500);
    folder.put("inner/c.txt", "not looked into\n", 500);
    let mut source = started(FileSource::directory(folder.path()), None);
    assert_eq!(batch(&mut source, 1000), ["one", "two"]);
    assert_eq!(batch(&mut source, 2000), ["four", "five"]);
    assert_eq!(batch(&mut source, 3000), [""; 0]);
}

#[test]
fn k6_a_glob_of_directories_finds_the_files_in_them() {
    let folder = Folder::new();
    for n in 1..=10 {
        folder.put(&format!("dir-{n}/file"), format!("{n}\n"), 500);
    }
    let mut source = started(FileSource::glob(format!("{}/*/", folder.path().display())), None);
    let mut found = batch(&mut source, 1000);
    found.sort_by_key(|line| line.parse::<u32>().unwrap());
    assert_eq!(found, (1..=10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn k8_binary_records_of_batch_i_match_in_order() {
    let folder = Folder::new();
    let mut source = started(FileSource::directory(folder.path()).fixed_length(1), None);
    for i in 0..3_u8 {
        folder.put(&format!("f{i}"), (1..=5).map(|n| n + i).collect::<Vec<u8>>(), u64::from(i) * 1000 + 500);
        let expected: Vec<Vec<u8>> = (1..=5).map(|n| vec![n + i]).collect();
        assert_eq!(batch(&mut source, u64::from(i + 1) * 1000), expected);
    }
}

#[test]
fn a_short_last_binary_record_is_refused() {
    let folder = Folder::new();
    folder.put("f", [1, 2, 3, 4, 5], 500);
    let mut source = started(FileSource::directory(folder.path()).fixed_length(2), None);
    let plan = plan(&mut source, 1000);
    let error = collect(&mut source, &plan).unwrap_err();
    assert!(error.to_string().contains("the file ends with 1 bytes of a record of 2 bytes"), "{error}");
}

#[test]
fn a_user_filter_replaces_the_default() {
    let folder = Folder::new();
    folder.put("a.txt", "a\n", 500);
    folder.put("b.csv", "b\n", 500);
    let mut source =
        started(FileSource::directory(folder.path()).filter(|path| path.extension().is_some_and(|e| e == "csv")), None);
    assert_eq!(batch(&mut source, 1000), ["b"]);
}

#[test]
fn decoders_see_line_path_and_offset() {
    let folder = Folder::new();
    let path = folder.put("a", "x\nyy\n", 500);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let source = FileSource::directory(folder.path()).decode(move |line| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push((
            line.path().to_owned(),
            line.offset(),
            line.bytes().to_vec(),
        ));
        Ok::<_, String>(line.bytes().len())
    });
    let mut source = started(source, None);
    assert_eq!(batch(&mut source, 1000), [1, 2]);
    assert_eq!(*seen.lock().unwrap(), [(path.clone(), 0, b"x".to_vec()), (path, 2, b"yy".to_vec())]);
}

#[test]
fn json_lines() {
    let folder = Folder::new();
    folder.put("a", "{\"a\":1}\n{\"a\":2}\n", 500);
    let mut source =
        started(FileSource::directory(folder.path()).json::<std::collections::BTreeMap<String, u32>>(), None);
    assert_eq!(batch(&mut source, 1000).iter().map(|map| map["a"]).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_refused_line_stops_by_default_and_is_counted_or_seen_if_asked() {
    let folder = Folder::new();
    folder.put("a", b"good\nb\xFFd\ngood\n", 500);
    let source = || FileSource::directory(folder.path());

    let mut stopping = started(source(), None);
    let plan = plan(&mut stopping, 1000);
    let error = collect(&mut stopping, &plan).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains("a, byte 5: not UTF-8"), "{error}");

    let mut skipping = started(source().skip_refused(), None);
    let collected = read(&mut skipping, &plan);
    assert_eq!((collected.records, collected.skipped), (vec!["good".to_owned(), "good".to_owned()], 1));

    let collected = Collected::<String>::with_refused(&mut stopping, &plan).unwrap();
    assert_eq!(collected.refused[0].value.as_deref(), Some(&b"b\xFFd"[..]));
    assert_eq!(collected.records.len(), 2);
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_not_held() {
    let folder = Folder::new();
    let long = "x".repeat(1 << 20);
    folder.put("a", format!("a\n{long}\nb\n{}\nc\n{long}", "y".repeat(101)), 500);
    let mut source = started(FileSource::directory(folder.path()).line_limit_bytes(100).skip_refused(), None);
    let plan = plan(&mut source, 1000);
    let collected = read(&mut source, &plan);
    assert_eq!((collected.records, collected.skipped), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 3));
}

#[test]
fn h24_a_large_file_spreads_over_batches_by_whole_lines() {
    let folder = Folder::new();
    let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    folder.put("large", lines.join("\n"), 500);
    folder.put("small", "small\n", 600);
    let mut source = started(FileSource::directory(folder.path()).batch_limit_bytes(2000).partition_bytes(500), None);
    let mut all = Vec::new();
    let mut batches = 0;
    while batches == 0 || source.has_waiting() {
        batches += 1;
        let plan = plan(&mut source, batches * 1000);
        assert!(source.read(&plan).unwrap().len() <= 5);
        all.extend(read(&mut source, &plan).records);
    }
    assert_eq!(batches, 5);
    assert_eq!(all.split_last(), Some((&"small".to_owned(), &lines[..])));
}

#[test]
fn the_limit_on_records_is_kept() {
    let folder = Folder::new();
    folder.put("a", "1\n2\n3\n", 500);
    folder.put("b", "4\n5", 600);
    let mut source = started(FileSource::directory(folder.path()), None);
    let mut batches = Vec::new();
    for time in 1..=4 {
        let plan = source.plan(&PlanRequest { max_records: Some(2), ..request(time * 1000) }).unwrap();
        batches.push(read(&mut source, &plan).records.concat());
    }
    assert_eq!(batches, ["12", "34", "5", ""]);
}

#[test]
fn h24_a_restart_reads_the_same_and_goes_on_behind_it() {
    let folder = Folder::new();
    let lines: Vec<String> = (0..500).map(|n| format!("{n}")).collect();
    folder.put("large", lines.join("\n") + "\n", 500);
    let limited = || FileSource::directory(folder.path()).batch_limit_bytes(300).partition_bytes(100);
    let mut all: Vec<String> = Vec::new();
    let mut positions = None;
    for time in 1.. {
        let mut first = started(limited(), positions.clone());
        let plan = plan(&mut first, time * 1000);
        let records = read(&mut first, &plan).records;
        let partitions = first.read(&plan).unwrap().iter().map(|partition| partition.records()).collect::<Vec<_>>();
        // As after a crash: another process is given the plan.
        let mut second = started(limited().partition_bytes(7), positions);
        assert_eq!(read(&mut second, &plan).records, records);
        assert_eq!(
            second.read(&plan).unwrap().iter().map(|partition| partition.records()).collect::<Vec<_>>(),
            partitions
        );
        positions = Some(plan.positions);
        all.extend(records);
        if !first.has_waiting() {
            break;
        }
    }
    assert_eq!(all, lines);
}

#[test]
fn h24_a_planned_file_that_changed_or_went_is_an_error_that_names_it() {
    let folder = Folder::new();
    let path = folder.put("a", "one\ntwo\n", 500);
    let mut source = started(FileSource::directory(folder.path()), None);
    let plan = plan(&mut source, 1000);
    let wrong = |source: &mut FileSource| {
        let error = collect(source, &plan).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Restore);
        error.to_string()
    };

    folder.put("a", "one\ntwo\nthree\n", 500);
    assert!(wrong(&mut source).contains(&format!("{} has changed", path.display())));
    folder.put("a", "one\nTWO\n", 501);
    assert!(wrong(&mut source).contains("has changed"));
    fs::remove_file(&path).unwrap();
    assert!(wrong(&mut source).contains(&format!("{} has gone", path.display())));
    folder.put("a", "one\ntwo\n", 500);
    assert_eq!(read(&mut source, &plan).records, ["one", "two"]);
}

#[test]
fn a_change_after_a_file_was_taken_is_reported_once() {
    let folder = Folder::new();
    folder.put("a", "one\n", 500);
    let (events, seen) = std::sync::mpsc::channel();
    let mut source = crate::source::testing::started_with(FileSource::directory(folder.path()), None, |start| {
        start.events = SourceEvents::new(move |event| drop(events.send(event)));
    });
    assert_eq!(batch(&mut source, 1000), ["one"]);
    folder.put("a", "one\ntwo\n", 1500);
    assert_eq!(batch(&mut source, 2000), [""; 0]);
    assert_eq!(batch(&mut source, 3000), [""; 0]);
    let reported: Vec<_> = seen.try_iter().collect();
    assert!(
        matches!(&reported[..], [SourceEvent::Error(error)] if error.to_string().contains("changed after it had")),
        "{reported:?}"
    );
}

#[test]
fn existing_files_are_taken_if_asked() {
    let folder = Folder::new();
    folder.put("old", "old\n", 100);
    let at_1000_s = |source| {
        crate::source::testing::started_with(source, None, |start| start.first_start = BatchTime::from_ms(1_000_000))
    };
    assert_eq!(batch(&mut at_1000_s(FileSource::directory(folder.path())), 1_001_000), [""; 0]);
    assert_eq!(batch(&mut at_1000_s(FileSource::directory(folder.path()).existing_files(true)), 1_001_000), ["old"]);
}

#[test]
fn m2_planning_a_batch_again_changes_nothing() {
    let folder = Folder::new();
    folder.put("a", "one\n", 500);
    let mut source = started(FileSource::directory(folder.path()), None);
    let first = plan(&mut source, 1000);
    let second = plan(&mut source, 2000);
    folder.put("b", "two\n", 700);
    assert_eq!(plan(&mut source, 1000), first);
    assert_eq!(plan(&mut source, 2000), second);
    assert_eq!(batch(&mut source, 3000), ["two"]);
}

#[test]
fn more_files_than_may_be_remembered_wait() {
    let folder = Folder::new();
    for n in 0..10 {
        folder.put(&format!("f{n}"), format!("{n}\n"), 500);
    }
    let mut source = started(
        FileSource::directory(folder.path()).remembered_files_limit(4).remember_window(Duration::from_secs(2)),
        None,
    );
    let mut all = Vec::new();
    for time in 1..10 {
        let plan = plan(&mut source, time * 1000);
        assert!(plan.positions.len() <= 1 + 4);
        all.extend(read(&mut source, &plan).records);
    }
    assert_eq!(all.concat(), "0123456789");
}

#[test]
fn new_files_are_taken_after_the_clock_was_set_back_and_too_many_old_ones_are_an_error() {
    let hour = 3_600_000;
    for (limit, taken) in [(20, true), (18, false)] {
        let folder = Folder::new();
        let clock = Arc::new(ManualClock::default());
        let files = FileSource::directory(folder.path()).remembered_files_limit(limit);
        let mut source = crate::source::testing::started_with(files, None, |start| start.clock = clock.clone());
        for n in 1..=10 {
            let time = hour + n * 100_000;
            folder.put(&format!("old-{n}"), "old\n", time - 500);
            clock.set_ms(time);
            assert_eq!(batch(&mut source, time), ["old"]);
        }
        clock.set_ms(hour);
        folder.put("new", "new\n", hour - 500);
        let time = hour + 10 * 100_000 + 1000;
        if taken {
            assert_eq!(batch(&mut source, time), ["new"]);
        } else {
            let error = source.plan(&request(time)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains("`remembered_files_limit` is 18"), "{error}");
        }
    }
}

#[test]
fn a_directory_that_is_not_there_or_no_directory_is_refused_at_start() {
    let folder = Folder::new();
    let file = folder.put("file", "", 500);
    for path in [folder.path().join("absent"), file] {
        let mut source = FileSource::directory(&path);
        let error = source.start(crate::source::testing::start(None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let error = FileSource::glob("a/***").start(crate::source::testing::start(None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[test]
fn after_stop_receiving_plans_are_empty_and_keep_their_positions() {
    let folder = Folder::new();
    folder.put("a", "one\n", 500);
    let mut source = started(FileSource::directory(folder.path()), None);
    assert_eq!(batch(&mut source, 1000), ["one"]);
    source.stop_receiving(Duration::from_secs(10)).unwrap();
    folder.put("b", "two\n", 1500);
    let last = plan(&mut source, 2000);
    assert_eq!(last.records, 0);
    assert!(!source.has_waiting());
    let mut next = started(FileSource::directory(folder.path()), Some(last.positions));
    assert_eq!(batch(&mut next, 3000), ["two"]);
}

#[test]
fn fed_records_pass_the_decoder() {
    let source = FileSource::directory("/nowhere").decode(|line| line.text().map(str::to_uppercase));
    let partition = source.feed(vec!["a".into(), "".into(), "b".into()]).unwrap();
    assert_eq!(Collected::of(&*partition).unwrap().records, ["A", "", "B"]);
}
