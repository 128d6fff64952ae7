//! Reads a log without opening it: for tools that look at the directory of a process that lives or has died.

use std::path::Path;

use crate::directory;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::fs::FileSystem;
use crate::newest;
use crate::position::{Frame, Position, SegmentInfo};
use crate::walk::{Chain, Corruption, Walk};

/// How often what changed under our hands is read again: the directory of a live log moves.
const ATTEMPTS: usize = 5;

/// What [`scan`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanReport {
    /// The segments, oldest first; one that is damaged ends where the damage begins, those behind it are left out.
    pub segments: Vec<SegmentInfo>,
    /// Where the log ended when the scan got there.
    pub end: Position,
    /// How many frames were visited.
    pub frames: u64,
    /// How many bytes of payload they had.
    pub payload_bytes: u64,
    /// Where the log is damaged; the scan stopped there.
    pub corruption: Option<Corruption>,
}

/// Checks every checksum of the log in `directory` and hands its frames to `visit`, without writing anything.
///
/// The log may be in use: what is appended or released meanwhile may be seen or not, and neither this nor the moving end is
/// taken for damage. Damage is no error here, it stands in the report.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if the directory or a file cannot be read, [`NewerFormat`](ErrorKind::NewerFormat),
/// [`Visitor`](ErrorKind::Visitor) with the error of `visit`, and [`Busy`](ErrorKind::Busy) if segments are released faster than they can be read.
pub fn scan(
    fs: &dyn FileSystem,
    directory: &Path,
    visit: &mut dyn FnMut(Frame<'_>) -> std::result::Result<(), BoxError>,
) -> Result<ScanReport> {
    let mut past = 0;
    let (mut frames, mut payload_bytes) = (0, 0);
    for _ in 0..ATTEMPTS {
        let chain = chain_after(fs, directory, past)?;
        past = chain.links.last().map_or(past, |newest| newest.header.segment);
        let walk = Walk::run(fs, &chain, visit)?;
        frames += walk.frames;
        payload_bytes += walk.payload_bytes;
        if !walk.overtaken {
            let (end, segments, corruption) = (walk.end(), walk.segments, walk.damage);
            return Ok(ScanReport { segments, end, frames, payload_bytes, corruption });
        }
    }
    let message = format!("the log in {} is released faster than it can be read", directory.display());
    Err(Error::new(ErrorKind::Busy, message))
}

/// The segments with larger numbers. A list that does not fit together is read again: it was read while the directory changed.
fn chain_after(fs: &dyn FileSystem, directory: &Path, past: u64) -> Result<Chain> {
    let read = || {
        let files = directory::list(fs, directory)?;
        let mut segments = directory::segments(&files);
        segments.retain(|segment| *segment > past);
        let marked = newest::marked(&files).filter(|marked| *marked > past);
        Chain::read(fs, directory, &segments, marked)
    };
    for _ in 1..ATTEMPTS {
        let chain = read()?;
        if chain.damage.is_none() {
            return Ok(chain);
        }
    }
    read()
}
