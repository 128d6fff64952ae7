//! What must come of a failing call, written down before it is tried.

use std::path::Path;

use super::life::{Answer, Seen};
use super::moment::{Failure, Kind, Phase};
use crate::{Finding, Result};

/// What must come of a failing call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The process goes on by itself.
    GoesOn,
    /// The process stops with an error that names the path, and the next start goes on.
    Stops,
    /// One or the other.
    Either,
}

/// What must come of it.
///
/// Before a process is live there is nobody to lose anything: the start may be refused. Then:
/// - the log is waited for when it has no room. After a failed sync nobody knows what is on the disk: it is poisoned, and the process stops.
///   So it does after a failed write, unless that was one of zeros ahead, which is tried again. Where segments are released, or the process
///   stops anyway, no append may come any more that would find the log poisoned;
/// - all else is recovered from inside of the process, or tried again, or was not needed;
/// - where there is no room any more, a few recoveries fail as well, and then the process stops, unless there is room again before.
pub fn expected(failure: Failure, kind: Kind, phase: Phase) -> Expected {
    match (phase, failure, kind) {
        (Phase::Start, ..) | (_, Failure::NoMoreRoom, _) | (_, Failure::Change, Kind::Segment) => Expected::Either,
        (Phase::Live, Failure::Sync, Kind::Segment) => Expected::Stops,
        (_, Failure::Sync, Kind::Segment | Kind::LogDirectory) => Expected::Either,
        // It is opened to be synced.
        (_, Failure::Read, Kind::LogDirectory) => Expected::Either,
        _ => Expected::GoesOn,
    }
}

/// Whether what was seen was expected, and the error of a process that has stopped is one that helps.
pub(super) fn check(failure: Failure, seen: &Seen) -> Result<()> {
    let expected = expected(failure, seen.kind, seen.phase);
    let wrong = |why: &str| Err(Finding::new(format!("{failure:?}, {why}; expected {expected:?}, seen {seen:?}")));
    match &seen.answer {
        Answer::WentOn if expected == Expected::Stops => wrong("it has gone on"),
        Answer::Stopped(_) if expected == Expected::GoesOn => wrong("it has stopped"),
        Answer::Stopped(said) if !tells(said, failure) => wrong("the error does not say what the system said"),
        Answer::Stopped(said) if !names(said, seen) => wrong("the error does not name the path"),
        _ => Ok(()),
    }
}

fn tells(said: &str, failure: Failure) -> bool {
    // When RocksDB cannot open its file CURRENT, it takes that for this, and says no more.
    const CURRENT: &str = "Direct I/O is not supported by the specified DB";
    said.contains(failure.words()) || failure == Failure::Read && said.contains(CURRENT)
}

/// Whether the words name the path, its name, or the directory that it is in. Where there is no room at all, what stopped the process may have
/// been a later call.
fn names(said: &str, seen: &Seen) -> bool {
    let named = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let known = path.ancestors().take(2).any(|path| said.contains(&*path.to_string_lossy()));
        known || name.len() > 8 && said.contains(&*name)
    };
    seen.paths.iter().any(|path| named(path))
}
