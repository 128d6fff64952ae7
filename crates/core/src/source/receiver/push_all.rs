//! Pushing all that an asynchronous stream gives.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::channel::{Push, Pusher};
use crate::error::Result;

/// Pushes that wait for the log at once: they share its syncs.
const UNDER_WAY: usize = 1024;

/// What [`Pusher::push_all`] gives: ready when the stream has ended and all of it is durable.
#[must_use = "nothing is pushed before it is polled"]
pub struct PushAll<T, S> {
    pusher: Pusher<T>,
    /// `None` after its end.
    stream: Option<Pin<Box<S>>>,
    under_way: VecDeque<Push<T>>,
    pushed: u64,
}

impl<T, S> PushAll<T, S> {
    pub(super) fn new(pusher: Pusher<T>, stream: S) -> Self {
        PushAll { pusher, stream: Some(Box::pin(stream)), under_way: VecDeque::new(), pushed: 0 }
    }
}

impl<T, S: Stream<Item = T>> Future for PushAll<T, S> {
    type Output = Result<u64>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<u64>> {
        let this = &mut *self;
        let mut waiting = std::mem::take(&mut this.under_way);
        while let Some(push) = waiting.pop_front() {
            let taken = this.go_on(push, context)?;
            if !taken {
                // In order: it finds no room, and has to be taken before the ones behind it.
                break;
            }
        }
        this.under_way.append(&mut waiting);
        while this.under_way.len() < UNDER_WAY && this.under_way.back().is_none_or(Push::is_taken) {
            let Some(stream) = &mut this.stream else { break };
            match stream.as_mut().poll_next(context) {
                Poll::Ready(Some(record)) => {
                    this.go_on(this.pusher.push(record), context)?;
                }
                Poll::Ready(None) => this.stream = None,
                Poll::Pending => break,
            }
        }
        match &this.stream {
            None if this.under_way.is_empty() => Poll::Ready(Ok(this.pushed)),
            _ => Poll::Pending,
        }
    }
}

impl<T, S> PushAll<T, S> {
    /// Polls a push, and keeps it behind the others if it is not done; false if it found no room.
    fn go_on(&mut self, mut push: Push<T>, context: &mut Context<'_>) -> Result<bool> {
        if Pin::new(&mut push).poll(context)?.is_ready() {
            self.pushed += 1;
            return Ok(true);
        }
        let taken = push.is_taken();
        self.under_way.push_back(push);
        Ok(taken)
    }
}

impl<T, S> fmt::Debug for PushAll<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushAll").field("pushed", &self.pushed).finish_non_exhaustive()
    }
}
