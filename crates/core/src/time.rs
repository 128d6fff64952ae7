//! Batch times: milliseconds on the grid of the batch interval.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// The time of a batch, in milliseconds since the epoch: the end of the interval whose input the
/// batch holds, and the batch's name.
///
/// ```
/// use millpond_core::BatchTime;
/// use std::time::Duration;
/// assert_eq!(BatchTime::from_ms(1350).floor(Duration::from_millis(200)), BatchTime::from_ms(1200));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BatchTime(u64);

impl BatchTime {
    /// The batch time of so many milliseconds since the epoch.
    pub const fn from_ms(ms: u64) -> Self {
        BatchTime(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The largest multiple of `interval` that is not after this time.
    ///
    /// # Panics
    /// If `interval` is shorter than a millisecond.
    pub fn floor(self, interval: Duration) -> Self {
        self.floor_from(interval, BatchTime(0))
    }

    /// The largest `zero + n * interval` that is not after this time (`zero` itself if this time is before it).
    ///
    /// # Panics
    /// If `interval` is shorter than a millisecond.
    pub fn floor_from(self, interval: Duration, zero: BatchTime) -> Self {
        let step = millis(interval);
        BatchTime(self.0.saturating_sub(zero.0) / step * step + zero.0)
    }

    /// Whether this time is a multiple of `interval`.
    ///
    /// # Panics
    /// If `interval` is shorter than a millisecond.
    pub fn is_multiple_of(self, interval: Duration) -> bool {
        self.0.is_multiple_of(millis(interval))
    }

    /// The times from this one, every `step`, excluding `end`.
    ///
    /// # Panics
    /// If `step` is shorter than a millisecond.
    pub fn until(self, end: BatchTime, step: Duration) -> impl Iterator<Item = BatchTime> {
        let step = millis(step);
        (self.0..end.0).step_by(step as usize).map(BatchTime)
    }

    /// The times from this one, every `step`, including `end` if it is met.
    ///
    /// # Panics
    /// If `step` is shorter than a millisecond.
    pub fn to(self, end: BatchTime, step: Duration) -> impl Iterator<Item = BatchTime> {
        let step = millis(step);
        (self.0..=end.0).step_by(step as usize).map(BatchTime)
    }

    /// The time since `earlier`, zero if that is later.
    pub fn since(self, earlier: BatchTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(interval: Duration) -> u64 {
    let ms = interval.as_millis() as u64;
    assert!(ms > 0, "an interval of {interval:?} is shorter than a millisecond");
    ms
}

impl Add<Duration> for BatchTime {
    type Output = BatchTime;
    fn add(self, duration: Duration) -> BatchTime {
        BatchTime(self.0 + duration.as_millis() as u64)
    }
}

impl Sub<Duration> for BatchTime {
    type Output = BatchTime;
    /// Stops at zero.
    fn sub(self, duration: Duration) -> BatchTime {
        BatchTime(self.0.saturating_sub(duration.as_millis() as u64))
    }
}

impl fmt::Display for BatchTime {
    /// `2024-05-06 12:00:14.000` (UTC) for times of this era, plain milliseconds for small ones (tests).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_MS: u64 = 86_400_000;
        if self.0 < 1000 * DAY_MS {
            return write!(f, "{} ms", self.0);
        }
        let (year, month, day) = civil_from_days((self.0 / DAY_MS) as i64);
        let ms = self.0 % DAY_MS;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    }
}

/// Days since the epoch to a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// So many milliseconds.
pub const fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_floor() {
        for (time, step, floor) in [(1350, 200, 1200), (1200, 200, 1200), (199, 200, 0), (1, 1, 1)] {
            assert_eq!(BatchTime(time).floor(milliseconds(step)), BatchTime(floor));
        }
    }

    #[test]
    fn a3_until() {
        let times = |from, to, step| {
            BatchTime(from).until(BatchTime(to), milliseconds(step)).map(BatchTime::as_ms).collect::<Vec<_>>()
        };
        assert_eq!(times(1000, 1100, 100), [1000]);
        assert!(times(1000, 1000, 100).is_empty());
        assert_eq!(times(1000, 1100, 30), [1000, 1030, 1060, 1090]);
    }

    #[test]
    fn a5_multiples() {
        assert!([5, 1000, 1].iter().all(|&n| BatchTime(1000).is_multiple_of(milliseconds(n))));
        assert!(!BatchTime(1000).is_multiple_of(milliseconds(6)));
    }

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(BatchTime(1_715_000_414_007).to_string(), "2024-05-06 13:00:14.007");
        assert_eq!(BatchTime(3000).to_string(), "3000 ms");
    }
}
