//! `map_with_state`: one call a record, in order, with the state of its key.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use millpond_state::{KeyBlock, Operator, PartitionGuard};

use super::state::{ComputeOnce, StagedState, Stateful, check_first};
use super::{AnyOperator, DStream};
use crate::error::Result;
use crate::exec::{Stage, Task};
use crate::rdd::{Bucket, CHUNK, Compute, Key, Keyed, KeyedExchange, Out, Rdd, Value, shuffle};
use crate::time::BatchTime;

/// The state of one key, while the function of `map_with_state` is called for one of its records.
#[derive(Debug)]
pub struct State<'a, S> {
    stored: Option<&'a S>,
    change: Change<S>,
}

#[derive(Debug)]
enum Change<S> {
    None,
    Updated(S),
    Removed,
}

impl<S> State<'_, S> {
    /// Whether the key has state.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// The state, if the key has any: as this call left it.
    pub fn get(&self) -> Option<&S> {
        match &self.change {
            Change::None => self.stored,
            Change::Updated(state) => Some(state),
            Change::Removed => None,
        }
    }

    /// Gives the key a state.
    pub fn update(&mut self, state: S) {
        self.change = Change::Updated(state);
    }

    /// Removes the key's state; removing what is not there is no error.
    pub fn remove(&mut self) {
        self.change = Change::Removed;
    }
}

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// Calls `f(batch time, key, Some(value), state)` for each record, in record order for each key; what it returns is the
    /// output. Only keys with records are visited. What `f` neither updates nor removes stays as it is.
    ///
    /// The name is the state's place in the checkpoint: keep it when the code around it changes. The function must be
    /// deterministic. (The value is an `Option` because a timeout calls `f` without one.)
    pub fn map_with_state<S: Value, U: Send + 'static>(
        self,
        name: &str,
        f: impl Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let name = self.graph.name(name, "map_with_state", "", &self.upstream);
        let state = Stateful::<S>::new(name.clone(), "map_with_state");
        self.graph.add_operator(state.clone());
        let (node, graph) = (self.node(), self.graph.clone());
        let f = Arc::new(f);
        let operator: Arc<dyn AnyOperator> = state.clone();
        let mut stream = DStream::new(graph, name.clone(), vec![name.clone()], move |run| {
            let rdd = node.rdd(run)?;
            let env = rdd.env.clone();
            let computed = (0..env.partitions).map(|_| Arc::default()).collect();
            let exchange = shuffle(rdd, &name);
            let operator = state.operator()?;
            let rdd = MapWithStateRdd {
                exchange,
                operator,
                f: f.clone(),
                label: name.clone(),
                computed,
                output: PhantomData,
            };
            Ok(Rdd::new(env, rdd))
        });
        stream.operator = Some(operator);
        stream
    }
}

struct MapWithStateRdd<K, V, S: Value, U, F> {
    exchange: Arc<KeyedExchange<K, V>>,
    operator: Operator<S>,
    f: Arc<F>,
    label: Arc<str>,
    computed: Vec<Arc<AtomicBool>>,
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
        self.exchange.readers()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        vec![self.exchange.clone()]
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, U>) -> Result<()> {
        let once = ComputeOnce::begin(&self.computed[partition], &self.label)?;
        let state = self.map(partition, task, out)?;
        task.stage(StagedState { state, once });
        Ok(())
    }

    fn retryable(&self) -> bool {
        self.exchange.repeatable()
    }

    fn repeatable(&self) -> bool {
        false
    }
}

impl<K, V, S, U, F> MapWithStateRdd<K, V, S, U, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    U: Send + 'static,
    F: Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync,
{
    fn map(&self, partition: usize, task: &Task, out: &mut Out<'_, U>) -> Result<PartitionGuard<S>> {
        let buckets = self.exchange.take(partition, task)?;
        task.enter(&self.label);
        let mut state = self.operator.partition(partition);
        // All slots first, so that what is on disk is read in one sorted pass.
        let mut slots = Vec::with_capacity(buckets.iter().map(Bucket::len).sum());
        let mut block = KeyBlock::default();
        for piece in buckets.iter().flat_map(Bucket::pieces) {
            for together in piece.chunks(KeyBlock::KEYS) {
                together.iter().try_for_each(|record| block.push(record.hash, &record.key))?;
                state.slots(&mut block, &mut slots);
            }
        }
        state.load_misses()?;

        let mut made = Vec::with_capacity(CHUNK.min(slots.len()));
        let mut checked = false;
        for (Keyed { key, value, .. }, slot) in buckets.into_iter().flatten().zip(slots) {
            let mut of_key = State { stored: state.get(slot), change: Change::None };
            made.extend((self.f)(task.batch, &key, Some(value), &mut of_key));
            match of_key.change {
                Change::None => {}
                Change::Updated(updated) => {
                    check_first(&mut checked, &updated, &self.label)?;
                    state.put(slot, Some(updated));
                }
                Change::Removed => {
                    if state.get(slot).is_some() {
                        state.put(slot, None);
                    }
                }
            }
            if made.len() == CHUNK {
                out(std::mem::replace(&mut made, Vec::with_capacity(CHUNK)))?;
                task.enter(&self.label);
            }
        }
        if !made.is_empty() {
            out(made)?;
        }
        Ok(state)
    }
}
