//! Which bytes may be missing and which may not: the torn end of the log, and damage.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{
    DIRECTORY, cut, expected, flip, open, open_error, open_on, payload, payloads, segment_path, small, ten_frames,
};
use millpond_wal::fs::FileSystem;
use millpond_wal::fs::fault::{FaultFileSystem, Keep};
use millpond_wal::{ErrorKind, Log, LogOptions, OnCorruption, scan};

#[test]
fn n3_garbage_behind_the_last_frame_hides_nothing() {
    let fs = FaultFileSystem::new();
    let positions = ten_frames(&fs);
    let path = segment_path(1);
    let mut bytes = fs.contents(&path);
    let end = positions[9].offset as usize + 32 + 104;
    for (index, byte) in bytes[end..].iter_mut().enumerate() {
        *byte = (index * 131 + 7) as u8;
    }
    fs.set_contents(&path, &bytes);
    assert_eq!(payloads(&open(&fs).unwrap().1), expected(10));
}

#[test]
fn n3_a_segment_cut_inside_its_last_frame_loses_that_one_only() {
    for missing in [1, 50, 104, 120, 135] {
        let fs = FaultFileSystem::new();
        let positions = ten_frames(&fs);
        cut(&fs, &segment_path(1), positions[9].offset + 136 - missing);
        let (log, seen) = open(&fs).unwrap();
        assert_eq!(payloads(&seen), expected(9), "{missing} bytes missing");
        assert_eq!(log.end(), positions[9]);
    }
}

#[test]
fn n3_a_segment_cut_in_its_zeros_loses_nothing() {
    let fs = FaultFileSystem::new();
    let positions = ten_frames(&fs);
    for length in [positions[9].offset + 200, positions[9].offset + 136] {
        cut(&fs, &segment_path(1), length);
        assert_eq!(payloads(&open(&fs).unwrap().1), expected(10));
    }
}

#[test]
fn n12_a_flipped_byte_in_the_middle_is_reported_with_segment_and_offset() {
    for within in [0, 5, 12, 17, 25, 32, 131] {
        let fs = FaultFileSystem::new();
        let positions = ten_frames(&fs);
        flip(&fs, &segment_path(1), positions[4].offset + within);
        let error = open_error(&fs);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let place = format!("segment 1 offset {}", positions[4].offset);
        assert!(error.to_string().contains(&place), "byte {within}: {error}");
        assert!(error.to_string().contains("00000000000000000001.log"), "{error}");
    }
}

#[test]
fn n12_a_flipped_byte_in_an_older_segment_is_reported() {
    let fs = FaultFileSystem::new();
    let positions = ten_frames(&fs);
    let (log, _) = open(&fs).unwrap();
    log.append(1, b"a second segment").unwrap();
    drop(log);
    // Its last frame: within the segment nothing would prove that it was synced, but the next segment says so.
    flip(&fs, &segment_path(1), positions[9].offset + 40);
    let error = open_error(&fs);
    assert!(error.to_string().contains(&format!("segment 1 offset {}", positions[9].offset)), "{error}");
}

#[test]
fn n12_a_damaged_segment_header_and_a_missing_or_shortened_segment_are_reported() {
    let three_segments = || {
        let fs = FaultFileSystem::new();
        for index in 0..3 {
            open(&fs).unwrap().0.append(1, &payload(index, 100)).unwrap();
        }
        fs
    };
    let fs = three_segments();
    flip(&fs, &segment_path(2), 20);
    assert!(open_error(&fs).to_string().contains("segment 2 offset 0"));

    let fs = three_segments();
    fs.remove(&segment_path(2)).unwrap();
    let error = open_error(&fs).to_string();
    assert!(error.contains("segment 3 offset 0") && error.contains("follows segment 2, which is missing"), "{error}");

    let fs = three_segments();
    cut(&fs, &segment_path(2), 4100);
    let error = open_error(&fs).to_string();
    assert!(error.contains("segment 2 offset 4100"), "{error}");

    let fs = three_segments();
    fs.set_contents(&segment_path(3), b"");
    assert!(open_error(&fs).to_string().contains("segment 3 offset 0"));

    let fs = three_segments();
    fs.set_contents(&segment_path(3), &[b'x'; 5000]);
    assert!(open_error(&fs).to_string().contains("does not begin as a segment"));
}

#[test]
fn n12_nothing_behind_damage_is_delivered_and_the_operator_can_keep_what_is_before_it() {
    let fs = FaultFileSystem::new();
    let positions = ten_frames(&fs);
    for index in 10..12 {
        open(&fs).unwrap().0.append(1, &payload(index, 100)).unwrap();
    }
    flip(&fs, &segment_path(1), positions[4].offset + 40);

    let mut seen = 0;
    let refused = Log::open(Arc::new(fs.clone()), DIRECTORY.as_ref(), small(), &mut |_| {
        seen += 1;
        Ok(())
    });
    assert!(refused.is_err());
    assert_eq!(seen, 4);

    let keep = LogOptions { on_corruption: OnCorruption::KeepBefore, ..small() };
    let (log, seen) = open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), keep.clone()).unwrap();
    assert_eq!(payloads(&seen), expected(4));
    let recovery = log.recovery().clone();
    assert_eq!(recovery.given_up.unwrap().offset, positions[4].offset);
    assert_eq!(recovery.discarded.len(), 2);
    assert!(recovery.discarded[0].to_str().unwrap().ends_with("00000000000000000003.log.discarded"));
    log.append(1, &payload(4, 100)).unwrap();
    drop(log);

    // The decision is durable: the next opening needs no operator, and gives up nothing more.
    fs.crash(Keep::Synced);
    let (log, seen) = open(&fs).unwrap();
    assert_eq!(payloads(&seen), expected(5));
    assert_eq!(seen[4].sequence, 5);
    assert_eq!((log.recovery().given_up.clone(), seen[4].position.segment), (None, 4));
    drop(log);
    let (_, again) = open_on(Arc::new(fs), Path::new(DIRECTORY), keep).unwrap();
    assert_eq!(again, seen);
}

#[test]
fn n12_keeping_what_is_before_a_damaged_first_header_keeps_nothing_and_starts_anew() {
    let fs = FaultFileSystem::new();
    ten_frames(&fs);
    flip(&fs, &segment_path(1), 3);
    let keep = LogOptions { on_corruption: OnCorruption::KeepBefore, ..small() };
    let (log, seen) = open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), keep).unwrap();
    assert_eq!(seen, []);
    assert_eq!(log.append(1, b"new").unwrap().segment, 2);
    drop(log);
    assert_eq!(payloads(&open(&fs).unwrap().1), [b"new"]);
}

/// Three segments of one frame each, and where those stand; the newest file is gone, its content is returned.
fn without_the_newest(fs: &FaultFileSystem) -> Vec<u8> {
    for index in 0..3 {
        open(fs).unwrap().0.append(1, &payload(index, 100)).unwrap();
    }
    let newest = fs.contents(&segment_path(3));
    fs.remove(&segment_path(3)).unwrap();
    newest
}

#[test]
fn a_log_that_has_lost_its_newest_segment_is_refused_until_it_is_there_again() {
    let fs = FaultFileSystem::new();
    let newest = without_the_newest(&fs);
    for _ in 0..2 {
        let error = open_error(&fs);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        for part in ["segment 3 offset 0", "00000000000000000003.log", "missing", "KeepBefore"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let report = scan(&fs, DIRECTORY.as_ref(), &mut |_| Ok(())).unwrap();
    assert_eq!((report.frames, report.corruption.unwrap().segment), (2, 3));

    fs.set_contents(&segment_path(3), &newest);
    assert_eq!(payloads(&open(&fs).unwrap().1), expected(3));
}

#[test]
fn a_log_that_has_lost_its_newest_segment_goes_on_without_it_on_the_operators_word() {
    let fs = FaultFileSystem::new();
    without_the_newest(&fs);
    let keep = LogOptions { on_corruption: OnCorruption::KeepBefore, ..small() };
    let (log, seen) = open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), keep).unwrap();
    assert_eq!(payloads(&seen), expected(2));
    assert_eq!(log.recovery().given_up.clone().unwrap().path, segment_path(3));
    assert_eq!(log.append(1, &payload(2, 100)).unwrap().segment, 4, "no number is used twice");
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), expected(3));
}

#[test]
fn a_log_that_has_lost_its_only_segment_is_refused() {
    let fs = FaultFileSystem::new();
    ten_frames(&fs);
    fs.remove(&segment_path(1)).unwrap();
    let error = open_error(&fs).to_string();
    assert!(error.contains("segment 1 offset 0") && error.contains("missing"), "{error}");
}

#[test]
fn a_log_without_a_mark_of_its_newest_segment_opens_and_gets_one() {
    let fs = FaultFileSystem::new();
    ten_frames(&fs);
    let mark = Path::new(DIRECTORY).join("00000000000000000001.log.newest");
    fs.remove(&mark).unwrap();
    assert_eq!(open(&fs).unwrap().1.len(), 10);
    fs.crash(Keep::Synced);
    fs.remove(&segment_path(1)).unwrap();
    assert_eq!(open_error(&fs).kind(), ErrorKind::Corrupt);
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let fs = FaultFileSystem::new();
    ten_frames(&fs);
    let mut bytes = fs.contents(&segment_path(1));
    bytes[8] = 2;
    fs.set_contents(&segment_path(1), &bytes);
    let error = open_error(&fs);
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn foreign_files_are_left_alone() {
    let fs = FaultFileSystem::new();
    ten_frames(&fs);
    let foreign: Vec<PathBuf> = ["LOCK", "notes.txt", "1.log"].map(|name| Path::new(DIRECTORY).join(name)).into();
    for path in &foreign {
        fs.set_contents(path, b"not ours");
    }
    assert_eq!(open(&fs).unwrap().1.len(), 10);
    for path in &foreign {
        assert_eq!(fs.contents(path), b"not ours");
    }
}
