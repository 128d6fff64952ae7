//! The engine: planning, cursors, recovery, and the threads that carry them out.
//!
//! `machine` decides, `rules` judge what recovery finds; neither touches a clock, a file or a
//! thread. `driver` is the thread that owns them and carries commands out: sources and log by
//! itself, computing, committing and writing through the threads in `workers` and `committer`.

mod actor;
mod commands;
mod committer;
mod context;
mod directory;
mod driver;
#[cfg(test)]
mod formats_tests;
mod machine;
pub(crate) mod manifest;
mod meters;
pub(crate) mod note;
mod observe;
pub(crate) mod plans;
mod recover;
pub(crate) mod rules;
mod running;
pub(crate) mod savepoint;
mod settings;
mod simulated;
mod start;
mod status;
mod totals;
mod workers;

pub(crate) use directory::SHARDS;

pub use context::{Builder, StreamingContext};
pub use running::Running;
pub use status::{ContextState, Progress};

use crate::time::BatchTime;

/// A batch, or a stretch of batches of which only the first has input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchTimes {
    pub(crate) first: BatchTime,
    pub(crate) last: BatchTime,
    pub(crate) interval_ms: u64,
}
