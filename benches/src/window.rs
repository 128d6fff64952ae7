//! `window`: sums of each key over a sliding window, put out for every key at each batch.
//!
//! Batches are driven by a clock of the benchmark's own, so that a pane is a batch of a set size, however long it takes. What is
//! measured is one batch after the other, once the window is full: a batch of records enters, one leaves, and every key is put out.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::{BatchTime, StreamingContext, seconds, sink::at_least_once};
use millpond_testkit::ManualClock;

use crate::Failure;
use crate::disk::Discard;
use crate::generated::{Generated, key, uniform_key};
use crate::report::Report;
use crate::usage::Meter;

/// The most a batch may take.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys, each put out at every batch.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Records of a batch, each of a key out of all, uniformly.
    #[arg(long, default_value_t = 100_000)]
    batch: u64,
    /// Batches that a window covers.
    #[arg(long, default_value_t = 60)]
    panes: u64,
    /// Batches that are measured, after the window has been filled; more than the panes, or the turns of a window without an inverse
    /// are not among them as often as they come.
    #[arg(long, default_value_t = 120)]
    batches: u64,
    /// The maximum instead of the sum, which has no inverse.
    #[arg(long)]
    without_inverse: bool,
    /// Bytes of decoded state kept in memory.
    #[arg(long, default_value_t = 4 << 30)]
    memory_limit_bytes: u64,
}

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let Options { keys, batch, panes, batches, without_inverse, memory_limit_bytes } = *options;
    let clock = Arc::new(ManualClock::at_ms(0));
    // The first pane has every key, so that all are put out from the beginning; it leaves when the window is full.
    let sizes = std::iter::once(keys).chain(std::iter::repeat_n(batch, (panes + batches) as usize));
    let make = move |n| if n < keys { key(n) } else { uniform_key(n, keys) };
    let context = StreamingContext::builder("window")
        .directory(directory.join("window"))
        .batch_interval(seconds(1))
        .clock(clock.clone())
        .memory_limit_bytes(memory_limit_bytes)
        .open(|graph| {
            let ones = graph.source("records", Generated::new(sizes, 8, make).by_the_clock()).map(|key| (key, 1_u64));
            let windowed = match without_inverse {
                true => ones.reduce_by_key_and_window_without_inverse("w", |a, b| a.max(b), seconds(panes), seconds(1)),
                false => ones.reduce_by_key_and_window("w", |a, b| a + b, |a, b| a - b, seconds(panes), seconds(1)),
            };
            windowed.sink_records("out", at_least_once(Discard), |_: &_, _, _: &mut _| Ok::<_, Failure>(()));
            Ok(())
        })?;
    let running = context.start()?;
    let next = |time: u64| {
        clock.advance(seconds(1));
        running.await_committed(BatchTime::from_ms(time * 1000), LIMIT)
    };
    (1..=panes + 1).try_for_each(next)?;
    let meter = Meter::start()?;
    let mut batches_us = Vec::new();
    for time in panes + 2..=panes + batches + 1 {
        let begun = Instant::now();
        next(time)?;
        batches_us.push(begun.elapsed().as_micros() as u64);
    }
    let used = meter.used()?;
    running.stop()?;
    let (_, checkpoints_us) = running.durations_us();
    let mean_ms = batches_us.iter().sum::<u64>() as f64 / 1000.0 / batches_us.len().max(1) as f64;
    Ok(Report::new("window", batch * batches, &used, &checkpoints_us, &batches_us)
        .with("mean_batch_ms", mean_ms)
        .with("panes", panes)
        .with("with_inverse", !without_inverse))
}
