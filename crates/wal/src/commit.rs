//! Group commit: appends that come while a sync is under way share the next one.
//!
//! There is no writer thread in the way of an append. Whoever finds the log idle writes and syncs by itself. Who finds it
//! busy joins the last cohort of the queue and sleeps; the first of a cohort leads it: it is woken when the cohort's turn has come, writes, syncs and
//! wakes the others. What was submitted has no thread that waits, so a thread in the background leads for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::options::LogOptions;
use crate::position::Position;
use crate::queue::{Cohort, Done, Leader, OwnedFrame, Queue, Ticket, closed, panicked};
use crate::writer::{PendingFrame, WriteFailure, Writer};

/// How long a leader waits for those who shared the last sync to come again; less than a sync takes.
const GATHER: Duration = Duration::from_micros(80);

pub(crate) struct Committer {
    queue: Mutex<Queue>,
    /// A leader has stepped down: there may be room in the queue.
    changed: Condvar,
    /// The thread in the background may be next.
    work: Condvar,
    /// How many threads wait in the queue, to be looked at without its lock.
    waiting: AtomicUsize,
    /// How many waited when the last group was done, itself included: as many are likely to come again.
    companions: AtomicUsize,
    writer: Mutex<Writer>,
    options: LogOptions,
}

impl Committer {
    pub(crate) fn new(writer: Writer, options: LogOptions) -> Self {
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            work: Condvar::new(),
            waiting: AtomicUsize::new(0),
            companions: AtomicUsize::new(0),
            writer: Mutex::new(writer),
            options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes of a cohort. One request alone may have more; it fits into a segment in any case.
    fn cohort_limit(&self) -> u64 {
        self.options.group_bytes.min(self.options.capacity())
    }

    /// Makes these frames durable; returns where the first stands.
    pub(crate) fn append(&self, frames: &[PendingFrame<'_>]) -> Result<Position> {
        if self.companions.load(Ordering::Relaxed) <= 1 {
            let queue = self.lock();
            if queue.leader.is_none() && queue.cohorts.is_empty() {
                queue.check_open()?;
                return self.lead_alone(queue, frames);
            }
        }
        let owned = frames.iter().map(OwnedFrame::copy_of).collect();
        let mut queue = self.lock();
        queue.check_may_wait()?;
        queue.check_open()?;
        let Ticket { latch, offset, leads } = queue.push(owned, self.cohort_limit());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if leads {
            while latch.get().is_none() {
                if queue.is_next(&latch) {
                    self.lead(queue);
                } else {
                    drop(queue);
                    thread::park();
                }
                queue = self.lock();
            }
        }
        drop(queue);
        latch.wait().clone().map(|first| first + offset)
    }

    /// Queues a frame and returns; `done` is called with its position or error. Fails without calling it if the queue stays full.
    pub(crate) fn submit(&self, kind: u8, payload: Vec<u8>, done: Done) -> Result<()> {
        let frame = OwnedFrame::new(kind, payload);
        let limit = self.options.queue_bytes;
        let deadline = Instant::now() + self.options.wait_limit;
        let mut queue = self.lock();
        queue.check_open()?;
        while !queue.cohorts.is_empty() && queue.bytes + frame.bytes() > limit {
            queue.check_may_wait()?;
            let (woken, late) = self.wait_until(queue, deadline);
            queue = woken;
            queue.check_open()?;
            if late {
                let message = format!("the log's queue of {limit} bytes stayed full for {:?}", self.options.wait_limit);
                return Err(Error::new(ErrorKind::Busy, message));
            }
        }
        queue.submit(frame, done, self.cohort_limit());
        if queue.server_is_next() {
            self.work.notify_one();
        }
        Ok(())
    }

    /// The thread in the background: leads the cohorts that were begun by `submit`.
    pub(crate) fn serve(&self) {
        let mut queue = self.lock();
        while !queue.closed {
            queue = match queue.server_is_next() {
                true => {
                    self.lead(queue);
                    self.lock()
                }
                false => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes the first cohort of the queue and tells those who wait for it.
    fn lead(&self, mut queue: MutexGuard<'_, Queue>) {
        let leadership = Leadership::take(self, &mut queue);
        drop(queue);
        self.gather();
        // Closing may have emptied the queue.
        let Some(mut cohort) = self.lock().pop() else { return leadership.end(0) };
        self.waiting.fetch_sub(cohort.waiters, Ordering::Relaxed);
        let frames: Vec<PendingFrame<'_>> = cohort.frames.iter().map(OwnedFrame::as_pending).collect();
        let result = self.write(&frames);
        drop(frames);
        cohort.call(&result);
        // First make way, then wake: else the first to come back finds a leader and goes to sleep again.
        leadership.end(cohort.waiters);
        cohort.wake(result);
    }

    /// Writes frames of this thread from where they lie, with nobody waiting.
    fn lead_alone(&self, mut queue: MutexGuard<'_, Queue>, frames: &[PendingFrame<'_>]) -> Result<Position> {
        let leadership = Leadership::take(self, &mut queue);
        drop(queue);
        let result = self.write(frames);
        leadership.end(1);
        result
    }

    /// Gives those who shared the last sync a moment to come again, so that they share this one and not every second.
    fn gather(&self) {
        let companions = self.companions.load(Ordering::Relaxed);
        let start = Instant::now();
        while self.waiting.load(Ordering::Relaxed) < companions && start.elapsed() < GATHER {
            thread::yield_now();
        }
    }

    fn write(&self, frames: &[PendingFrame<'_>]) -> Result<Position> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_group(frames).map_err(|failure| match failure {
            WriteFailure::Clean(error) => error,
            WriteFailure::InDoubt(error) => {
                self.poison(error.clone());
                error
            }
        })
    }

    /// From now on every append fails, those that are queued too.
    pub(crate) fn poison(&self, error: Error) {
        let mut queue = self.lock();
        let cause = queue.poison.get_or_insert(error).clone();
        self.fail_queue(queue, &WriteFailure::poison(&cause));
    }

    /// Takes no more appends, fails what is queued, and waits for a write under way.
    pub(crate) fn close(&self) -> Result<()> {
        let mut queue = self.lock();
        queue.closed = true;
        self.work.notify_all();
        self.fail_queue(queue, &closed());
        let deadline = Instant::now() + self.options.wait_limit;
        let mut queue = self.lock();
        while queue.leader.is_some() && !queue.is_led_by_this_thread() {
            let (woken, late) = self.wait_until(queue, deadline);
            queue = woken;
            if late {
                let message = format!("a write to the log has not ended for {:?}", self.options.wait_limit);
                return Err(Error::new(ErrorKind::Busy, message));
            }
        }
        Ok(())
    }

    fn fail_queue(&self, mut queue: MutexGuard<'_, Queue>, error: &Error) {
        let cohorts: Vec<Cohort> = std::iter::from_fn(|| queue.pop()).collect();
        drop(queue);
        for mut cohort in cohorts {
            self.waiting.fetch_sub(cohort.waiters, Ordering::Relaxed);
            cohort.call(&Err(error.clone()));
            cohort.wake(Err(error.clone()));
        }
        self.changed.notify_all();
    }

    /// Waits for a change; the second value says that the deadline had passed before.
    fn wait_until<'q>(&self, queue: MutexGuard<'q, Queue>, deadline: Instant) -> (MutexGuard<'q, Queue>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (queue, _) = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
        (queue, left == Duration::ZERO)
    }
}

/// Held while a thread leads; however it ends, the others do not wait for it in vain.
struct Leadership<'c> {
    committer: &'c Committer,
    /// How many threads waited for what was written; unknown as long as it is being written.
    waiters: Option<usize>,
}

impl<'c> Leadership<'c> {
    fn take(committer: &'c Committer, queue: &mut Queue) -> Self {
        queue.leader = Some(thread::current().id());
        Self { committer, waiters: None }
    }

    fn end(mut self, waiters: usize) {
        self.waiters = Some(waiters);
    }
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        let committer = self.committer;
        if self.waiters.is_none() {
            committer.poison(panicked());
        }
        let mut queue = committer.lock();
        queue.leader = None;
        let companions = self.waiters.unwrap_or(0) + committer.waiting.load(Ordering::Relaxed);
        committer.companions.store(companions, Ordering::Relaxed);
        match queue.cohorts.front().map(|cohort| &cohort.leader) {
            Some(Leader::Waiting(thread)) => thread.unpark(),
            Some(Leader::Server) => committer.work.notify_one(),
            None => {}
        }
        drop(queue);
        committer.changed.notify_all();
    }
}
