//! Chaos for a pipeline of one's own: its real process is killed, frozen, doubled and cut off, again and again, and at the end an
//! oracle says whether readers saw every result exactly once.
//!
//! A [`Lineage`] is one directory of an application and the processes that have it one after the other. A [`World`] stands around
//! it: it gives input, and knows what readers must see. Everything random comes from a [`Dice`], whose seed can be printed.
//!
//! The faults are in [`faults`]; with the feature `disk` there are also faults of the disk and the clock and power failures
//! (`faults::of_disk`, module `disk`).
//!
//! What the program under test has to do: say `ready` on stderr when it is live
//! (`run_until_signal_with(|_| eprintln!("ready"))`), stop gracefully at SIGTERM with status 0, end with status 1 and an error in
//! words otherwise; to be killed at failpoints, be built with the feature `failpoints` of `millpond` and call
//! [`millpond::failpoints::arm_from_env`] first of all.

mod dice;
#[cfg(feature = "disk")]
pub mod disk;
mod fault;
pub mod faults;
#[cfg(feature = "disk")]
mod faults_disk;
mod faults_kafka;
mod invariants;
mod kill;
mod launch;
mod lineage;
mod process;
mod proxy;
mod report;
mod run;
mod soak;
mod tally;
mod topics;

use std::fmt;

pub use dice::Dice;
pub use fault::{Expected, Fault, Needs, Scene, Seen};
pub use invariants::{Invariants, check_cursors, check_settled};
pub use kill::{Point, kill_at, kill_at_random, sweep};
pub use launch::Launch;
pub use lineage::Lineage;
pub use process::{Ended, LIMIT, Process, wait_until};
pub use proxy::{Proxy, Request};
pub use report::{Control, FoundWhere, Recovery, Report, Sample, Soak, VictimReport};
pub use run::Chaos;
pub use soak::soak;
pub use tally::Tally;

/// What goes on around a pipeline: who gives it input, and who reads its output.
pub trait World {
    /// Gives more input, enough for a few batches.
    ///
    /// # Errors
    /// It could not.
    fn feed(&mut self) -> Result<()>;

    /// Looks at what readers see now: nothing that was seen before may have changed or gone.
    ///
    /// # Errors
    /// What was found.
    fn look(&mut self) -> Result<()>;

    /// Whether all input has come out again, as far as that can be told without judging it.
    ///
    /// # Errors
    /// What was found.
    fn is_complete(&mut self) -> Result<bool>;

    /// Reads everything once more from the beginning and compares it with what the input demands, and the state in the newest
    /// checkpoint with a fold over the input.
    ///
    /// # Errors
    /// What was found.
    fn judge(&mut self) -> Result<()>;

    /// How many results the last [`judge`](World::judge) looked at. Default: 0.
    fn judged(&self) -> u64 {
        0
    }
}

/// What was found: a broken promise, or that it could not be looked.
#[derive(Debug)]
pub struct Finding {
    what: String,
    duplicates: u64,
    losses: u64,
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Finding>;

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>) -> Self {
        Finding { what: what.into(), duplicates: 0, losses: 0 }
    }

    /// Says how many results were seen twice, or came of no input, and how many are missing.
    #[must_use]
    pub fn counting(self, duplicates: u64, losses: u64) -> Self {
        Finding { duplicates, losses, ..self }
    }

    /// Results seen twice, and results missing, as far as they were counted.
    pub fn counts(&self) -> (u64, u64) {
        (self.duplicates, self.losses)
    }

    /// Says where it was found.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Finding { what: format!("{place}: {}", self.what), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Finding {}

macro_rules! finding_of {
    ($($error:ty),*) => {
        $(impl From<$error> for Finding {
            fn from(error: $error) -> Self {
                Finding::new(error.to_string())
            }
        })*
    };
}
finding_of!(std::io::Error, crate::Error, millpond_state::Error, millpond::Error, serde_json::Error);

/// Turns what an oracle says into a finding.
///
/// # Errors
/// There are violations.
pub fn demand(violations: &crate::oracle::Violations) -> Result<()> {
    match violations.is_empty() {
        true => Ok(()),
        false => {
            let (duplicates, losses) = (violations.duplicates(), violations.losses());
            Err(Finding { duplicates, losses, ..Finding::new(violations.to_string()) })
        }
    }
}
