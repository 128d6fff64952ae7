//! [`DStream`]: a sequence of `Rdd`s, one a batch; and the [`Graph`] in which streams are described.
//!
//! Every operator on a stream is an operator on each of its `Rdd`s. A stream is consumed by the
//! operator it is given to; to use it twice it is cloned, and then computed once for both (hard case H14).

mod checkpoint;
mod fingerprint;
mod graph;
mod join;
mod keyed;
mod map_with_state;
mod narrow;
mod output;
mod remember;
mod run;
mod save;
mod source;
mod state;
mod update;
mod upstream;
mod window;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::rdd::Rdd;

pub use graph::Graph;
pub use map_with_state::State;
pub use remember::Slices;
pub use update::Values;

pub(crate) use fingerprint::Fingerprint;
pub(crate) use graph::{GraphParts, Replace, ReplaceSink, ReplaceSource};
pub(crate) use output::{BatchOutputs, Output, OutputTarget};
pub(crate) use run::BatchRun;
pub(crate) use source::{AnySource, Input};
pub(crate) use state::AnyOperator;
pub(crate) use upstream::Upstream;

/// A stream of batches of `T`.
///
/// It belongs to its [`Graph`], and cannot leave the function that describes the graph: adding an operator to a context
/// that runs does not compile (case J11).
///
/// ```compile_fail
/// use millpond_core::{StreamingContext, source::{Queue, QueueSource}};
/// let queue = Queue::<u64>::new();
/// let mut kept = None;
/// let context = StreamingContext::builder("late").open(|graph| {
///     kept = Some(graph.source("numbers", QueueSource::one_at_a_time(&queue)));
///     Ok(())
/// });
/// kept.unwrap().map(|n| n + 1);
/// ```
#[must_use = "a stream that ends in no output is never computed"]
pub struct DStream<'g, T> {
    pub(crate) graph: Graph<'g>,
    node: RefCell<Arc<dyn Node<T>>>,
    /// Where in the graph it stands, for messages: `lines.flat_map`.
    pub(crate) label: Arc<str>,
    /// The named operators or sources directly upstream: for the fingerprint.
    pub(crate) upstream: Vec<Arc<str>>,
    /// How long its batches are kept.
    kept: Arc<upstream::Kept>,
    /// It has something in the batches whose time is a multiple of this after zero time.
    slide_ms: u64,
    /// Somebody looks at its batches from outside.
    remembered: bool,
    /// The source's number, if it is the stream of a source itself.
    source: Option<usize>,
    /// The operator, if it is the stream of a stateful operator itself.
    pub(crate) operator: Option<Arc<dyn AnyOperator>>,
}

/// What gives a stream's `Rdd` of each batch.
pub(crate) trait Node<T>: Send + Sync {
    fn rdd(&self, run: &Arc<BatchRun>) -> Result<Rdd<'static, T>>;
}

impl<T, F: Fn(&Arc<BatchRun>) -> Result<Rdd<'static, T>> + Send + Sync> Node<T> for F {
    fn rdd(&self, run: &Arc<BatchRun>) -> Result<Rdd<'static, T>> {
        self(run)
    }
}

impl<'g, T: Send + 'static> DStream<'g, T> {
    pub(crate) fn new(
        graph: Graph<'g>,
        label: Arc<str>,
        upstream: Upstream,
        node: impl Fn(&Arc<BatchRun>) -> Result<Rdd<'static, T>> + Send + Sync + 'static,
    ) -> Self {
        let slide_ms = graph.slide_ms_of(&label, &upstream.names);
        // Between its slides it has nothing, and nothing upstream is asked for it.
        let node = move |run: &Arc<BatchRun>| {
            if run.env.is_slide(slide_ms) { node(run) } else { Ok(Rdd::nothing(run.env.clone())) }
        };
        DStream {
            graph,
            node: RefCell::new(Arc::new(node)),
            label,
            upstream: upstream.names.clone(),
            kept: upstream.kept(slide_ms),
            slide_ms,
            remembered: false,
            source: None,
            operator: None,
        }
    }

    /// How far its batches are apart: the batch interval, or the slide of the nearest window before it.
    pub fn slide(&self) -> Duration {
        Duration::from_millis(self.slide_ms)
    }

    /// What a stream that is made of this one comes from.
    pub(crate) fn as_upstream(&self) -> Upstream {
        Upstream::of(self.upstream.clone(), self.kept.clone())
    }

    pub(crate) fn node(&self) -> Arc<dyn Node<T>> {
        self.node.borrow().clone()
    }

    /// A stream whose `Rdd` is a function of this one's, without a name of its own.
    pub(crate) fn apply<U: Send + 'static>(
        self,
        operator: &str,
        f: impl Fn(Rdd<'static, T>, &Arc<str>, &Arc<BatchRun>) -> Result<Rdd<'static, U>> + Send + Sync + 'static,
    ) -> DStream<'g, U> {
        let label: Arc<str> = format!("{}.{operator}", self.label).into();
        let (node, inner, upstream) = (self.node(), label.clone(), self.as_upstream());
        DStream::new(self.graph, label, upstream, move |run| f(node.rdd(run)?, &inner, run))
    }
}

impl<T: Clone + Send + 'static> Clone for DStream<'_, T> {
    /// The same stream once more: its batches are computed once, and kept until both have read them.
    fn clone(&self) -> Self {
        let mut node = self.node.borrow_mut();
        // Wrapping what is shared already only adds a look-up a batch.
        let shared = run::share(self.graph.next_memo(), node.clone());
        *node = shared.clone();
        DStream {
            graph: self.graph.clone(),
            node: RefCell::new(shared),
            label: self.label.clone(),
            upstream: self.upstream.clone(),
            kept: self.kept.clone(),
            slide_ms: self.slide_ms,
            remembered: self.remembered,
            source: None,
            operator: None,
        }
    }
}

impl<T> std::fmt::Debug for DStream<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DStream({})", self.label)
    }
}
