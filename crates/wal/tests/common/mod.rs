//! What several tests of the log need.
#![allow(dead_code, reason = "each test uses some of it")]

use std::path::Path;
use std::sync::Arc;

use millpond_wal::fs::FileSystem;
use millpond_wal::fs::fault::FaultFileSystem;
use millpond_wal::{Log, LogOptions, Position, Result};

/// Where the log stands in a file system in memory.
pub(crate) const DIRECTORY: &str = "/log";

/// A frame as a test keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) position: Position,
    pub(crate) kind: u8,
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

/// Segments of 16 KiB: a few frames fill one.
pub(crate) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        preallocate_bytes: 4 << 10,
        max_payload_bytes: 8 << 10,
        group_bytes: 8 << 10,
        queue_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

/// Opens a log and returns what it handed out.
pub(crate) fn open_on(fs: Arc<dyn FileSystem>, directory: &Path, options: LogOptions) -> Result<(Log, Vec<Seen>)> {
    let mut seen = Vec::new();
    let log = Log::open(fs, directory, options, &mut |frame| {
        seen.push(Seen {
            position: frame.position,
            kind: frame.kind,
            sequence: frame.sequence,
            payload: frame.payload.to_vec(),
        });
        Ok(())
    })?;
    Ok((log, seen))
}

/// Opens the log in memory with small segments.
pub(crate) fn open(fs: &FaultFileSystem) -> Result<(Log, Vec<Seen>)> {
    open_on(Arc::new(fs.clone()), Path::new(DIRECTORY), small())
}

/// The payloads alone.
pub(crate) fn payloads(seen: &[Seen]) -> Vec<&[u8]> {
    seen.iter().map(|frame| frame.payload.as_slice()).collect()
}

/// The path of a segment in memory.
pub(crate) fn segment_path(segment: u64) -> std::path::PathBuf {
    Path::new(DIRECTORY).join(format!("{segment:020}.log"))
}

/// A payload of this length that differs from its neighbours everywhere.
pub(crate) fn payload(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| (seed * 31 + index * 7 + index / 256) as u8).collect()
}

/// Turns one bit of a file over, durably.
pub(crate) fn flip(fs: &FaultFileSystem, path: &Path, offset: u64) {
    let mut bytes = fs.contents(path);
    bytes[offset as usize] ^= 0x10;
    fs.set_contents(path, &bytes);
}

/// Cuts a file off, durably.
pub(crate) fn cut(fs: &FaultFileSystem, path: &Path, length: u64) {
    let mut bytes = fs.contents(path);
    bytes.truncate(length as usize);
    fs.set_contents(path, &bytes);
}

/// What a log that must not open says.
pub(crate) fn open_error(fs: &FaultFileSystem) -> millpond_wal::Error {
    open(fs).err().expect("a damaged log does not open")
}

/// Ten frames of 100 bytes, each synced by itself, in one segment; the log is closed.
pub(crate) fn ten_frames(fs: &FaultFileSystem) -> Vec<Position> {
    let (log, _) = open(fs).unwrap();
    (0..10).map(|index| log.append(1, &payload(index, 100)).unwrap()).collect()
}

/// The payloads of `ten_frames`.
pub(crate) fn expected(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| payload(index, 100)).collect()
}
