//! `timeouts`: the time of a batch in which a few of many keys time out; beside it that of a batch in which none does.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use millpond::listen::ProgressTracker;
use millpond::{BatchTime, State, StreamingContext, milliseconds, seconds, sink::at_least_once};

use crate::Failure;
use crate::disk::Discard;
use crate::generated::{Generated, batches, key};
use crate::report::{Report, spread_ms};
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys that stay in the state.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Keys that time out in each measured batch.
    #[arg(long, default_value_t = 1_000)]
    expire: u64,
    /// Batches that are measured.
    #[arg(long, default_value_t = 100)]
    batches: u64,
    /// Time between two batches in ms.
    #[arg(long, default_value_t = 200)]
    interval_ms: u64,
}

/// Records of a batch of the filling.
const FILL: u64 = 250_000;

/// Batches between the filling and the first key that times out, in which is done what the filling has left to do; and between the last
/// one and the first of the filling to time out: when computing has fallen behind, the run takes some batch times more.
const REST: u64 = 100;

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let meter = Meter::start()?;
    let Options { keys, expire, batches: measured, interval_ms } = *options;
    // First the keys that will time out, some in each batch; after a while the many, then nothing. Nobody is used again.
    let early = expire * measured;
    let fill = keys.div_ceil(FILL);
    // The records of the first batch are of the time `interval`; they time out after all of these batches and the rest.
    let timeout_batches = measured + REST + fill + REST;
    let sizes = std::iter::repeat_n(expire, measured as usize)
        .chain(std::iter::repeat_n(0, REST as usize))
        .chain(batches(keys, FILL))
        .chain(std::iter::repeat_n(0, (REST + measured + 1) as usize));
    let (planned_up_to, planned) = mpsc::channel();
    let tracker = ProgressTracker::with_limit(usize::MAX);
    let timed_out = Arc::new(AtomicU64::new(0));
    let count = timed_out.clone();
    let context = StreamingContext::builder("timeouts")
        .directory(directory.join("timeouts"))
        .batch_interval(milliseconds(interval_ms))
        .memory_limit_bytes(16 << 30)
        .graceful_stop_timeout(seconds(600))
        .listener(tracker.clone())
        .open(|graph| {
            let source = Generated::new(sizes, 8, key).by_the_clock().tell(planned_up_to);
            graph
                .source("records", source)
                .map(|key| (key, 1_u64))
                .map_with_state("last", move |_, key: &_, one: Option<u64>, state: &mut State<'_, u64>| match one {
                    Some(one) => {
                        let sum = state.get().copied().unwrap_or(0) + one;
                        state.update(sum);
                        None
                    }
                    None => {
                        count.fetch_add(1, Ordering::Relaxed);
                        Some(*key)
                    }
                })
                .timeout(milliseconds(timeout_batches * interval_ms))
                .sink_records("out", at_least_once(Discard), |key: &u64, _, out: &mut millpond::sink::Records| {
                    out.push(None, Some(&key.to_le_bytes()));
                    Ok::<_, Failure>(())
                });
            Ok(())
        })?;
    let running = context.start()?;
    planned.recv()?;
    running.stop_gracefully()?;
    let used = meter.used()?;
    if timed_out.load(Ordering::Relaxed) != early {
        return Err(format!("{} keys timed out instead of {early}", timed_out.load(Ordering::Relaxed)).into());
    }
    let (batches_us, checkpoints_us) = running.durations_us();
    let mut times: Vec<BatchTime> = tracker.completed().iter().map(|batch| batch.time).collect();
    times.sort_unstable();
    let first = *times.first().ok_or("no batch ran")?;
    let from = first + milliseconds(timeout_batches * interval_ms);
    let to = from + milliseconds(measured * interval_ms);
    let between = |from: BatchTime, to: BatchTime| -> Vec<u64> {
        let batches = times.iter().zip(&batches_us).filter(|(time, _)| **time > from && **time <= to);
        batches.map(|(_, us)| *us).collect()
    };
    let idle = between(from - milliseconds(REST / 2 * interval_ms), from);
    Ok(Report::new("timeouts", early, &used, &checkpoints_us, &between(from, to))
        .with("keys", keys)
        .with("idle_batch_ms", spread_ms(&idle)))
}
