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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

impl Outcome {
    /// Counts another run's in.
    fn add(&mut self, other: &Outcome) {
        self.steps += other.steps;
        self.starts += other.starts;
        self.deaths += other.deaths;
        self.batches += other.batches;
        self.faults += other.faults;
    }
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

/// Runs seed after seed for so long, by so many threads, each a simulation at a time; gives how many and what they were like together.
///
/// # Errors
/// A broken promise: that of the smallest seed, if more were found at once.
pub fn run_for(time: Duration, first_seed: u64, workers: usize) -> Result<(u64, Outcome), Broken> {
    let (since, next, stopped) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut sum = Outcome::default();
        while since.elapsed() < time && !stopped.load(Ordering::Relaxed) {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let outcome = run(first_seed.wrapping_add(nth)).inspect_err(|_| stopped.store(true, Ordering::Relaxed));
            sum.add(&outcome.map_err(|broken| (nth, broken))?);
        }
        Ok(sum)
    };
    let ends: Vec<Result<Outcome, (u64, Broken)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        // What is judged is told by results: a panic is a mistake of the suite.
        threads.into_iter().map(|thread| thread.join().expect("a worker has panicked")).collect()
    });
    let mut sum = Outcome::default();
    let mut first: Option<(u64, Broken)> = None;
    for end in ends {
        match end {
            Ok(outcome) => sum.add(&outcome),
            Err(broken) if first.as_ref().is_none_or(|first| broken.0 < first.0) => first = Some(broken),
            Err(_) => {}
        }
    }
    match first {
        None => Ok((next.into_inner(), sum)),
        Some((_, broken)) => Err(broken),
    }
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
