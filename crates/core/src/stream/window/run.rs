//! How a window runs, whatever it computes: in every batch of its parent it takes in a pane, and at its slides it puts out.
//!
//! At a slide both happen in one task, when an output asks for the window's `Rdd`. In between, and if no output asks, the window's
//! upkeep takes the pane in, after the outputs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use millpond_state::{Operator, PartitionGuard};

use super::panes::{Chunks, Panes, Row};
use crate::error::Result;
use crate::exec::{Effect, Stage, Task};
use crate::rdd::{Compute, Out, Rdd, Value};
use crate::stream::state::{ComputeOnce, Stateful};
use crate::stream::{BatchOutputs, BatchRun, DStream, Node, Output};

/// What a kind of window makes of its panes at a slide.
pub(super) trait Slide<T: Value>: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Puts out the window of the batches after `start_ms` up to `end_ms`, and deletes the panes that have left it. Returns what is
    /// to be staged beside the panes.
    fn slide(
        &self,
        panes: &mut Panes<T>,
        times: Times,
        task: &Task,
        out: &mut Out<'_, Self::Output>,
    ) -> Result<Option<Box<dyn Effect>>>;
}

/// The batches of a window: those after `start_ms`, up to `end_ms`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

/// A window's place in the graph, checked.
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) window_ms: u64,
}

/// The window as a stream. `parent` has as many partitions as the state.
pub(super) fn stream<'g, T: Value, W: Slide<T>>(
    parent: DStream<'g, T>,
    place: Place,
    work: W,
) -> DStream<'g, W::Output> {
    let Place { name, kind, window_ms } = place;
    let panes = Stateful::<Row<T>>::new(format!("{name}/panes").into(), kind);
    parent.graph.add_operator(panes.clone());
    let asked = parent.graph.next_memo();
    let parent_slide_ms = parent.slide_ms;
    let window = Arc::new(Window { name: name.clone(), parent: parent.node(), panes, window_ms, work: Arc::new(work) });
    let upkeep = Upkeep { window: window.clone(), asked, parent_slide_ms };
    parent.graph.add_window(&name, Box::new(upkeep));
    let upstream = parent.as_upstream().operator(name.clone()).window(window_ms);
    DStream::new(parent.graph, name, upstream, move |run| {
        run.once(asked, || Ok(()))?;
        window.rdd(run, true)
    })
}

struct Window<T: Value, W> {
    name: Arc<str>,
    parent: Arc<dyn Node<T>>,
    panes: Arc<Stateful<Row<T>>>,
    window_ms: u64,
    work: Arc<W>,
}

impl<T: Value, W: Slide<T>> Window<T, W> {
    /// Of the batch under way; if it `slides` not, it takes the pane in and is empty.
    fn rdd(&self, run: &Arc<BatchRun>, slides: bool) -> Result<Rdd<'static, W::Output>> {
        let rdd = WindowRdd {
            label: self.name.clone(),
            parent: self.parent.rdd(run)?,
            panes: self.panes.operator()?,
            window_ms: self.window_ms,
            work: slides.then(|| self.work.clone()),
            computed: (0..run.env.partitions).map(|_| Arc::default()).collect(),
        };
        Ok(Rdd::new(run.env.clone(), rdd))
    }
}

/// Takes in the batches for which no output asks.
struct Upkeep<T: Value, W> {
    window: Arc<Window<T, W>>,
    asked: usize,
    parent_slide_ms: u64,
}

impl<T: Value, W: Slide<T>> Output for Upkeep<T, W> {
    fn name(&self) -> &str {
        &self.window.name
    }

    fn run(&self, run: &Arc<BatchRun>, _: &BatchOutputs) -> Result<()> {
        if !run.env.is_slide(self.parent_slide_ms) || run.has(self.asked) {
            return Ok(());
        }
        let rdd = self.window.rdd(run, false)?;
        rdd.run(|rdd, partition, task| rdd.op.compute(partition, task, &mut |_| Ok(())))?;
        Ok(())
    }
}

struct WindowRdd<T: Value, W> {
    label: Arc<str>,
    parent: Rdd<'static, T>,
    panes: Operator<Row<T>>,
    window_ms: u64,
    /// What is done at a slide; `None` in between.
    work: Option<Arc<W>>,
    computed: Vec<Arc<AtomicBool>>,
}

impl<T: Value, W: Slide<T>> Compute<W::Output> for WindowRdd<T, W> {
    fn partitions(&self) -> usize {
        self.computed.len()
    }

    fn dependencies(&self) -> Vec<Arc<dyn Stage>> {
        self.parent.op.dependencies()
    }

    fn compute(&self, partition: usize, task: &Task, out: &mut Out<'_, W::Output>) -> Result<()> {
        let once = ComputeOnce::begin(&self.computed[partition], &self.label)?;
        let end_ms = task.batch.as_ms();
        let mut panes = Panes::open(self.panes.partition(partition), partition, &self.parent.env, &self.label)?;
        let mut entering = Chunks::new(end_ms);
        self.parent.op.compute(partition, task, &mut |chunk| {
            task.enter(&self.label);
            entering.push(&mut panes, chunk)
        })?;
        task.enter(&self.label);
        panes.enter(entering)?;
        let beside = match &self.work {
            Some(work) => {
                let times = Times { start_ms: end_ms.saturating_sub(self.window_ms), end_ms };
                work.slide(&mut panes, times, task, out)?
            }
            None => None,
        };
        task.stage(StagedPanes { panes: panes.finish()?, beside, once });
        Ok(())
    }

    fn retryable(&self) -> bool {
        self.parent.op.retryable()
    }

    fn repeatable(&self) -> bool {
        false
    }
}

/// What a task has changed: it stays if the task ends well.
struct StagedPanes<T: Value> {
    panes: PartitionGuard<Row<T>>,
    beside: Option<Box<dyn Effect>>,
    once: ComputeOnce,
}

impl<T: Value> Effect for StagedPanes<T> {
    fn keep(mut self: Box<Self>) -> Result<()> {
        self.once.kept();
        self.panes.commit_task()?;
        self.beside.map_or(Ok(()), Effect::keep)
    }

    fn undo(mut self: Box<Self>) {
        if let Some(beside) = self.beside {
            beside.undo();
        }
        self.panes.rollback_task();
    }
}

/// What a task has changed of the keys of a window.
pub(super) struct StagedKeys<V: Value>(pub(super) PartitionGuard<V>);

impl<V: Value> Effect for StagedKeys<V> {
    fn keep(mut self: Box<Self>) -> Result<()> {
        Ok(self.0.commit_task()?)
    }

    fn undo(mut self: Box<Self>) {
        self.0.rollback_task();
    }
}
