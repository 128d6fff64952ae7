//! A durable log of bytes: segments, frames, group commit, recovery, cleaning. It knows no stream.
//!
//! [`Log::append`] returns when the frame is on disk; appends of several threads share one sync. After a crash [`Log::open`] hands every frame
//! out again, in order, up to the valid end, and tells a torn end (what was never promised is gone) from damage (what was promised is
//! gone), which it reports with segment and offset. [`Log::release`] lets go of what is no longer needed, [`scan`] looks at the log of a
//! process that lives or has died, and [`DirectoryLock`] keeps a second one away.
//!
//! What it relies on: `fdatasync` means what it says, and a sector that is written again with the same bytes in its first part
//! keeps them. The bytes on disk are drawn in `docs/formats-log.md`.
//!
//! # Failpoints
//! With the feature `failpoints`, the `fail` crate's points have these names:
//!
//! | name | where |
//! |---|---|
//! | `log-appended` | the bytes of a group are written, not yet synced |
//! | `log-synced` | they are synced, nobody has been told |
//! | `log-segment-created` | a segment has its name, durably; no frame is in it |
//! | `log-segment-deleted` | a released segment is gone or renamed, durably |
//!
//! With the feature `negative-controls`, which builds with debug assertions only, `break-log-skip-sync`, set to `return`, leaves groups
//! unsynced, and `break-directory-not-synced` directories.

mod commit;
mod controls;
mod directory;
mod error;
mod format;
pub mod fs;
mod lock;
mod log;
mod newest;
mod options;
mod position;
mod queue;
mod reader;
mod recovery;
mod scan;
mod shelf;
mod walk;
mod writer;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use lock::DirectoryLock;
pub use log::Log;
pub use options::{LogOptions, OnCorruption};
pub use position::{Frame, Position, SegmentInfo};
pub use recovery::Recovery;
pub use scan::{ScanReport, scan};
pub use walk::Corruption;

/// The names of the failpoints, in one place.
#[cfg_attr(not(feature = "failpoints"), allow(dead_code, reason = "the macro drops them"))]
mod failpoints {
    pub(crate) const APPENDED: &str = "log-appended";
    pub(crate) const SYNCED: &str = "log-synced";
    pub(crate) const SEGMENT_CREATED: &str = "log-segment-created";
    pub(crate) const SEGMENT_DELETED: &str = "log-segment-deleted";
}
