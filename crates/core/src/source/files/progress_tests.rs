use super::*;

const INTERVAL: Duration = Duration::from_secs(1);
const NEW_ONLY: Window =
    Window { first_start: BatchTime::from_ms(0), remember: Duration::from_secs(60), existing: false };

fn file(name: &str, mtime_ms: u64) -> Found {
    Found { path: PathBuf::from(name), size: 10, mtime_ns: mtime_ms * 1_000_000 }
}

/// A batch that is planned when the clock stands at its time.
fn at(time_ms: u64) -> At {
    let time = BatchTime::from_ms(time_ms);
    At { time, interval: INTERVAL, clock: time }
}

/// Plans a batch in which everything that may be taken is taken whole; gives the names.
fn take_all(progress: &mut Progress, time_ms: u64, window: Window, found: &[Found]) -> Vec<String> {
    let candidates = progress.candidates(at(time_ms), window, found.to_vec(), None).unwrap();
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
        let candidates = progress.candidates(at(time), NEW_ONLY, found.to_vec(), None).unwrap().files;
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
    progress.candidates(at(2000), NEW_ONLY, vec![found.clone()], None).unwrap();
    progress.take(&found, 4);
    let mut restarted = Progress::from_positions(&progress.positions()).unwrap();
    let candidates = restarted.candidates(at(500_000), NEW_ONLY, vec![found.clone()], None).unwrap();
    assert_eq!(candidates.files, [Candidate { found: found.clone(), offset: 4 }]);

    let grown = Found { size: 11, ..found };
    let error = progress.clone().candidates(at(3000), NEW_ONLY, vec![grown], None).unwrap_err();
    assert!(error.to_string().starts_with("large has changed"), "{error}");
    let error = progress.candidates(at(3000), NEW_ONLY, vec![], None).unwrap_err();
    assert!(error.to_string().starts_with("large has gone"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Restore);
}

#[test]
fn a_change_after_a_file_was_taken_is_told_and_not_read() {
    let mut progress = Progress::default();
    take_all(&mut progress, 2000, NEW_ONLY, &[file("a", 1500)]);
    let candidates = progress.candidates(at(3000), NEW_ONLY, vec![file("a", 2500)], None).unwrap();
    assert_eq!((candidates.files, candidates.changed), (vec![], vec![PathBuf::from("a")]));
}

#[test]
fn where_the_clock_was_set_back_the_window_goes_by_it_and_what_was_there_stays_read() {
    let hour = 3_600_000;
    let mut progress = Progress::default();
    let mut found: Vec<Found> = (0..6).map(|n| file(&format!("old-{n}"), hour + n * 30_000 + 500)).collect();
    let plan =
        |progress: &mut Progress, passed: &mut Option<Vec<PathBuf>>, time: u64, clock_ms: u64, found: &[Found]| {
            let at = At { clock: BatchTime::from_ms(clock_ms), ..at(time) };
            let candidates = progress.candidates(at, NEW_ONLY, found.to_vec(), passed.as_deref()).unwrap();
            *passed = Some(candidates.passed);
            let mut taken = Vec::new();
            for Candidate { found, .. } in candidates.files {
                progress.take(&found, found.size);
                taken.push(found.path.display().to_string());
            }
            (taken, candidates.remembered)
        };
    let (mut time, mut passed) = (hour, None);
    for _ in 0..200 {
        time += 1000;
        plan(&mut progress, &mut passed, time, time, &found);
    }
    assert!(progress.remembered() < 6, "the oldest are forgotten");
    // An hour back: files bear times from before all that were read.
    for n in 0..4 {
        time += 1000;
        let clock = time - hour;
        found.push(file(&format!("new-{n}"), clock - 300));
        let (taken, remembered) = plan(&mut progress, &mut passed, time, clock, &found);
        assert_eq!((taken, remembered > 0), (vec![format!("new-{n}")], n == 0));
        // Also over a restart, whose first look knows nothing of the last one.
        (progress, passed) = (Progress::from_positions(&progress.positions()).unwrap(), None);
    }
    // While the clock comes to where it was, and passes it.
    for n in 0..5000 {
        time += 1000;
        assert_eq!(plan(&mut progress, &mut passed, time, time - hour, &found).0, [""; 0], "batch {n}");
    }
    assert_eq!(progress.remembered(), 0, "all are older than the window by now");
}

#[test]
fn files_that_may_have_come_before_the_clock_was_set_back_or_after_are_named() {
    let mut progress = Progress::default();
    let old = file("old", 100_000);
    take_all(&mut progress, 101_000, NEW_ONLY, std::slice::from_ref(&old));
    take_all(&mut progress, 900_000, NEW_ONLY, std::slice::from_ref(&old));
    take_all(&mut progress, 901_000, NEW_ONLY, std::slice::from_ref(&old));
    assert_eq!(progress.remembered(), 0);
    let mut restarted = Progress::from_positions(&progress.positions()).unwrap();
    let back = |time: u64| At { clock: BatchTime::from_ms(time - 800_000), ..at(time) };
    let found = vec![old, file("new", 101_500)];
    let first = restarted.candidates(back(902_000), NEW_ONLY, found.clone(), None).unwrap();
    assert_eq!((first.files, first.unknown), (vec![], vec![PathBuf::from("old"), PathBuf::from("new")]));
    let next = restarted.candidates(back(903_000), NEW_ONLY, found, Some(&first.passed)).unwrap();
    assert_eq!((next.files, next.unknown), (vec![], vec![]));
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
