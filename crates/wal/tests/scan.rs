//! Looking at a log without opening it, while it lives.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{DIRECTORY, Seen, open, open_on, payload, segment_path, small};
use millpond_wal::fs::fault::{Call, FaultFileSystem};
use millpond_wal::fs::{DiskFileSystem, FileSystem};
use millpond_wal::{ErrorKind, LogOptions, Position, ScanReport, scan};

fn look(fs: &dyn FileSystem, directory: &Path) -> (ScanReport, Vec<Seen>) {
    let mut seen = Vec::new();
    let report = scan(fs, directory, &mut |frame| {
        let (position, kind, sequence) = (frame.position, frame.kind, frame.sequence);
        seen.push(Seen { position, kind, sequence, payload: frame.payload.to_vec() });
        Ok(())
    });
    (report.unwrap(), seen)
}

#[test]
fn a_scan_sees_what_opening_sees_and_changes_nothing() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    for index in 0..40 {
        log.append(index as u8, &payload(index, 900)).unwrap();
    }
    let changes = || [Call::Create, Call::Write, Call::Rename, Call::Remove, Call::SyncData].map(|call| fs.calls(call));
    let before = changes();
    let (report, seen) = look(&fs, DIRECTORY.as_ref());
    assert_eq!(changes(), before);
    assert_eq!((report.end, report.frames, report.payload_bytes), (log.end(), 40, 40 * 900));
    assert_eq!((&report.segments, &report.corruption), (&log.segments(), &None));
    drop(log);
    assert_eq!(open(&fs).unwrap().1, seen);
}

#[test]
fn damage_stands_in_the_report_and_what_is_before_it_is_seen() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let positions: Vec<_> = (0..40).map(|index| log.append(1, &payload(index, 900)).unwrap()).collect();
    let mut bytes = fs.contents(&segment_path(positions[20].segment));
    bytes[positions[20].offset as usize + 100] ^= 1;
    fs.set_contents(&segment_path(positions[20].segment), &bytes);
    let (report, seen) = look(&fs, DIRECTORY.as_ref());
    let corruption = report.corruption.unwrap();
    assert_eq!((corruption.segment, corruption.offset), (positions[20].segment, positions[20].offset));
    assert_eq!(seen.len(), 20);
    assert_eq!(report.end, positions[20]);
}

#[test]
fn a_directory_that_is_missing_is_an_error_and_an_empty_one_is_an_empty_log() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = scan(&DiskFileSystem, &missing, &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    let (report, seen) = look(&DiskFileSystem, directory.path());
    assert_eq!((report.end, report.corruption, seen.len()), (Position::ZERO, None, 0));
}

#[test]
fn the_moving_tail_of_a_live_log_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { recycled_segments: 2, ..small() };
    let (log, _) = open_on(Arc::new(DiskFileSystem), directory.path(), options).unwrap();
    let stop = AtomicBool::new(false);
    let (mut scans, mut frames) = (0, 0);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (log, stop) = (&log, &stop);
            scope.spawn(move || {
                let mut index = 0;
                while !stop.load(Ordering::Relaxed) {
                    index += 1;
                    log.append(writer, &payload(index, index % 3000)).unwrap();
                    // Most segments are released and written anew while the scan reads.
                    let newest = log.end().segment;
                    log.release(Position { segment: newest.saturating_sub(2), offset: 0 }).unwrap();
                }
            });
        }
        while scans < 300 || log.end().segment < 50 {
            let before = log.end();
            let (report, seen) = look(&DiskFileSystem, directory.path());
            if report.corruption.is_some() || report.end < before {
                stop.store(true, Ordering::Relaxed);
                panic!("{report:?}, the log was at {before} before");
            }
            if let Some(jump) = seen.windows(2).find(|pair| pair[1].sequence <= pair[0].sequence) {
                stop.store(true, Ordering::Relaxed);
                panic!("out of order: {jump:?}");
            }
            scans += 1;
            frames += seen.len();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(frames > scans);
}
