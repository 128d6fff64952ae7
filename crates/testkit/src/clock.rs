//! A clock that only the test moves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond::clock::Clock;

/// A clock that stands still until it is told to move.
///
/// ```
/// use millpond::clock::Clock;
/// use millpond_testkit::ManualClock;
/// use std::time::Duration;
/// let clock = ManualClock::at_ms(0);
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(clock.now_ms(), 1000);
/// ```
#[derive(Default)]
pub struct ManualClock {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now_ms: u64,
    wakers: Vec<Arc<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ManualClock({} ms)", self.now_ms())
    }
}

impl ManualClock {
    /// A clock that shows this time.
    pub fn at_ms(now_ms: u64) -> Self {
        ManualClock { state: Mutex::new(State { now_ms, wakers: Vec::new() }) }
    }

    /// Moves it on, and wakes who waits for it.
    pub fn advance(&self, by: Duration) {
        self.set_ms(self.now_ms() + by.as_millis() as u64);
    }

    /// Sets it, also back, and wakes who waits for it.
    pub fn set_ms(&self, now_ms: u64) {
        let wakers = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.now_ms = now_ms;
            state.wakers.clone()
        };
        // Called without the lock: who is woken, and who holds a lock that a waker takes, may ask for the time.
        wakers.iter().for_each(|wake| wake());
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).now_ms
    }

    fn until(&self, _: u64) -> Option<Duration> {
        None
    }

    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wakers.push(wake.into());
    }
}
