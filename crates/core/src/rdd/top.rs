//! The largest records of an `Rdd`.

use std::sync::Arc;

use super::Rdd;

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// The `n` records with the largest keys, the largest first, in one partition; of equal ones those that come first.
    /// A partition is gathered in memory first.
    ///
    /// ```
    /// # use millpond_core::Rdd;
    /// # fn f(counts: Rdd<(String, u64)>) -> Rdd<(String, u64)> {
    /// counts.top_by(10, |(_, count)| *count)
    /// # }
    /// ```
    pub fn top_by<B: Ord>(self, n: usize, key: impl Fn(&T) -> B + Send + Sync + 'static) -> Rdd<'b, T> {
        let label: Arc<str> = "top_by".into();
        let best = Arc::new(move |records: std::vec::IntoIter<T>| {
            let mut best: Vec<T> = Vec::new();
            let keep = |best: &mut Vec<T>| {
                // Stable: what came first stays before its equals.
                best.sort_by_key(|record| std::cmp::Reverse(key(record)));
                best.truncate(n);
            };
            for record in records {
                best.push(record);
                if best.len() >= n.saturating_mul(2).max(64) {
                    keep(&mut best);
                }
            }
            keep(&mut best);
            best
        });
        let of_all = best.clone();
        let of_each = self.map_partitions_labelled(&label, move |records| best(records));
        of_each.gather().map_partitions_labelled(&label, move |records| of_all(records))
    }
}
