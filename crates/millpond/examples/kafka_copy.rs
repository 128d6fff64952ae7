//! Copies a Kafka topic to another, exactly once, and numbers the records of each key.
//!
//! Key, value and headers stay as they are; a header `n` is added: how many records of this key there have been, this one
//! included. Records without a key count together, as those with an empty key. Kill it with `kill -9` and start it again with the same arguments: no
//! number is missing, none is there twice.

use std::path::PathBuf;

use clap::Parser;
use millpond::kafka::OwnedRecord;
use millpond::prelude::*;

#[derive(Parser)]
#[command(about = "Copies a Kafka topic to another, exactly once, and numbers the records of each key")]
struct Options {
    /// The address of a broker, HOST:PORT; several with commas between them
    #[arg(long)]
    brokers: String,
    /// The topic that is copied
    #[arg(long)]
    input: String,
    /// The topic that gets the copies
    #[arg(long)]
    output: String,
    /// Holds log and checkpoints; made if it is missing
    #[arg(long)]
    directory: PathBuf,
    #[arg(long, default_value_t = 500)]
    batch_ms: u64,
    /// Batches from one checkpoint to the next [default: as many as are in 10 s]
    #[arg(long, value_name = "BATCHES", value_parser = clap::value_parser!(u32).range(1..))]
    checkpoint_every: Option<u32>,
    /// Names this application to the cluster, and its transactions [default: kafka-copy-OUTPUT]
    #[arg(long, value_name = "ID")]
    transactional_id: Option<String>,
    /// How long a broker that is away is waited for
    #[arg(long, default_value_t = 300)]
    wait_for_broker_seconds: u64,
}

fn main() -> millpond::Result<()> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    millpond::failpoints::arm_from_env()?; // For tests that kill this program at named points.

    let id = options.transactional_id.unwrap_or_else(|| format!("kafka-copy-{}", options.output));
    let wait = seconds(options.wait_for_broker_seconds);
    let source = KafkaSource::subscribe(&options.brokers, [&options.input]).raw().wait_for_broker(wait);
    let sink = KafkaSink::to(&options.brokers, &options.output).wait_for_broker(wait);

    let mut builder =
        StreamingContext::builder(&id).directory(options.directory).batch_interval(milliseconds(options.batch_ms));
    if let Some(batches) = options.checkpoint_every {
        builder = builder.checkpoint_interval(milliseconds(options.batch_ms) * batches);
    }
    let context = builder.open(|graph| {
        graph
            .source("records", source)
            .key_by(|record| record.key.clone().unwrap_or_default())
            .map_with_state("numbers", number)
            .sink_records("copies", sink, |(record, n), _, out| {
                let mut copy = out.record();
                if let Some(key) = &record.key {
                    copy = copy.key(key);
                }
                if let Some(value) = &record.value {
                    copy = copy.value(value);
                }
                for (name, value) in &record.headers {
                    copy = match value {
                        Some(value) => copy.header(name, value),
                        None => copy.null_header(name),
                    };
                }
                copy.header("n", n.to_string()).end();
                Ok::<_, millpond::Error>(())
            });
        Ok(())
    })?;
    context.run_until_signal_with(|_| eprintln!("ready"))
}

/// The record with its number among those of its key.
fn number(
    _at: BatchTime,
    _key: &Vec<u8>,
    record: Option<OwnedRecord>,
    count: &mut State<u64>,
) -> Option<(OwnedRecord, u64)> {
    let n = count.get().unwrap_or(&0) + 1;
    count.update(n);
    record.map(|record| (record, n))
}
