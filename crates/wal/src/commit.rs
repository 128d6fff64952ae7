//! Group commit: appends that wait together share one sync.
//!
//! There is no writer thread in the way of an append. Whoever finds the log idle leads: it takes what is queued, writes and syncs it with its
//! own, and completes the others. Who finds a leader queues and waits; when the leader is done, one of those still waiting leads. Only
//! the completions of `submit` have no thread of their own, so a thread in the background waits for them.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame_bytes;
use crate::options::LogOptions;
use crate::position::Position;
use crate::writer::{PendingFrame, WriteFailure, Writer};

pub(crate) struct Committer {
    state: Mutex<State>,
    /// A leader has stepped down, or room in the queue, or the end.
    changed: Condvar,
    /// Something for the thread in the background.
    work: Condvar,
    writer: Mutex<Writer>,
    options: LogOptions,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Entry>,
    queued_bytes: u64,
    leader: Option<ThreadId>,
    closed: bool,
    poison: Option<Error>,
}

/// A request in the queue: frames that stand together, and who waits for them.
struct Entry {
    frames: Vec<OwnedFrame>,
    bytes: u64,
    completion: Completion,
}

struct OwnedFrame {
    kind: u8,
    payload_checksum: u32,
    payload: Vec<u8>,
}

impl OwnedFrame {
    fn new(frame: &PendingFrame<'_>, payload: Vec<u8>) -> Self {
        Self { kind: frame.kind, payload_checksum: frame.payload_checksum, payload }
    }

    fn as_pending(&self) -> PendingFrame<'_> {
        PendingFrame { kind: self.kind, payload_checksum: self.payload_checksum, payload: &self.payload }
    }
}

/// What [`Log::submit`](crate::Log::submit) calls when a frame is durable or has failed.
pub(crate) type Done = Box<dyn FnOnce(Result<Position>) + Send>;

/// Whom to tell the position of a request's first frame. Told exactly once: dropping it tells that the writer panicked.
struct Completion(Option<Listener>);

enum Listener {
    Waiting(Arc<OnceLock<Result<Position>>>),
    Call(Done),
}

impl Completion {
    fn new(listener: Listener) -> Self {
        Self(Some(listener))
    }

    fn complete(mut self, result: Result<Position>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<Position>) {
        match self.0.take() {
            Some(Listener::Waiting(slot)) => {
                let _ = slot.set(result);
            }
            Some(Listener::Call(done)) => {
                // A panic of the caller's function must not take the log with it: others wait for this thread.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| done(result)));
            }
            None => {}
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.tell(Err(panicked()));
    }
}

impl State {
    fn check_open(&self) -> Result<()> {
        match &self.poison {
            Some(error) => Err(WriteFailure::poison(error)),
            None if self.closed => Err(closed()),
            None => Ok(()),
        }
    }

    /// Whether this thread leads: it runs a completion, and would wait for itself.
    fn leads(&self) -> bool {
        self.leader == Some(thread::current().id())
    }

    fn check_not_leading(&self) -> Result<()> {
        match self.leads() {
            true => {
                Err(Error::new(ErrorKind::InvalidInput, "a completion of submit must not wait for the log it runs on"))
            }
            false => Ok(()),
        }
    }

    fn push(&mut self, entry: Entry) {
        self.queued_bytes += entry.bytes;
        self.queue.push_back(entry);
    }

    /// Takes the requests that one group can hold, the oldest first; at least one if there is any.
    fn take_group(&mut self, limit: impl Fn(u64) -> u64) -> Group {
        let mut group = Group::default();
        let Some(first) = self.queue.front() else {
            return group;
        };
        let limit = limit(first.bytes);
        while let Some(entry) = self.queue.front() {
            if !group.entries.is_empty() && group.bytes + entry.bytes > limit {
                break;
            }
            let entry = self.queue.pop_front().expect("just seen");
            self.queued_bytes -= entry.bytes;
            group.bytes += entry.bytes;
            group.entries.push(entry);
        }
        group
    }
}

#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    bytes: u64,
}

fn panicked() -> Error {
    Error::new(ErrorKind::Poisoned, "the thread that wrote to the log panicked")
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log is closed")
}

impl Committer {
    pub(crate) fn new(writer: Writer, options: LogOptions) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            work: Condvar::new(),
            writer: Mutex::new(writer),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, on: &Condvar, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until<'s>(&self, state: MutexGuard<'s, State>, deadline: Instant) -> (MutexGuard<'s, State>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        (state, left == Duration::ZERO)
    }

    /// Makes these frames durable; returns where the first stands.
    pub(crate) fn append(&self, frames: &[PendingFrame<'_>]) -> Result<Position> {
        let bytes = group_bytes(frames);
        let state = self.lock();
        state.check_not_leading()?;
        state.check_open()?;
        if state.leader.is_none() && state.queue.is_empty() {
            return self.lead_with_own(state, frames);
        }
        drop(state);
        // The leader is another thread: it gets a copy, made while it writes.
        let slot = Arc::new(OnceLock::new());
        let entry = Entry {
            frames: frames.iter().map(|frame| OwnedFrame::new(frame, frame.payload.to_vec())).collect(),
            bytes,
            completion: Completion::new(Listener::Waiting(Arc::clone(&slot))),
        };
        let mut state = self.lock();
        state.check_open()?;
        state.push(entry);
        loop {
            if let Some(result) = slot.get() {
                return result.clone();
            }
            state = match state.leader {
                Some(_) => self.wait(&self.changed, state),
                None => {
                    state.check_open()?;
                    self.lead(state)
                }
            };
        }
    }

    /// Queues a frame and returns; `done` is called with its position or error. Fails without calling it if the queue stays full.
    pub(crate) fn submit(&self, kind: u8, payload: Vec<u8>, done: Done) -> Result<()> {
        let frame = OwnedFrame::new(&PendingFrame::new(kind, &payload), Vec::new());
        let bytes = frame_bytes(payload.len());
        let entry = Entry {
            frames: vec![OwnedFrame { payload, ..frame }],
            bytes,
            completion: Completion::new(Listener::Call(done)),
        };
        let deadline = Instant::now() + self.options.wait_limit;
        let mut state = self.lock();
        loop {
            state.check_open()?;
            if state.queue.is_empty() || state.queued_bytes + bytes <= self.options.queue_bytes {
                break;
            }
            state.check_not_leading()?;
            let (woken, late) = self.wait_until(state, deadline);
            if late {
                let limit = self.options.wait_limit;
                let message =
                    format!("the log's queue of {} bytes stayed full for {limit:?}", self.options.queue_bytes);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            state = woken;
        }
        state.push(entry);
        if state.leader.is_none() {
            self.work.notify_one();
        }
        Ok(())
    }

    /// The thread in the background: leads whenever there is something queued and nobody does.
    pub(crate) fn serve(&self) {
        let mut state = self.lock();
        while !state.closed {
            state = match state.leader.is_none() && !state.queue.is_empty() {
                true => self.lead(state),
                false => self.wait(&self.work, state),
            };
        }
    }

    /// Writes one group of what is queued.
    fn lead<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        let leadership = Leadership::take(self, &mut state);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = state.take_group(|first| self.group_limit(first, writer.room()));
        drop(state);
        let result = {
            let frames: Vec<PendingFrame<'_>> =
                group.entries.iter().flat_map(|entry| entry.frames.iter().map(OwnedFrame::as_pending)).collect();
            self.write(writer, &frames)
        };
        self.complete(std::mem::take(&mut group.entries), result);
        leadership.step_down()
    }

    /// Writes frames of the calling thread, with nothing queued before them.
    fn lead_with_own(&self, mut state: MutexGuard<'_, State>, frames: &[PendingFrame<'_>]) -> Result<Position> {
        let leadership = Leadership::take(self, &mut state);
        drop(state);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.write(writer, frames);
        drop(leadership.step_down());
        result
    }

    /// As many bytes as one group may have whose first request has `first` bytes.
    fn group_limit(&self, first: u64, room: u64) -> u64 {
        let room = if first <= room { room } else { self.options.capacity() };
        room.min(self.options.group_bytes.max(first))
    }

    fn write(&self, mut writer: MutexGuard<'_, Writer>, frames: &[PendingFrame<'_>]) -> Result<Position> {
        writer.write_group(frames).map_err(|failure| match failure {
            WriteFailure::Clean(error) => error,
            WriteFailure::InDoubt(error) => {
                self.poison(error.clone());
                error
            }
        })
    }

    fn complete(&self, entries: Vec<Entry>, result: Result<Position>) {
        let mut position = result;
        for entry in entries {
            let own = position.clone();
            if let Ok(position) = &mut position {
                position.offset += entry.bytes;
            }
            entry.completion.complete(own);
        }
    }

    /// From now on every append fails, those that are queued too.
    pub(crate) fn poison(&self, error: Error) {
        let mut state = self.lock();
        let poison = state.poison.get_or_insert(error).clone();
        self.fail_queue(state, &WriteFailure::poison(&poison));
    }

    fn fail_queue(&self, mut state: MutexGuard<'_, State>, error: &Error) {
        let queue = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        drop(state);
        for entry in queue {
            entry.completion.complete(Err(error.clone()));
        }
        self.changed.notify_all();
    }

    /// Takes no more appends, fails what is queued, and waits for a write under way.
    pub(crate) fn close(&self) -> Result<()> {
        let mut state = self.lock();
        state.closed = true;
        self.work.notify_all();
        self.fail_queue(state, &closed());
        let deadline = Instant::now() + self.options.wait_limit;
        let mut state = self.lock();
        while state.leader.is_some() && !state.leads() {
            let (woken, late) = self.wait_until(state, deadline);
            if late {
                let message = format!("a write to the log has not ended for {:?}", self.options.wait_limit);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            state = woken;
        }
        Ok(())
    }
}

fn group_bytes(frames: &[PendingFrame<'_>]) -> u64 {
    frames.iter().map(|frame| frame_bytes(frame.payload.len())).sum()
}

/// Held while a thread leads; however it ends, the others do not wait for it in vain.
struct Leadership<'c> {
    committer: &'c Committer,
}

impl<'c> Leadership<'c> {
    fn take(committer: &'c Committer, state: &mut State) -> Self {
        state.leader = Some(thread::current().id());
        Self { committer }
    }

    fn step_down(self) -> MutexGuard<'c, State> {
        let committer = self.committer;
        drop(self);
        committer.lock()
    }
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.committer.poison(panicked());
        }
        let mut state = self.committer.lock();
        state.leader = None;
        self.committer.work.notify_one();
        drop(state);
        self.committer.changed.notify_all();
    }
}
