//! The life of a receiver: started, stopped and started again after a delay, on a thread of its own,
//! so that a receiver that does not come back holds up nobody for longer than its limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::intake::Outside;
use super::{Receiver, ReceiverHandle};
use crate::error::{Error, ErrorKind, Result};

/// The longest that the thread sleeps before it looks again, in case nobody woke it.
const LOOK: Duration = Duration::from_secs(1);

/// What a receiver is doing and what it is to do.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Counts starts: a handle of an earlier one has no say any more.
    incarnation: u64,
    restart: Option<Duration>,
    /// Stop for good.
    stop: bool,
    /// Between `on_start` and `on_stop`.
    active: bool,
    ended: bool,
}

impl Lifecycle {
    /// Asks for a restart after a delay; of no effect for an incarnation that has ended.
    pub(crate) fn restart(&self, incarnation: u64, delay: Duration) {
        let mut state = self.lock();
        if state.incarnation == incarnation {
            state.restart.get_or_insert(delay);
            self.changed.notify_all();
        }
    }

    /// Asks for the end; `incarnation` if a receiver asks.
    pub(crate) fn stop(&self, incarnation: Option<u64>) {
        let mut state = self.lock();
        if incarnation.is_none_or(|incarnation| state.incarnation == incarnation) {
            state.stop = true;
            self.changed.notify_all();
        }
    }

    /// Whether an incarnation has been asked to end.
    pub(crate) fn is_stopped(&self, incarnation: u64) -> bool {
        let state = self.lock();
        state.stop || state.restart.is_some() || !state.active || state.incarnation != incarnation
    }

    /// Waits for the receiver's end; false if it did not come within the limit.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        let began = Instant::now();
        let mut state = self.lock();
        while !state.ended {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.incarnation += 1;
        state.restart = None;
        state.active = true;
        state.incarnation
    }

    /// Waits until the incarnation is to end; the delay before the next one, or `None` for good.
    fn wait_for_request(&self) -> Option<Duration> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(delay) = state.restart {
                return Some(delay);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a time; false if the end was asked for before.
    fn wait_until(&self, outside: &Outside, time_ms: u64) -> bool {
        let mut state = self.lock();
        while !state.stop {
            if outside.clock.now_ms() >= time_ms {
                return true;
            }
            let time = outside.clock.until(time_ms).unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK);
            state = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread that leads a receiver through its life.
pub(crate) fn spawn<R: Receiver>(
    mut receiver: R,
    lifecycle: Arc<Lifecycle>,
    outside: Outside,
    handle: impl Fn(u64) -> ReceiverHandle<R::Item> + Send + 'static,
) -> Result<()> {
    let waker = Arc::downgrade(&lifecycle);
    outside.clock.on_change(Box::new(move || {
        if let Some(lifecycle) = waker.upgrade() {
            drop(lifecycle.lock());
            lifecycle.changed.notify_all();
        }
    }));
    let source = Arc::clone(&outside.source);
    let live = move || {
        while live_once(&mut receiver, &lifecycle, &outside, &handle) {}
        drop(receiver);
        lifecycle.lock().ended = true;
        lifecycle.changed.notify_all();
    };
    thread::Builder::new().name(format!("receive {source}")).spawn(live).map(drop).map_err(|error| {
        Error::new(ErrorKind::Retry, format!("cannot start a thread for source `{source}`")).with_source(error)
    })
}

/// From one start to the time of the next; false if there is none.
fn live_once<R: Receiver>(
    receiver: &mut R,
    lifecycle: &Lifecycle,
    outside: &Outside,
    handle: &impl Fn(u64) -> ReceiverHandle<R::Item>,
) -> bool {
    let incarnation = lifecycle.begin();
    let guarded = |call: &str, outcome: std::thread::Result<()>| {
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let message = format!("the receiver of source `{}` panicked in {call}: {text}", outside.source);
            outside.events.fatal(Error::new(ErrorKind::Program, message));
            lifecycle.stop(None);
        }
    };
    guarded("on_start", catch_unwind(AssertUnwindSafe(|| receiver.on_start(handle(incarnation)))));
    outside.events.started();
    let delay = lifecycle.wait_for_request();
    guarded("on_stop", catch_unwind(AssertUnwindSafe(|| receiver.on_stop())));
    lifecycle.lock().active = false;
    outside.events.stopped();
    match delay {
        Some(delay) => lifecycle.wait_until(outside, outside.clock.now_ms() + delay.as_millis() as u64),
        None => false,
    }
}
