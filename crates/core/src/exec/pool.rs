//! A fixed number of threads that run numbered tasks.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use crate::error::{Error, ErrorKind, Result};

thread_local! {
    /// Whether this thread runs the tasks of a pool: it must not wait for others to.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// The threads of one context. Dropping it waits for the tasks under way.
pub(crate) struct Pool {
    jobs: Option<Sender<Arc<Job>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Tasks `0..count` of one call; threads draw numbers until none is left.
struct Job {
    /// Gone when the call returns: what it holds, keyed state above all, must not outlive the call in a thread's hands.
    run: RwLock<Option<RunTask>>,
    count: usize,
    next: AtomicUsize,
    finished: Mutex<usize>,
    all_finished: Condvar,
}

type RunTask = Box<dyn Fn(usize) + Send + Sync>;

impl Pool {
    pub(crate) fn new(threads: usize, name: &str) -> Result<Self> {
        let (jobs, queue) = unbounded::<Arc<Job>>();
        let spawn = |index| {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("{name}-task-{index}")).spawn(move || {
                IN_TASK.set(true);
                while let Ok(job) = queue.recv() {
                    job.work();
                }
            })
        };
        let threads = (0..threads).map(spawn).collect::<Result<_, _>>().map_err(|error| {
            Error::new(ErrorKind::Retry, format!("cannot start {threads} threads for tasks")).with_source(error)
        })?;
        Ok(Pool { jobs: Some(jobs), threads })
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Runs `run(0)` to `run(count - 1)` and waits for them all. `run` must not panic: tasks catch
    /// the panics of the user's functions themselves.
    ///
    /// # Errors
    /// Called from a task, which could wait for ever for the thread it runs on.
    pub(crate) fn for_each(&self, count: usize, run: impl Fn(usize) + Send + Sync + 'static) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        if IN_TASK.get() {
            return Err(Error::new(
                ErrorKind::Program,
                "an Rdd cannot be computed inside of a function that is computed with another: collect it before, and use what came out",
            ));
        }
        let job = Arc::new(Job {
            run: RwLock::new(Some(Box::new(run))),
            count,
            next: AtomicUsize::new(0),
            finished: Mutex::new(0),
            all_finished: Condvar::new(),
        });
        if count == 1 {
            // Not worth waking anybody.
            IN_TASK.set(true);
            job.work();
            IN_TASK.set(false);
            return Ok(());
        }
        if let Some(jobs) = &self.jobs {
            for _ in 0..self.threads.len().min(count) {
                // Cannot fail: the threads hold the receiver as long as the pool lives.
                let _ = jobs.send(job.clone());
            }
        }
        let mut finished = job.finished.lock().unwrap_or_else(PoisonError::into_inner);
        while *finished < count {
            finished = job.all_finished.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
        drop(finished);
        // Waits for the threads that have just found no number left.
        let run = job.run.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(run);
        Ok(())
    }
}

impl Job {
    fn work(&self) {
        let run = self.run.read().unwrap_or_else(PoisonError::into_inner);
        let Some(run) = &*run else { return };
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            run(index);
            let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
            *finished += 1;
            if *finished == self.count {
                self.all_finished.notify_all();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_holds_is_let_go_when_it_returns() {
        let pool = Pool::new(3, "test").expect("threads");
        for _ in 0..2000 {
            let held = Arc::new(());
            let inside = held.clone();
            pool.for_each(4, move |_| drop(inside.clone())).expect("not in a task");
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }

    #[test]
    fn every_number_runs_once() {
        let pool = Pool::new(3, "test").expect("threads");
        for count in [0, 1, 2, 100] {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let sink = seen.clone();
            pool.for_each(count, move |index| sink.lock().expect("no panic").push(index)).expect("not in a task");
            let mut seen = seen.lock().expect("no panic").clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}
