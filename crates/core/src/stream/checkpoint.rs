//! How often a stream wants its state in a checkpoint.

use std::time::Duration;

use super::DStream;

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// Has checkpoints written at least this often, for the state of this stream: a multiple of its [`slide`](DStream::slide).
    ///
    /// A directory is checkpointed as a whole, so that all its state is of one batch: of the intervals that streams ask for and that of the
    /// context ([`checkpoint_interval`](crate::Builder::checkpoint_interval)) the shortest holds for all. An interval that does not fit is an error
    /// when the context is opened. It cannot be set on a stream after the start (case E6): streams do not outlive their description.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds};
    /// # fn f<'g>(words: DStream<'g, (String, u64)>) -> DStream<'g, (String, u64)> {
    /// words.update_touched_by_key("totals", |new, old| Some(old.unwrap_or(0) + new.sum())).checkpoint(seconds(5))
    /// # }
    /// ```
    pub fn checkpoint(self, interval: Duration) -> DStream<'g, T> {
        let slide_ms = self.slide_ms;
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let whole = interval.subsec_nanos().is_multiple_of(1_000_000);
        if interval_ms == 0 || !interval_ms.is_multiple_of(slide_ms) || !whole {
            self.graph.fail(format!(
                "checkpoint({interval:?}) of `{}`: it must be a multiple of the stream's slide, {:?}, and not below it",
                self.label,
                self.slide()
            ));
        } else {
            self.graph.checkpoint_every(interval);
        }
        self
    }
}
