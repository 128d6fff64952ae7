//! Rate control: how many records a second an input may bring, judged by the batches before.
//!
//! `pid` is the estimator; the driver asks one for each input after each committed batch and gives what comes out to the
//! input's next plans ([`Backpressure`] on the builder).

mod pid;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use pid::{PidRateEstimator, PidSettings};

use crate::error::{Error, Result};

/// Estimates, from the batches of one input, how many records a second the pipeline can take from it.
pub trait RateEstimator: Send {
    /// Takes a committed batch in; the new rate in records a second, or `None` if it says nothing new.
    ///
    /// `time_ms`: the end of its processing. `records`: those of this input. `processing_delay_ms`: computing, committing and the
    /// freeze before a checkpoint. `scheduling_delay_ms`: how long it waited before.
    fn compute(
        &mut self,
        time_ms: i64,
        records: i64,
        processing_delay_ms: i64,
        scheduling_delay_ms: i64,
    ) -> Option<f64>;
}

/// Makes the estimator of an input: of its name and the batch interval.
type MakeEstimator = dyn Fn(&str, Duration) -> Result<Box<dyn RateEstimator>> + Send + Sync;

/// Rate control of all inputs: off unless it is given to [`Builder::backpressure`](crate::Builder::backpressure).
///
/// ```
/// use millpond_core::rate::{Backpressure, PidSettings};
///
/// let control = Backpressure::pid(PidSettings { min_rate: 500.0, ..PidSettings::default() }).initial_rate(20_000.0);
/// ```
#[derive(Clone)]
pub struct Backpressure {
    make: Arc<MakeEstimator>,
    initial_rate: Option<f64>,
}

impl Backpressure {
    /// With a PID estimator for each input.
    pub fn pid(settings: PidSettings) -> Self {
        Backpressure::estimators(move |_, interval| Ok(Box::new(PidRateEstimator::new(interval, settings)?)))
    }

    /// With estimators of the program's own: `make(name of the input, batch interval)`.
    pub fn estimators(make: impl Fn(&str, Duration) -> Result<Box<dyn RateEstimator>> + Send + Sync + 'static) -> Self {
        Backpressure { make: Arc::new(make), initial_rate: None }
    }

    /// Records a second of each input until there is a first estimate; default: what the input's own maximum allows. Set it
    /// where the backlog after a long rest could be more than memory takes.
    pub fn initial_rate(mut self, records_per_second: f64) -> Self {
        self.initial_rate = Some(records_per_second);
        self
    }

    /// The controller of one input.
    pub(crate) fn controller(&self, input: &str, interval: Duration) -> Result<RateController> {
        if let Some(rate) = self.initial_rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(Error::configuration(format!("the initial rate is {rate} records/s, it must be above 0")));
        }
        let estimator =
            (self.make)(input, interval).map_err(|error| error.context(format!("rate control of `{input}`")))?;
        Ok(RateController { estimator, interval, rate: self.initial_rate })
    }
}

impl Default for Backpressure {
    /// PID with its default settings.
    fn default() -> Self {
        Backpressure::pid(PidSettings::default())
    }
}

impl fmt::Debug for Backpressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backpressure").field("initial_rate", &self.initial_rate).finish_non_exhaustive()
    }
}

/// The estimator of one input and what it said last.
pub(crate) struct RateController {
    estimator: Box<dyn RateEstimator>,
    interval: Duration,
    /// Records a second.
    rate: Option<f64>,
}

impl RateController {
    /// Takes a committed batch in.
    pub(crate) fn completed(&mut self, time_ms: u64, records: u64, processing_ms: u64, scheduling_ms: u64) {
        let [time, records, processing, scheduling] =
            [time_ms, records, processing_ms, scheduling_ms].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let estimate = self.estimator.compute(time, records, processing, scheduling);
        if let Some(rate) = estimate.filter(|rate| rate.is_finite() && *rate > 0.0) {
            self.rate = Some(rate);
        }
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// At most so many records for one batch; one at least, else nothing would ever be measured again.
    pub(crate) fn max_records(&self) -> Option<u64> {
        // Beyond 2^53 nobody counts records of a batch; a cast saturates.
        self.rate.map(|rate| ((rate * self.interval.as_secs_f64()) as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<f64>);

    impl RateEstimator for Fixed {
        fn compute(&mut self, _: i64, _: i64, _: i64, _: i64) -> Option<f64> {
            self.0
        }
    }

    fn controller(rate: Option<f64>, control: impl FnOnce(Backpressure) -> Backpressure) -> Result<RateController> {
        let control = control(Backpressure::estimators(move |_, _| Ok(Box::new(Fixed(rate)))));
        control.controller("in", Duration::from_millis(500))
    }

    #[test]
    fn a_rate_becomes_records_a_batch_and_stays_until_the_next() {
        let mut controller = controller(Some(100.9), |control| control).expect("a controller");
        assert_eq!(controller.max_records(), None);
        controller.completed(0, 1, 1, 1);
        assert_eq!(controller.max_records(), Some(50));
        controller.estimator = Box::new(Fixed(None));
        controller.completed(1, 1, 1, 1);
        assert_eq!((controller.rate(), controller.max_records()), (Some(100.9), Some(50)));
        controller.estimator = Box::new(Fixed(Some(f64::NAN)));
        controller.completed(2, 1, 1, 1);
        assert_eq!(controller.max_records(), Some(50));
    }

    #[test]
    fn the_initial_rate_counts_until_there_is_an_estimate() {
        let initial = controller(None, |control| control.initial_rate(8.0)).expect("a controller");
        assert_eq!(initial.max_records(), Some(4));
        let error = controller(None, |control| control.initial_rate(0.0)).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("initial rate")), "{error:?}");
    }
}
