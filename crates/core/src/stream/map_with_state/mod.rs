//! `map_with_state`: one call a record, in order, with the state of its key; and one when a key times out.

mod plain;
mod timed;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use millpond_state::{KeyBlock, PartitionGuard, Slot};

use super::DStream;
use super::state::{Held, KeyedBatch};
use crate::chunk::{chunk, chunk_len};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Stage, Task};
use crate::rdd::{Bucket, Compute, Key, Keyed, Out, Value};
use crate::time::BatchTime;

/// The state of one key, while the function of `map_with_state` is called for one of its records.
#[derive(Debug)]
pub struct State<'a, S> {
    stored: Option<&'a S>,
    change: Change<S>,
    is_timing_out: bool,
}

#[derive(Debug)]
enum Change<S> {
    None,
    Updated(S),
    Removed,
    /// A change while timing out: the call's name.
    Refused(&'static str),
}

impl<'a, S> State<'a, S> {
    fn of(stored: Option<&'a S>) -> Self {
        State { stored, change: Change::None, is_timing_out: false }
    }

    fn timing_out(stored: &'a S) -> Self {
        State { stored: Some(stored), change: Change::None, is_timing_out: true }
    }

    /// Whether the key has state.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// The state, if the key has any: as this call left it.
    pub fn get(&self) -> Option<&S> {
        match &self.change {
            Change::None | Change::Refused(_) => self.stored,
            Change::Updated(state) => Some(state),
            Change::Removed => None,
        }
    }

    /// Gives the key a state. Not while it is timing out: that fails the batch.
    pub fn update(&mut self, state: S) {
        self.change = if self.is_timing_out { Change::Refused("update") } else { Change::Updated(state) };
    }

    /// Removes the key's state; removing what is not there is no error. Not while it is timing out, when it is removed
    /// anyway: that fails the batch.
    pub fn remove(&mut self) {
        self.change = if self.is_timing_out { Change::Refused("remove") } else { Change::Removed };
    }

    /// Whether this call is for no record, but because the key's state has timed out: it is removed after the call.
    pub fn is_timing_out(&self) -> bool {
        self.is_timing_out
    }
}

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// Calls `f(batch time, key, Some(value), state)` for each record, in record order for each key; what it returns is the
    /// output. Only keys with records are visited. What `f` neither updates nor removes stays as it is.
    ///
    /// The name is the state's place in the checkpoint: keep it when the code around it changes. The function must be
    /// deterministic. (The value is an `Option` because a [`timeout`](DStream::timeout) calls `f` without one.)
    ///
    /// [`timeout`](DStream::timeout), [`initial_state`](DStream::initial_state), [`state_snapshots`](DStream::state_snapshots) and
    /// [`schema`](DStream::schema) can be called directly on what this returns.
    pub fn map_with_state<S: Value, U: Send + 'static>(
        self,
        name: &str,
        f: impl Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let (f, slide_ms) = (Arc::new(f), self.slide_ms);
        self.keyed_operator(name, KIND, true, move |batch| MapWithStateRdd {
            batch,
            slide_ms,
            f: f.clone(),
            output: PhantomData,
        })
    }
}

const KIND: &str = "map_with_state";

/// The longest timeout in ms; a longer one never comes.
const LONGEST_TIMEOUT_MS: u64 = 1 << 53;

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// Lets keys of the `map_with_state` before this call time out: a key whose last batch is more than `after` before the
    /// present one, and that has no record in it, gets one call with `None` and [`is_timing_out`](State::is_timing_out), and is
    /// removed. This happens exactly in the first batch in which it holds; what the call returns is in that batch's output.
    ///
    /// A key's last batch is the last one in which the function was called for it, unless that removed it. Fractions of a
    /// millisecond are cut off. The cost of a batch grows with the keys that time out and with those that would have if they
    /// had not been used, not with all keys.
    ///
    /// A timeout may be added, changed and taken away between runs, as other changes of a program: the first batch after that
    /// visits all keys. Where there was none before, all keys count as used in that batch.
    ///
    /// Has to be called directly on what `map_with_state` returned; opening the context fails else.
    ///
    /// ```
    /// # use millpond_core::{seconds, stream::{DStream, State}};
    /// # fn f<'g>(logins: DStream<'g, (String, u64)>) -> DStream<'g, (String, u64)> {
    /// // How long each session was, once it has been quiet for ten minutes.
    /// logins
    ///     .map_with_state("sessions", |_time, user, seconds: Option<u64>, session: &mut State<u64>| {
    ///         let so_far = session.get().copied().unwrap_or(0);
    ///         match seconds {
    ///             Some(seconds) => session.update(so_far + seconds),
    ///             None => return Some((user.clone(), so_far)),
    ///         }
    ///         None
    ///     })
    ///     .timeout(seconds(600))
    /// # }
    /// ```
    pub fn timeout(self, after: Duration) -> DStream<'g, T> {
        self.graph.needs_every_batch();
        let timeout_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).min(LONGEST_TIMEOUT_MS);
        let outcome = match &self.operator {
            Some(operator) => operator.set_timeout(timeout_ms),
            None => Err("it has to be called directly on what map_with_state returned".into()),
        };
        match outcome {
            Ok(()) => self.graph.add_parameter(&self.label, KIND, &format!("timeout {timeout_ms} ms")),
            Err(reason) => self.graph.fail(format!("timeout({after:?}) of `{}`: {reason}", self.label)),
        }
        self
    }
}

struct MapWithStateRdd<K, V, S: Value, U, F> {
    batch: KeyedBatch<K, V, S>,
    /// Time between two of its batches.
    slide_ms: u64,
    f: Arc<F>,
    output: PhantomData<fn() -> U>,
}

impl<K, V, S, U, F> Compute<U> for MapWithStateRdd<K, V, S, U, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    U: Send + 'static,
    F: Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync,
{
    fn partitions(&self) -> usize {
        self.batch.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.batch.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, U>) -> Result<()> {
        let (once, buckets) = self.batch.begin(partition, task)?;
        let mut output = Output { made: Vec::new(), out, task, label: &self.batch.label };
        match &self.batch.opened.held {
            Held::Plain(operator) => {
                let (state, times) = self.map_plain(operator.partition(partition), partition, buckets, &mut output)?;
                task.stage(super::state::StagedState { state, times, once });
            }
            Held::Timed(operator, timeout_ms) => {
                let state = operator.partition(partition);
                let (state, times) = self.map_timed(state, *timeout_ms, partition, buckets, &mut output)?;
                task.stage(super::state::StagedState { state, times, once });
            }
        }
        output.finish()
    }

    fn retryable(&self) -> bool {
        self.batch.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        false
    }
}

/// What the function returns, on its way out in chunks.
struct Output<'a, 'b, U> {
    made: Vec<U>,
    out: &'a mut Out<'b, U>,
    task: &'a Task,
    label: &'a Arc<str>,
}

impl<U> Output<'_, '_, U> {
    #[inline]
    fn add(&mut self, made: Option<U>) -> Result<()> {
        self.made.extend(made);
        if self.made.len() >= chunk_len::<U>() { self.pass_on() } else { Ok(()) }
    }

    #[cold]
    fn pass_on(&mut self) -> Result<()> {
        (self.out)(std::mem::replace(&mut self.made, chunk()))?;
        self.task.enter(self.label);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if self.made.is_empty() { Ok(()) } else { (self.out)(self.made) }
    }
}

/// The slots of all records: all of them first, so that what is on disk is read in one sorted pass.
fn look_up<K: Key, V, S: Value>(state: &mut PartitionGuard<S>, buckets: &[Bucket<Keyed<K, V>>]) -> Result<Vec<Slot>> {
    let mut slots = Vec::with_capacity(buckets.iter().map(Bucket::len).sum());
    let mut block = KeyBlock::default();
    for piece in buckets.iter().flat_map(Bucket::pieces) {
        for together in piece.chunks(KeyBlock::KEYS) {
            together.iter().try_for_each(|record| block.push(record.hash, &record.key))?;
            state.slots(&mut block, &mut slots);
        }
    }
    state.load_misses()?;
    Ok(slots)
}

fn refused(call: &str) -> Error {
    Error::new(
        ErrorKind::Program,
        format!(
            "State::{call} was called for a key that is timing out, which is removed after the call: ask is_timing_out() before"
        ),
    )
}
