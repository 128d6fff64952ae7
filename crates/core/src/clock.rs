//! The clock of the engine, passed in so that tests rule it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch, and how long to wait for a time.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now_ms(&self) -> u64;

    /// How long a thread should sleep for the clock to reach `time_ms`; `None` if only a test moves
    /// the clock, which then calls what [`on_change`](Clock::on_change) was given.
    fn until(&self, time_ms: u64) -> Option<Duration>;

    /// What the system's clock shows now, also where it was set while [`now_ms`](Clock::now_ms) counted on; files bear its times. Milliseconds since the
    /// epoch. The default is `now_ms`.
    fn wall_ms(&self) -> u64 {
        self.now_ms()
    }

    /// Called after each jump of a clock that does not run by itself. The default does nothing.
    fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        drop(wake);
    }
}

/// The system's clock, read once and moved by the monotonic one: setting the clock back cannot
/// stall a running context (hard case H18).
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    started_ms: u64,
}

impl SystemClock {
    /// A clock that starts at the system's time.
    pub fn new() -> Self {
        SystemClock { started: Instant::now(), started_ms: system_ms() }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        self.started_ms + self.started.elapsed().as_millis() as u64
    }

    fn until(&self, time_ms: u64) -> Option<Duration> {
        let now = Duration::from_millis(self.started_ms) + self.started.elapsed();
        Some(Duration::from_millis(time_ms).saturating_sub(now))
    }

    fn wall_ms(&self) -> u64 {
        system_ms()
    }
}
