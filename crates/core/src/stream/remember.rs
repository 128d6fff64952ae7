//! Batches that are kept for a while, to be looked at from outside: `remember` and `slice`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{BatchOutputs, BatchRun, DStream, Output, upstream};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::run_stages;
use crate::rdd::{Persisted, Rdd};
use crate::time::BatchTime;

/// The batches of a stream that [`DStream::remember`] keeps. Clones are handles of the same ones, usable from any thread.
#[derive(Clone)]
pub struct Slices<T> {
    label: Arc<str>,
    remembered: Arc<upstream::Kept>,
    slide: Duration,
    kept: Arc<Mutex<Kept<T>>>,
}

struct Kept<T> {
    /// The zero time of the directory; `None` before the first batch.
    zero: Option<BatchTime>,
    batches: BTreeMap<BatchTime, Rdd<'static, T>>,
}

impl<T> std::fmt::Debug for Slices<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Slices({}, {} batches)", self.label, kept.batches.len())
    }
}

impl<T: Send + 'static> Slices<T> {
    /// Calls a function with the batches whose times are in `[from, to]`, both floored to the stream's slide, oldest first; gives what it
    /// gives. Times that are not computed yet, and those up to zero time, have none.
    ///
    /// A batch is here as soon as it is computed: its commit may still be under way. Those that are looked at stay until the function
    /// returns, and cannot be kept longer:
    ///
    /// ```compile_fail
    /// # use millpond_core::{BatchTime, Result, stream::Slices};
    /// # fn f(slices: &Slices<u64>, from: BatchTime, to: BatchTime) -> Result<()> {
    /// let batches = slices.slice(from, to, |batches| Ok(batches))?; // past their time
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```
    /// # use millpond_core::{BatchTime, Result, stream::Slices};
    /// # fn f(slices: &Slices<u64>, from: BatchTime, to: BatchTime) -> Result<()> {
    /// let records = slices.slice(from, to, |batches| batches.iter().map(|batch| batch.collect()).collect::<Result<Vec<_>>>())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Retry`](ErrorKind::Retry) before the first batch of the context; [`Configuration`](ErrorKind::Configuration) if a batch that is asked for is kept
    /// no longer, or was computed by an earlier process; and what the function gives.
    pub fn slice<R>(
        &self,
        from: BatchTime,
        to: BatchTime,
        f: impl for<'b> FnOnce(Vec<Rdd<'b, T>>) -> Result<R>,
    ) -> Result<R> {
        f(self.kept(from, to)?)
    }

    /// The batches themselves: clones, so that nothing waits while they are looked at.
    fn kept(&self, from: BatchTime, to: BatchTime) -> Result<Vec<Rdd<'static, T>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((zero, (&newest, _))) = kept.zero.zip(kept.batches.last_key_value()) else {
            return Err(Error::new(
                ErrorKind::Retry,
                format!("`{}` has not been initialized: no batch of it has been computed since the start", self.label),
            ));
        };
        let from = from.floor_from(self.slide, zero).max(zero + self.slide);
        let to = to.floor_from(self.slide, zero).min(newest);
        from.to(to, self.slide)
            .map(|time| {
                kept.batches.get(&time).cloned().ok_or_else(|| {
                    Error::configuration(format!(
                        "batch {time} of `{}` is not kept: it remembers {:?}, and nothing from before its start; the oldest it has is {}",
                        self.label,
                        self.remembered.duration(),
                        kept.batches.first_key_value().map_or(newest, |(oldest, _)| *oldest)
                    ))
                })
            })
            .collect()
    }

    fn keep(&self, zero: BatchTime, time: BatchTime, rdd: Rdd<'static, T>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.zero = Some(zero);
        kept.batches.insert(time, rdd);
        let oldest = time - self.remembered.duration();
        kept.batches = kept.batches.split_off(&oldest);
    }
}

impl<'g, T: Clone + Send + 'static> DStream<'g, T> {
    /// Keeps each batch in memory for at least so long after it was computed, and gives a handle to look at them from outside. Hand it
    /// out of the description with [`open_with`](crate::Builder::open_with). The stream itself goes on as before; that it is remembered alone is reason
    /// enough to compute it.
    ///
    /// What is made of it may need it for longer: a window keeps it for its own slide and length, and a stream downstream that is remembered
    /// for as long as that, and for the length of each window in between; so much is kept, and seen.
    ///
    /// A stream is remembered once: a second time is an error when the context is opened.
    ///
    /// ```
    /// # use millpond_core::{BatchTime, StreamingContext, seconds, source::{Queue, QueueSource}};
    /// # fn main() -> millpond_core::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let numbers = QueueSource::one_at_a_time(&Queue::<u64>::new()).replayable();
    /// let (context, slices) = StreamingContext::builder("audit").directory(place.path().join("pond")).open_with(|graph| {
    ///     let (numbers, slices) = graph.source("numbers", numbers).remember(seconds(60));
    ///     numbers.print(10);
    ///     Ok(slices)
    /// })?;
    /// let early = slices.slice(BatchTime::from_ms(0), BatchTime::from_ms(1000), |batches| Ok(batches.len())).unwrap_err();
    /// assert!(early.to_string().contains("has not been initialized"));
    /// # drop(context);
    /// # Ok(())
    /// # }
    /// ```
    pub fn remember(self, duration: Duration) -> (DStream<'g, T>, Slices<T>) {
        if self.remembered {
            self.graph.fail(format!("remember({duration:?}) on `{}`, which is remembered already", self.label));
        }
        self.graph.needs_every_batch();
        self.kept.at_least(duration);
        let memo = self.graph.next_memo();
        let (node, slide) = (self.node(), self.slide());
        let kept = Arc::new(Mutex::new(Kept { zero: None, batches: BTreeMap::new() }));
        let slices = Slices { label: self.label.clone(), remembered: self.kept.clone(), slide, kept };
        // Computed once for the stream and for who looks at it.
        let shared = move |run: &Arc<BatchRun>| run.once(memo, || Ok(node.rdd(run)?.kept_as(None)));
        let shared = Arc::new(shared);
        let of_stream = shared.clone();
        let label: Arc<str> = format!("{}.remember", self.label).into();
        self.graph.add_output(Box::new(Remember { label, shared, slices: slices.clone() }));
        let (kept, from) = (self.kept.clone(), self.as_upstream());
        let mut stream = DStream::new(self.graph, self.label, from, move |run| Ok(of_stream(run)?.0));
        stream.kept = kept;
        stream.remembered = true;
        (stream, slices)
    }
}

/// Computes the batch, whoever else needs it, and hands it to those who look.
struct Remember<T, F> {
    label: Arc<str>,
    shared: Arc<F>,
    slices: Slices<T>,
}

impl<T, F> Output for Remember<T, F>
where
    T: Clone + Send + 'static,
    F: Fn(&Arc<BatchRun>) -> Result<(Rdd<'static, T>, Arc<Persisted<T>>)> + Send + Sync,
{
    fn name(&self) -> &str {
        &self.label
    }

    fn run(&self, run: &Arc<BatchRun>, _: &BatchOutputs) -> Result<()> {
        if !run.env.is_slide(self.slices.slide.as_millis() as u64) {
            return Ok(());
        }
        let (rdd, persisted) = (self.shared)(run)?;
        run_stages(&run.env.executor, run.env.batch, vec![persisted.clone()])?;
        // The batch's input must not be held as long as its result.
        persisted.cut();
        self.slices.keep(run.env.zero, run.env.batch, rdd);
        Ok(())
    }
}
