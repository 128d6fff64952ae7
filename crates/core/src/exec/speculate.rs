//! Speculative execution: a task that runs far longer than the others of its stage gets a second attempt beside it, on a thread of
//! its own. Whichever ends first counts; what the other has staged is undone.
//!
//! Only stages without keyed state in their lineage race: everything they do outside of themselves is staged until an attempt
//! has *claimed* its task. A thread cannot be ended from outside, so one that still runs a lost attempt is let go of: the pool
//! gets another in its place, and it ends when it comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::pool::leave_pool;
use super::stage::{Executor, Outcome, Stage, try_task};
use crate::error::{Error, Result};
use crate::time::BatchTime;

/// How long the others of a failed stage may still run before they are let go of.
const FAILED_WAIT: Duration = Duration::from_secs(1);

/// When a task gets a second attempt beside the first: once so many of its stage's tasks have ended, for those that run so many times as
/// long as the median of these. The defaults are Spark's.
///
/// ```
/// use millpond_core::{Speculation, milliseconds};
///
/// let eager = Speculation { multiplier: 1.5, min_runtime: milliseconds(20), ..Speculation::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// The part of a stage's tasks that must have ended; 0 to 1, default 0.9.
    pub quantile: f64,
    /// How many times the median of their durations a task must have run; at least 1, default 3.
    pub multiplier: f64,
    /// No task gets a second attempt before it has run so long; default 100 ms.
    pub min_runtime: Duration,
    /// How often the tasks under way are looked at; at least 1 ms, default 100 ms.
    pub check_interval: Duration,
}

impl Default for Speculation {
    fn default() -> Self {
        Speculation {
            quantile: 0.9,
            multiplier: 3.0,
            min_runtime: Duration::from_millis(100),
            check_interval: Duration::from_millis(100),
        }
    }
}

impl Speculation {
    pub(crate) fn validate(&self) -> Result<()> {
        let Speculation { quantile, multiplier, check_interval, .. } = *self;
        if !(0.0..=1.0).contains(&quantile) {
            return Err(Error::configuration(format!("speculation: the quantile is {quantile}, it must be 0 to 1")));
        }
        if !(multiplier.is_finite() && multiplier >= 1.0) {
            return Err(Error::configuration(format!(
                "speculation: the multiplier is {multiplier}, it must be 1 at least"
            )));
        }
        if check_interval < Duration::from_millis(1) {
            return Err(Error::configuration("speculation: the check interval must be 1 ms at least"));
        }
        Ok(())
    }

    /// How long a task must have run, once enough of the `tasks` have taken so long; `None` before.
    fn threshold(&self, tasks: usize, took: &mut [Duration]) -> Option<Duration> {
        let enough = ((self.quantile * tasks as f64) as usize).max(1);
        if took.len() < enough {
            return None;
        }
        took.sort_unstable();
        Some(took[took.len() / 2].mul_f64(self.multiplier).max(self.min_runtime))
    }
}

/// The tasks of one stage, with what is known of each.
struct Race {
    /// `None` when it is over: jobs still in the pool's queue hold nothing of it.
    stage: Mutex<Option<Arc<dyn Stage>>>,
    batch: BatchTime,
    max_attempts: u32,
    failed: AtomicBool,
    claims: Vec<Arc<AtomicBool>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: Vec<TaskState>,
    settled: usize,
    took: Vec<Duration>,
    failure: Option<(u32, Error)>,
}

#[derive(Clone, Default)]
struct TaskState {
    /// The first attempt: since when, and on which thread of the pool.
    first: Option<(Instant, ThreadId)>,
    /// The thread of the first attempt was let go of.
    abandoned: bool,
    second: bool,
    settled: bool,
}

/// Runs a stage's tasks on the pool, the slow ones a second time beside it.
pub(super) fn race(
    executor: &Executor,
    speculation: Speculation,
    batch: BatchTime,
    stage: &Arc<dyn Stage>,
) -> Result<()> {
    let tasks = stage.tasks();
    let race = Arc::new(Race {
        stage: Mutex::new(Some(stage.clone())),
        batch,
        max_attempts: executor.max_attempts,
        failed: AtomicBool::new(false),
        claims: (0..tasks).map(|_| Arc::default()).collect(),
        state: Mutex::new(State { tasks: vec![TaskState::default(); tasks], ..State::default() }),
        changed: Condvar::new(),
    });
    let runner = race.clone();
    executor.pool.submit(tasks, move |partition| runner.first(partition))?;
    let mut state = race.lock();
    while state.settled < tasks && state.failure.is_none() {
        state = race.wait(state, speculation.check_interval);
        let stragglers = state.stragglers(speculation);
        for partition in stragglers {
            race.second(partition);
        }
    }
    if state.failure.is_some() {
        // From now on no attempt can win. Most end by themselves.
        race.claims.iter().for_each(|claim| claim.store(true, Ordering::Release));
        let since = Instant::now();
        while state.tasks.iter().any(|task| task.first.is_some()) && since.elapsed() < FAILED_WAIT {
            state = race.wait(state, speculation.check_interval);
        }
    }
    for task in &mut state.tasks {
        if let Some((_, thread)) = task.first {
            task.abandoned = true;
            executor.pool.replace(thread);
        }
    }
    race.stage.lock().unwrap_or_else(PoisonError::into_inner).take();
    match state.failure.take() {
        Some((attempts, error)) => {
            executor.failed_attempts.store(attempts, Ordering::Relaxed);
            Err(error)
        }
        None => Ok(()),
    }
}

impl State {
    /// Tasks that want a second attempt.
    fn stragglers(&mut self, speculation: Speculation) -> Vec<usize> {
        let tasks = self.tasks.len();
        let Some(threshold) = speculation.threshold(tasks, &mut self.took) else { return Vec::new() };
        let slow = |task: &TaskState| {
            !task.settled && !task.second && task.first.is_some_and(|(since, _)| since.elapsed() > threshold)
        };
        let found: Vec<usize> = (0..tasks).filter(|partition| slow(&self.tasks[*partition])).collect();
        found.iter().for_each(|partition| self.tasks[*partition].second = true);
        found
    }
}

impl Race {
    fn first(&self, partition: usize) {
        let since = Instant::now();
        self.lock().tasks[partition].first = Some((since, std::thread::current().id()));
        let outcome = self.attempts(partition);
        let mut state = self.lock();
        let task = &mut state.tasks[partition];
        task.first = None;
        if task.abandoned {
            leave_pool();
        }
        self.settle(&mut state, partition, since, outcome);
    }

    fn second(self: &Arc<Self>, partition: usize) {
        let (race, since) = (self.clone(), Instant::now());
        let run = move || {
            let outcome = super::pool::as_task(|| race.attempts(partition));
            race.settle(&mut race.lock(), partition, since, outcome);
        };
        let batch = self.batch;
        tracing::warn!(%batch, partition, "a task runs much longer than the others of its stage: it is started once more beside it");
        metrics::counter!("millpond_speculative_tasks_total").increment(1);
        if let Err(error) = std::thread::Builder::new().name("speculative-task".into()).spawn(run) {
            tracing::warn!(%error, "no thread for the second attempt: the first goes on");
        }
    }

    fn attempts(&self, partition: usize) -> Outcome {
        let claim = &self.claims[partition];
        // Let go of before the outcome is told: what it holds may be closed then.
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(stage) = stage else { return Outcome::Lost };
        try_task(&*stage, self.batch, partition, self.max_attempts, &self.failed, Some(claim))
    }

    fn settle(&self, state: &mut State, partition: usize, since: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Won => {
                state.tasks[partition].settled = true;
                state.settled += 1;
                state.took.push(since.elapsed());
            }
            Outcome::Lost => {}
            Outcome::Failed { attempts, error } => {
                self.failed.store(true, Ordering::Relaxed);
                state.failure.get_or_insert((attempts, error));
            }
        }
        self.changed.notify_all();
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_slow_once_enough_others_have_ended_and_by_their_median() {
        let speculation = Speculation::default();
        let ms = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        assert_eq!(speculation.threshold(10, &mut ms(&[50; 8])), None);
        assert_eq!(speculation.threshold(10, &mut ms(&[50; 9])), Some(Duration::from_millis(150)));
        assert_eq!(speculation.threshold(3, &mut ms(&[900, 100])), Some(Duration::from_millis(2700)));
        // Not below the minimum, and of two tasks one is enough.
        assert_eq!(speculation.threshold(2, &mut ms(&[1])), Some(Duration::from_millis(100)));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let wrong = [
            Speculation { quantile: 1.1, ..Speculation::default() },
            Speculation { multiplier: 0.5, ..Speculation::default() },
            Speculation { multiplier: f64::NAN, ..Speculation::default() },
            Speculation { check_interval: Duration::ZERO, ..Speculation::default() },
        ];
        assert!(wrong.iter().all(|wrong| wrong.validate().is_err()));
        assert!(Speculation::default().validate().is_ok());
    }
}
