//! The table of faults: each with what must come of it, written down first, and the test that tries it. docs/failure-matrix.md shows it,
//! and a test holds the two together.

use millpond_testkit::chaos::{Expected, Fault, Needs, Scene, Seen, faults};

use crate::victim::{Setup, VICTIM};
use crate::{Finding, Result};

/// A fault, and the test that inflicts it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The fault.
    pub fault: Fault,
    /// A test of this repository.
    pub test: &'static str,
}

/// Tests of tests/recovery; each inflicts all faults of the table that name it.
const PROCESSES: &str = "each_fault_of_a_process_leaves_receivers_to_files_exactly_once";
const TRANSACTIONS: &str = "each_fault_of_transactions_leaves_a_window_over_kafka_exactly_once";
const BROKERS: &str = "each_fault_of_the_broker_leaves_a_word_count_exactly_once";
const NETWORKS: &str = "each_fault_of_the_network_leaves_a_pipeline_of_a_seed_exactly_once";

const DISKS: &str = "each_fault_of_the_disk_and_the_clock_leaves_receivers_to_files_exactly_once";

/// What the victims write to, beside their directory.
const OUTPUTS: &[&str] = &["out", "second"];

/// All faults that `make chaos` can inflict. Further kinds are added here: a row each, made with [`Fault::new`].
pub fn table() -> Vec<Row> {
    let row = |fault: Fault| {
        let test = match (fault.needs(), fault.name()) {
            (Needs::Process, _) => PROCESSES,
            (Needs::Kafka, _) => TRANSACTIONS,
            (_, name) if name.starts_with("broker-") => BROKERS,
            _ => NETWORKS,
        };
        Row { fault, test }
    };
    let rows = [faults::of_processes(), vec![little_memory()], faults::of_kafka()].concat().into_iter().map(row);
    let disk = faults::of_disk(OUTPUTS).into_iter().map(|fault| Row { fault, test: DISKS });
    rows.chain(disk).collect()
}

/// The faults that a test of this name has to inflict.
pub fn of_test(test: &str) -> Vec<Fault> {
    table().into_iter().filter(|row| row.test == test).map(|row| row.fault).collect()
}

/// The table as Markdown, a line each.
pub fn markdown() -> String {
    let line = |Row { fault, test }: Row| {
        let expected = match fault.expected() {
            Expected::Recovers => "recovers by itself".to_owned(),
            Expected::Stops(text) => {
                format!("stops with an error (\u{201c}{text}\u{201d}), recovers when the cause is gone")
            }
            Expected::Refuses(text) => {
                format!("the start is refused (\u{201c}{text}\u{201d}), who runs is not harmed")
            }
        };
        format!("| {} | {} | {expected} | `{test}` |\n", fault.name(), fault.what())
    };
    table().into_iter().map(line).collect()
}

/// Limits that are reached at once: state is evicted all the time, sources wait.
fn little_memory() -> Fault {
    let what = "the limits on decoded state and on waiting records are as small as they can be";
    Fault::new("memory-limit-reached", what, Expected::Recovers, Needs::Process, |scene| {
        // With batches to replay that were planned under a larger limit.
        let mut process = scene.lineage.start("")?;
        process.wait_ready(scene.limit)?;
        scene.lineage.note_recovery(&process);
        scene.world.feed()?;
        process.kill()?;
        let before = setup_of(scene)?;
        let small = Setup { memory_limit_bytes: Some(1), waiting_limit_bytes: Some(1 << 20), ..before.clone() };
        scene.lineage.launch_mut().set_env(VICTIM, small.to_json());
        for _ in 0..10 {
            scene.world.feed()?;
        }
        let mut process = scene.lineage.start("")?;
        scene.wait_complete(&mut process)?;
        process.kill()?;
        scene.lineage.tally_mut().kill("after-all-output");
        scene.lineage.launch_mut().set_env(VICTIM, before.to_json());
        Ok(Seen::WentOn)
    })
}

/// What the victim of a scene is told.
pub fn setup_of(scene: &Scene<'_>) -> Result<Setup> {
    let told = scene.lineage.launch().env_value(VICTIM).and_then(|told| told.to_str());
    Ok(serde_json::from_str(told.ok_or_else(|| Finding::new("the process is no victim"))?)?)
}
