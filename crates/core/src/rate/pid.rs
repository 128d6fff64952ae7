//! A PID estimator of rates: the error is how far the batch was from the last estimate, the integral is what has piled up
//! meanwhile, the derivative how fast the error changes.

use std::time::Duration;

use super::RateEstimator;
use crate::error::{Error, Result};

/// The weights of a [`PidRateEstimator`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PidSettings {
    /// The weight of the error, how far the last rate was from what the batch managed; not below 0, default 1.
    pub proportional: f64,
    /// The weight of what has piled up, measured by the scheduling delay; not below 0, default 0.2.
    pub integral: f64,
    /// The weight of the change of the error; not below 0, default 0. It answers quickly, and to noise too.
    pub derivative: f64,
    /// The estimate is never below so many records a second; above 0, default 100.
    pub min_rate: f64,
}

impl Default for PidSettings {
    fn default() -> Self {
        PidSettings { proportional: 1.0, integral: 0.2, derivative: 0.0, min_rate: 100.0 }
    }
}

/// Estimates a rate by how the last batches went:
///
/// ```text
/// rate       = records / processing delay
/// error      = last estimate - rate
/// historical = scheduling delay * rate / batch interval
/// change     = (error - last error) / seconds since the last batch
/// estimate   = max(last estimate - proportional * error - integral * historical - derivative * change, min rate)
/// ```
///
/// The first batch gives the first "last estimate", and none to follow. A batch without records or without a processing delay,
/// or that is not after the last, is passed over.
///
/// ```
/// use millpond_core::rate::{PidRateEstimator, PidSettings, RateEstimator};
/// use millpond_core::seconds;
///
/// let mut estimator = PidRateEstimator::new(seconds(1), PidSettings::default())?;
/// assert_eq!(estimator.compute(1000, 1000, 500, 0), None);
/// assert_eq!(estimator.compute(2000, 1000, 1000, 100), Some(980.0));
/// # Ok::<(), millpond_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PidRateEstimator {
    settings: PidSettings,
    interval_ms: f64,
    last: Option<Last>,
}

/// What the last valid batch left.
#[derive(Clone, Copy, Debug)]
struct Last {
    time_ms: i64,
    rate: f64,
    error: f64,
}

impl PidRateEstimator {
    /// An estimator for batches of this interval.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration): an interval of 0, a weight below 0, a minimum of 0 or below.
    pub fn new(batch_interval: Duration, settings: PidSettings) -> Result<Self> {
        let PidSettings { proportional, integral, derivative, min_rate } = settings;
        if batch_interval.is_zero() {
            return Err(Error::configuration("the batch interval of a rate estimator is 0"));
        }
        for (weight, name) in [(proportional, "proportional"), (integral, "integral"), (derivative, "derivative")] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::configuration(format!("the {name} weight is {weight}, it must not be below 0")));
            }
        }
        if !(min_rate.is_finite() && min_rate > 0.0) {
            return Err(Error::configuration(format!("the minimum rate is {min_rate} records/s, it must be above 0")));
        }
        Ok(PidRateEstimator { settings, interval_ms: batch_interval.as_secs_f64() * 1000.0, last: None })
    }
}

impl RateEstimator for PidRateEstimator {
    fn compute(
        &mut self,
        time_ms: i64,
        records: i64,
        processing_delay_ms: i64,
        scheduling_delay_ms: i64,
    ) -> Option<f64> {
        let is_new = self.last.is_none_or(|last| time_ms > last.time_ms);
        if !is_new || records <= 0 || processing_delay_ms <= 0 {
            return None;
        }
        let rate = records as f64 / processing_delay_ms as f64 * 1000.0;
        let Some(last) = self.last else {
            self.last = Some(Last { time_ms, rate, error: 0.0 });
            return None;
        };
        let PidSettings { proportional, integral, derivative, min_rate } = self.settings;
        let error = last.rate - rate;
        let historical = scheduling_delay_ms as f64 * rate / self.interval_ms;
        let seconds = (time_ms - last.time_ms) as f64 / 1000.0;
        let change = (error - last.error) / seconds;
        let estimate = last.rate - proportional * error - integral * historical - derivative * change;
        let estimate = estimate.max(min_rate);
        self.last = Some(Last { time_ms, rate: estimate, error });
        Some(estimate)
    }
}
