//! Windows: streams that bring the last batches of their parent together, at every slide.
//!
//! The window of batch t covers the parent's batches in (t - window, t]; a stream with a slide has something in the batches whose time
//! is a multiple of it after zero time. What a batch of the parent leaves in a window is a *pane*, kept in the state store
//! (`panes`): a restart reads no input again.
//!
//! - `run`: how any window takes panes in and puts out
//! - `records`: the window of any records
//! - `inverse`, `stacks`: the value of each key over a window, with and without an inverse function; `keys` is what both need
//! - `relatives`: counts, groups and reductions of windows, made of these

mod inverse;
mod keys;
mod panes;
mod records;
mod relatives;
mod rows;
mod run;
mod stacks;

use std::sync::Arc;
use std::time::Duration;

use run::Place;

use super::DStream;
use super::state::Stateful;
use crate::rdd::{Key, Value};

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// Registers a window of this stream, and checks its durations.
    fn place(&self, name: &str, kind: &'static str, window: Duration, slide: Duration) -> Place {
        let name = self.graph.name(name, kind, &format!("of {window:?} every {slide:?}"), &self.upstream);
        let parent = self.slide();
        for (what, duration) in [("length", window), ("slide", slide)] {
            if duration.is_zero() || !duration.as_nanos().is_multiple_of(parent.as_nanos().max(1)) {
                self.graph.fail(format!(
                    "the {what} of window `{name}` is {duration:?}, the slide of its parent `{}` is {parent:?}: one must be a \
                     multiple of the other, and not zero",
                    self.label
                ));
            }
        }
        let as_ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
        self.graph.set_slide_ms(&name, as_ms(slide));
        Place { name, kind, window_ms: as_ms(window) }
    }

    /// The records of the last batches together: at every `slide` those of the batches that lie within `length` before it, the oldest
    /// first within a partition. Early windows hold what there is. Both are multiples of this stream's [slide](DStream::slide), else
    /// the context does not open; a slide longer than the window leaves gaps.
    ///
    /// The name is the place of the window's state in the checkpoint: keep it when the code around it changes. The records of a batch are
    /// stored once, and read again at each slide that covers them, so that a restart reads no input again. What is wanted of the
    /// records is often less than all of them: [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) and its relatives
    /// cost what enters and leaves, this costs the window.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(clicks: DStream<'g, String>) {
    /// clicks.window("recent", minutes(10), seconds(30)).transform(|rdd, _at| rdd.filter(|click| click.starts_with("buy"))).print(10);
    /// # }
    /// ```
    pub fn window(self, name: &str, length: Duration, slide: Duration) -> DStream<'g, T>
    where
        T: Value,
    {
        let place = self.place(name, "window", length, slide);
        let spread = self.apply("window", |rdd, _, run| Ok(rdd.spread(run.env.partitions)));
        run::stream(spread, place, records::AsTheyAre)
    }
}

impl<'g, K: Key + Clone, V: Value> DStream<'g, (K, V)> {
    /// The values of each key over a window, folded into one: at every `slide` for the batches that lie within `length` before it.
    /// For durations and the name see [`window`](DStream::window).
    ///
    /// `inverse(value, leaving)` takes out of a value what `f` has put in: `inverse(f(a, b), a)` is `b`. With it a key's value is kept, and
    /// a slide folds in the batches that enter and takes out those that leave, each reduced to one value a key before. The output is every key
    /// that was ever in a window, also with what is left when nothing is: to forget such keys use
    /// [`reduce_by_key_and_window_filtered`](DStream::reduce_by_key_and_window_filtered). Both functions must be deterministic, `f`
    /// associative. Floating-point sums are not exactly inverted: use
    /// [`reduce_by_key_and_window_without_inverse`](DStream::reduce_by_key_and_window_without_inverse).
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(tags: DStream<'g, String>) {
    /// tags.map(|tag| (tag, 1))
    ///     .reduce_by_key_and_window("trend", |a, b| a + b, |a, b| a - b, minutes(10), seconds(10))
    ///     .transform(|rdd, _| rdd.top_by(10, |(_, n)| *n))
    ///     .print(10);
    /// # }
    /// ```
    pub fn reduce_by_key_and_window(
        self,
        name: &str,
        f: impl Fn(V, V) -> V + Send + Sync + 'static,
        inverse: impl Fn(V, V) -> V + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> DStream<'g, (K, V)> {
        self.reduce_by_key_and_window_filtered(name, f, inverse, |_, _| true, length, slide)
    }

    /// As [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window); only keys for which `keep(key, value)` is true are in the output,
    /// and a key that is not is forgotten as soon as no batch of the window has it.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(tags: DStream<'g, String>) {
    /// tags.map(|tag| (tag, 1))
    ///     .reduce_by_key_and_window_filtered("trend", |a, b| a + b, |a, b| a - b, |_, n| *n > 0, minutes(10), seconds(10))
    ///     .print(10);
    /// # }
    /// ```
    pub fn reduce_by_key_and_window_filtered(
        self,
        name: &str,
        f: impl Fn(V, V) -> V + Send + Sync + 'static,
        inverse: impl Fn(V, V) -> V + Send + Sync + 'static,
        keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> DStream<'g, (K, V)> {
        let place = self.place(name, "reduce_by_key_and_window", length, slide);
        let keys = Stateful::new(place.name.clone(), place.kind);
        self.graph.add_operator(keys.clone());
        let reduce = Arc::new(f);
        let each = reduce.clone();
        let work =
            inverse::WithInverse { name: place.name.clone(), keys, reduce: move |a, b| reduce(a, b), inverse, keep };
        run::stream(self.reduce_by_key(move |a, b| each(a, b)), place, work)
    }

    /// As [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) for a function that has no inverse, like the maximum. A key is
    /// in the output while a batch of the window has it. The function must be associative and deterministic; older values come first.
    ///
    /// A slide costs what enters and leaves here too, but for one in each length of the window, which costs the window.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(temperatures: DStream<'g, (String, i64)>) {
    /// temperatures.reduce_by_key_and_window_without_inverse("highest", |a, b| a.max(b), minutes(10), seconds(10)).print(10);
    /// # }
    /// ```
    pub fn reduce_by_key_and_window_without_inverse(
        self,
        name: &str,
        f: impl Fn(V, V) -> V + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> DStream<'g, (K, V)> {
        let place = self.place(name, "reduce_by_key_and_window_without_inverse", length, slide);
        let keys = Stateful::new(place.name.clone(), place.kind);
        self.graph.add_operator(keys.clone());
        let reduce = Arc::new(f);
        let each = reduce.clone();
        let work = stacks::WithoutInverse { name: place.name.clone(), keys, reduce: move |a, b| reduce(a, b) };
        let reduced = self.reduce_by_key(move |a, b| each(a, b)).map(|(key, value)| (key, Some(value)));
        run::stream(reduced, place, work)
    }
}
