use super::*;

const INTERVAL: Duration = Duration::from_secs(1);
const NEW_ONLY: Window =
    Window { first_start: BatchTime::from_ms(0), remember: Duration::from_secs(60), existing: false };

fn file(name: &str, mtime_ms: u64) -> Found {
    Found { path: PathBuf::from(name), size: 10, mtime_ns: mtime_ms * 1_000_000 }
}

/// Plans a batch in which everything that may be taken is taken whole; gives the names.
fn take_all(progress: &mut Progress, time_ms: u64, window: Window, found: &[Found]) -> Vec<String> {
    let candidates = progress.candidates(BatchTime::from_ms(time_ms), INTERVAL, window, found.to_vec()).unwrap();
    candidates
        .files
        .into_iter()
        .map(|candidate| {
            progress.take(&candidate.found, candidate.found.size);
            candidate.found.path.display().to_string()
        })
        .collect()
}

#[test]
fn k11_a_file_is_taken_iff_its_mtime_is_after_the_start_and_not_after_the_batch() {
    let window = Window { first_start: BatchTime::from_ms(100_000), ..NEW_ONLY };
    let found = [file("at-start", 100_000), file("after", 100_001), file("at-batch", 101_000), file("future", 101_001)];
    let mut progress = Progress::default();
    assert_eq!(take_all(&mut progress, 101_000, window, &found), ["after", "at-batch"]);
    assert_eq!(take_all(&mut progress, 102_000, window, &found), ["future"]);
    assert_eq!(take_all(&mut progress, 103_000, window, &found), [""; 0]);
}

#[test]
fn k11_a_file_older_than_the_remember_window_is_not_taken() {
    let mut progress = Progress::default();
    take_all(&mut progress, 99_000, NEW_ONLY, &[]);
    let late = [file("at-the-edge", 40_000), file("inside", 40_001)];
    assert_eq!(take_all(&mut progress, 100_000, NEW_ONLY, &late), ["inside"]);
}

#[test]
fn k11_the_first_start_holds_over_restarts() {
    let window = Window { first_start: BatchTime::from_ms(100_000), ..NEW_ONLY };
    let mut progress = Progress::default();
    take_all(&mut progress, 101_000, window, &[]);
    let mut restarted = Progress::from_positions(&progress.positions()).unwrap();
    assert_eq!(restarted, progress);
    assert_eq!(take_all(&mut restarted, 102_000, window, &[file("old", 99_000), file("new", 100_500)]), ["new"]);
}

#[test]
fn existing_files_are_taken_by_name_once() {
    let window = Window { first_start: BatchTime::from_ms(1_000_000), existing: true, ..NEW_ONLY };
    let mut progress = Progress::default();
    let found = [file("b", 5), file("a", 5), file("c", 1)];
    assert_eq!(take_all(&mut progress, 1_001_000, window, &found), ["c", "a", "b"]);
    assert_eq!(take_all(&mut progress, 1_002_000, window, &found), [""; 0]);
    assert_eq!(progress.remembered(), 0, "what is before the window need not be remembered");
    assert_eq!(take_all(&mut progress, 1_003_000, window, &found), [""; 0]);
}

#[test]
fn what_did_not_fit_keeps_its_place_however_long_it_takes() {
    let mut progress = Progress::default();
    let found = [file("a", 1000), file("b", 1000), file("c", 2000)];
    for (time, name) in [(2_000, "a"), (200_000, "b"), (400_000, "c")] {
        // One file a batch; each time the process restarts.
        progress = Progress::from_positions(&progress.positions()).unwrap();
        let candidates =
            progress.candidates(BatchTime::from_ms(time), INTERVAL, NEW_ONLY, found.to_vec()).unwrap().files;
        assert_eq!(candidates[0].found.path, Path::new(name));
        progress.take(&candidates[0].found, 10);
        candidates[1..].iter().for_each(|candidate| progress.hold_back(&candidate.found));
    }
    assert!(!progress.has_backlog());
    assert_eq!(take_all(&mut progress, 401_000, NEW_ONLY, &found), [""; 0]);
}

#[test]
fn a_pause_loses_no_file_that_came_in_it() {
    let mut progress = Progress::default();
    take_all(&mut progress, 10_000, NEW_ONLY, &[]);
    assert_eq!(take_all(&mut progress, 900_000, NEW_ONLY, &[file("in-the-pause", 11_000)]), ["in-the-pause"]);
}

#[test]
fn h24_a_file_begun_goes_on_and_must_not_change() {
    let mut progress = Progress::default();
    let found = file("large", 1500);
    progress.candidates(BatchTime::from_ms(2000), INTERVAL, NEW_ONLY, vec![found.clone()]).unwrap();
    progress.take(&found, 4);
    let mut restarted = Progress::from_positions(&progress.positions()).unwrap();
    let candidates =
        restarted.candidates(BatchTime::from_ms(500_000), INTERVAL, NEW_ONLY, vec![found.clone()]).unwrap();
    assert_eq!(candidates.files, [Candidate { found: found.clone(), offset: 4 }]);

    let grown = Found { size: 11, ..found };
    let error = progress.clone().candidates(BatchTime::from_ms(3000), INTERVAL, NEW_ONLY, vec![grown]).unwrap_err();
    assert!(error.to_string().starts_with("large has changed"), "{error}");
    let error = progress.candidates(BatchTime::from_ms(3000), INTERVAL, NEW_ONLY, vec![]).unwrap_err();
    assert!(error.to_string().starts_with("large has gone"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Restore);
}

#[test]
fn a_change_after_a_file_was_taken_is_told_and_not_read() {
    let mut progress = Progress::default();
    take_all(&mut progress, 2000, NEW_ONLY, &[file("a", 1500)]);
    let candidates = progress.candidates(BatchTime::from_ms(3000), INTERVAL, NEW_ONLY, vec![file("a", 2500)]).unwrap();
    assert_eq!((candidates.files, candidates.changed), (vec![], vec![PathBuf::from("a")]));
}

#[test]
fn names_that_are_no_utf8_come_back() {
    let path = PathBuf::from(<std::ffi::OsStr as OsStrExt>::from_bytes(b"a\xFFb"));
    let mut progress = Progress::default();
    progress.take(&Found { path: path.clone(), size: 10, mtime_ns: 1 }, 3);
    let positions = progress.positions();
    assert_eq!(positions[1].partition, "a\\xFFb");
    assert_eq!(Progress::from_positions(&positions).unwrap().files.keys().collect::<Vec<_>>(), [&path]);
}

#[test]
fn the_bytes_are_those_of_the_page() {
    let mut progress = Progress::default();
    take_all(&mut progress, 100_000, NEW_ONLY, &[]);
    progress.take(&Found { path: PathBuf::from("/a"), size: 7, mtime_ns: 8 }, 5);
    let positions = progress.positions();
    // The window: its lower edge, the newest batch planned, the first file held back.
    let mut window = vec![1];
    window.extend(40_001_000_000_u64.to_le_bytes());
    window.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    window.extend(100_000_u64.to_le_bytes());
    window.extend([1, 0, 0, 0]);
    window.extend(8_u64.to_le_bytes());
    window.extend([2, 0, 0, 0, b'/', b'a']);
    let file = [7_u64, 8, 5].iter().flat_map(|value| value.to_le_bytes());
    assert_eq!(positions[0], PartitionPosition { partition: ".".into(), position: window });
    assert_eq!(positions[1].partition, "/a");
    assert_eq!(positions[1].position, std::iter::once(1).chain(file).collect::<Vec<u8>>());
}
