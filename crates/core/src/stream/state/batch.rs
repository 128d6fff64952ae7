//! One batch of an operator with keyed state: what its tasks need beside the function, whichever operator it is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{AnyOperator, ComputeOnce, KeyedState, Opened, Snapshots};
use crate::error::Result;
use crate::exec::Task;
use crate::rdd::{Bucket, Compute, Key, Keyed, KeyedExchange, Rdd, RddEnv, Value, shuffle};
use crate::stream::DStream;

/// The records of a partition, by the task that left them there.
type Records<K, V> = Vec<Bucket<Keyed<K, V>>>;

/// What the tasks of one batch share.
pub(crate) struct KeyedBatch<K, V, S: Value> {
    pub(crate) exchange: Arc<KeyedExchange<K, V>>,
    pub(crate) opened: Opened<S>,
    pub(crate) keyed: Arc<KeyedState<K, S>>,
    /// Where all states go, if somebody asks for them.
    pub(crate) snapshots: Option<Arc<Snapshots<K, S>>>,
    pub(crate) env: Arc<RddEnv>,
    pub(crate) label: Arc<str>,
    computed: Vec<Arc<AtomicBool>>,
}

impl<K: Key, V: Send + 'static, S: Value> KeyedBatch<K, V, S> {
    /// A task of a partition begins: it has its records, and is the only one to have the state.
    pub(crate) fn begin(&self, partition: usize, task: &Task) -> Result<(ComputeOnce, Records<K, V>)> {
        let once = ComputeOnce::begin(&self.computed[partition], &self.label)?;
        let buckets = self.exchange.take(partition, task)?;
        task.enter(&self.label);
        Ok((once, buckets))
    }
}

impl<'g, K: Key, V: Send + 'static> DStream<'g, (K, V)> {
    /// A named operator with keyed state, as a stream. `compute` makes what computes a batch.
    pub(crate) fn keyed_operator<S: Value, U: Send + 'static, C: Compute<U> + 'static>(
        self,
        name: &str,
        kind: &'static str,
        has_timeouts: bool,
        compute: impl Fn(KeyedBatch<K, V, S>) -> C + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let name = self.graph.name(name, kind, "", &self.upstream);
        let keyed = KeyedState::<K, S>::new(name.clone(), kind, has_timeouts);
        self.graph.add_operator(keyed.clone());
        let (node, graph) = (self.node(), self.graph.clone());
        let operator: Arc<dyn AnyOperator> = keyed.clone();
        let upstream = self.as_upstream().operator(name.clone());
        let mut stream = DStream::new(graph, name.clone(), upstream, move |run| {
            keyed.rdd(run, |snapshots| {
                let rdd = node.rdd(run)?;
                let env = rdd.env.clone();
                let batch = KeyedBatch {
                    exchange: shuffle(rdd, &name),
                    opened: keyed.opened()?,
                    keyed: keyed.clone(),
                    snapshots,
                    env: env.clone(),
                    label: name.clone(),
                    computed: (0..env.partitions).map(|_| Arc::default()).collect(),
                };
                Ok(Rdd::new(env, compute(batch)))
            })
        });
        stream.operator = Some(operator);
        stream
    }
}
