//! Deterministic simulation: the engine's own code, planning, log, cursors, checkpoints and recovery, in one thread under a virtual
//! clock, with faults that follow from a seed. A seed replays exactly, so what it finds can be looked at as often as one likes.
//!
//! What is simulated and what stands in for what: docs/design.md, "How we know". [`run`] is one run: an application with its
//! directory, its input and its sinks, started again and again while it dies, the machine loses power, the disk fails, requests are
//! lost and late, functions of the program panic and the clock jumps; at the end all faults are healed, and everything
//! must come out as the input demands.

mod copies;
mod judge;
mod kafka;
mod log;
mod scheduler;
mod sinks;
mod sources;
mod world;

use std::fmt;
use std::sync::Once;
use std::time::{Duration, Instant};

use millpond_core::sink::{Cursor, Sink};

pub use scheduler::{Scheduler, point};

/// What sinks write to, as the world sees it.
pub trait Outside {
    /// The sink of this name for the next process.
    fn sink(&self, name: &str) -> Box<dyn Sink>;

    /// What readers see of it: the batches with output, in the order of their commits.
    fn committed(&self, sink: &str) -> Vec<Batch>;

    /// Its committed cursor.
    fn cursor(&self, sink: &str) -> Option<Cursor>;

    /// Something happens outside: what was late arrives, what was up goes down.
    fn turn(&self);

    /// No more faults; what is on its way arrives.
    fn heal(&self);

    /// What is still open when everything has ended.
    fn left_open(&self) -> Option<String>;
}

/// What one batch committed to a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The batch.
    pub time_ms: u64,
    /// The values of its records.
    pub values: Vec<Vec<u8>>,
}

/// What a run was like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps of actors.
    pub steps: u64,
    /// Processes that were started.
    pub starts: u64,
    /// Of those, how many died or were killed.
    pub deaths: u64,
    /// Batches with output that were committed.
    pub batches: u64,
    /// Faults of disk, sinks and functions.
    pub faults: u64,
    /// The hash over everything that happened, in order.
    pub trace: u64,
}

/// A promise that a run saw broken.
#[derive(Debug)]
pub struct Broken {
    /// Replays the run.
    pub seed: u64,
    /// What was broken.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SEED={}: {} (make simulate SEED={} shows how)", self.seed, self.what, self.seed)
    }
}

/// Runs the application of this seed.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64) -> Result<Outcome, Broken> {
    arm();
    world::run(seed, false).0
}

/// As [`run`], with everything that happens.
pub fn replay(seed: u64) -> (Result<Outcome, Broken>, Vec<String>) {
    arm();
    world::run(seed, true)
}

/// Runs seed after seed for so long, and gives what they were like together.
///
/// # Errors
/// The first broken promise.
pub fn run_for(time: Duration, first_seed: u64) -> Result<(u64, Outcome), Broken> {
    let since = Instant::now();
    let (mut runs, mut sum) = (0, Outcome::default());
    while since.elapsed() < time {
        let seed = first_seed.wrapping_add(runs);
        let outcome = run(seed)?;
        runs += 1;
        sum.steps += outcome.steps;
        sum.starts += outcome.starts;
        sum.deaths += outcome.deaths;
        sum.batches += outcome.batches;
        sum.faults += outcome.faults;
    }
    Ok((runs, sum))
}

/// Makes every failpoint a point at which a simulated process can die. Threads that run no simulation pass them.
fn arm() {
    static ARMED: Once = Once::new();
    ARMED.call_once(|| {
        for (name, _) in millpond_core::failpoints::NAMES.iter().filter(|(name, _)| !name.starts_with("break-")) {
            // A name is always accepted.
            let _ = fail::cfg_callback(*name, || point(name));
        }
    });
}
