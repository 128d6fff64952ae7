//! Looking at a log without opening it, while it lives.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{DIRECTORY, Seen, open, open_on, payload, segment_path, small};
use millpond_wal::fs::fault::{Call, FaultFileSystem};
use millpond_wal::fs::{Access, DiskFileSystem, FileHandle, FileSystem};
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

/// A file system in which the first look at a range of bytes comes before they are written, and a look at what is behind
/// them after: a scan's window that was filled while the writer passed by.
#[derive(Clone)]
struct Late {
    fs: FaultFileSystem,
    range: std::ops::Range<usize>,
    looks: Arc<AtomicU64>,
    /// From which look on the bytes are seen.
    seen_from: u64,
}

struct LateFile {
    file: Arc<dyn FileHandle>,
    late: Late,
}

impl FileSystem for Late {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.fs.create_directory(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.fs.list(directory)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.fs.create(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(LateFile { file: self.fs.open(path, access)?, late: self.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.fs.sync_directory(directory)
    }
}

impl FileHandle for LateFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buffer, offset)?;
        let range = self.late.range.clone();
        let covers = (offset as usize) < range.end && range.start < offset as usize + read;
        if covers && self.late.looks.fetch_add(1, Ordering::Relaxed) + 1 < self.late.seen_from {
            for place in range {
                if let Some(byte) = place.checked_sub(offset as usize).and_then(|index| buffer[..read].get_mut(index)) {
                    *byte = 0;
                }
            }
        }
        Ok(read)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.allocate(offset, length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[test]
fn a_frame_that_was_written_between_two_looks_is_no_damage_and_one_that_stays_away_is() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let positions: Vec<_> = (0..5).map(|index| log.append(1, &payload(index, 100)).unwrap()).collect();
    let start = positions[2].offset as usize;
    for (seen_from, damaged) in [(1, false), (2, false), (u64::MAX, true)] {
        let late = Late { fs: fs.clone(), range: start..start + 136, looks: Arc::default(), seen_from };
        let (report, seen) = look(&late, DIRECTORY.as_ref());
        assert_eq!(report.corruption.is_some(), damaged, "{report:?}");
        assert_eq!(seen.len(), if damaged { 2 } else { 5 });
    }
}

#[test]
fn segments_released_while_a_scan_reads_are_passed_over() {
    // The visitor itself drives the log on, until the file that the scan has open is written anew.
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let first = log.append(1, &payload(0, 1000)).unwrap();
    log.append(1, &payload(0, 1000)).unwrap();
    let mut next = 1;
    let mut positions = Vec::new();
    let report = scan(&fs, DIRECTORY.as_ref(), &mut |frame| {
        positions.push(frame.position);
        while positions.len() == 1 && log.end().segment < 5 {
            log.append(1, &payload(next, 1000)).unwrap();
            log.release(log.end()).unwrap();
            next += 1;
        }
        Ok(())
    })
    .unwrap();
    assert!(fs.calls(Call::Create) < 5, "the file was written anew");
    assert_eq!((report.corruption, report.end), (None, log.end()));
    assert_eq!(report.segments, log.segments());
    assert_eq!(positions[0], first);
    assert_eq!(positions.last().unwrap().segment, 5);
    assert!(positions.is_sorted());
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
        while scans < 100 || log.end().segment < 50 {
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
