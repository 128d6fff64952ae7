//! How the parts of an engine run. An actor takes one message after the other from its inbox. In a service each has a thread of
//! its own; a simulation runs all of them in one thread, in the order that its seed wants, and rules time and chance
//! ([`crate::simulation`]). What an actor does is the same code in both.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, Sender, unbounded};

use crate::error::{Error, ErrorKind, Result};
use crate::simulation::{Actor, Simulator};

/// Threads and the clock of the machine, or what a simulation has in their place.
#[derive(Clone, Default)]
pub(crate) struct Runtime(pub(crate) Option<Arc<dyn Simulator>>);

impl Runtime {
    /// Now, by a clock that never goes back.
    pub(crate) fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |simulator| simulator.now())
    }

    pub(crate) fn sleep(&self, time: Duration) {
        match &self.0 {
            None => std::thread::sleep(time),
            Some(simulator) => drop(simulator.wait(&|| false, Some(simulator.now() + time))),
        }
    }

    /// Waits for a message.
    pub(crate) fn receive<M>(&self, inbox: &Receiver<M>) -> Result<M, RecvError> {
        match &self.0 {
            None => inbox.recv(),
            Some(simulator) => {
                simulator.wait(&|| !inbox.is_empty(), None);
                inbox.try_recv().map_err(|_| RecvError)
            }
        }
    }

    /// Random bytes for an id.
    pub(crate) fn random(&self, id: &mut [u8; 16]) -> Result<()> {
        match &self.0 {
            None => getrandom::fill(id)
                .map_err(|error| Error::new(ErrorKind::Retry, format!("the system gives no random bytes: {error}"))),
            Some(simulator) => {
                simulator.random(id);
                Ok(())
            }
        }
    }
}

/// An actor that does one kind of work after the other. Dropping it waits for its thread.
pub(crate) struct Worker<M> {
    inbox: Option<Sender<M>>,
    thread: Option<JoinHandle<()>>,
    runtime: Runtime,
}

impl<M: Send + 'static> Worker<M> {
    /// Starts it. It ends when `work` says false, or when nobody can send to it any more.
    pub(crate) fn start(runtime: &Runtime, name: String, work: impl FnMut(M) -> bool + Send + 'static) -> Result<Self> {
        let (sender, inbox) = unbounded();
        let mut worker = Work { inbox, work };
        let thread = match &runtime.0 {
            Some(simulator) => {
                simulator.add(&name, Box::new(worker));
                None
            }
            None => {
                let run = move || while worker.inbox.recv().is_ok_and(&mut worker.work) {};
                let thread = std::thread::Builder::new().name(name).spawn(run);
                let cannot = |error| Error::new(ErrorKind::Retry, "cannot start a thread").with_source(error);
                Some(thread.map_err(cannot)?)
            }
        };
        Ok(Worker { inbox: Some(sender), thread, runtime: runtime.clone() })
    }

    /// Gives it a message; lost if it has ended.
    pub(crate) fn send(&self, message: M) {
        if let Some(inbox) = &self.inbox {
            let _ = inbox.send(message);
        }
    }

    /// For others who send to it.
    pub(crate) fn sender(&self) -> Option<Sender<M>> {
        self.inbox.clone()
    }

    /// Gives a message that is answered, and waits for the answer; `None` if the worker has died.
    pub(crate) fn ask<A>(&self, message: impl FnOnce(Sender<A>) -> M) -> Option<A> {
        let (answer, answers) = crossbeam_channel::bounded(1);
        self.send(message(answer));
        self.runtime.receive(&answers).ok()
    }

    /// Waits until it has done all it was given.
    pub(crate) fn close(self) {
        if let (Some(simulator), Some(inbox)) = (&self.runtime.0, &self.inbox) {
            simulator.wait(&|| inbox.is_empty(), None);
        }
    }
}

impl<M> Drop for Worker<M> {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker in a simulation.
struct Work<M, W> {
    inbox: Receiver<M>,
    work: W,
}

impl<M: Send, W: FnMut(M) -> bool + Send> Actor for Work<M, W> {
    fn is_ready(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn step(&mut self) -> bool {
        self.inbox.try_recv().map_or(true, &mut self.work)
    }
}
