//! A fixed number of threads that run numbered tasks.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{JoinHandle, ThreadId};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::{Error, ErrorKind, Result};

thread_local! {
    /// Whether this thread runs the tasks of a pool: it must not wait for others to.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread of a pool has been replaced.
    static LEAVES: Cell<bool> = const { Cell::new(false) };
}

/// This thread was let go of and replaced: it ends when its task does.
pub(crate) fn leave_pool() {
    LEAVES.set(true);
}

/// Runs something on a thread outside of the pool as if it were a task of it.
pub(crate) fn as_task<R>(work: impl FnOnce() -> R) -> R {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            IN_TASK.set(false);
        }
    }
    IN_TASK.set(true);
    let _ends = Ends;
    work()
}

/// The threads of one context. Dropping it waits for the tasks under way, but for those on threads that were let go of.
pub(crate) struct Pool {
    jobs: Option<Sender<Arc<Job>>>,
    queue: Receiver<Arc<Job>>,
    name: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
    count: usize,
    started: AtomicBool,
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
        let pool = Pool::idle(threads, name);
        // With one thread the tasks run on the caller's, which waits for them anyway.
        if threads > 1 {
            pool.start()?;
        }
        Ok(pool)
    }

    /// As [`new`](Pool::new); the threads start when there are tasks for them, if ever.
    pub(crate) fn idle(threads: usize, name: &str) -> Self {
        let (jobs, queue) = unbounded::<Arc<Job>>();
        let started = AtomicBool::new(false);
        Pool { jobs: Some(jobs), queue, name: name.to_owned(), threads: Mutex::default(), count: threads, started }
    }

    fn start(&self) -> Result<()> {
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut threads = self.lock();
        // Another caller may have been quicker.
        while !self.started.load(Ordering::Acquire) && threads.len() < self.count {
            let thread = self.spawn(&format!("{}-task-{}", self.name, threads.len())).map_err(|error| {
                Error::new(ErrorKind::Retry, format!("cannot start {} threads for tasks", self.count))
                    .with_source(error)
            })?;
            threads.push(thread);
        }
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    fn spawn(&self, name: &str) -> std::io::Result<JoinHandle<()>> {
        let queue = self.queue.clone();
        let work = move || {
            IN_TASK.set(true);
            while !LEAVES.get()
                && let Ok(job) = queue.recv()
            {
                job.work();
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work)
    }

    pub(crate) fn threads(&self) -> usize {
        self.count
    }

    /// Lets go of a thread whose task counts no more and may never end; another one takes its place.
    pub(crate) fn replace(&self, thread: ThreadId) {
        self.lock().retain(|handle| handle.thread().id() != thread);
        match self.spawn(&format!("{}-task-again", self.name)) {
            Ok(thread) => self.lock().push(thread),
            Err(error) => tracing::warn!(%error, "no thread in place of one that hangs: the tasks have one less"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `run(0)` to `run(count - 1)` on the pool and does not wait for them.
    ///
    /// # Errors
    /// As [`for_each`](Pool::for_each).
    pub(crate) fn submit(&self, count: usize, run: impl Fn(usize) + Send + Sync + 'static) -> Result<()> {
        refuse_in_task()?;
        self.start()?;
        self.send(&Job::new(count, run));
        Ok(())
    }

    fn send(&self, job: &Arc<Job>) {
        if let Some(jobs) = &self.jobs {
            for _ in 0..self.count.min(job.count) {
                // Cannot fail: the pool holds the receiver as long as it lives.
                let _ = jobs.send(job.clone());
            }
        }
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
        refuse_in_task()?;
        let job = Job::new(count, run);
        if count == 1 || self.count == 1 {
            // Not worth waking anybody.
            as_task(|| job.work());
            return Ok(());
        }
        self.start()?;
        self.send(&job);
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

/// A task could wait for ever for the thread it runs on.
fn refuse_in_task() -> Result<()> {
    if !IN_TASK.get() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Program,
        "an Rdd cannot be computed inside of a function that is computed with another: collect it before, and use what came out",
    ))
}

impl Job {
    fn new(count: usize, run: impl Fn(usize) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Job {
            run: RwLock::new(Some(Box::new(run))),
            count,
            next: AtomicUsize::new(0),
            finished: Mutex::new(0),
            all_finished: Condvar::new(),
        })
    }

    fn work(&self) {
        let run = self.run.read().unwrap_or_else(PoisonError::into_inner);
        let Some(run) = &*run else { return };
        while !LEAVES.get() {
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
        let this = std::thread::current().id();
        for thread in std::mem::take(&mut *self.lock()) {
            // A thread that was let go of may be the last to hold the pool.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
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
