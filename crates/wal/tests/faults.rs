//! What the log does when the disk is full, fails, or dies: the hard cases.

mod common;

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{DIRECTORY, flip, open, open_error, open_on, payload, payloads, segment_path, small, ten_frames};
use millpond_wal::fs::fault::{Call, EIO, ENOSPC, Effect, FaultFileSystem, Keep};
use millpond_wal::{ErrorKind, Log, LogOptions, Position};

const WAIT: Duration = Duration::from_secs(30);
/// Where the first frame of a segment stands.
const DATA_START: u64 = 4096;

/// Thirty frames over several segments.
fn fill(log: &Log) {
    for index in 0..30 {
        log.append(1, &payload(index, 1000)).unwrap();
    }
}

/// Stops the machine when the bytes of the next group are written but not synced.
fn append_unsynced(fs: &FaultFileSystem, log: &Log, frames: &[(u8, &[u8])]) {
    fs.fail_from(Call::SyncData, 1, Effect::Fail(EIO));
    assert!(log.append_all(frames).is_err());
}

#[test]
fn h19_two_crashes_in_a_row_are_no_corruption() {
    // The first crash tears the tail of a segment; the restart begins the next segment; the second crash tears that one.
    for seed in 0..200 {
        let fs = FaultFileSystem::new();
        let mut expected = Vec::new();
        for round in 0..3 {
            let (log, seen) = open(&fs).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            // What was acknowledged is there; of what was not, a first part may be.
            assert!(payloads(&seen).starts_with(&expected.iter().map(Vec::as_slice).collect::<Vec<_>>()));
            expected = seen.into_iter().map(|frame| frame.payload).collect();
            expected.push(payload(round, 700));
            log.append(1, expected.last().unwrap()).unwrap();
            let torn: Vec<_> = (0..5).map(|index| payload(100 + index, 600)).collect();
            let torn: Vec<(u8, &[u8])> = torn.iter().map(|bytes| (2, bytes.as_slice())).collect();
            // The sync never comes, and the disk keeps what it likes.
            fs.stop_after(1);
            assert!(log.append_all(&torn).is_err());
            fs.crash(Keep::Random(seed * 10 + round as u64));
        }
        let (_, seen) = open(&fs).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(payloads(&seen).starts_with(&expected.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    }
}

#[test]
fn h19_a_good_frame_behind_a_bad_one_is_legal_above_what_is_known_to_be_synced() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(1, b"synced").unwrap();
    let group = [payload(1, 1000), payload(2, 1000), payload(3, 1000)];
    let positions = log.append_all(&[(1, &group[0]), (1, &group[1]), (1, &group[2])]).unwrap();
    drop(log);
    // Of the last group the page of the first frame was lost, those of the others were not.
    flip(&fs, &segment_path(1), positions[0].offset + 500);
    let (log, seen) = open(&fs).unwrap();
    assert_eq!(payloads(&seen), [b"synced"]);
    // And the restart's own segment makes that the end for good.
    log.append(1, b"after the restart").unwrap();
    drop(log);
    assert_eq!(payloads(&open(&fs).unwrap().1), [b"synced".as_slice(), b"after the restart"]);
}

#[test]
fn h19_a_bad_frame_below_what_is_known_to_be_synced_is_damage_however_long_the_group_was() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let group = [payload(1, 1000), payload(2, 1000), payload(3, 1000)];
    let positions = log.append_all(&[(1, &group[0]), (1, &group[1]), (1, &group[2])]).unwrap();
    log.append(1, b"a later group proves it").unwrap();
    drop(log);
    flip(&fs, &segment_path(1), positions[0].offset + 500);
    let error = open_error(&fs);
    assert!(error.to_string().contains(&format!("segment 1 offset {}", positions[0].offset)), "{error}");
}

#[test]
fn h19_frames_seen_at_an_opening_survive_the_next_power_failure() {
    // The process dies between write and sync. The next one reads the frames from the page cache; then the power fails.
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(1, b"first").unwrap();
    fs.stop_after(1);
    assert!(log.append(1, b"written, not synced").is_err());
    fs.crash(Keep::Everything);
    let (log, seen) = open(&fs).unwrap();
    assert_eq!(payloads(&seen), [b"first".as_slice(), b"written, not synced"]);
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), payloads(&seen));
}

#[test]
fn h19_frames_whose_sync_failed_are_written_again_before_they_are_believed() {
    // The system marks pages clean after a failed sync, so that syncing again would do nothing.
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(1, b"first").unwrap();
    append_unsynced(&fs, &log, &[(1, b"failed"), (1, &payload(1, 2000))]);
    drop(log);
    fs.crash(Keep::Everything);
    let (log, seen) = open(&fs).unwrap();
    assert_eq!(seen.len(), 3);
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(open(&fs).unwrap().1, seen);
}

#[test]
fn n10_a_failing_sync_poisons_the_log_and_reading_still_works() {
    for errno in [EIO, ENOSPC] {
        let fs = FaultFileSystem::new();
        let (log, _) = open(&fs).unwrap();
        let first = log.append(1, b"first").unwrap();
        fs.fail(Call::SyncData, 1, Effect::Fail(errno));
        let error = log.append(1, b"second").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "not a full disk: it may have been written");
        assert!(error.to_string().contains("00000000000000000001.log"), "{error}");
        // The disk is well again; nobody knows what it kept, so it stays poisoned and says why.
        let error = log.append(1, b"third").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(error.to_string().contains("cannot sync"), "{error}");
        let refused = log.submit(1, vec![1], Box::new(|_| panic!("never called"))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        assert_eq!(log.read(first).unwrap().1, b"first");
        assert_eq!(log.end(), first + 40);
        log.close().unwrap();
    }
}

#[test]
fn n10_a_failing_or_torn_write_poisons_too() {
    for effect in [Effect::Fail(EIO), Effect::Torn(50, EIO), Effect::Torn(512, ENOSPC)] {
        let fs = FaultFileSystem::new();
        let (log, _) = open(&fs).unwrap();
        log.append(1, b"first").unwrap();
        fs.fail(Call::Write, 1, effect);
        assert!(log.append(1, &payload(2, 1000)).unwrap_err().to_string().contains("cannot write"));
        assert_eq!(log.append(1, b"third").unwrap_err().kind(), ErrorKind::Poisoned);
        drop(log);
        let (log, seen) = open(&fs).unwrap();
        assert_eq!(payloads(&seen), [b"first"]);
        log.append(1, b"third").unwrap();
    }
}

#[test]
fn a_short_write_is_completed() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(1, b"first").unwrap();
    fs.fail(Call::Write, 1, Effect::Short(7));
    log.append(1, &payload(1, 1000)).unwrap();
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), [b"first".as_slice(), &payload(1, 1000)]);
}

/// Holds the log's thread inside a completion, so that what comes meanwhile queues up.
struct Held {
    open: mpsc::Sender<()>,
}

fn hold(log: &Log) -> Held {
    let (open, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let wait = Box::new(move |_| {
        entered.send(()).unwrap();
        let _ = gate.recv_timeout(WAIT);
    });
    log.submit(1, b"held".to_vec(), wait).unwrap();
    inside.recv_timeout(WAIT).unwrap();
    Held { open }
}

#[test]
fn n10_a_failing_write_fails_every_append_that_waited_on_it_with_its_cause() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let held = hold(&log);
    let (done, completions) = mpsc::channel();
    for _ in 0..5 {
        let done = done.clone();
        log.submit(1, payload(1, 100), Box::new(move |result| done.send(result).unwrap())).unwrap();
    }
    fs.fail(Call::SyncData, 1, Effect::Fail(EIO));
    held.open.send(()).unwrap();
    for _ in 0..5 {
        let error = completions.recv_timeout(WAIT).unwrap().unwrap_err();
        assert!(error.to_string().contains("cannot sync"), "{error}");
    }
    assert_eq!(log.append(1, b"x").unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn n10_after_close_an_append_is_an_error_and_what_is_queued_fails() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let first = log.append(1, b"first").unwrap();
    let held = hold(&log);
    let (done, completions) = mpsc::channel();
    for _ in 0..5 {
        let done = done.clone();
        log.submit(1, payload(1, 100), Box::new(move |result| done.send(result).unwrap())).unwrap();
    }
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| log.close());
        for _ in 0..5 {
            let error = completions.recv_timeout(WAIT).unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        held.open.send(()).unwrap();
        closing.join().unwrap().unwrap();
    });
    assert_eq!(log.append(1, b"x").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(log.append_all(&[(1, b"x")]).unwrap_err().kind(), ErrorKind::Closed);
    let refused = log.submit(1, vec![1], Box::new(|_| panic!("never called"))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert_eq!(log.read(first).unwrap().1, b"first");
    log.close().unwrap();
    drop(log);
    assert_eq!(payloads(&open(&fs).unwrap().1), [b"first".as_slice(), b"held"]);
}

#[test]
fn n10_closing_under_many_writers_hangs_nobody_and_keeps_what_was_acknowledged() {
    for round in 0..20 {
        let fs = FaultFileSystem::new();
        let (log, _) = open(&fs).unwrap();
        let start = Barrier::new(9);
        let acknowledged = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|writer| {
                    let (log, start) = (&log, &start);
                    scope.spawn(move || {
                        start.wait();
                        let mut count = 0_u8;
                        loop {
                            match log.append(writer, &[count]) {
                                Ok(_) if count < u8::MAX => count += 1,
                                Ok(_) => return (writer, count),
                                Err(error) if error.kind() == ErrorKind::Closed => return (writer, count),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            start.wait();
            while log.end() < (Position { segment: 1, offset: DATA_START + 40 * round }) {
                std::thread::yield_now();
            }
            log.close().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        drop(log);
        fs.crash(Keep::Synced);
        let (_, seen) = open(&fs).unwrap();
        for (writer, count) in acknowledged {
            let found = seen.iter().filter(|frame| frame.kind == writer).count();
            assert!(found >= count.into(), "writer {writer}: {count} acknowledged, {found} found");
        }
    }
}

#[test]
fn a_queue_that_stays_full_is_an_error_within_the_limit() {
    let fs = FaultFileSystem::new();
    let options = LogOptions { queue_bytes: 8 << 10, wait_limit: Duration::from_millis(20), ..small() };
    let (log, _) = open_on(Arc::new(fs), Path::new(DIRECTORY), options).unwrap();
    let held = hold(&log);
    let (done, completions) = mpsc::channel();
    let fill = |length| {
        let done = done.clone();
        log.submit(1, payload(1, length), Box::new(move |result| done.send(result).unwrap()))
    };
    fill(8000).unwrap();
    let error = fill(1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("8192 bytes"), "{error}");
    assert_eq!(log.close().unwrap_err().kind(), ErrorKind::Busy);
    held.open.send(()).unwrap();
    assert_eq!(completions.recv_timeout(WAIT).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    drop(log);
    assert!(completions.try_recv().is_err(), "the refused one is never completed");
}

#[test]
fn h20_a_full_disk_is_a_clean_error_with_path_and_size_and_appends_go_on_when_there_is_room() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let mut written = vec![payload(0, 1000)];
    log.append(1, &written[0]).unwrap();
    fs.set_capacity(Some(fs.used_bytes()));
    let error = loop {
        let bytes = payload(written.len(), 1000);
        match log.append(1, &bytes) {
            Ok(_) => written.push(bytes),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("00000000000000000001.log"), "{error}");
    assert!(error.to_string().contains("append 1032 bytes"), "{error}");
    for _ in 0..3 {
        assert_eq!(log.append(1, &payload(9, 1000)).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    let (_, first) = log.read(Position { segment: 1, offset: DATA_START }).unwrap();
    assert_eq!(first, written[0]);

    fs.set_capacity(None);
    for _ in 0..20 {
        written.push(payload(written.len(), 1000));
        log.append(1, written.last().unwrap()).unwrap();
    }
    assert!(log.segments().len() > 1);
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), written);
}

#[test]
fn h20_a_disk_that_is_full_when_a_segment_begins_leaves_no_trace() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let options = small();
    let mut written = Vec::new();
    while log.segments().len() < 2 {
        fs.set_capacity(Some(options.segment_bytes));
        let bytes = payload(written.len(), 3000);
        match log.append(1, &bytes) {
            Ok(_) => written.push(bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                assert_eq!(fs.used_bytes(), options.segment_bytes);
                fs.set_capacity(None);
                log.append(1, &bytes).unwrap();
                written.push(bytes);
            }
        }
    }
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), written);
}

#[test]
fn h20_a_disk_that_is_full_behind_what_is_needed_still_takes_it() {
    let fs = FaultFileSystem::new();
    let options = LogOptions { segment_bytes: 1 << 20, preallocate_bytes: 256 << 10, ..small() };
    let (log, _) = open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), options).unwrap();
    // Room for one piece of zeros, not for the whole step.
    fs.set_capacity(Some(4096 + (64 << 10)));
    log.append(1, &payload(1, 1000)).unwrap();
}

#[test]
fn h20_a_large_group_on_a_full_disk_is_a_clean_error_too() {
    let fs = FaultFileSystem::new();
    let options = LogOptions {
        segment_bytes: 8 << 20,
        max_payload_bytes: 1 << 20,
        queue_bytes: 4 << 20,
        group_bytes: 4 << 20,
        ..small()
    };
    let (log, _) = open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), options).unwrap();
    log.append(1, &payload(1, 500_000)).unwrap();
    fs.set_capacity(Some(fs.used_bytes() + 1000));
    assert_eq!(log.append(1, &payload(2, 900_000)).unwrap_err().kind(), ErrorKind::StorageFull);
    fs.set_capacity(None);
    log.append(1, &payload(3, 900_000)).unwrap();
    // A file system that cannot allocate gets zeros.
    fs.fail(Call::Allocate, 1, Effect::Fail(95));
    log.append(1, &payload(4, 1_000_000)).unwrap();
    drop(log);
    fs.crash(Keep::Synced);
    let sizes: Vec<usize> = open(&fs).unwrap().1.iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(sizes, [500_000, 900_000, 1_000_000]);
}

#[test]
fn h27_dying_at_every_step_of_the_first_opening_leaves_a_directory_that_opens() {
    for step in 0.. {
        for keep in [Keep::Synced, Keep::Everything, Keep::Random(step), Keep::Random(step + 1000)] {
            let fs = FaultFileSystem::new();
            fs.stop_after(step);
            let acknowledged = open(&fs).and_then(|(log, _)| log.append(1, b"first"));
            let stopped = fs.stopped();
            fs.crash(keep);
            let (log, seen) = open(&fs).unwrap_or_else(|error| panic!("step {step}, {keep:?}: {error}"));
            if acknowledged.is_ok() {
                assert_eq!(payloads(&seen), [b"first"], "step {step}, {keep:?}");
            }
            log.append(1, b"second").unwrap();
            drop(log);
            fs.crash(Keep::Synced);
            assert_eq!(payloads(&open(&fs).unwrap().1).last().unwrap(), b"second");
            if !stopped {
                assert!(acknowledged.is_ok());
                assert!(step > 7, "{step} steps");
                return;
            }
        }
    }
}

#[test]
fn h27_dying_at_every_step_of_a_restart_a_release_and_a_recycled_segment_loses_nothing() {
    for step in 0.. {
        for keep in [Keep::Synced, Keep::Everything, Keep::Random(step), Keep::Random(step + 1000)] {
            let fs = FaultFileSystem::new();
            {
                let (log, _) = open(&fs).unwrap();
                fill(&log);
            }
            fs.stop_after(step);
            let mut acknowledged = 30;
            let mut run = || -> millpond_wal::Result<()> {
                let (log, _) = open(&fs)?;
                for _ in 0..30 {
                    log.append(1, &payload(acknowledged, 1000))?;
                    acknowledged += 1;
                    log.release(Position { segment: log.end().segment - 1, offset: 0 })?;
                }
                Ok(())
            };
            let result = run();
            let stopped = fs.stopped();
            fs.crash(keep);
            let (_, seen) = open(&fs).unwrap_or_else(|error| panic!("step {step}, {keep:?}: {error}"));
            let last = seen.last().unwrap().sequence as usize;
            assert!((acknowledged..=acknowledged + 1).contains(&last), "step {step}, {keep:?}: {acknowledged}, {last}");
            let first = seen[0].sequence as usize;
            for (index, frame) in seen.iter().enumerate() {
                assert_eq!(
                    (frame.sequence as usize, &frame.payload),
                    (first + index, &payload(first + index - 1, 1000))
                );
            }
            if !stopped {
                result.unwrap();
                assert!(step > 80, "{step} steps");
                return;
            }
        }
    }
}

#[test]
fn a_directory_that_cannot_be_made_or_listed_or_synced_is_an_error_with_its_path() {
    for call in [Call::CreateDirectory, Call::List, Call::SyncDirectory] {
        let fs = FaultFileSystem::new();
        fs.fail(call, 1, Effect::Fail(13));
        let error = open_error(&fs);
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(DIRECTORY), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_no_damage() {
    for call in [Call::Open, Call::Length, Call::Read] {
        let fs = FaultFileSystem::new();
        ten_frames(&fs);
        fs.fail_from(call, 1, Effect::Fail(EIO));
        let error = open_error(&fs);
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("00000000000000000001.log"), "{error}");
        fs.heal();
        assert_eq!(open(&fs).unwrap().1.len(), 10);
    }
}

#[test]
fn a_release_that_fails_keeps_the_log_going() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    fill(&log);
    let segments = log.segments().len();
    fs.fail(Call::Rename, 1, Effect::Fail(13));
    assert_eq!(log.release(log.end()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(log.segments().len(), segments);
    log.append(1, b"goes on").unwrap();
    assert_eq!(log.release(log.end()).unwrap(), segments - 1);
    fs.fail(Call::SyncDirectory, 1, Effect::Fail(EIO));
    assert!((0..30).any(|index| log.append(1, &payload(index, 1000)).is_err()));
    assert_eq!(log.append(1, b"x").unwrap_err().kind(), ErrorKind::Poisoned);
}
