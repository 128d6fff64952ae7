//! A handle on a running context: its progress, and how it is stopped and waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::driver::Message;
use super::status::{ContextState, Progress, Shown, Status};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Accumulator;
use crate::listen::{Bus, ProgressTracker, StreamingListener, is_listener_thread};
use crate::time::BatchTime;

/// A running context. Clones are handles of the same one; dropping them does not stop it.
#[derive(Clone)]
pub struct Running {
    pub(super) status: Arc<Status>,
    pub(super) outbox: Sender<Message>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bus: Arc<Bus>,
    pub(super) accumulators: Arc<[Accumulator]>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({:?})", self.status.read().progress)
    }
}

impl Running {
    /// Where it is in its life.
    pub fn state(&self) -> ContextState {
        self.status.read().state
    }

    /// Its cursors, and what it has done so far.
    pub fn progress(&self) -> Progress {
        self.status.read().progress
    }

    /// The batches that wait and run, the newest 1,000 that have completed, and counts.
    pub fn batches(&self) -> &ProgressTracker {
        self.bus.progress()
    }

    /// The values of the accumulators after the newest committed batch, by name.
    pub fn accumulators(&self) -> BTreeMap<String, i64> {
        let value = |accumulator: &Accumulator| (accumulator.name().to_string(), accumulator.value());
        self.accumulators.iter().map(value).collect()
    }

    /// Adds a listener, which hears what happens from now on. See also [`Builder::listener`](crate::Builder::listener).
    ///
    /// # Errors
    /// [`Stopped`](ErrorKind::Stopped): the context has stopped.
    pub fn add_listener(&self, listener: impl StreamingListener) -> Result<()> {
        self.bus.add(Box::new(listener))
    }

    /// Events that were lost to listeners that were too slow.
    pub fn lost_listener_events(&self) -> u64 {
        self.bus.lost()
    }

    /// Durations of batches (computing) and of checkpoints since the start, in µs.
    pub fn durations_us(&self) -> (Vec<u64>, Vec<u64>) {
        let shown = self.status.read();
        (shown.batch_us.clone(), shown.checkpoint_us.clone())
    }

    /// The context's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Waits until the positions of all input are durable: what is produced from then on cannot be missed.
    ///
    /// # Errors
    /// What stopped the context, or [`Retry`](ErrorKind::Retry) after `timeout`.
    pub fn await_ready(&self, timeout: Duration) -> Result<()> {
        self.await_progress("to be ready", timeout, |shown| shown.ready)
    }

    /// Waits until every sink has committed the batch of `time`, or a later one.
    ///
    /// # Errors
    /// What stopped the context, or [`Retry`](ErrorKind::Retry) after `timeout`.
    pub fn await_committed(&self, time: BatchTime, timeout: Duration) -> Result<()> {
        self.await_progress(&format!("to commit batch {time}"), timeout, |shown| shown.progress.committed >= time)
    }

    /// Waits until a checkpoint of `time` or later is published.
    ///
    /// # Errors
    /// What stopped the context, or [`Retry`](ErrorKind::Retry) after `timeout`.
    pub fn await_checkpoint(&self, time: BatchTime, timeout: Duration) -> Result<()> {
        self.await_progress(&format!("to checkpoint batch {time}"), timeout, |shown| shown.progress.snapshot >= time)
    }

    fn await_progress(&self, what: &str, timeout: Duration, mut done: impl FnMut(&Shown) -> bool) -> Result<()> {
        let outcome = self.status.wait(Some(timeout), |shown| {
            if done(shown) {
                return Some(Ok(()));
            }
            let stopped = || Error::new(ErrorKind::Stopped, "the context has stopped");
            (shown.state == ContextState::Stopped).then(|| Err(shown.error().unwrap_or_else(stopped)))
        });
        outcome
            .unwrap_or_else(|| Err(Error::new(ErrorKind::Retry, format!("waited {timeout:?} for the context {what}"))))
    }

    /// Waits until the context has stopped.
    ///
    /// # Errors
    /// What stopped it, if a failure did.
    pub fn await_termination(&self) -> Result<()> {
        self.status
            .wait(None, |shown| (shown.state == ContextState::Stopped).then(|| shown.error().map_or(Ok(()), Err)))
            .unwrap_or(Ok(()))
    }

    /// As [`await_termination`](Running::await_termination), at most so long: `false` if it still runs.
    ///
    /// # Errors
    /// What stopped it, if a failure did.
    pub fn await_termination_for(&self, timeout: Duration) -> Result<bool> {
        let outcome = self.status.wait(Some(timeout), |shown| {
            (shown.state == ContextState::Stopped).then(|| shown.error().map_or(Ok(()), Err))
        });
        outcome.map_or(Ok(false), |outcome| outcome.map(|()| true))
    }

    /// Stops at once: waits for the tasks under way only, as long as a graceful stop may take. What was received and is not
    /// committed is recovered by the next start. Stopping twice is fine. Called from a listener it comes back at once.
    ///
    /// # Errors
    /// What had stopped it before, if a failure did; a task that does not end.
    pub fn stop(&self) -> Result<()> {
        self.status.update(|shown| {
            shown.stopping = true;
            shown.waits_for = "the tasks under way".into();
        });
        let _ = self.outbox.send(Message::StopNow);
        self.await_stop_or_abandon()
    }

    /// Stops when everything received has been processed and committed and a last checkpoint is written. Stopping twice is fine.
    /// Called from a listener it comes back at once.
    ///
    /// # Errors
    /// What stopped it, if a failure did; [`Stopped`](ErrorKind::Stopped) when it took longer than its limit, naming what was left: nothing is lost,
    /// the next start recovers.
    pub fn stop_gracefully(&self) -> Result<()> {
        self.ask_to_stop();
        self.await_stop_or_abandon()
    }

    pub(crate) fn ask_to_stop(&self) {
        self.status.update(|shown| shown.stopping = true);
        let _ = self.outbox.send(Message::StopGracefully);
    }

    /// Waits for the end; once a stop was asked for, not longer than its limit and a little, since a source may ignore it.
    pub(super) fn await_stop_or_abandon(&self) -> Result<()> {
        if is_listener_thread() {
            // The context waits for its listeners when it ends: it stops without this one's waiting for it.
            return Ok(());
        }
        self.status.wait(None, |shown| (shown.stopping || shown.state == ContextState::Stopped).then_some(()));
        let limit = {
            let shown = self.status.read();
            if shown.state == ContextState::Initialized {
                // Still recovering, perhaps waiting for a broker: there is nothing to finish, and the next start begins again.
                return Ok(());
            }
            shown.stop_limit
        };
        match self.await_termination_for(limit)? {
            true => Ok(()),
            false => {
                let waits_for = self.status.read().waits_for.clone();
                Err(Error::new(
                    ErrorKind::Stopped,
                    format!(
                        "stopping took longer than {limit:?}, waiting for {waits_for}. Nothing is lost: the next start recovers"
                    ),
                ))
            }
        }
    }
}
