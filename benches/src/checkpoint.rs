//! `checkpoint`: checkpoints of much state of which little has changed since the one before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use millpond::{BatchTime, Running, StreamingContext, milliseconds, seconds, sink::at_least_once};
use millpond_state::{LocalSnapshotStore, Manifest, SnapshotStore};

use crate::Failure;
use crate::disk::{Discard, filler};
use crate::generated::{Generated, batches, key, uniform_key};
use crate::report::{Report, percentile};
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys in the state.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Bytes of each value, beside its count.
    #[arg(long, default_value_t = 90)]
    value_bytes: usize,
    /// Records between two checkpoints, each of a key out of all, uniformly.
    #[arg(long, default_value_t = 10_000)]
    changed: u64,
    /// Checkpoints that are measured.
    #[arg(long, default_value_t = 200)]
    checkpoints: u64,
    /// Time between two checkpoints in ms; each is of one batch.
    #[arg(long, default_value_t = 200)]
    interval_ms: u64,
}

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    let Options { keys, value_bytes, changed, checkpoints, interval_ms } = *options;
    let place = directory.join("checkpoint");
    let sizes = batches(keys, 250_000).chain(std::iter::repeat_n(changed, checkpoints as usize));
    let (planned_up_to, planned) = mpsc::channel();
    let gate = Arc::new(AtomicBool::new(false));
    let make = move |n| if n < keys { key(n) } else { uniform_key(n, keys) };
    let context = StreamingContext::builder("checkpoint")
        .directory(&place)
        .batch_interval(milliseconds(interval_ms))
        .checkpoint_interval(milliseconds(interval_ms))
        .memory_limit_bytes(16 << 30)
        .graceful_stop_timeout(LIMIT)
        .open(|graph| {
            let source = Generated::new(sizes, 8, make).hold_at(keys, gate.clone()).tell(planned_up_to);
            graph
                .source("records", source)
                .map(|key| (key, key))
                .update_touched_by_key("counts", move |records, state: Option<(u64, String)>| {
                    let (mut count, mut value) = state.unwrap_or_default();
                    for key in records {
                        count += 1;
                        if value.is_empty() {
                            value = filler(key, value_bytes);
                        }
                    }
                    Some((count, value))
                })
                .sink_records("out", at_least_once(Discard), |_: &_, _, _: &mut _| Ok::<_, Failure>(()));
            Ok(())
        })?;
    let running = context.start()?;
    planned.recv()?;
    running.await_checkpoint(running.progress().planned, LIMIT)?;
    let whole = Meter::start()?;
    settle(&whole)?;

    let snapshots = LocalSnapshotStore::open_read_only(&place.join("checkpoints"))?;
    let mut watch = Watch::new(&snapshots)?;
    let (batches_before, checkpoints_before) = running.durations_us();
    let meter = Meter::start()?;
    gate.store(true, Ordering::Release);
    while planned.try_recv().is_err() {
        watch.next(&running, &snapshots)?;
    }
    running.await_checkpoint(running.progress().planned, LIMIT)?;
    watch.see(&snapshots)?;
    let used = meter.used()?;
    let (batches_us, checkpoints_us) = running.durations_us();
    running.stop()?;

    let mut new_bytes = watch.new_bytes;
    new_bytes.sort_unstable();
    let own = percentile(&new_bytes, 50);
    let count = new_bytes.len() as u64;
    let state = watch.state_bytes;
    let checkpoints_us = &checkpoints_us[checkpoints_before.len()..];
    Ok(Report::new("checkpoint", changed * checkpoints, &used, checkpoints_us, &batches_us[batches_before.len()..])
        .with("keys", keys)
        .with("state_bytes", state)
        .with("checkpoint_bytes_p50", own)
        .with("checkpoint_bytes_max", percentile(&new_bytes, 100))
        .with("of_state", own as f64 / state as f64)
        .with("compaction_bytes_per_checkpoint", (used.bytes_written / count).saturating_sub(own)))
}

/// Waits until the database has nothing left to do of the filling: no byte written for a second.
fn settle(meter: &Meter) -> Result<(), Failure> {
    let (started, mut last) = (Instant::now(), (Instant::now(), meter.written()?));
    while last.0.elapsed() < Duration::from_secs(1) && started.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(50));
        let written = meter.written()?;
        // The log's plans of empty batches go on: some KiB.
        if written > last.1 + (1 << 20) {
            last = (Instant::now(), written);
        }
    }
    Ok(())
}

/// Sees each checkpoint as it is published, and what it has that the one before had not.
struct Watch {
    newest: u64,
    files: HashMap<String, u64>,
    state_bytes: u64,
    new_bytes: Vec<u64>,
}

impl Watch {
    fn new(snapshots: &LocalSnapshotStore) -> Result<Watch, Failure> {
        let mut watch = Watch { newest: 0, files: HashMap::new(), state_bytes: 0, new_bytes: Vec::new() };
        watch.see(snapshots)?;
        watch.new_bytes.clear();
        Ok(watch)
    }

    /// Waits for the next checkpoint, a while: there may be none.
    fn next(&mut self, running: &Running, snapshots: &LocalSnapshotStore) -> Result<(), Failure> {
        // An error of the context shows at the next wait that has to succeed.
        let _ = running.await_checkpoint(BatchTime::from_ms(self.newest + 1), seconds(1));
        self.see(snapshots)
    }

    fn see(&mut self, snapshots: &LocalSnapshotStore) -> Result<(), Failure> {
        for batch in snapshots.batches()? {
            if batch <= self.newest {
                continue;
            }
            let encoded = snapshots.manifest(batch)?;
            let files = Manifest::decode(&encoded)?.files.into_iter();
            let files: HashMap<String, u64> = files.map(|file| (file.name, file.bytes)).collect();
            let new = files.iter().filter(|(name, _)| !self.files.contains_key(*name)).map(|(_, bytes)| bytes);
            self.new_bytes.push(new.sum::<u64>() + encoded.len() as u64);
            self.state_bytes = files.values().sum();
            self.files = files;
            self.newest = batch;
        }
        Ok(())
    }
}
