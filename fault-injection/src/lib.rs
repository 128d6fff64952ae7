//! Kills Millpond's processes with SIGKILL, at named points and at random, and says whether readers saw every result exactly
//! once.
//!
//! A [`Lineage`] is one directory of an application and the processes that have it one after the other. A process is this very
//! program, started again as a [`victim`]: it runs one of the pipelines, with failpoints armed from its environment. A
//! [`World`] stands around it: it gives input, and knows what readers must see ([`files`], [`kafka`]). [`points`] lists the
//! failpoints, [`sweep`] goes through them, `random` kills at any time.

pub mod files;
pub mod kafka;
mod lineage;
pub mod points;
mod random;
mod state;
mod sweep;
pub mod victim;
mod words;

use std::fmt;

pub use lineage::{Ended, Lineage, Process};
pub use random::{Dice, kill_at_random};
pub use state::stored_counts;
pub use sweep::{kill_at, sweep};
pub use words::Words;

/// What goes on around a pipeline: who gives it input, and who reads its output.
pub trait World {
    /// Gives more input, enough for a few batches.
    fn feed(&mut self) -> Result<()>;

    /// Looks at what readers see now: nothing that was seen before may have changed or gone.
    fn look(&mut self) -> Result<()>;

    /// Whether all input has come out again, as far as that can be told without judging it.
    fn is_complete(&mut self) -> Result<bool>;

    /// Reads everything once more from the beginning and compares it with what the input demands, and the state in the newest
    /// checkpoint with a fold over the input.
    fn judge(&mut self) -> Result<()>;
}

/// What a harness found: a broken promise, or that it could not look.
#[derive(Debug)]
pub struct Finding(String);

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Finding>;

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>) -> Self {
        Finding(what.into())
    }

    /// Says where it was found.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Finding(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Finding {}

impl From<std::io::Error> for Finding {
    fn from(error: std::io::Error) -> Self {
        Finding(error.to_string())
    }
}

impl From<millpond_testkit::Error> for Finding {
    fn from(error: millpond_testkit::Error) -> Self {
        Finding(error.to_string())
    }
}

impl From<millpond_state::Error> for Finding {
    fn from(error: millpond_state::Error) -> Self {
        Finding(error.to_string())
    }
}

/// Turns what an oracle says into a finding.
fn demand(violations: &millpond_testkit::oracle::Violations) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { Err(Finding::new(violations.to_string())) }
}
