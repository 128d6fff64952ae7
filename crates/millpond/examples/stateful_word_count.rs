//! A running word count of the text files in a directory, into files, exactly once: put files there while it runs, kill it, start it again.

use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;

#[derive(Parser)]
#[command(about = "Counts the words of the text files in a directory, into files, exactly once")]
struct Options {
    /// The directory with the text files; put new ones there by renaming them into it
    #[arg(long)]
    input: PathBuf,
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
    StreamingContext::builder("stateful-word-count")
        .directory(options.directory)
        .batch_interval(milliseconds(500))
        .open(|graph| {
            graph
                .source("lines", FileSource::directory(options.input))
                .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
                .map(|word| (word, 1_u64))
                .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
                .sink_key_value("counts-out", FileSink::text(options.output), |(word, n)| {
                    (word.clone(), n.to_string())
                });
            Ok(())
        })?
        .run_until_signal_with(|_| eprintln!("ready"))
}
