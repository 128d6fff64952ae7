//! `stateless`, `word-count` and `join`: what is computed within a batch and remembers nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use millpond::{DStream, Graph, StreamingContext, milliseconds, seconds, sink::at_least_once};

use crate::Failure;
use crate::disk::Discard;
use crate::generated::{Generated, batches, mix, uniform_key};
use crate::keyed_count::largest;
use crate::report::Report;
use crate::usage::Meter;

/// Words that lines are made of.
const WORDS: u64 = 50_000;
/// Lines that are made ahead, and come again and again.
const LINES: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records of the input; of each of the two for `join`.
    #[arg(long, default_value_t = 20_000_000)]
    records: u64,
    /// Records of a batch.
    #[arg(long, default_value_t = 1_000_000)]
    batch: u64,
    /// Threads that compute.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Partitions of the input.
    #[arg(long, default_value_t = 8)]
    input_partitions: u64,
    /// Keys of `join`, uniformly: so many of each side have no other.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
}

/// 100 bytes, as they came from somewhere.
#[derive(Clone, Copy)]
struct Record([u8; 100]);

/// map, filter and flat_map over records of 100 bytes: one in two stays, and gives two numbers.
pub(crate) fn stateless(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let report = run("stateless", options, directory, |graph, options, planned| {
        let sizes = batches(options.records, options.batch);
        let record = |n: u64| {
            let mut bytes = [b'x'; 100];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            Record(bytes)
        };
        let records = graph.source("records", Generated::new(sizes, options.input_partitions, record).tell(planned));
        let numbers = records
            .map(|mut record| {
                record.0[99] = record.0[0] ^ record.0[50];
                record
            })
            .filter(|record| record.0[0] % 2 == 0)
            .flat_map(|record| [u64::from(record.0[99]), u64::from(record.0[1])]);
        discard(numbers, counter);
    })?;
    expect(seen.load(Ordering::Relaxed), options.records / 2 * 2, "numbers")?;
    Ok(report)
}

/// The words of lines of text, counted batch by batch.
pub(crate) fn word_count(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let lines: Arc<Vec<String>> = Arc::new((0..LINES as u64).map(line).collect());
    let bytes_each = lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>() as f64 / LINES as f64;
    let words_each: Vec<u64> = lines.iter().map(|line| line.split(' ').count() as u64).collect();
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let report = run("word-count", options, directory, |graph, options, planned| {
        let sizes = batches(options.records, options.batch);
        let line = move |n: u64| lines[n as usize % LINES].clone();
        let lines = graph.source("lines", Generated::new(sizes, options.input_partitions, line).tell(planned));
        let counts = lines
            .flat_map(|line| line.split_whitespace().map(|word| (word.to_owned(), 1_u64)).collect::<Vec<_>>())
            .reduce_by_key(|a, b| a + b);
        counts.sink_records("out", at_least_once(Discard), move |(_, count): &(String, u64), _, _: &mut _| {
            counter.fetch_add(*count, Ordering::Relaxed);
            Ok::<_, Failure>(())
        });
    })?;
    let expected = (0..options.records).map(|n| words_each[n as usize % LINES]).sum();
    expect(seen.load(Ordering::Relaxed), expected, "words")?;
    let bytes = bytes_each * options.records as f64;
    let cpu_seconds = report.number("cpu_seconds");
    let wall_seconds = report.number("wall_seconds");
    Ok(report.with("bytes_per_second", bytes / wall_seconds).with("bytes_per_cpu_second", bytes / cpu_seconds))
}

/// Two streams joined batch by batch.
pub(crate) fn join(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let report = run("join", options, directory, |graph, options, planned| {
        let keys = options.keys;
        let side = |seed: u64| {
            let sizes = batches(options.records, options.batch);
            Generated::new(sizes, options.input_partitions, move |n| (uniform_key(n ^ seed, keys), n))
        };
        let left = graph.source("left", side(0).tell(planned));
        let right = graph.source("right", side(mix(1)));
        discard(left.join(right), counter);
    })?;
    let joined = seen.load(Ordering::Relaxed);
    // Of b uniform records on each side over k keys, b * b / k pairs are to be expected in each batch.
    let expected = options.records as f64 * options.batch as f64 / options.keys as f64;
    if (joined as f64 / expected - 1.0).abs() > 0.05 && options.records >= options.batch {
        return Err(format!("{joined} pairs were joined, about {expected} were to be").into());
    }
    let wall_seconds = report.number("wall_seconds");
    Ok(report.with("pairs_per_second", joined as f64 / wall_seconds).with("keys", options.keys))
}

fn run(
    workload: &str,
    options: &Options,
    directory: &Path,
    describe: impl FnOnce(&Graph<'_>, &Options, mpsc::Sender<u64>),
) -> Result<Report, Failure> {
    let meter = Meter::start()?;
    let (planned_up_to, planned) = mpsc::channel();
    let context = StreamingContext::builder(workload)
        .directory(directory.join(workload))
        .batch_interval(milliseconds(50))
        .threads(options.threads)
        .graceful_stop_timeout(seconds(600))
        .open(|graph| {
            describe(graph, options, planned_up_to);
            Ok(())
        })?;
    let running = context.start()?;
    planned.recv()?;
    running.stop_gracefully()?;
    let used = meter.used()?;
    let (batches_us, checkpoints_us) = running.durations_us();
    let with_records = largest(batches_us, options.records.div_ceil(options.batch));
    Ok(Report::new(workload, options.records, &used, &checkpoints_us, &with_records).with("threads", options.threads))
}

/// Counts what comes, and writes nothing.
fn discard<T: Send + 'static>(stream: DStream<'_, T>, counter: Arc<AtomicU64>) {
    stream.count().sink_records("out", at_least_once(Discard), move |count: &u64, _, _: &mut _| {
        counter.fetch_add(*count, Ordering::Relaxed);
        Ok::<_, Failure>(())
    });
}

fn expect(seen: u64, expected: u64, what: &str) -> Result<(), Failure> {
    if seen == expected { Ok(()) } else { Err(format!("{seen} {what} came out, not {expected}").into()) }
}

/// A line of ten words, short ones more often.
fn line(n: u64) -> String {
    let word = |at: u64| {
        let drawn = mix(n * 10 + at);
        // The smaller of two: words are not equally frequent in a text.
        let number = (drawn % WORDS).min((drawn >> 32) % WORDS);
        format!("w{number:x}")
    };
    (0..10).map(word).collect::<Vec<_>>().join(" ")
}
