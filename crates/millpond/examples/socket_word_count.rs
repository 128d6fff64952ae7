//! A running word count of the lines that a TCP server sends, into files, exactly once. Try it with `nc -lk 9999`.
//!
//! Each batch with input makes a directory `OUTPUT/batch-<ms>/`, complete when it appears: a line `word<TAB>count so far` for each word in it.
//! Lines count once they are in the log, within 200 ms; a crash before that loses them, since nobody can ask the server again.

use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;
use millpond::source::SocketSource;

#[derive(Parser)]
#[command(about = "Counts the words that a TCP server sends, into files, exactly once")]
struct Options {
    /// The server that sends the lines; while it is away, it is called again and again
    #[arg(long, value_name = "HOST:PORT")]
    listen_to: String,
    /// The directory that gets the counts
    #[arg(long)]
    output: PathBuf,
    /// Holds log and checkpoints; made if it is missing
    #[arg(long)]
    directory: PathBuf,
}

fn main() -> millpond::Result<()> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    millpond::failpoints::arm_from_env()?; // For tests that kill this program at named points.

    let context = StreamingContext::builder("socket-word-count")
        .directory(options.directory)
        .batch_interval(milliseconds(500))
        .open(|graph| {
            graph
                .source("lines", SocketSource::connect(options.listen_to))
                .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
                .map(|word| (word, 1_u64))
                .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
                .sink_key_value("counts-out", FileSink::text(options.output), |(word, n)| {
                    (word.clone(), n.to_string())
                });
            Ok(())
        })?;
    context.run_until_signal_with(|_| eprintln!("ready"))
}
