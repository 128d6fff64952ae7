//! The way to the listeners: a bounded queue and a thread for each.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{BatchInfo, LISTENER_QUEUE_LIMIT, OutputOperationInfo, ProgressTracker, ReceiverInfo, StreamingListener};
use crate::error::{Error, ErrorKind, Result};

/// How long the end of a context waits for listeners to hear of it.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    static IS_LISTENER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a listener's: it must not wait for the context, which may wait for it.
pub(crate) fn is_listener_thread() -> bool {
    IS_LISTENER.get()
}

/// What listeners are told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Started(u64),
    ReceiverStarted(ReceiverInfo),
    ReceiverError(ReceiverInfo),
    ReceiverStopped(ReceiverInfo),
    BatchSubmitted(BatchInfo),
    BatchStarted(BatchInfo),
    BatchCompleted(BatchInfo),
    OperationStarted(OutputOperationInfo),
    OperationCompleted(OutputOperationInfo),
}

impl Event {
    pub(crate) fn tell(&self, listener: &mut dyn StreamingListener) {
        match self {
            Event::Started(time_ms) => listener.on_streaming_started(*time_ms),
            Event::ReceiverStarted(receiver) => listener.on_receiver_started(receiver),
            Event::ReceiverError(receiver) => listener.on_receiver_error(receiver),
            Event::ReceiverStopped(receiver) => listener.on_receiver_stopped(receiver),
            Event::BatchSubmitted(batch) => listener.on_batch_submitted(batch),
            Event::BatchStarted(batch) => listener.on_batch_started(batch),
            Event::BatchCompleted(batch) => listener.on_batch_completed(batch),
            Event::OperationStarted(operation) => listener.on_output_operation_started(operation),
            Event::OperationCompleted(operation) => listener.on_output_operation_completed(operation),
        }
    }
}

/// Brings events to the progress tracker at once and to each listener through its queue. Never waits.
#[derive(Default)]
pub(crate) struct Bus {
    progress: ProgressTracker,
    listeners: Mutex<Vec<Listener>>,
    lost: AtomicU64,
    closed: AtomicBool,
    /// Listener threads that have not ended.
    alive: Arc<(Mutex<usize>, Condvar)>,
}

struct Listener {
    events: Sender<Arc<Event>>,
    /// Events are being lost, which has been logged.
    behind: bool,
}

impl Bus {
    /// Adds a listener, which hears what comes from now on.
    ///
    /// # Errors
    /// No thread can be had; the context has stopped.
    pub(crate) fn add(&self, listener: Box<dyn StreamingListener>) -> Result<()> {
        let mut listeners = lock(&self.listeners);
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Stopped, "the context has stopped: a listener would hear nothing"));
        }
        let (events, inbox) = bounded(LISTENER_QUEUE_LIMIT);
        *lock(&self.alive.0) += 1;
        let alive = Alive(self.alive.clone());
        std::thread::Builder::new()
            .name("listener".into())
            .spawn(move || {
                listen(listener, &inbox);
                drop(alive);
            })
            .map_err(|error| Error::new(ErrorKind::Retry, "cannot start a listener's thread").with_source(error))?;
        listeners.push(Listener { events, behind: false });
        Ok(())
    }

    pub(crate) fn send(&self, event: Event) {
        event.tell(&mut self.progress.clone());
        let mut listeners = lock(&self.listeners);
        if listeners.is_empty() {
            return;
        }
        let event = Arc::new(event);
        listeners.retain_mut(|listener| match listener.events.try_send(event.clone()) {
            Ok(()) => {
                listener.behind = false;
                true
            }
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut listener.behind, true) {
                    tracing::warn!(
                        limit = LISTENER_QUEUE_LIMIT,
                        "a listener is too slow: events are lost to it until it catches up"
                    );
                }
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    pub(crate) fn progress(&self) -> &ProgressTracker {
        &self.progress
    }

    /// Events lost to slow listeners.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// No more events. Waits, within a limit, until the listeners have heard those there are.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.listeners).clear();
        let since = Instant::now();
        let mut alive = lock(&self.alive.0);
        while *alive > 0 {
            let left = CLOSE_LIMIT.saturating_sub(since.elapsed());
            if left.is_zero() {
                tracing::warn!(listeners = *alive, "the context ends before its listeners have heard everything");
                return;
            }
            alive = self.alive.1.wait_timeout(alive, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Counts a listener's thread as long as it lives.
struct Alive(Arc<(Mutex<usize>, Condvar)>);

impl Drop for Alive {
    fn drop(&mut self) {
        *lock(&self.0.0) -= 1;
        self.0.1.notify_all();
    }
}

fn listen(mut listener: Box<dyn StreamingListener>, inbox: &Receiver<Arc<Event>>) {
    IS_LISTENER.set(true);
    while let Ok(event) = inbox.recv() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| event.tell(&mut *listener))) {
            let error = crate::exec::panicked(&*panic);
            tracing::warn!(%error, "a listener failed; it hears the next event all the same");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
