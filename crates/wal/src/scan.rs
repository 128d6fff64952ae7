//! Reads a log without opening it: for tools that look at the directory of a process that lives or has died.

use std::path::Path;

use crate::directory;
use crate::error::{BoxError, Result};
use crate::fs::FileSystem;
use crate::position::{Frame, Position, SegmentInfo};
use crate::walk::{Chain, Corruption, Walk};

/// How often a list of segments that does not fit together is read again: the directory of a live log changes.
const LISTINGS: usize = 5;

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
/// [`Io`](crate::ErrorKind::Io) if the directory or a file cannot be read, [`NewerFormat`](crate::ErrorKind::NewerFormat),
/// and [`Visitor`](crate::ErrorKind::Visitor) with the error of `visit`.
pub fn scan(
    fs: &dyn FileSystem,
    directory: &Path,
    visit: &mut dyn FnMut(Frame<'_>) -> std::result::Result<(), BoxError>,
) -> Result<ScanReport> {
    let read_chain = || Chain::read(fs, directory, &directory::segments(&directory::list(fs, directory)?));
    let mut chain = read_chain()?;
    for _ in 1..LISTINGS {
        if chain.damage.is_none() {
            break;
        }
        chain = read_chain()?;
    }
    let walk = Walk::run(fs, &chain, visit)?;
    Ok(ScanReport {
        end: walk.end(),
        segments: walk.segments,
        frames: walk.frames,
        payload_bytes: walk.payload_bytes,
        corruption: walk.damage,
    })
}
