//! The log: segments and frames as recovery walks them, and the entries that frames carry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_wal::fs::FileSystem;
use millpond_wal::fs::fault::FaultFileSystem;
use millpond_wal::{Frame, Log, LogOptions, OnCorruption, Position, scan};

use crate::check;
use crate::check::{comes_back, stable, watched, within};
use crate::fields::Fields;
use crate::log::entry::{BatchPlan, Block, LogEntry, SourcePlan};
use crate::plan::Plan;

const DIRECTORY: &str = "/log";
/// Windows of 1 MiB: one for each look at a segment, and one for what is written again.
const WINDOWS_BYTES: usize = 8 << 20;

/// A directory of segments.
pub(super) fn segments(input: &[u8]) {
    let mut fields = Fields(input);
    let flags = fields.u8();
    let fs = FaultFileSystem::new();
    fs.create_directory(Path::new(DIRECTORY)).expect("memory");
    let mut previous = (0, 0, 1);
    for number in 1..=3 {
        if fields.0.is_empty() {
            break;
        }
        let (bytes, end) = segment(number, previous, &mut fields);
        fs.set_contents(&path(number), &bytes);
        previous = end;
    }
    // The mark of the newest segment: of one that is there, or of one that is missing.
    if flags & 2 == 2 {
        let marked = u64::from(flags >> 2) % 5 + 1;
        fs.set_contents(&Path::new(DIRECTORY).join(format!("{marked:020}.log.newest")), b"");
    }
    walk(&fs, if flags & 1 == 1 { OnCorruption::KeepBefore } else { OnCorruption::Refuse });
}

fn path(segment: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{segment:020}.log"))
}

/// A segment: its bytes, and what the next one's header should say of it.
fn segment(
    number: u64,
    (before, before_end, sequence): (u64, u64, u64),
    fields: &mut Fields<'_>,
) -> (Vec<u8>, (u64, u64, u64)) {
    let flags = fields.u8();
    let length = usize::from(u16::from_le_bytes(fields.fixed())) % 4096;
    let mut header = [0; 64];
    if flags & 1 == 0 {
        header[..8].copy_from_slice(b"MPONDLOG");
        header[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 16, 0, 0]);
        for (at, value) in [(16, number), (24, before), (32, before_end), (40, sequence)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    } else {
        header = fields.fixed();
    }
    if flags & 2 == 0 {
        let checksum = crc32fast::hash(&header[..60]).to_le_bytes();
        header[60..].copy_from_slice(&checksum);
    }
    let mut bytes = header.to_vec();
    bytes.resize(4096, 0);
    bytes.extend_from_slice(fields.take(length));
    let mut next = sequence;
    let mut at = 4096;
    // Frames as they should be, as far as the flags say so.
    while flags & 4 == 0 && at + 32 <= bytes.len() {
        let payload = (u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize) % 512;
        let end = (at + 32 + payload).min(bytes.len());
        let payload_bytes = (end - at - 32) as u32;
        bytes[at + 4..at + 8].copy_from_slice(&payload_bytes.to_le_bytes());
        if flags & 8 == 0 {
            let checksum = crc32fast::hash(&bytes[at + 32..end]).to_le_bytes();
            bytes[at + 8..at + 12].copy_from_slice(&checksum);
        }
        if flags & 16 == 0 {
            bytes[at + 13..at + 16].fill(0);
            bytes[at + 16..at + 24].copy_from_slice(&next.to_le_bytes());
            bytes[at + 24..at + 32].copy_from_slice(&(at as u64).to_le_bytes());
        }
        let seeded = [&number.to_le_bytes()[..], &(at as u64).to_le_bytes(), &bytes[at + 4..at + 32]].concat();
        let checksum = crc32fast::hash(&seeded).to_le_bytes();
        bytes[at..at + 4].copy_from_slice(&checksum);
        next = next.wrapping_add(1);
        at += (end - at).next_multiple_of(8);
    }
    (bytes, (number, at as u64, next))
}

/// A frame as it was seen.
type Seen = (Position, u8, u64, Vec<u8>);

fn seen(frame: Frame<'_>) -> Seen {
    (frame.position, frame.kind, frame.sequence, frame.payload.to_vec())
}

fn walk(fs: &FaultFileSystem, on_corruption: OnCorruption) {
    let mut scanned = Vec::new();
    let limit = WINDOWS_BYTES + check::FACTOR * fs.used_bytes() as usize;
    let report = within(limit, &[], |_| {
        scan(fs, Path::new(DIRECTORY), &mut |frame| {
            scanned.push(seen(frame));
            Ok(())
        })
    });
    for pair in scanned.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].2 + 1 == pair[1].2, "{pair:?} follow one another");
    }
    let options = LogOptions {
        segment_bytes: 16 << 10,
        preallocate_bytes: 4 << 10,
        max_payload_bytes: 8 << 10,
        group_bytes: 8 << 10,
        queue_bytes: 64 << 10,
        on_corruption,
        ..LogOptions::default()
    };
    let open = || {
        let mut found = Vec::new();
        let mut visit = |frame: Frame<'_>| {
            found.push(seen(frame));
            Ok(())
        };
        let log = Log::open(Arc::new(fs.clone()), Path::new(DIRECTORY), options.clone(), &mut visit);
        log.map(|log| (log, found))
    };
    let Some((log, opened)) = within(limit, &[], |_| open()) else { return };
    let report = report.expect("what can be opened can be scanned");
    assert_eq!((report.frames, &opened), (scanned.len() as u64, &scanned), "opened what was scanned");
    assert!(report.corruption.is_none() || on_corruption == OnCorruption::KeepBefore);
    // What was found stays, whatever comes after it.
    let appended = log.append(7, b"appended").expect("memory");
    drop(log);
    let (_log, again) = open().expect("what was opened opens again");
    let (last, before) = again.split_last().expect("the frame that was appended");
    assert_eq!((before, last.0, last.1, &last.3[..]), (&opened[..], appended, 7, &b"appended"[..]));
}

/// The entries that frames carry.
pub(super) fn entries(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let decode = |bytes: &[u8]| LogEntry::decode(kind, bytes);
    if kind < 128 {
        if let Some(entry) = watched(bytes, decode) {
            assert_eq!(entry.kind(), kind);
            if let LogEntry::Plan(plan) = &entry {
                let _ = (plan.records(), plan.chain_from(1));
            }
        }
        return stable(bytes, decode, LogEntry::encode);
    }
    let mut fields = Fields(bytes);
    let entry = match kind % 4 {
        0 => LogEntry::Block(Block {
            source: fields.text(),
            records: fields.u64(),
            position: fields.bytes(),
            payload: fields.bytes(),
        }),
        1 => LogEntry::Plan(BatchPlan {
            first: fields.time(),
            last: fields.time(),
            sources: fields.list(|fields| SourcePlan {
                source: fields.text(),
                plan: Plan {
                    read: fields.bytes(),
                    blocks: fields.list(Fields::block),
                    positions: fields.list(Fields::position),
                    records: fields.u64(),
                    watermark_ms: fields.list(Fields::u64).pop(),
                },
            }),
            chain: fields.u64(),
        }),
        2 => LogEntry::Run(fields.fixed()),
        _ => LogEntry::SinkIntroduced(fields.text()),
    };
    comes_back(&entry, |bytes| LogEntry::decode(entry.kind(), bytes), LogEntry::encode);
}
