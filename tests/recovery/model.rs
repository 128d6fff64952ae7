//! Power failures: the log lies on a file system in memory that keeps only what was synced. SIGKILL cannot show a missing sync,
//! since the page cache outlives the process; this can.
//!
//! Sinks outlive the failure (a broker elsewhere), checkpoints too: so the log is what is tried.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::log::{LocalBatchLog, LocalBatchLogOptions};
use millpond_core::source::FileSource;
use millpond_core::testing::{Feed, TestHooks};
use millpond_core::{BatchTime, Result, Running, StreamingContext, failpoints};
use millpond_fault_injection::{Dice, Words};
use millpond_testkit::{Collection, ManualClock};
use millpond_wal::fs::fault::{FaultFileSystem, Keep};
use tempfile::TempDir;

const INTERVAL: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);
const FAILURES: u64 = 25;

/// What outlives a power failure.
struct Machine {
    disk: FaultFileSystem,
    directory: TempDir,
    clock: Arc<ManualClock>,
    feed: Feed,
    sinks: Collection,
}

impl Machine {
    fn start(&self) -> Result<Running> {
        let (feed, sinks) = (self.feed.clone(), self.sinks.clone());
        let options = LocalBatchLogOptions {
            segment_bytes: 64 << 10,
            preallocate_bytes: 16 << 10,
            max_payload_bytes: 32 << 10,
            ..LocalBatchLogOptions::default()
        };
        let log = LocalBatchLog::on(Arc::new(self.disk.clone()), Path::new("/log"), options);
        let hooks = TestHooks {
            feed: Some(feed),
            sinks: Some(Box::new(move |_| Some(Box::new(sinks.sink())))),
            log: Some(Arc::new(log)),
        };
        StreamingContext::builder("model")
            .directory(self.directory.path())
            .batch_interval(INTERVAL)
            .checkpoint_interval(4 * INTERVAL)
            .threads(1)
            .partitions(2)
            .clock(self.clock.clone())
            .verify_in_background(false)
            .test_hooks(hooks)
            .open(|graph| {
                graph
                    .source("lines", FileSource::directory("fed by the test"))
                    .flat_map(|line: String| line.split_whitespace().map(String::from).collect::<Vec<_>>())
                    .map(|word| (word, 1_u64))
                    .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
                    .sink_json("out", Collection::new().sink());
                Ok(())
            })?
            .start()
    }

    fn tick(&self, running: &Running) -> Result<()> {
        let next = BatchTime::from_ms(running.progress().planned.as_ms()) + INTERVAL;
        self.clock.advance(INTERVAL);
        running.await_committed(next, LIMIT)
    }

    /// What the input demands against what the sink holds: for each word the counts after each batch that has it.
    fn judge(&self, batches: &[Vec<String>]) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut expected = Vec::new();
        for lines in batches {
            let mut touched: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
            touched.iter().for_each(|word| *counts.entry((*word).to_owned()).or_default() += 1);
            touched.sort_unstable();
            touched.dedup();
            expected.push(touched.iter().map(|word| serde_json::json!([word, counts[*word]]).to_string()).collect());
        }
        let of_batch = |batch: millpond_testkit::Collected| {
            let mut values: Vec<String> = batch.values.iter().map(ToString::to_string).collect();
            values.sort_unstable();
            values
        };
        let sort = |mut batch: Vec<String>| {
            batch.sort_unstable();
            batch
        };
        let seen: Vec<Vec<String>> = self.sinks.committed("out").into_iter().map(of_batch).collect();
        assert_eq!(seen, expected.into_iter().map(sort).collect::<Vec<_>>());
    }
}

#[test]
fn power_failures_lose_nothing_and_double_nothing() {
    failpoints::arm_from_env().unwrap();
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let mut words = Words::new(seed);
    let machine = Machine {
        disk: FaultFileSystem::new(),
        directory: tempfile::tempdir().unwrap(),
        clock: Arc::new(ManualClock::at_ms(0)),
        feed: Feed::new(),
        sinks: Collection::new(),
    };
    let mut batches = Vec::new();
    for failure in 0..=FAILURES {
        let running = machine.start().unwrap_or_else(|error| panic!("after {failure} power failures: {error}"));
        for _ in 0..dice.below(7) {
            let lines = words.lines(5);
            machine.feed.feed("lines", lines.iter().cloned().map(Into::into));
            machine.tick(&running).unwrap();
            batches.push(lines);
        }
        let keep = if dice.below(2) == 0 { Keep::Synced } else { Keep::Random(dice.below(u64::MAX)) };
        machine.disk.crash(keep);
        // What the process does from here on the disk has no part in.
        let _ = running.stop();
    }
    machine.judge(&batches);
}

/// Runs the test above in a process of its own with a control armed; what it says.
fn said_of(control: &str) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "model::power_failures_lose_nothing_and_double_nothing", "--nocapture"])
        .env(failpoints::VARIABLE, control)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn control_a_plan_that_is_not_synced_is_caught() {
    for control in ["break-log-skip-sync=return", "break-plan-not-logged=return"] {
        let (passed, said) = said_of(control);
        assert!(!passed, "{control} was not caught: {said}");
        assert!(said.contains("power failures: "), "{control} was caught by something else: {said}");
    }
    let (passed, said) = said_of("");
    assert!(passed, "{said}");
}
