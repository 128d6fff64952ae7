//! What a running context shows of itself, shared between the driver and whoever holds [`Running`](super::Running).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::time::BatchTime;

/// Where a context is in its life. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContextState {
    /// Opened, not started; or recovering.
    Initialized,
    /// Batches run.
    Active,
    /// It has ended, for whatever reason.
    Stopped,
}

/// The cursors of a context and what it has done since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// S: the newest batch in a checkpoint.
    pub snapshot: BatchTime,
    /// C: the newest batch that every sink has committed.
    pub committed: BatchTime,
    /// P: the newest batch whose plan is durable.
    pub planned: BatchTime,
    /// Records planned since the start of the process.
    pub records: u64,
    /// Batches committed since the start of the process.
    pub batches: u64,
    /// Times the context recovered inside of the process.
    pub recoveries: u64,
    /// Bytes of decoded state in memory.
    pub state_bytes: u64,
    /// How long recovery took at the start, in ms.
    pub recovery_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) state: ContextState,
    /// Every input partition has a durable position: what comes from now on cannot be missed.
    pub(crate) ready: bool,
    pub(crate) progress: Progress,
    /// Why it stopped, if for a failure: kind and text, since each who waits gets it.
    pub(crate) failure: Option<(ErrorKind, String)>,
    /// A graceful stop was asked for.
    pub(crate) stopping: bool,
    /// How long it may take.
    pub(crate) stop_limit: Duration,
    /// What it is waiting for.
    pub(crate) waits_for: String,
    /// Durations of the last batches and checkpoints, in µs, for who measures.
    pub(crate) batch_us: Vec<u64>,
    pub(crate) checkpoint_us: Vec<u64>,
}

/// The shared place.
#[derive(Debug)]
pub(crate) struct Status {
    shown: Mutex<Shown>,
    changed: Condvar,
}

impl Status {
    pub(crate) fn new() -> Self {
        let zero = BatchTime::default();
        let progress = Progress {
            snapshot: zero,
            committed: zero,
            planned: zero,
            records: 0,
            batches: 0,
            recoveries: 0,
            state_bytes: 0,
            recovery_ms: 0,
        };
        let shown = Shown {
            state: ContextState::Initialized,
            ready: false,
            progress,
            failure: None,
            stopping: false,
            stop_limit: Duration::from_secs(10),
            waits_for: "recovery".into(),
            batch_us: Vec::new(),
            checkpoint_us: Vec::new(),
        };
        Status { shown: Mutex::new(shown), changed: Condvar::new() }
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.read());
        self.changed.notify_all();
    }

    /// Waits until `done` says so; `None` after `timeout`.
    pub(crate) fn wait<R>(&self, timeout: Option<Duration>, mut done: impl FnMut(&Shown) -> Option<R>) -> Option<R> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut shown = self.read();
        loop {
            if let Some(result) = done(&shown) {
                return Some(result);
            }
            shown = match deadline {
                None => self.changed.wait(shown).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(shown, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Shown {
    /// The failure that stopped the context.
    pub(crate) fn error(&self) -> Option<Error> {
        self.failure.as_ref().map(|(kind, text)| Error::new(*kind, text.clone()))
    }
}
