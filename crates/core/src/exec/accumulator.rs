//! Accumulators: sums that the functions of a pipeline add to, counted exactly once a committed batch.
//!
//! What a task adds is staged on its thread and taken over when the task has ended, as its other effects are (hard case H9).
//! What a batch adds is taken over when all of it has been computed; the driver keeps the totals, checkpoints hold them, and a
//! replay adds the same again to the value of the checkpoint.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A named sum of what the functions of a pipeline add, exactly once for each committed batch: a task that is tried again, a batch
/// that is replayed and a process that is killed add once. Made by [`Graph::accumulator`](crate::Graph::accumulator); clones are
/// handles of the same one.
///
/// It counts what is computed. An `Rdd` that a function of `transform` or `for_each_rdd` computes twice adds twice, unless it is
/// [cached](crate::Rdd::cache).
#[derive(Clone)]
pub struct Accumulator {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    /// By the tasks of the batch that is being computed.
    pending: AtomicI64,
    /// After the newest committed batch.
    value: AtomicI64,
}

/// What one attempt has added.
#[derive(Default)]
pub(crate) struct Staged(Vec<(Accumulator, i64)>);

/// Who takes what is added on this thread.
enum Taker {
    /// Nobody computes here.
    None,
    Attempt(Staged),
    /// Something is computed once more that has been counted already.
    Muted,
}

thread_local! {
    static TAKER: RefCell<Taker> = const { RefCell::new(Taker::None) };
}

impl Accumulator {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Accumulator { shared: Arc::new(Shared { name, pending: AtomicI64::new(0), value: AtomicI64::new(0) }) }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Adds, wrapping around at the ends of `i64`. To be called by the functions of operators and outputs; on any other thread it does
    /// nothing but log a warning, since what it adds there belongs to no batch.
    pub fn add(&self, n: i64) {
        TAKER.with_borrow_mut(|taker| match taker {
            Taker::Attempt(Staged(adds)) => {
                let is_this = |add: &&mut (Accumulator, i64)| Arc::ptr_eq(&add.0.shared, &self.shared);
                match adds.iter_mut().find(is_this) {
                    Some((_, sum)) => *sum = sum.wrapping_add(n),
                    None => adds.push((self.clone(), n)),
                }
            }
            Taker::Muted => {}
            Taker::None => tracing::warn!(
                accumulator = %self.shared.name,
                n,
                "something was added outside of the functions of a pipeline: it belongs to no batch and is not counted"
            ),
        });
    }

    /// The value after the newest batch that every sink has committed.
    pub fn value(&self) -> i64 {
        self.shared.value.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, value: i64) {
        self.shared.value.store(value, Ordering::Release);
    }

    /// A batch begins to be computed.
    pub(crate) fn begin_batch(&self) {
        self.shared.pending.store(0, Ordering::Relaxed);
    }

    /// What the batch has added, all its tasks having ended.
    pub(crate) fn added(&self) -> i64 {
        self.shared.pending.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accumulator({}: {})", self.shared.name, self.value())
    }
}

impl Staged {
    /// The attempt counts.
    pub(crate) fn keep(self) {
        for (accumulator, sum) in self.0 {
            accumulator.shared.pending.fetch_add(sum, Ordering::AcqRel);
        }
    }
}

/// Runs one attempt and gives what it has added; nothing of that counts before [`Staged::keep`].
pub(crate) fn stage<R>(work: impl FnOnce() -> R) -> (R, Staged) {
    let (result, taker) = with_taker(Taker::Attempt(Staged::default()), work);
    match taker {
        Taker::Attempt(staged) => (result, staged),
        Taker::None | Taker::Muted => (result, Staged::default()),
    }
}

/// Runs what was computed, and counted, before.
pub(crate) fn muted<R>(work: impl FnOnce() -> R) -> R {
    with_taker(Taker::Muted, work).0
}

/// Attempts lie within each other: a task may run on the thread of the output that waits for it.
fn with_taker<R>(taker: Taker, work: impl FnOnce() -> R) -> (R, Taker) {
    struct Restore(Option<Taker>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(before) = self.0.take() {
                TAKER.set(before);
            }
        }
    }
    let mut restore = Restore(Some(TAKER.replace(taker)));
    let result = work();
    let before = restore.0.take().unwrap_or(Taker::None);
    (result, TAKER.replace(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(accumulator: &Accumulator, work: impl FnOnce()) -> i64 {
        accumulator.begin_batch();
        work();
        accumulator.added()
    }

    #[test]
    fn only_what_an_attempt_adds_and_keeps_counts() {
        let sum = Accumulator::new("sum".into());
        assert_eq!(added(&sum, || sum.add(1)), 0);
        assert_eq!(added(&sum, || drop(stage(|| sum.add(1)))), 0);
        assert_eq!(added(&sum, || stage(|| (sum.add(1), sum.add(2))).1.keep()), 3);
        assert_eq!(added(&sum, || stage(|| muted(|| sum.add(1))).1.keep()), 0);
    }

    #[test]
    fn an_attempt_within_another_is_apart_and_a_panic_leaves_the_outer_one() {
        let sum = Accumulator::new("sum".into());
        let outer = || {
            sum.add(1);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                stage(|| {
                    sum.add(10);
                    panic!("once");
                })
            }));
            stage(|| sum.add(100)).1.keep();
            sum.add(1);
        };
        assert_eq!(added(&sum, || stage(outer).1.keep()), 102);
    }
}
