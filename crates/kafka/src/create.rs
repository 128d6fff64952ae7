//! Making clients: only where the machine has the threads that one needs.

use std::sync::Mutex;
use std::thread;

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rustix::process::{Resource, getrlimit};

use crate::client::Reports;
use crate::error::refused_setting;

/// Threads that a client of a small cluster starts before or soon after it is made: its own and those of its brokers, which are the
/// bootstrap servers, the brokers that they name, and what stands for a coordinator. Found by trying: with four, a client could still lack one.
const THREADS: usize = 5;
/// Makes a client. Nothing is connected yet.
///
/// librdkafka does not come back from making a client (2.12) when its own thread cannot be started, since it waits for that of the group's
/// coordinator then; and a client that got no thread for a bootstrap server knows no broker for as long as it lives. So their threads are
/// tried first, all at once. The C library keeps the stacks for the next threads of the process, which are the client's.
pub(crate) fn create<T: FromClientConfigAndContext<Reports>>(config: &ClientConfig, reports: Reports) -> Result<T> {
    let of = reports.of().to_owned();
    try_threads().map_err(|error| {
        let what = format!("{of}: the machine has no {THREADS} threads more for a Kafka client: no memory, or a limit");
        Error::new(ErrorKind::Retry, what).with_source(error)
    })?;
    config.create_with_context(reports).map_err(|error| refused_setting(&of, error))
}

fn try_threads() -> std::io::Result<()> {
    // What the C library gives a thread unless told otherwise: the limit, or 2 MiB where there is none.
    let limit = getrlimit(Resource::Stack).current.and_then(|bytes| usize::try_from(bytes).ok());
    let stack_bytes = limit.unwrap_or(2 << 20);
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // None ends before all have begun.
        let _held = gate.lock();
        let wait = || drop(gate.lock());
        let start = |_| thread::Builder::new().stack_size(stack_bytes).spawn_scoped(scope, wait).map(drop);
        (0..THREADS).try_for_each(start)
    })
}
