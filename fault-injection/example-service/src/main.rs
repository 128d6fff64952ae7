//! Counts visits by page: reads the topic `visits`, writes `counts`, exactly once.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;
use millpond::sink::Records;

/// Counts visits by page.
#[derive(Parser)]
struct Arguments {
    /// The broker, as HOST:PORT.
    #[arg(long)]
    brokers: String,
    /// Where the service keeps its log and its state.
    #[arg(long)]
    directory: PathBuf,
}

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Err(error) = run(&Arguments::parse()) {
        eprintln!("Error: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &Arguments) -> millpond::Result<()> {
    // For tests: where this process is to kill itself. Does nothing unless the variable is set.
    millpond::failpoints::arm_from_env()?;
    StreamingContext::builder("visits")
        .directory(&arguments.directory)
        .batch_interval(milliseconds(50))
        .checkpoint_interval(milliseconds(200))
        .open(|graph| {
            graph
                .source("visits", KafkaSource::subscribe(&arguments.brokers, ["visits"]).utf8())
                .map(|page: String| (page, 1_u64))
                .update_touched_by_key("counts", |ones, total: Option<u64>| Some(total.unwrap_or(0) + ones.sum()))
                .sink_records("out", KafkaSink::to(&arguments.brokers, "counts"), encode);
            Ok(())
        })?
        // The suite waits for this word.
        .run_until_signal_with(|_| eprintln!("ready"))
}

fn encode((page, count): &(String, u64), at: BatchTime, out: &mut Records) -> Result<(), Infallible> {
    out.record().key(page).value(count.to_string()).header("batch", at.as_ms().to_string()).end();
    Ok(())
}
