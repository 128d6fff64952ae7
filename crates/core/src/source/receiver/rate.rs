//! A limit on records a second: a bucket of permits that fills with time.

/// The rate limiter of a receiver. Permits are counted in thousandths, so that milliseconds times records a second add
/// up without rounding.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// What the program allows, records a second.
    max: Option<u64>,
    /// What the rate controller asks for.
    asked: Option<u64>,
    permits: i64,
    filled_ms: u64,
}

impl RateLimiter {
    pub(crate) fn new(max: Option<u64>, now_ms: u64) -> Self {
        let mut limiter = RateLimiter { max, asked: None, permits: 0, filled_ms: now_ms };
        limiter.permits = limiter.burst();
        limiter
    }

    /// Records a second, `None` without a limit.
    pub(crate) fn rate(&self) -> Option<u64> {
        match (self.max, self.asked) {
            (Some(max), Some(asked)) => Some(max.min(asked)),
            (max, asked) => max.or(asked),
        }
    }

    /// The rate controller asks for another rate; never more than the program allows.
    pub(crate) fn update(&mut self, asked: Option<u64>, now_ms: u64) {
        self.fill(now_ms);
        self.asked = asked.map(|rate| rate.max(1));
        self.permits = self.permits.min(self.burst());
    }

    /// Takes permits for so many records if there is one at least (a group may run into debt), else
    /// says when there will be.
    pub(crate) fn take(&mut self, records: u64, now_ms: u64) -> Result<(), u64> {
        let Some(rate) = self.rate() else { return Ok(()) };
        self.fill(now_ms);
        if self.permits < 1000 {
            let missing = (1000 - self.permits) as u64;
            return Err(now_ms + missing.div_ceil(rate));
        }
        self.permits -= i64::try_from(records.saturating_mul(1000)).unwrap_or(i64::MAX / 2);
        Ok(())
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let gained = passed.saturating_mul(self.rate().unwrap_or(0));
        self.permits = self.permits.saturating_add(i64::try_from(gained).unwrap_or(i64::MAX)).min(self.burst());
    }

    /// At most a tenth of a second's permits are saved up, and one record's at least.
    fn burst(&self) -> i64 {
        i64::try_from(self.rate().unwrap_or(0).saturating_mul(100)).unwrap_or(i64::MAX).max(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l7_the_asked_rate_counts_up_to_the_maximum() {
        for (max, asked, rate) in [(None, 105, 105), (Some(110), 105, 105), (Some(100), 105, 100)] {
            let mut limiter = RateLimiter::new(max, 0);
            limiter.update(Some(asked), 0);
            assert_eq!(limiter.rate(), Some(rate));
        }
    }

    #[test]
    fn l9_records_pass_at_the_rate_after_a_burst() {
        let mut limiter = RateLimiter::new(Some(10_000), 0);
        let mut now = 0;
        for _ in 0..41_000 {
            while let Err(later) = limiter.take(1, now) {
                now = later;
            }
        }
        assert!((4000..=5000).contains(&now), "{now} ms");
    }

    #[test]
    fn a_group_may_run_into_debt_and_pays_it() {
        let mut limiter = RateLimiter::new(Some(1000), 0);
        assert_eq!(limiter.take(600, 0), Ok(()));
        assert_eq!(limiter.take(1, 0), Err(501));
        assert_eq!(limiter.take(1, 501), Ok(()));
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(RateLimiter::new(None, 0).take(u64::MAX, 0), Ok(()));
    }
}
