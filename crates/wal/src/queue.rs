//! What waits to be written: cohorts of requests that will share one sync.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread, ThreadId};

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame_bytes;
use crate::position::Position;
use crate::writer::{PendingFrame, WriteFailure};

/// What [`Log::submit`](crate::Log::submit) calls when a frame is durable or has failed.
pub(crate) type Done = Box<dyn FnOnce(Result<Position>) + Send>;

/// Where a cohort's first frame stands, once it is known. All who wait for it sleep here and are woken by one system call.
pub(crate) type Latch = OnceLock<Result<Position>>;

/// A frame that waits, with its checksum, which the thread that brings it has computed.
pub(crate) struct OwnedFrame {
    kind: u8,
    payload_checksum: u32,
    payload: Vec<u8>,
}

impl OwnedFrame {
    pub(crate) fn new(kind: u8, payload: Vec<u8>) -> Self {
        Self { kind, payload_checksum: crc32fast::hash(&payload), payload }
    }

    /// A frame of a thread that waits: another thread will write it, so it gets a copy.
    pub(crate) fn copy_of(frame: &PendingFrame<'_>) -> Self {
        Self { kind: frame.kind, payload_checksum: frame.payload_checksum, payload: frame.payload.to_vec() }
    }

    pub(crate) fn as_pending(&self) -> PendingFrame<'_> {
        PendingFrame { kind: self.kind, payload_checksum: self.payload_checksum, payload: &self.payload }
    }

    pub(crate) fn bytes(&self) -> u64 {
        frame_bytes(self.payload.len())
    }
}

/// Who writes a cohort when its turn has come: whoever brought its first request.
pub(crate) enum Leader {
    /// A thread that sleeps in `append`.
    Waiting(Thread),
    /// The thread in the background, since what was submitted has no thread of its own.
    Server,
}

/// Requests that will be written and synced together.
pub(crate) struct Cohort {
    pub(crate) leader: Leader,
    pub(crate) frames: Vec<OwnedFrame>,
    /// How many threads wait for it.
    pub(crate) waiters: usize,
    bytes: u64,
    latch: Arc<Latch>,
    completions: Vec<(u64, Done)>,
}

impl Cohort {
    fn new(leader: Leader) -> Self {
        Self { leader, frames: Vec::new(), waiters: 0, bytes: 0, latch: Arc::default(), completions: Vec::new() }
    }

    pub(crate) fn is(&self, latch: &Arc<Latch>) -> bool {
        Arc::ptr_eq(&self.latch, latch)
    }

    /// Calls the completions of what was submitted.
    pub(crate) fn call(&mut self, result: &Result<Position>) {
        for (offset, done) in self.completions.drain(..) {
            let result = result.clone().map(|first| first + offset);
            // A panic of the caller's function must not take the log with it: others wait for this thread.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| done(result)));
        }
    }

    /// Wakes the threads that wait.
    pub(crate) fn wake(&mut self, result: Result<Position>) {
        let _ = self.latch.set(result);
        match &self.leader {
            Leader::Waiting(thread) if thread.id() != thread::current().id() => thread.unpark(),
            _ => {}
        }
    }
}

impl Drop for Cohort {
    /// Nobody waits in vain: dropped without a word, it tells that the writer panicked.
    fn drop(&mut self) {
        if self.latch.get().is_none() {
            self.call(&Err(panicked()));
            self.wake(Err(panicked()));
        }
    }
}

/// A request's place in its cohort.
pub(crate) struct Ticket {
    pub(crate) latch: Arc<Latch>,
    /// How far behind the cohort's first frame its own first stands.
    pub(crate) offset: u64,
    /// Whether it is the first, so that its thread leads the cohort.
    pub(crate) leads: bool,
}

/// The cohorts in the order in which they will be written, and who writes now.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) cohorts: VecDeque<Cohort>,
    pub(crate) bytes: u64,
    /// The thread that writes a group, or that tells those who waited for it.
    pub(crate) leader: Option<ThreadId>,
    pub(crate) closed: bool,
    pub(crate) poison: Option<Error>,
}

impl Queue {
    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.poison {
            Some(error) => Err(WriteFailure::poison(error)),
            None if self.closed => Err(closed()),
            None => Ok(()),
        }
    }

    /// Whether this thread leads: then it runs a completion, and would wait for itself.
    pub(crate) fn is_led_by_this_thread(&self) -> bool {
        self.leader == Some(thread::current().id())
    }

    pub(crate) fn check_may_wait(&self) -> Result<()> {
        let message = "a completion of submit must not wait for the log that it runs on";
        match self.is_led_by_this_thread() {
            true => Err(Error::new(ErrorKind::InvalidInput, message)),
            false => Ok(()),
        }
    }

    /// Queues the request of a thread that will wait.
    pub(crate) fn push(&mut self, frames: Vec<OwnedFrame>, limit: u64) -> Ticket {
        let bytes = frames.iter().map(OwnedFrame::bytes).sum();
        let (cohort, leads) = self.cohort_for(bytes, limit, || Leader::Waiting(thread::current()));
        let ticket = Ticket { latch: Arc::clone(&cohort.latch), offset: cohort.bytes, leads };
        cohort.frames.extend(frames);
        cohort.bytes += bytes;
        cohort.waiters += 1;
        self.bytes += bytes;
        ticket
    }

    /// Queues a frame that nobody waits for.
    pub(crate) fn submit(&mut self, frame: OwnedFrame, done: Done, limit: u64) {
        let bytes = frame.bytes();
        let (cohort, _) = self.cohort_for(bytes, limit, || Leader::Server);
        cohort.completions.push((cohort.bytes, done));
        cohort.frames.push(frame);
        cohort.bytes += bytes;
        self.bytes += bytes;
    }

    /// The last cohort if these bytes still fit into it, else a new one.
    fn cohort_for(&mut self, bytes: u64, limit: u64, leader: impl FnOnce() -> Leader) -> (&mut Cohort, bool) {
        let begin = self.cohorts.back().is_none_or(|last| last.bytes + bytes > limit);
        if begin {
            self.cohorts.push_back(Cohort::new(leader()));
        }
        (self.cohorts.back_mut().expect("there is one now"), begin)
    }

    pub(crate) fn pop(&mut self) -> Option<Cohort> {
        let cohort = self.cohorts.pop_front()?;
        self.bytes -= cohort.bytes;
        Some(cohort)
    }

    pub(crate) fn is_next(&self, latch: &Arc<Latch>) -> bool {
        self.leader.is_none() && self.cohorts.front().is_some_and(|cohort| cohort.is(latch))
    }

    pub(crate) fn server_is_next(&self) -> bool {
        self.leader.is_none() && self.cohorts.front().is_some_and(|cohort| matches!(cohort.leader, Leader::Server))
    }
}

pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Poisoned, "the thread that wrote to the log panicked")
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log is closed")
}
