//! A stream joined with a data set: clicks of the last batches get the country of their user, from a file of users.
//!
//! The data set is an `Rdd` without any stream, read once and kept; the same operators serve it and the stream.

use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;
use millpond::source::{Queue, QueueSource};

#[derive(Parser)]
#[command(about = "Counts clicks by the country of their user, over a window, from a stream and a file of users")]
struct Options {
    /// A file with a line `user,country` for each user; default: made up
    #[arg(long)]
    users: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let place = tempfile::tempdir()?;
    let users = match options.users {
        Some(users) => users,
        None => {
            let path = place.path().join("users.csv");
            let line = |n: u64| format!("user-{n},{}\n", ["Austria", "Chile", "Ghana", "Japan"][n as usize % 4]);
            std::fs::write(&path, (0..1000).map(line).collect::<String>())?;
            path
        }
    };
    let queue = Queue::new();
    // A click every second, of somebody, on something.
    (0..60_u64)
        .for_each(|second| queue.push((0..50).map(|n| format!("user-{}", (second * 7 + n * n) % 1000)).collect()));

    let context = StreamingContext::builder("enrich-clicks")
        .directory(place.path().join("clicks.pond"))
        .batch_interval(seconds(1))
        .open(|graph| {
            let users = graph
                .batch()
                .text_file(&users)?
                .flat_map(|line: String| {
                    line.split_once(',').map(|(user, country)| (user.to_owned(), country.to_owned()))
                })
                .cache();
            graph
                .source("clicks", QueueSource::one_at_a_time(&queue).replayable())
                .map(|user: String| (user, 1_u64))
                .window("recent", seconds(30), seconds(10))
                .transform(move |clicks, _| clicks.join(users.clone()))
                .map(|(_, (clicks, country))| (country, clicks))
                .reduce_by_key(|a, b| a + b)
                .print(10);
            Ok(())
        })?;
    // All clicks are there already: a graceful stop runs batch after batch without waiting for the clock.
    context.start()?.stop_gracefully()?;
    Ok(())
}
