//! Stages: tasks that run in parallel, after the stages they depend on, each tried a bounded number of times.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::speculate::race;
use super::{Pool, Speculation, Task};
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// Tasks that need nothing of each other.
pub(crate) trait Stage: Send + Sync {
    /// The stages whose results these tasks read.
    fn dependencies(&self) -> Vec<Arc<dyn Stage>>;

    fn tasks(&self) -> usize;

    /// Runs the task of `task.partition`. Called again after a failure.
    fn run(&self, task: &Task) -> Result<()>;

    /// A second try would find its input gone (it was consumed, and comes from state that has moved on): the batch
    /// has to be recovered instead.
    fn can_retry(&self) -> bool;

    /// Two attempts at one of its tasks may run at the same time: no keyed state is in its lineage, and whatever a task leaves outside
    /// of itself is staged or stands behind [`Task::claims`].
    fn can_race(&self) -> bool {
        false
    }

    /// Whether it has run; set once by [`run_stages`].
    fn done(&self) -> &AtomicBool;

    /// Its results have been taken out by an earlier reader and can be made again: it runs once more.
    fn spent(&self) -> bool {
        false
    }
}

/// What runs the tasks of one context.
pub(crate) struct Executor {
    pub(crate) pool: Pool,
    /// How often a task is tried in all.
    pub(crate) max_attempts: u32,
    /// How often the task was tried that failed last.
    pub(crate) failed_attempts: AtomicU32,
    /// The pipeline has accumulators: what a user's function may compute more than once is kept, so that it counts once.
    pub(crate) has_accumulators: bool,
    pub(crate) speculation: Option<Speculation>,
}

impl Executor {
    pub(crate) fn new(pool: Pool, max_attempts: u32) -> Self {
        Executor { pool, max_attempts, failed_attempts: AtomicU32::new(0), has_accumulators: false, speculation: None }
    }
}

/// Runs `stages` and, before each, what it depends on; each once.
pub(crate) fn run_stages(executor: &Executor, batch: BatchTime, stages: Vec<Arc<dyn Stage>>) -> Result<()> {
    // An explicit stack, since a lineage may be longer than a thread's stack is deep.
    let mut stack: Vec<(Arc<dyn Stage>, bool)> = stages.into_iter().rev().map(|stage| (stage, false)).collect();
    while let Some((stage, expanded)) = stack.pop() {
        if stage.done().load(Ordering::Acquire) && !stage.spent() {
            continue;
        }
        if expanded {
            run_stage(executor, batch, &stage)?;
            stage.done().store(true, Ordering::Release);
        } else {
            let dependencies = stage.dependencies();
            stack.push((stage, true));
            stack.extend(dependencies.into_iter().rev().map(|stage| (stage, false)));
        }
    }
    Ok(())
}

fn run_stage(executor: &Executor, batch: BatchTime, stage: &Arc<dyn Stage>) -> Result<()> {
    let span = tracing::debug_span!("stage", tasks = stage.tasks());
    let _entered = span.enter();
    if let Some(speculation) = executor.speculation
        && stage.tasks() > 1
        && stage.can_race()
    {
        return race(executor, speculation, batch, stage);
    }
    let failure: Arc<Mutex<Option<Error>>> = Arc::default();
    let failed = Arc::new(AtomicBool::new(false));
    let attempts_made = Arc::new(AtomicU32::new(0));
    let max_attempts = executor.max_attempts;
    let work = {
        let (stage, failure, failed) = (stage.clone(), failure.clone(), failed.clone());
        let attempts_made = attempts_made.clone();
        move |partition| {
            if let Outcome::Failed { attempts, error } =
                try_task(&*stage, batch, partition, max_attempts, &failed, None)
            {
                failed.store(true, Ordering::Relaxed);
                attempts_made.store(attempts, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    executor.pool.for_each(stage.tasks(), work)?;
    executor.failed_attempts.store(attempts_made.load(Ordering::Relaxed), Ordering::Relaxed);
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(()), Err)
}

/// What became of a task's attempts.
pub(super) enum Outcome {
    Won,
    /// Another attempt counts, or the stage has failed.
    Lost,
    Failed {
        attempts: u32,
        error: Error,
    },
}

/// Tries a task a bounded number of times.
pub(super) fn try_task(
    stage: &dyn Stage,
    batch: BatchTime,
    partition: usize,
    max_attempts: u32,
    failed: &AtomicBool,
    claim: Option<&Arc<AtomicBool>>,
) -> Outcome {
    for attempt in 1..=max_attempts {
        if failed.load(Ordering::Relaxed) {
            return Outcome::Lost;
        }
        let task = Task::new(batch, partition).with_claim(claim.cloned());
        let error = match task.attempt(|task| stage.run(task)) {
            Ok(true) => return Outcome::Won,
            Ok(false) => return Outcome::Lost,
            Err(error) => error,
        };
        // A stopped context and a wrong setting do not get better by trying again.
        let hopeless = matches!(
            error.kind(),
            ErrorKind::Stopped | ErrorKind::Configuration | ErrorKind::Restore | ErrorKind::Restart
        );
        if attempt < max_attempts && !hopeless && stage.can_retry() {
            tracing::warn!(%error, attempt, "a task failed and is tried again");
            metrics::counter!("millpond_task_retries_total").increment(1);
            continue;
        }
        let tries = if attempt == 1 { String::new() } else { format!(" (tried {attempt} times)") };
        return Outcome::Failed { attempts: attempt, error: Error::new(error.kind(), format!("{error}{tries}")) };
    }
    Outcome::Lost
}
