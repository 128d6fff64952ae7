//! `kafka-count` and `kafka-pass`: from Kafka to Kafka, exactly once, with the broker on the same machine.

use std::path::Path;

use crate::Failure;
use crate::cluster::{self, Input, Output};
use crate::generated::mix;
use crate::pipeline::{Kind, Pipeline};
use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records of the input.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Keys they are spread over, uniformly.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Time between two batches in ms.
    #[arg(long, default_value_t = 1000)]
    batch_ms: u64,
    /// Time between two checkpoints in ms.
    #[arg(long, default_value_t = 1000)]
    checkpoint_ms: u64,
}

pub(crate) fn run(kind: Kind, options: &Options, directory: &Path) -> Result<Report, Failure> {
    let workload = if kind == Kind::Pass { "kafka-pass" } else { "kafka-count" };
    let Options { records, keys, value_bytes, batch_ms, checkpoint_ms } = *options;
    let broker = cluster::start()?;
    let input = Input::new(&broker, 20)?;
    for n in 0..records {
        let key = cluster::key(((u128::from(mix(n)) * u128::from(keys)) >> 64) as u64);
        input.send(&key, crate::disk::filler(n, value_bytes).as_bytes())?;
        if n % 1024 == 0 {
            input.poll();
        }
    }
    input.flush()?;
    drop(input);

    let pipeline = Pipeline {
        kind,
        brokers: broker.bootstrap_servers().to_owned(),
        directory: directory.join(workload),
        batch_ms,
        checkpoint_ms,
        records: Some(records),
        value_bytes,
    };
    let told = pipeline.spawn()?.finish()?;

    let (mut output_records, mut counts) = (0_u64, vec![0_u64; keys as usize]);
    Output::new(&broker)?.read_all(|key, value| {
        output_records += 1;
        let number = key.get(3..).and_then(|number| number.parse::<usize>().ok());
        let count = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        if let (Some(number), Some(count)) = (number, count) {
            counts[number] = counts[number].max(count);
        }
    })?;
    let arrived = if kind == Kind::Pass { output_records } else { counts.iter().sum() };
    if arrived != records {
        return Err(format!("the output accounts for {arrived} of {records} records").into());
    }
    let per_million = told.used.cpu.as_secs_f64() * 1e6 / records as f64;
    Ok(Report::new(workload, records, &told.used, &told.checkpoints_us, &told.batches_us)
        .with("cpu_seconds_per_million", per_million)
        .with("output_records", output_records))
}
