//! Simulated applications (docs/design.md, "How we know"): thousands of short lives with faults from seeds, in one thread.
//!
//! They arm every failpoint, so each test runs in a process of its own: this program, started again for that one test.

use std::process::{Command, Output};
use std::time::Duration;

use millpond_core::failpoints;
use millpond_fault_injection::simulation;

/// Set for the process that runs simulations.
const INSIDE: &str = "MILLPOND_SIMULATION";
/// How long new seeds are tried.
const TIME: Duration = Duration::from_secs(15);
/// Longer than any control takes to be found.
const CONTROL_TIME: Duration = Duration::from_secs(30);
/// Seeds that have found something once, and some others.
const SEEDS: [u64; 7] = [1, 2, 3, 4, 5, 6, 7339676780713299806];

/// Runs a test in a process of its own, with failpoints armed; `None` in that process.
fn outside(test: &str, failpoints: &str) -> Option<Output> {
    if std::env::var_os(INSIDE).is_some() {
        failpoints::arm_from_env().unwrap();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("simulation::{test}"), "--nocapture"]);
    let output = command.env(INSIDE, "1").env(failpoints::VARIABLE, failpoints).output().unwrap();
    print!("{}", said(&output));
    Some(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn simulated_applications_come_through_every_sequence_of_faults() {
    if let Some(output) = outside("simulated_applications_come_through_every_sequence_of_faults", "") {
        assert!(output.status.success());
        return;
    }
    for seed in SEEDS {
        simulation::run(seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
    search(TIME);
}

#[test]
fn a_seed_replays_a_simulation_exactly() {
    if let Some(output) = outside("a_seed_replays_a_simulation_exactly", "") {
        assert!(output.status.success());
        return;
    }
    let first = crate::seed();
    for seed in (0..40).map(|number| first.wrapping_add(number)) {
        let run = || simulation::run(seed).unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(run(), run(), "SEED={seed}");
    }
}

/// Not a test by itself: what the controls run.
#[test]
fn search_with_a_control() {
    if std::env::var_os(INSIDE).is_some() {
        failpoints::arm_from_env().unwrap();
        search(CONTROL_TIME);
    }
}

fn search(time: Duration) {
    let seed = crate::seed();
    match simulation::run_for(time, seed, 1) {
        Ok((runs, outcome)) => println!("{runs} simulated runs in {time:?}: {outcome:?}"),
        Err(broken) => panic!("in run {}: {broken}", broken.seed.wrapping_sub(seed) + 1),
    }
}

#[test]
fn control_the_simulation_finds_what_is_broken_on_purpose() {
    // Not the others: a process has one id and one seed of its hash however many lives it plays, nothing is summed in floating point, and
    // receivers and directories of file sinks are not simulated.
    for control in [
        "break-log-skip-sync",
        "break-plan-not-logged",
        "break-state-before-plan",
        "break-checkpoint-before-commit",
        "break-manifest-before-files",
        "break-log-cleaned-early",
        "break-cursor-outside-transaction",
        "break-commit-code-trusted",
        "break-producer-not-renewed",
        "break-expired-ignored",
    ] {
        let Some(output) = outside("search_with_a_control", &format!("{control}=return")) else { return };
        let said = said(&output);
        assert!(!output.status.success() && said.contains("SEED="), "{control} was not found: {said}");
        let run = said.split("in run ").nth(1).and_then(|rest| rest.split(':').next()).unwrap_or_default();
        println!("{control} was found in run {run}");
    }
}
