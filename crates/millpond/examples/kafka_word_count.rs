//! A running word count, from a Kafka topic of text lines to a Kafka topic, exactly once.
//!
//! After each batch there is one record for each word in it: key = the word, value = its count so far, header `batch` = the batch time in ms.
//! Kill it with `kill -9`, start it again with the same arguments: whoever reads the output with `read_committed` sees each count once.

use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;

#[derive(Parser)]
#[command(about = "Counts words, from Kafka to Kafka, exactly once")]
struct Options {
    /// The address of a broker, HOST:PORT; several with commas between them
    #[arg(long)]
    brokers: String,
    /// The topic with the lines
    #[arg(long)]
    input: String,
    /// The topic that gets the counts
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
    /// Names this application to the cluster, and its transactions [default: kafka-word-count-OUTPUT]
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

    let id = options.transactional_id.unwrap_or_else(|| format!("kafka-word-count-{}", options.output));
    let wait = seconds(options.wait_for_broker_seconds);
    let source = KafkaSource::subscribe(&options.brokers, [&options.input]).utf8().wait_for_broker(wait);
    let sink = KafkaSink::to(&options.brokers, &options.output).wait_for_broker(wait);

    let mut builder =
        StreamingContext::builder(&id).directory(options.directory).batch_interval(milliseconds(options.batch_ms));
    if let Some(batches) = options.checkpoint_every {
        builder = builder.checkpoint_interval(milliseconds(options.batch_ms) * batches);
    }
    let context = builder.open(|graph| {
        graph
            .source("lines", source)
            .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
            .map(|word| (word, 1_u64))
            .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
            .sink_records("counts-out", sink, |(word, count), batch, out| {
                let count = count.to_string();
                out.record().key(word).value(count).header("batch", batch.as_ms().to_string()).end();
                Ok::<_, millpond::Error>(())
            });
        Ok(())
    })?;
    context.run_until_signal_with(|_| eprintln!("ready"))
}
