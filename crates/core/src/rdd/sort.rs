//! Sorting: each partition sorts its own records, a single task cuts the sorted runs into ranges of keys, and each range is
//! merged by a task of its own. Stable. All records are held in memory, once.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use super::{Compute, Exchange, Out, Rdd, in_chunks};
use crate::error::Result;
use crate::exec::{Stage, Task};

/// Records of each run looked at to find the bounds of the ranges.
const SAMPLED: usize = 64;

/// Compares two records by what they are sorted by.
type Compare<T> = Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>;

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// The records in the order of what `f` gives, over as many partitions as before: each holds a range, and the first partition the first
    /// of them. Equal ones keep their order.
    pub fn sort_by<O: Ord>(self, f: impl Fn(&T) -> O + Send + Sync + 'static) -> Rdd<'b, T> {
        self.sorted("sort_by", Arc::new(move |a, b| f(a).cmp(&f(b))))
    }

    fn sorted(self, operator: &str, compare: Compare<T>) -> Rdd<'b, T> {
        let (label, ranges): (Arc<str>, _) = (operator.into(), self.op.partitions().max(1));
        let env = self.env.clone();
        let each = compare.clone();
        let runs = self.map_partitions_labelled(&label, move |records| {
            let mut run: Vec<T> = records.collect();
            run.sort_by(|a, b| each(a, b));
            std::iter::once(run)
        });
        let merge = compare.clone();
        let exchange = Exchange::new(runs.gather(), ranges, move |parent, m, task| {
            let mut runs = Vec::new();
            parent.op.compute(m, task, &mut |chunk| {
                runs.extend(chunk);
                Ok(())
            })?;
            Ok(cut(runs, ranges, &*compare))
        });
        Rdd::new(env, Sorted { exchange, compare: merge, label })
    }
}

impl<'b, K: Ord + Send + 'static, V: Send + 'static> Rdd<'b, (K, V)> {
    /// The records in the order of their keys (by `Ord`), as [`sort_by`](Rdd::sort_by). Values of a key keep their order.
    pub fn sort_by_key(self) -> Self {
        self.sorted("sort_by_key", Arc::new(|a, b| a.0.cmp(&b.0)))
    }

    /// As [`sort_by_key`](Rdd::sort_by_key), largest key first.
    pub fn sort_by_key_descending(self) -> Self {
        self.sorted("sort_by_key_descending", Arc::new(|a, b| Reverse(&a.0).cmp(&Reverse(&b.0))))
    }
}

/// Cuts sorted runs into ranges at the same bounds: for each range its piece of every run, in the order of the runs. All that are
/// equal are in one range.
fn cut<T>(mut runs: Vec<Vec<T>>, ranges: usize, compare: &dyn Fn(&T, &T) -> Ordering) -> Vec<Vec<Vec<T>>> {
    // Where each bound lies in every run: found before anything is moved, since a bound is a record.
    let mut samples: Vec<&T> = runs.iter().flat_map(|run| run.iter().step_by(run.len() / SAMPLED + 1)).collect();
    samples.sort_by(|a, b| compare(a, b));
    let bounds: Vec<&T> = match samples.len() {
        0 => Vec::new(),
        sampled => (1..ranges).map(|range| samples[range * sampled / ranges]).collect(),
    };
    let places: Vec<Vec<usize>> = bounds
        .iter()
        .map(|bound| runs.iter().map(|run| run.partition_point(|record| compare(record, bound).is_lt())).collect())
        .collect();
    let mut pieces: Vec<Vec<Vec<T>>> = Vec::with_capacity(ranges);
    // From the end, so that what is left of a run stays where it is.
    for places in places.iter().rev() {
        pieces.push(runs.iter_mut().zip(places).map(|(run, &at)| run.split_off(at)).collect());
    }
    pieces.push(runs);
    pieces.reverse();
    pieces.resize_with(ranges, Vec::new);
    pieces
}

struct Sorted<T> {
    /// Filled by one task: for each range its piece of every run.
    exchange: Arc<Exchange<Vec<Vec<T>>>>,
    compare: Compare<T>,
    label: Arc<str>,
}

impl<T: Send + 'static> Compute<T> for Sorted<T> {
    fn partitions(&self) -> usize {
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, T>) -> Result<()> {
        let pieces = self.exchange.take(partition, task)?;
        task.enter(&self.label);
        let mut records: Vec<T> = pieces.into_iter().flatten().flatten().collect();
        // The sort of the standard library finds the sorted runs and merges them.
        records.sort_by(|a, b| (self.compare)(a, b));
        in_chunks(records, out)
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        self.exchange.repeatable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_are_never_cut_apart() {
        let runs = vec![vec![1, 1, 1, 5], vec![1, 1, 2], vec![], vec![9]];
        for ranges in 1..6 {
            let pieces = cut(runs.clone(), ranges, &|a: &i32, b: &i32| a.cmp(b));
            assert_eq!(pieces.len(), ranges);
            let mut before = i32::MIN;
            for piece in pieces {
                let mut all: Vec<i32> = piece.into_iter().flatten().collect();
                all.sort_unstable();
                assert!(all.first().is_none_or(|first| *first > before), "{ranges} ranges");
                before = all.last().copied().unwrap_or(before);
            }
        }
    }
}
