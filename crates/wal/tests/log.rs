//! What a log does while nothing goes wrong.

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{DIRECTORY, open, open_on, payload, payloads, small};
use millpond_wal::fs::DiskFileSystem;
use millpond_wal::fs::fault::{Call, FaultFileSystem};
use millpond_wal::{ErrorKind, Log, LogOptions, Position};

const WAIT: Duration = Duration::from_secs(30);

fn disk() -> (tempfile::TempDir, Log) {
    let directory = tempfile::tempdir().unwrap();
    let (log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(seen, []);
    (directory, log)
}

#[test]
fn n2_a_hundred_frames_over_several_segments_are_read_back_equal_and_in_order_from_one_writer() {
    let (directory, log) = disk();
    let written: Vec<_> = (0..100).map(|index| payload(index, index * 13)).collect();
    let positions: Vec<_> =
        written.iter().enumerate().map(|(index, payload)| log.append(index as u8, payload).unwrap()).collect();
    assert!(log.segments().len() > 3, "{:?}", log.segments());
    drop(log);

    let (log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(payloads(&seen), written);
    for (index, frame) in seen.iter().enumerate() {
        assert_eq!((frame.position, frame.kind, frame.sequence), (positions[index], index as u8, index as u64 + 1));
        assert_eq!(log.read(frame.position).unwrap(), (frame.kind, frame.payload.clone()));
    }
    assert!(positions.is_sorted());
}

#[test]
fn n2_a_hundred_frames_from_many_writers_are_read_back_each_writers_in_its_order() {
    const WRITERS: u8 = 10;
    let (directory, log) = disk();
    let start = Barrier::new(WRITERS.into());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, start) = (&log, &start);
            scope.spawn(move || {
                start.wait();
                for index in 0..10_u8 {
                    let length = 1 + usize::from(index) * 90;
                    let mut bytes = payload(writer.into(), length);
                    bytes[0] = index;
                    let position = log.append(writer, &bytes).unwrap();
                    assert_eq!(log.read(position).unwrap(), (writer, bytes));
                }
            });
        }
    });
    assert!(log.segments().len() > 2);
    drop(log);
    let (_log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(seen.len(), 100);
    for writer in 0..WRITERS {
        let order: Vec<u8> = seen.iter().filter(|frame| frame.kind == writer).map(|frame| frame.payload[0]).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_payload_and_the_largest_one_come_back() {
    let (directory, log) = disk();
    let largest = payload(1, small().max_payload_bytes as usize);
    log.append(1, b"").unwrap();
    log.append(2, &largest).unwrap();
    drop(log);
    let (_log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(payloads(&seen), [b"".as_slice(), &largest]);
}

#[test]
fn a_payload_above_the_limit_is_refused_and_the_log_goes_on() {
    let (_directory, log) = disk();
    let too_large = vec![0; small().max_payload_bytes as usize + 1];
    assert_eq!(log.append(1, &too_large).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(log.append_all(&[(1, b"x"), (1, &too_large)]).unwrap_err().kind(), ErrorKind::InvalidInput);
    let refused = log.submit(1, too_large, Box::new(|_| panic!("never called")));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(log.end(), Position::ZERO);
    log.append(1, b"fits").unwrap();
}

#[test]
fn frames_appended_together_stand_together_and_share_one_sync() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(0, b"the segment is there").unwrap();
    let syncs = fs.calls(Call::SyncData);
    let positions = log.append_all(&[(1, b"one"), (2, b""), (3, b"twelve bytes")]).unwrap();
    assert_eq!(fs.calls(Call::SyncData), syncs + 1);
    for (position, expected) in positions.iter().zip([(1, &b"one"[..]), (2, b""), (3, b"twelve bytes")]) {
        assert_eq!(log.read(*position).unwrap(), (expected.0, expected.1.to_vec()));
    }
    assert_eq!(log.append_all(&[]).unwrap(), []);
    let too_many = [(1, &payload(0, 8000)[..]), (1, &payload(0, 8000)[..])];
    assert_eq!(log.append_all(&too_many).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn submitted_frames_complete_in_order_with_their_positions() {
    let (_directory, log) = disk();
    let (done, completions) = mpsc::channel();
    for index in 0..200_usize {
        let done = done.clone();
        let tell = Box::new(move |result| done.send((index, result)).unwrap());
        log.submit(7, payload(index, index), tell).unwrap();
    }
    for expected in 0..200 {
        let (index, result) = completions.recv_timeout(WAIT).unwrap();
        assert_eq!(index, expected);
        assert_eq!(log.read(result.unwrap()).unwrap(), (7, payload(index, index)));
    }
}

#[test]
fn a_completion_that_appends_gets_an_error_instead_of_waiting_for_itself() {
    let (_directory, log) = disk();
    let log = Arc::new(log);
    let (done, completions) = mpsc::channel();
    let inside = Arc::clone(&log);
    log.submit(1, vec![1], Box::new(move |_| done.send(inside.append(2, b"x")).unwrap())).unwrap();
    let error = completions.recv_timeout(WAIT).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    log.append(3, b"the log goes on").unwrap();
}

#[test]
fn a_completion_that_panics_does_not_stop_the_log() {
    let (_directory, log) = disk();
    log.submit(1, vec![1], Box::new(|_| panic!("a test's panic"))).unwrap();
    let (done, completions) = mpsc::channel();
    log.submit(1, vec![2], Box::new(move |result| done.send(result).unwrap())).unwrap();
    completions.recv_timeout(WAIT).unwrap().unwrap();
    log.append(3, b"the log goes on").unwrap();
}

#[test]
fn a_completion_may_drop_the_last_handle_of_the_log() {
    let (_directory, log) = disk();
    let log = Arc::new(log);
    let (done, completions) = mpsc::channel();
    let (ready, gate) = mpsc::channel::<()>();
    let last = Arc::clone(&log);
    let tell = Box::new(move |_| {
        gate.recv_timeout(WAIT).unwrap();
        drop(last);
        done.send(()).unwrap();
    });
    log.submit(1, vec![1], tell).unwrap();
    drop(log);
    ready.send(()).unwrap();
    completions.recv_timeout(WAIT).unwrap();
}

#[test]
fn h21_a_segment_stays_while_one_of_its_frames_is_needed() {
    let (_directory, log) = disk();
    let positions: Vec<_> = (0..60).map(|index| log.append(1, &payload(index, 1000)).unwrap()).collect();
    let segments = log.segments();
    assert!(segments.len() >= 4);
    let third = segments[2].segment;
    let first_in_third = positions.iter().position(|position| position.segment == third).unwrap();

    // One frame of the second segment is still needed.
    assert_eq!(log.release(positions[first_in_third - 1]).unwrap(), 1);
    assert_eq!(log.read(positions[0]).unwrap_err().kind(), ErrorKind::Released);
    assert_eq!(log.read(positions[first_in_third - 1]).unwrap().1, payload(first_in_third - 1, 1000));

    assert_eq!(log.release(positions[first_in_third]).unwrap(), 1);
    assert_eq!(log.release(positions[first_in_third]).unwrap(), 0);
    assert_eq!(log.segments()[0].segment, third);
    assert_eq!(log.read(positions[first_in_third - 1]).unwrap_err().kind(), ErrorKind::Released);
    for (index, position) in positions.iter().enumerate().skip(first_in_third) {
        assert_eq!(log.read(*position).unwrap().1, payload(index, 1000));
    }
}

#[test]
fn the_newest_segment_is_never_released() {
    let (directory, log) = disk();
    for index in 0..30 {
        log.append(1, &payload(index, 1000)).unwrap();
    }
    log.release(Position { segment: u64::MAX, offset: 0 }).unwrap();
    assert_eq!(log.segments().len(), 1);
    let (end, newest) = (log.end(), log.segments()[0].segment);
    drop(log);
    let (log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(log.end(), end);
    assert_eq!(log.release(end).unwrap(), 0);
    let position = log.append(1, b"sequences go on").unwrap();
    assert!(position > end && position.segment == newest + 1);
    drop(log);
    let (_, again) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(again.last().unwrap().sequence, 31);
    assert_eq!(again.len(), seen.len() + 1);
}

#[test]
fn released_files_are_written_again_and_their_old_frames_are_never_seen() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let mut expected = Vec::new();
    for index in 0..200 {
        let bytes = payload(index, 500);
        expected.push((log.append(1, &bytes).unwrap(), bytes));
        // All but the newest two segments go; two of them at a time wait to be written again.
        let segments = log.segments();
        if segments.len() > 2 {
            let keep_from = Position { segment: segments[segments.len() - 2].segment, offset: 0 };
            log.release(keep_from).unwrap();
            expected.retain(|(position, _)| *position >= keep_from);
        }
        if index % 7 == 0 {
            // A look at every moment of a file's second life, when new frames end before old ones.
            let mut seen = Vec::new();
            let report = millpond_wal::scan(&fs, DIRECTORY.as_ref(), &mut |frame| {
                seen.push((frame.position, frame.payload.to_vec()));
                Ok(())
            });
            assert_eq!(report.unwrap().corruption, None);
            assert_eq!(seen, expected);
        }
    }
    let created = fs.calls(Call::Create);
    assert!(created <= 5, "{created} files were made for {} segments", log.end().segment);
    drop(log);
    let (_log, seen) = open(&fs).unwrap();
    let seen: Vec<_> = seen.into_iter().map(|frame| (frame.position, frame.payload)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn opening_often_without_appending_makes_no_segments() {
    let (directory, log) = disk();
    log.append(1, b"x").unwrap();
    drop(log);
    for _ in 0..5 {
        let (log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
        assert_eq!((log.segments().len(), seen.len()), (1, 1));
    }
}

#[test]
fn options_may_change_between_openings() {
    let (directory, log) = disk();
    for index in 0..20 {
        log.append(1, &payload(index, 2000)).unwrap();
    }
    drop(log);
    let smaller = LogOptions { segment_bytes: 8 << 10, max_payload_bytes: 100, ..small() };
    let (log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), smaller).unwrap();
    assert_eq!(seen.len(), 20);
    log.append(1, b"x").unwrap();
    log.release(log.end()).unwrap();
    assert_eq!(log.segments().len(), 1);
}

#[test]
fn the_visitors_error_aborts_the_opening_and_is_its_source() {
    let (directory, log) = disk();
    log.append(1, b"x").unwrap();
    drop(log);
    let result =
        Log::open(Arc::new(DiskFileSystem), directory.path(), small(), &mut |_| Err("what the caller said".into()));
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Visitor);
    assert!(error.to_string().ends_with("what the caller said"), "{error}");
}

#[test]
fn a_position_outside_the_log_is_an_error() {
    let (_directory, log) = disk();
    let position = log.append(1, b"x").unwrap();
    let behind = Position { offset: log.end().offset, ..position };
    assert_eq!(log.read(behind).unwrap_err().kind(), ErrorKind::InvalidInput);
    let beside = Position { offset: position.offset - 8, ..position };
    assert_eq!(log.read(beside).unwrap_err().kind(), ErrorKind::Corrupt);
    let later = Position { segment: 9, ..position };
    assert_eq!(log.read(later).unwrap_err().kind(), ErrorKind::InvalidInput);
}
