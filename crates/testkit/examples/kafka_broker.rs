//! Runs a one-node Apache Kafka to play with, until it gets a line on standard input (or its end).
//!
//! With `--fetch-only` it only brings Kafka's files onto this machine, as set-up scripts want it.

use millpond_testkit::broker::{KAFKA_VERSION, KafkaBroker, fetch_kafka};

fn main() -> millpond_testkit::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--fetch-only") {
        println!("Apache Kafka {KAFKA_VERSION} is in {}", fetch_kafka()?.display());
        return Ok(());
    }
    let started = std::time::Instant::now();
    let mut broker = KafkaBroker::builder().start()?;
    println!(
        "Apache Kafka {KAFKA_VERSION} at {} after {:.1?}; Enter stops it",
        broker.bootstrap_servers(),
        started.elapsed()
    );
    // An error reads as the end of the input.
    let _ = std::io::stdin().read_line(&mut String::new());
    broker.stop()
}
