//! The relatives of windows: what is counted, reduced or grouped over one.

use std::time::Duration;

use super::panes::Panes;
use super::run::{self, Slide, Times};
use crate::error::Result;
use crate::exec::{Effect, Task};
use crate::rdd::{CombineTable, Key, Out, Value, encoded, in_chunks};
use crate::stream::DStream;

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// The number of records of a window: at every `slide` exactly one element, 0 for an empty window. For durations and the name see
    /// [`window`](DStream::window).
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(clicks: DStream<'g, String>) {
    /// clicks.count_by_window("clicks-per-minute", minutes(1), seconds(10)).print(1);
    /// # }
    /// ```
    pub fn count_by_window(self, name: &str, length: Duration, slide: Duration) -> DStream<'g, u64> {
        self.count().reduce_by_window(name, |a, b| a + b, |a, b| a - b, length, slide)
    }

    /// The records of a window folded into one, with an inverse function as in
    /// [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window). No element before the first record; from then on one at every
    /// slide, also for an empty window.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(amounts: DStream<'g, i64>) {
    /// amounts.reduce_by_window("total", |a, b| a + b, |a, b| a - b, minutes(1), seconds(10)).print(1);
    /// # }
    /// ```
    pub fn reduce_by_window(
        self,
        name: &str,
        f: impl Fn(T, T) -> T + Send + Sync + 'static,
        inverse: impl Fn(T, T) -> T + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> DStream<'g, T>
    where
        T: Value,
    {
        self.keyless().reduce_by_key_and_window(name, f, inverse, length, slide).map(|(_, value)| value)
    }

    /// As [`reduce_by_window`](DStream::reduce_by_window) for a function that has no inverse; no element for an empty window.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(temperatures: DStream<'g, i64>) {
    /// temperatures.reduce_by_window_without_inverse("highest", |a, b| a.max(b), minutes(1), seconds(10)).print(1);
    /// # }
    /// ```
    pub fn reduce_by_window_without_inverse(
        self,
        name: &str,
        f: impl Fn(T, T) -> T + Send + Sync + 'static,
        length: Duration,
        slide: Duration,
    ) -> DStream<'g, T>
    where
        T: Value,
    {
        self.keyless().reduce_by_key_and_window_without_inverse(name, f, length, slide).map(|(_, value)| value)
    }

    /// One key for all.
    fn keyless(self) -> DStream<'g, ((), T)> {
        self.apply("keyless", |rdd, label, _| Ok(rdd.map_labelled(label, |record| ((), record))))
    }

    /// How often each record occurs in a window; those that are not in it are not in the output. For durations and the name see
    /// [`window`](DStream::window).
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(tags: DStream<'g, String>) {
    /// tags.count_by_value_and_window("tags", minutes(10), seconds(10)).print(10);
    /// # }
    /// ```
    pub fn count_by_value_and_window(self, name: &str, length: Duration, slide: Duration) -> DStream<'g, (T, u64)>
    where
        T: Key + Clone,
    {
        self.apply("count_by_value", |rdd, label, _| Ok(rdd.map_labelled(label, |record| (record, 1))))
            .reduce_by_key_and_window_filtered(name, |a, b| a + b, |a, b| a - b, |_, count| *count > 0, length, slide)
    }
}

impl<'g, K: Key + Clone, V: Value> DStream<'g, (K, V)> {
    /// All values of each key of a window: batch by batch, within a batch in record order. For durations and the name see
    /// [`window`](DStream::window); the costs are as there.
    ///
    /// ```
    /// # use millpond_core::{DStream, seconds, minutes};
    /// # fn f<'g>(clicks: DStream<'g, (u64, String)>) {
    /// clicks.group_by_key_and_window("clicks-by-user", minutes(10), seconds(30)).print(10);
    /// # }
    /// ```
    pub fn group_by_key_and_window(self, name: &str, length: Duration, slide: Duration) -> DStream<'g, (K, Vec<V>)> {
        let place = self.place(name, "group_by_key_and_window", length, slide);
        run::stream(self.group_by_key(), place, Groups)
    }
}

/// Puts the groups of all panes together.
struct Groups;

impl<K: Key + Clone, V: Value> Slide<(K, Vec<V>)> for Groups {
    type Output = (K, Vec<V>);

    fn slide(
        &self,
        panes: &mut Panes<(K, Vec<V>)>,
        times: Times,
        _: &Task,
        out: &mut Out<'_, (K, Vec<V>)>,
    ) -> Result<Option<Box<dyn Effect>>> {
        let leaving = panes.until(times.start_ms)?;
        panes.delete(&leaving)?;
        let mut table = CombineTable::new();
        for pane in panes.until(times.end_ms)? {
            panes.read(&pane, |groups| {
                for (key, values) in groups {
                    let (hash, bytes) = encoded(key)?;
                    table.fold(
                        hash,
                        bytes,
                        || key.clone(),
                        |group: Option<Vec<V>>| {
                            let mut group = group.unwrap_or_default();
                            group.extend_from_slice(values);
                            group
                        },
                    );
                }
                Ok(())
            })?;
        }
        in_chunks(table.into_records(), out)?;
        Ok(None)
    }
}
