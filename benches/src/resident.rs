//! `resident`: the time of a small batch where much state is in memory, once with every key visited and once with the touched
//! keys only.

use std::path::Path;
use std::sync::mpsc;

use millpond::{StreamingContext, milliseconds, seconds, sink::at_least_once};

use crate::Failure;
use crate::disk::Discard;
use crate::generated::{Generated, batches, key, uniform_key};
use crate::report::{Report, spread_ms};
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys in the state.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Records of a batch, each of a key out of all, uniformly.
    #[arg(long, default_value_t = 10_000)]
    batch: u64,
    /// Batches that are measured.
    #[arg(long, default_value_t = 100)]
    batches: u64,
    /// Time between two batches in ms.
    #[arg(long, default_value_t = 100)]
    interval_ms: u64,
}

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let meter = Meter::start()?;
    let (all, mut checkpoints_us) = measure(options, true, &directory.join("all-keys"))?;
    let (touched, more_checkpoints_us) = measure(options, false, &directory.join("touched"))?;
    checkpoints_us.extend(more_checkpoints_us);
    let records = 2 * (options.keys + options.batch * options.batches);
    Ok(Report::new("resident", records, &meter.used()?, &checkpoints_us, &all)
        .with("touched_batch_ms", spread_ms(&touched)))
}

/// Durations of the small batches, and of the checkpoints beside them.
fn measure(options: &Options, all_keys: bool, place: &Path) -> Result<(Vec<u64>, Vec<u64>), Failure> {
    let Options { keys, batch, batches: small, interval_ms } = *options;
    let fill: Vec<u64> = batches(keys, 250_000).collect();
    let sizes = fill.iter().copied().chain(std::iter::repeat_n(batch, small as usize));
    let (planned_up_to, planned) = mpsc::channel();
    let make = move |n| if n < keys { key(n) } else { uniform_key(n, keys) };
    let context = StreamingContext::builder("resident")
        .directory(place)
        .batch_interval(milliseconds(interval_ms))
        .graceful_stop_timeout(seconds(600))
        .open(|graph| {
            let records = graph.source("records", Generated::new(sizes, 8, make).by_the_clock().tell(planned_up_to));
            let ones = records.map(|key| (key, 1_u64));
            let counts = match all_keys {
                true => ones.update_state_by_key("counts", |ones, count| Some(count.unwrap_or(0) + ones.sum())),
                false => ones.update_touched_by_key("counts", |ones, count| Some(count.unwrap_or(0) + ones.sum())),
            };
            counts.sink_records("out", at_least_once(Discard), |_: &_, _, _: &mut _| Ok::<_, Failure>(()));
            Ok(())
        })?;
    let running = context.start()?;
    planned.recv()?;
    running.stop_gracefully()?;
    let (batches_us, checkpoints_us) = running.durations_us();
    let of_small = batches_us.get(fill.len()..fill.len() + small as usize);
    Ok((of_small.ok_or("fewer batches ran than were planned")?.to_vec(), checkpoints_us))
}
