//! The hashtags of the last minute, most used first: the classic of the model, over a text file of posts.
//!
//! The file's lines are dealt out to batches, as if so many posts came in each second; without a file some are made up. The window holds 60 batches and slides by ten.
//! Counts come and go with the batches that enter and leave: the inverse function takes out what leaves.

use std::path::PathBuf;

use clap::Parser;
use millpond::prelude::*;
use millpond::source::{Queue, QueueSource};

#[derive(Parser)]
#[command(about = "The most used hashtags of the last minute of a stream of posts, every ten seconds of it")]
struct Options {
    /// A text file, one post a line; default: made up
    #[arg(long)]
    posts: Option<PathBuf>,
    /// How many posts come in a second
    #[arg(long, default_value_t = 20)]
    posts_per_second: usize,
    /// How many hashtags are shown
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Holds log and checkpoints; made if it is missing. Default: a temporary one
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let posts = match &options.posts {
        Some(path) => std::fs::read_to_string(path)?.lines().map(String::from).collect(),
        None => made_up(),
    };
    let queue = Queue::new();
    posts.chunks(options.posts_per_second.max(1)).for_each(|second| queue.push(second.to_vec()));

    let temporary = tempfile::tempdir()?;
    let directory = options.directory.unwrap_or_else(|| temporary.path().join("hashtags.pond"));
    let top = options.top;
    let context = StreamingContext::builder("trending-hashtags").directory(directory).batch_interval(seconds(1)).open(
        |graph| {
            graph
                .source("posts", QueueSource::one_at_a_time(&queue).replayable())
                .flat_map(|post: String| {
                    post.split_whitespace()
                        .filter(|word| word.starts_with('#'))
                        .map(str::to_lowercase)
                        .collect::<Vec<_>>()
                })
                .map(|tag| (tag, 1_i64))
                .reduce_by_key_and_window_filtered(
                    "trend",
                    |a, b| a + b,
                    |a, b| a - b,
                    |_, count| *count > 0,
                    minutes(1),
                    seconds(10),
                )
                .transform(move |counts, _| counts.top_by(top, |(tag, count)| (*count, tag.clone())))
                .print(top);
            Ok(())
        },
    )?;
    // All posts are there already: a graceful stop runs batch after batch without waiting for the clock.
    context.start()?.stop_gracefully()?;
    Ok(())
}

/// Two minutes of posts, in which one topic gives way to another.
fn made_up() -> Vec<String> {
    let post = |n: usize| {
        let topic = if n.is_multiple_of(3) || n < 1200 { "#rain" } else { "#sunshine" };
        let other = ["#monday", "#coffee", "#rust", "#cats"][n * 7 % 11 % 4];
        format!("post number {n} about {topic} and {other}")
    };
    (0..2400).map(post).collect()
}
