//! What a receiver holds of its source: storing records, and asking for a restart or the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::intake::{Intake, Outside, Run};
use super::lifecycle::Lifecycle;
use super::payload::{Codec, append_raw};
use crate::error::{Error, ErrorKind, Result};

/// Stores records of a [`Receiver`](super::Receiver). Cloneable, usable from any thread.
///
/// Every way to store waits while the rate is used up, the log is behind or the context's limit on waiting bytes is
/// reached, and returns [`Stopped`](ErrorKind::Stopped) once the source has stopped.
pub struct ReceiverHandle<T> {
    intake: Arc<Intake>,
    lifecycle: Arc<Lifecycle>,
    incarnation: u64,
    codec: Codec<T>,
    restart_delay: Duration,
    outside: Outside,
}

impl<T> ReceiverHandle<T> {
    pub(super) fn new(
        intake: Arc<Intake>,
        lifecycle: Arc<Lifecycle>,
        incarnation: u64,
        codec: Codec<T>,
        restart_delay: Duration,
        outside: Outside,
    ) -> Self {
        ReceiverHandle { intake, lifecycle, incarnation, codec, restart_delay, outside }
    }

    /// Stores one record, unreliably: it is gathered into a block, and gone if the process dies before that is in the
    /// log.
    ///
    /// # Errors
    /// [`Retry`](ErrorKind::Retry) while the log cannot be written to (a full disk): the record was not taken.
    pub fn store(&self, record: T) -> Result<()> {
        super::channel::with_scratch(|bytes| {
            self.codec.append(&record, bytes)?;
            self.intake.store(Run { bytes, records: 1, position: &[], number: None })
        })
    }

    /// Stores records together and comes back when they are durable: then their giver may be told so. They stay in
    /// one block.
    ///
    /// # Errors
    /// As [`store`](ReceiverHandle::store). After an error of kind [`Retry`](ErrorKind::Retry) none of them is in the
    /// log; after another one they may be, and the context stops.
    pub fn store_group(&self, records: &[T]) -> Result<()> {
        self.store_group_at(records, &[])
    }

    /// As [`store_group`](ReceiverHandle::store_group), with the giver's own position after them (an offset, a sequence
    /// number; at most 64 KiB): [`last_position`](ReceiverHandle::last_position) gives it back after a restart.
    pub fn store_group_at(&self, records: &[T], position: &[u8]) -> Result<()> {
        if position.len() > 64 << 10 {
            let message = format!("a position of {} bytes: the limit is 64 KiB", position.len());
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        super::channel::with_scratch(|bytes| {
            records.iter().try_for_each(|record| self.codec.append(record, bytes))?;
            self.intake.store_durably(Run { bytes, records: records.len() as u64, position, number: None })
        })?;
        fail::fail_point!(super::failpoints::SOURCE_ACKNOWLEDGED);
        Ok(())
    }

    /// Stores raw records, unreliably, in one go.
    pub(in crate::source) fn store_raw<'a>(&self, records: impl IntoIterator<Item = (&'a [u8], bool)>) -> Result<()> {
        super::channel::with_scratch(|bytes| {
            let mut count = 0;
            for (record, cut) in records {
                append_raw(record, cut, bytes);
                count += 1;
            }
            self.intake.store(Run { bytes, records: count, position: &[], number: None })
        })
    }

    /// The position that was stored with the newest durable block, also of earlier processes.
    pub fn last_position(&self) -> Option<Vec<u8>> {
        self.intake.last_position()
    }

    /// Whether the receiver has been asked to stop, or a later start has taken its place: its threads should end.
    pub fn is_stopped(&self) -> bool {
        self.lifecycle.is_stopped(self.incarnation)
    }

    /// Tells listeners of an error that the receiver survives.
    pub fn report_error(&self, message: impl fmt::Display) {
        self.report(message);
    }

    /// Reports the reason and has the receiver stopped, and started again after the restart delay of the source.
    /// Comes back at once.
    pub fn restart(&self, reason: impl fmt::Display) {
        self.restart_after(reason, self.restart_delay);
    }

    /// As [`restart`](ReceiverHandle::restart) with a delay of its own.
    pub fn restart_after(&self, reason: impl fmt::Display, delay: Duration) {
        if !self.is_stopped() {
            self.report(format_args!("{reason}; it is started again in {} ms", delay.as_millis()));
            self.lifecycle.restart(self.incarnation, delay);
        }
    }

    /// Reports the reason and has the receiver stopped for good; the context goes on without it. Comes back at once.
    pub fn stop(&self, reason: impl fmt::Display) {
        if !self.is_stopped() {
            self.report(format_args!("{reason}; it is stopped"));
            self.lifecycle.stop(Some(self.incarnation));
        }
    }

    fn report(&self, message: impl fmt::Display) {
        let message = format!("receiver of source `{}`: {message}", self.outside.source);
        self.outside.events.error(Error::new(ErrorKind::Retry, message));
    }
}

impl<T> Clone for ReceiverHandle<T> {
    fn clone(&self) -> Self {
        ReceiverHandle {
            intake: Arc::clone(&self.intake),
            lifecycle: Arc::clone(&self.lifecycle),
            incarnation: self.incarnation,
            codec: self.codec,
            restart_delay: self.restart_delay,
            outside: self.outside.clone(),
        }
    }
}

impl<T> fmt::Debug for ReceiverHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverHandle").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}
