//! Listeners: what a context tells of itself while it runs.
//!
//! `info` is what they are told, `bus` brings it to them on threads of their own, so that a listener that panics, is slow
//! or stops the context never harms a batch; `progress` keeps the newest of it in memory.

mod bus;
mod info;
mod progress;

pub(crate) use bus::{Bus, Event, is_listener_thread};
pub use info::{AccumulatorInfo, BatchInfo, InputInfo, OutputOperationInfo, ReceiverInfo};
pub use progress::{BatchCounts, ProgressTracker};

/// Hears what a context does. All methods do nothing by default.
///
/// Each listener has a thread and a bounded queue of its own: events come one after the other, in the order in which they
/// happened. If it falls behind by more than [`LISTENER_QUEUE_LIMIT`] events, further ones are lost to it, counted
/// ([`Running::lost_listener_events`](crate::Running::lost_listener_events)) and logged. If it panics, it is logged and
/// hears the next event all the same. [`Running::stop`](crate::Running::stop) may be called from here: it asks for the stop and
/// comes back at once.
///
/// A batch is submitted, started and completed once in a process, however often it is tried. A batch that an earlier process
/// planned and did not commit is submitted again by this one; one that was committed is recomputed in silence.
///
/// ```
/// use millpond_core::listen::{BatchInfo, StreamingListener};
///
/// struct Slow;
///
/// impl StreamingListener for Slow {
///     fn on_batch_completed(&mut self, batch: &BatchInfo) {
///         if batch.total_delay_ms() > Some(5_000) {
///             eprintln!("batch {} came {:?} ms late", batch.time, batch.total_delay_ms());
///         }
///     }
/// }
/// ```
pub trait StreamingListener: Send + 'static {
    /// The context is live, since so many milliseconds after the epoch.
    fn on_streaming_started(&mut self, time_ms: u64) {
        let _ = time_ms;
    }

    /// A source has started to receive.
    fn on_receiver_started(&mut self, receiver: &ReceiverInfo) {
        let _ = receiver;
    }

    /// A source reports an error. It goes on, or the context stops with that error.
    fn on_receiver_error(&mut self, receiver: &ReceiverInfo) {
        let _ = receiver;
    }

    /// A source has stopped receiving.
    fn on_receiver_stopped(&mut self, receiver: &ReceiverInfo) {
        let _ = receiver;
    }

    /// A batch has been planned; its plan is durable.
    fn on_batch_submitted(&mut self, batch: &BatchInfo) {
        let _ = batch;
    }

    /// A batch is computed from now on.
    fn on_batch_started(&mut self, batch: &BatchInfo) {
        let _ = batch;
    }

    /// Every sink has committed the batch; or the context stops with an error, and this is the batch that ran.
    fn on_batch_completed(&mut self, batch: &BatchInfo) {
        let _ = batch;
    }

    /// An output operation of a batch is computed from now on; again if the batch is tried again.
    fn on_output_operation_started(&mut self, operation: &OutputOperationInfo) {
        let _ = operation;
    }

    /// An output operation of a batch has been computed, or has failed. Its output is not committed yet.
    fn on_output_operation_completed(&mut self, operation: &OutputOperationInfo) {
        let _ = operation;
    }
}

/// Events that wait for one listener at most.
pub const LISTENER_QUEUE_LIMIT: usize = 10_000;
