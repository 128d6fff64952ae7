//! `keyed-count`: records counted per key in process, touched keys only, with a durable checkpoint each second.

use std::path::Path;
use std::sync::mpsc;

use millpond::{StreamingContext, milliseconds, seconds, sink::at_least_once};
use millpond_state::OperatorSpec;

use crate::disk::{Discard, filler, read_back};
use crate::generated::{Generated, batches, uniform_key};
use crate::report::Report;
use crate::usage::Meter;
use crate::{Failure, bare};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records to count.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Keys they are spread over, uniformly.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Records of a batch. A batch is planned when one of the two before it has been committed.
    #[arg(long, default_value_t = 1_000_000)]
    batch: u64,
    /// Partitions of the input.
    #[arg(long, default_value_t = 8)]
    input_partitions: u64,
    /// Partitions of the shuffle and the state.
    #[arg(long, default_value_t = 16)]
    partitions: usize,
    /// Keys as text of 11 letters instead of numbers.
    #[arg(long)]
    text_keys: bool,
}

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let (keys, place) = (options.keys, directory.join("keyed-count"));
    let meter = Meter::start()?;
    let (planned_up_to, planned) = mpsc::channel();
    let context = StreamingContext::builder("keyed-count")
        .directory(&place)
        .batch_interval(milliseconds(50))
        .checkpoint_interval(seconds(1))
        .partitions(options.partitions)
        .graceful_stop_timeout(seconds(600))
        .open(|graph| {
            let sizes = batches(options.records, options.batch);
            let records = Generated::new(sizes, options.input_partitions, move |n| uniform_key(n, keys));
            let records = graph.source("records", records.tell(planned_up_to));
            if options.text_keys {
                let counts = records
                    .map(|key| (filler(key, 11), 1_u64))
                    .update_touched_by_key("counts", |ones, count| Some(count.unwrap_or(0) + ones.sum()));
                counts.sink_records("out", at_least_once(Discard), |_: &_, _, _: &mut _| Ok::<_, Failure>(()));
            } else {
                let counts = records
                    .map(|key| (key, 1_u64))
                    .update_touched_by_key("counts", |ones, count| Some(count.unwrap_or(0) + ones.sum()));
                counts.sink_records("out", at_least_once(Discard), |_: &_, _, _: &mut _| Ok::<_, Failure>(()));
            }
            Ok(())
        })?;
    let running = context.start()?;
    planned.recv()?;
    running.stop_gracefully()?;
    let used = meter.used()?;

    let (batches_us, checkpoints_us) = running.durations_us();
    let kept = read_back(&place, OperatorSpec::<u64>::new("counts", "update_touched_by_key"), |count| *count)?;
    if kept.sum != options.records {
        return Err(format!("the last checkpoint holds a count of {}, not {}", kept.sum, options.records).into());
    }
    let bare = bare::count(options.records, options.keys, 2)?;
    let bare_per_second = options.records as f64 / bare.as_secs_f64();
    let with_records = largest(batches_us, options.records.div_ceil(options.batch));
    Ok(Report::new("keyed-count", options.records, &used, &checkpoints_us, &with_records)
        .with("keys", kept.keys)
        .with("state_bytes", kept.bytes)
        .with("bare_records_per_second", bare_per_second)
        .with("of_bare", options.records as f64 / used.wall.as_secs_f64() / bare_per_second))
}

/// The batches that had records: the context computes some empty ones between.
pub(crate) fn largest(mut durations_us: Vec<u64>, count: u64) -> Vec<u64> {
    durations_us.sort_unstable_by(|one, two| two.cmp(one));
    durations_us.truncate(count as usize);
    durations_us
}
