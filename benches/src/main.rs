//! How fast Millpond is: runs one workload and prints one JSON object on one line.
//!
//! `cargo run --release -p millpond-benches -- WORKLOAD [options]`; what each workload measures, and what was measured,
//! stands in `docs/benchmarks.md`.

mod bare;
mod batchwise;
mod checkpoint;
mod cli;
mod cluster;
mod disk;
mod generated;
mod kafka_latency;
mod kafka_throughput;
mod keyed_count;
mod pipeline;
mod recover;
mod report;
mod resident;
mod timeouts;
mod usage;
mod wal;
mod window;

use std::process::ExitCode;

use clap::Parser;

/// Whatever went wrong: a benchmark tells it and ends.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match cli::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("Error: {failure}");
            ExitCode::FAILURE
        }
    }
}
