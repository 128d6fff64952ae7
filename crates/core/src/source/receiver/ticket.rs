//! What a giver of records waits for: the word that a block is durable, or why it is not.

use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind, Result};

/// An error that can be told to many.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    kind: ErrorKind,
    message: String,
}

impl Told {
    pub(crate) fn of(error: &Error) -> Self {
        Told { kind: error.kind(), message: error.to_string() }
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

/// The outcome of one block, shared by all whose records are in it. Waits by blocking or by waker.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<(), Told>>,
    wakers: Vec<Waker>,
}

impl Ticket {
    /// Tells everybody. Only the first word counts.
    pub(crate) fn complete(&self, outcome: Result<(), Told>) {
        let wakers = {
            let mut state = self.lock();
            state.outcome.get_or_insert(outcome);
            std::mem::take(&mut state.wakers)
        };
        self.done.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for the word. It comes in any case: the log calls back for every block, and whoever gives a block up
    /// completes its ticket.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone().map_err(|told| told.error());
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<()>> {
        let mut state = self.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone().map_err(|told| told.error()));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
