//! `millpond-kafka`: runs a one-node Apache Kafka to play with, until it gets a line on standard input (or its end).
//!
//! With `--fetch-only` it only brings Kafka's files onto this machine, as set-up scripts want it.

use std::process::ExitCode;
use std::time::Instant;

use millpond_testkit::Result;
use millpond_testkit::broker::{KAFKA_VERSION, KafkaBroker, fetch_kafka};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["--fetch-only"] => fetch_kafka().map(|home| println!("Apache Kafka {KAFKA_VERSION} is in {}", home.display())),
        _ => {
            eprintln!("usage: millpond-kafka [--fetch-only]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let started = Instant::now();
    let broker = KafkaBroker::builder().start()?;
    let (servers, took) = (broker.bootstrap_servers(), started.elapsed());
    println!("Apache Kafka {KAFKA_VERSION} at {servers} after {took:.1?}; Enter stops it");
    // An error reads as the end of the input.
    let _ = std::io::stdin().read_line(&mut String::new());
    broker.stop()
}
