//! `kafka-latency`: the age of a record when a `read_committed` reader sees its count.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::cluster::{self, Input, Output};
use crate::pipeline::{Kind, Pipeline};
use crate::report::{Report, spread_ms};
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Records a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// How long to measure, in seconds, after five that are not counted.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Time between two batches in ms.
    #[arg(long, default_value_t = 100)]
    batch_ms: u64,
    /// Time between two checkpoints in ms, a multiple of the batch interval.
    #[arg(long, default_value_t = 1000)]
    checkpoint_ms: u64,
    /// Keys, taken in turn.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
}

const WARM_UP: Duration = Duration::from_secs(5);
/// How long nothing may come.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let Options { rate, seconds, batch_ms, checkpoint_ms, keys } = *options;
    let broker = cluster::start()?;
    let pipeline = Pipeline {
        kind: Kind::Count,
        brokers: broker.bootstrap_servers().to_owned(),
        directory: directory.join("kafka-latency"),
        batch_ms,
        checkpoint_ms,
        records: None,
        value_bytes: 0,
    };
    let (input, output) = (Input::new(&broker, 5)?, Output::new(&broker)?);
    let mut running = pipeline.spawn()?;
    // The first record has its own way to go: the start.
    input.send(&cluster::key(keys), b"first")?;
    input.flush()?;
    let asked = Instant::now();
    while output.next(Duration::from_millis(100), |_, _| ())?.is_none() {
        running.check()?;
        if asked.elapsed() > LIMIT {
            return Err(format!("the pipeline gave nothing for {LIMIT:?}").into());
        }
    }
    let meter = Meter::of_process(running.id())?;

    // By key: when its newest record was made, in us since the beginning.
    let made: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let total = rate * (seconds + WARM_UP.as_secs());
    let outcome: Result<Vec<u64>, Failure> = std::thread::scope(|scope| {
        let producing = scope.spawn(|| -> Result<(), Failure> {
            let value = [b'x'; 100];
            for n in 0..total {
                let due = Duration::from_nanos(n * 1_000_000_000 / rate);
                // What is due goes out every millisecond: to wake up for each record would take a core from the broker.
                while began.elapsed() < due {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    input.poll();
                    std::thread::sleep(Duration::from_millis(1));
                }
                made[(n % keys) as usize].store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                input.send(&cluster::key(n % keys), &value)?;
            }
            input.flush()
        });
        let mut reading = || -> Result<Vec<u64>, Failure> {
            let (mut ages, mut seen, mut last) = (Vec::new(), 0, Instant::now());
            while seen < total {
                let number = output
                    .next(Duration::from_millis(100), |key, _| key.get(3..).and_then(|n| n.parse::<usize>().ok()))?;
                let Some(number) = number else {
                    running.check()?;
                    if last.elapsed() > LIMIT {
                        return Err(format!("{seen} of {total} counts came, then none for {LIMIT:?}").into());
                    }
                    continue;
                };
                last = Instant::now();
                seen += 1;
                let Some(made) = number.and_then(|number| made.get(number)) else { continue };
                let made = made.load(Ordering::Relaxed);
                if made > WARM_UP.as_micros() as u64 {
                    ages.push((began.elapsed().as_micros() as u64).saturating_sub(made));
                }
            }
            Ok(ages)
        };
        let ages = reading();
        stop.store(true, Ordering::Relaxed);
        producing.join().map_err(|_| "the producing thread panicked")??;
        ages
    });
    let ages = outcome?;
    let used = meter.used()?;
    running.kill()?;
    Ok(Report::new("kafka-latency", total, &used, &[], &[])
        .with("batch_interval_ms", batch_ms)
        .with("age_ms", spread_ms(&ages)))
}
