//! Holds docs/formats-log.md and the code together: a log written by hand from the page, and the bytes that the code writes.
//!
//! Nothing here uses the crate's own encoders, and the checksum is computed from its definition.

mod common;

use std::path::Path;

use common::{DIRECTORY, Seen, open, segment_path};
use millpond_wal::Position;
use millpond_wal::fs::FileSystem;
use millpond_wal::fs::fault::FaultFileSystem;

/// The CRC-32 of zlib and PNG, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn segment_header(segment: u64, predecessor: u64, predecessor_end: u64, first_sequence: u64) -> Vec<u8> {
    let mut bytes = b"MPONDLOG".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(4096_u32.to_le_bytes());
    bytes.extend(segment.to_le_bytes());
    bytes.extend(predecessor.to_le_bytes());
    bytes.extend(predecessor_end.to_le_bytes());
    bytes.extend(first_sequence.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(crc32(&bytes).to_le_bytes());
    bytes.resize(4096, 0);
    bytes
}

fn frame(place: (u64, u64), kind: u8, sequence: u64, known_synced: u64, payload: &[u8]) -> Vec<u8> {
    let mut rest = (payload.len() as u32).to_le_bytes().to_vec();
    rest.extend(crc32(payload).to_le_bytes());
    rest.extend([kind, 0, 0, 0]);
    rest.extend(sequence.to_le_bytes());
    rest.extend(known_synced.to_le_bytes());
    let (segment, offset) = place;
    let seeded = [&segment.to_le_bytes()[..], &offset.to_le_bytes(), &rest].concat();
    assert_eq!(seeded.len(), 44);
    let mut bytes = [&crc32(&seeded).to_le_bytes()[..], &rest, payload].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Two segments: the first has a torn end, the second a group of two frames.
fn by_hand() -> (Vec<u8>, Vec<u8>, Vec<Seen>) {
    let mut first = segment_header(1, 0, 0, 1);
    first.extend(frame((1, 4096), 7, 1, 4096, b"hello"));
    assert_eq!(first.len(), 4136);
    first.extend(frame((1, 4136), 0, 2, 4136, b""));
    assert_eq!(first.len(), 4168);
    let mut torn = frame((1, 4168), 9, 3, 4168, b"never synced");
    torn[33] ^= 1;
    first.extend(torn);
    first.resize(8192, 0);

    let mut second = segment_header(2, 1, 4168, 3);
    second.extend(frame((2, 4096), 255, 3, 4096, b"12345678"));
    second.extend(frame((2, 4136), 1, 4, 4096, b"the same group"));
    second.resize(16384, 0);

    let seen = |segment, offset, kind, sequence, payload: &[u8]| Seen {
        position: Position { segment, offset },
        kind,
        sequence,
        payload: payload.to_vec(),
    };
    let expected = vec![
        seen(1, 4096, 7, 1, b"hello"),
        seen(1, 4136, 0, 2, b""),
        seen(2, 4096, 255, 3, b"12345678"),
        seen(2, 4136, 1, 4, b"the same group"),
    ];
    (first, second, expected)
}

#[test]
fn the_checksum_is_the_one_of_the_page() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn a_log_written_by_hand_is_read() {
    let (first, second, expected) = by_hand();
    let fs = FaultFileSystem::new();
    fs.create_directory(Path::new(DIRECTORY)).unwrap();
    fs.set_contents(&segment_path(1), &first);
    fs.set_contents(&segment_path(2), &second);
    let (log, seen) = open(&fs).unwrap();
    assert_eq!(seen, expected);
    assert_eq!(log.end(), Position { segment: 2, offset: 4184 });

    // What the code goes on with is what the page says.
    let position = log.append(3, b"next").unwrap();
    assert_eq!(position, Position { segment: 3, offset: 4096 });
    let written = fs.contents(&segment_path(3));
    let expected = [segment_header(3, 2, 4184, 5), frame((3, 4096), 3, 5, 4096, b"next")].concat();
    assert_eq!(written[..expected.len()], expected);
    assert!(written[expected.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_frame_with_another_sequence_than_the_one_due_ends_the_log() {
    for (sequence, frames) in [(2, 2), (1, 1), (3, 1)] {
        let mut bytes = segment_header(1, 0, 0, 1);
        bytes.extend(frame((1, 4096), 7, 1, 4096, b"hello"));
        bytes.extend(frame((1, 4136), 7, sequence, 4136, b"world"));
        let fs = FaultFileSystem::new();
        fs.create_directory(Path::new(DIRECTORY)).unwrap();
        fs.set_contents(&segment_path(1), &bytes);
        assert_eq!(open(&fs).unwrap().1.len(), frames, "sequence {sequence}");
    }
}

#[test]
fn the_code_writes_what_the_page_says() {
    let (first, _, _) = by_hand();
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    log.append(7, b"hello").unwrap();
    log.append(0, b"").unwrap();
    assert_eq!(fs.contents(&segment_path(1))[..4168], first[..4168]);
    log.append_all(&[(1, b"one"), (2, b"a group")]).unwrap();
    let group = [frame((1, 4168), 1, 3, 4168, b"one"), frame((1, 4208), 2, 4, 4168, b"a group")].concat();
    assert_eq!(fs.contents(&segment_path(1))[4168..4168 + group.len()], group);
}

#[test]
fn positions_have_sixteen_bytes_that_sort_as_they_do() {
    let position = Position { segment: 0x0102_0304_0506_0708, offset: 0x1112_1314_1516_1718 };
    let bytes = position.to_bytes();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    assert_eq!(Position::from_bytes(bytes), position);
    let positions = [(0, 0), (1, 300), (1, 4096), (2, 0), (256, 1)];
    let bytes = positions.map(|(segment, offset)| Position { segment, offset }.to_bytes());
    assert!(bytes.is_sorted());
}
