//! The log of a directory, read as recovery reads it.

use std::fs;

use millpond_wal::fs::DiskFileSystem;
use millpond_wal::{Frame, scan};

use super::place::Place;
use super::report::{InspectedLog, InspectedSegment};
use crate::engine::manifest::Manifest;
use crate::engine::plans::LogState;
use crate::error::{Error, Result};
use crate::log::LogEntry;
use crate::source::BlockId;

/// What was found.
pub(super) struct FoundLog {
    pub(super) report: InspectedLog,
    pub(super) state: LogState,
    pub(super) problems: Vec<String>,
}

/// Reads the log to its end, or to where it is damaged.
pub(super) fn read(place: &Place, newest: &Manifest) -> Result<FoundLog> {
    let mut found = FoundLog { report: InspectedLog::default(), state: LogState::default(), problems: Vec::new() };
    let path = place.log();
    if !path.is_dir() {
        // A directory whose first start has not come to its log.
        return Ok(found);
    }
    let FoundLog { report, state, problems } = &mut found;
    let mut visit = |frame: Frame<'_>| {
        match LogEntry::decode(frame.kind, frame.payload) {
            Ok(entry) => {
                match entry {
                    LogEntry::Plan(_) => report.plans += 1,
                    LogEntry::Block(_) => report.blocks += 1,
                    LogEntry::Run(_) => report.runs += 1,
                    LogEntry::SinkIntroduced(_) => {}
                }
                state.read(BlockId(frame.position.to_bytes()), entry, newest.batch);
            }
            Err(error) => problems.push(format!("the log at {}: {error}", frame.position)),
        }
        Ok(())
    };
    let scanned = scan(&DiskFileSystem, &path, &mut visit)?;
    report.unplanned_blocks = state.unplanned.len() as u64;
    report.entries = scanned.frames;
    report.payload_bytes = scanned.payload_bytes;
    let segment = |segment: &millpond_wal::SegmentInfo| InspectedSegment {
        segment: segment.segment,
        used_bytes: segment.end_offset,
        file_bytes: segment.file_bytes,
    };
    report.segments = scanned.segments.iter().map(segment).collect();
    report.file_bytes = file_bytes(place)?;
    report.corruption = scanned.corruption.map(|corruption| corruption.to_string());
    problems.extend(report.corruption.clone());
    Ok(found)
}

/// Bytes of all files of the log; of a live one some may go meanwhile.
fn file_bytes(place: &Place) -> Result<u64> {
    let path = place.log();
    let entries = fs::read_dir(&path)
        .map_err(|error| Error::configuration(format!("cannot list {}", path.display())).with_source(error))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum())
}
