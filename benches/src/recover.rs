//! `recover`: much state, `kill -9`, and the time from the start of the next process to the first new output that a
//! `read_committed` reader sees.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_state::{LocalSnapshotStore, Snapshot};

use crate::Failure;
use crate::cluster::{self, Input, Output};
use crate::pipeline::{Kind, Pipeline, Running};
use crate::report::{Report, spread_ms};
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys in the state.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Bytes of each value, beside its count.
    #[arg(long, default_value_t = 90)]
    value_bytes: usize,
    /// Times it is killed.
    #[arg(long, default_value_t = 5)]
    kills: u64,
    /// Time between two batches in ms.
    #[arg(long, default_value_t = 100)]
    batch_ms: u64,
    /// Time between two checkpoints in ms, a multiple of the batch interval.
    #[arg(long, default_value_t = 1000)]
    checkpoint_ms: u64,
}

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Records written between a start and the next kill.
const TRICKLE: u64 = 10_000;

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let Options { keys, value_bytes, kills, batch_ms, checkpoint_ms } = *options;
    let broker = cluster::start()?;
    let pipeline = Pipeline {
        kind: Kind::Keep,
        brokers: broker.bootstrap_servers().to_owned(),
        directory: directory.join("recover"),
        batch_ms,
        checkpoint_ms,
        records: None,
        value_bytes,
    };
    let (input, output) = (Input::new(&broker, 1)?, Output::new(&broker)?);
    let mut running = pipeline.spawn()?;
    let filling = Meter::of_process(running.id())?;
    for n in 0..keys {
        input.send(&cluster::key(n), b"")?;
        if n % 1024 == 0 {
            input.poll();
            running.check()?;
        }
    }
    input.flush()?;
    let mut marker = keys;
    send_marker(&input, &mut marker)?;
    wait_for(&output, marker, &mut running)?;
    let used = filling.used()?;
    // One more interval, so that a checkpoint holds most of it.
    std::thread::sleep(Duration::from_millis(2 * checkpoint_ms));

    let mut recoveries_us = Vec::new();
    for _ in 0..kills {
        // Batches under way at the moment of the kill, as in life.
        for n in 0..TRICKLE {
            input.send(&cluster::key(n * 997 % keys), b"")?;
        }
        send_marker(&input, &mut marker)?;
        wait_for(&output, marker, &mut running)?;
        running.kill()?;
        send_marker(&input, &mut marker)?;
        let started = Instant::now();
        running = pipeline.spawn()?;
        wait_for(&output, marker, &mut running)?;
        recoveries_us.push(started.elapsed().as_micros() as u64);
    }
    running.kill()?;

    let snapshots = Arc::new(LocalSnapshotStore::open(&pipeline.directory.join("checkpoints"))?);
    let snapshot = Snapshot::newest(snapshots)?.snapshot.ok_or("there is no checkpoint")?;
    let started = Instant::now();
    snapshot.verify(&|| true)?;
    let verification = started.elapsed();
    let bytes: u64 = snapshot.manifest().files.iter().map(|file| file.bytes).sum();
    // What all workloads tell is of the filling; what this one is about stands beside.
    Ok(Report::new("recover", keys + 1, &used, &[], &[])
        .with("state_bytes", bytes)
        .with("first_output_ms", spread_ms(&recoveries_us))
        .with("verification_ms", verification.as_secs_f64() * 1000.0))
}

/// A record whose count comes out after everything before it.
fn send_marker(input: &Input, marker: &mut u64) -> Result<(), Failure> {
    *marker += 1;
    input.send(&cluster::key(*marker), b"")?;
    input.flush()
}

fn wait_for(output: &Output, marker: u64, running: &mut Running) -> Result<(), Failure> {
    let (wanted, started) = (cluster::key(marker), Instant::now());
    loop {
        match output.next(Duration::from_millis(100), |key, _| key == wanted)? {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => running.check()?,
        }
        if started.elapsed() > LIMIT {
            return Err(format!("the count of record {wanted} did not come within {LIMIT:?}").into());
        }
    }
}
