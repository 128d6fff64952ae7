//! Programs broken on purpose (`fault-injection/src/controls.rs`): the same kills and faults that find nothing in the program as it is
//! must find something here.

use std::collections::BTreeSet;
use std::process::Command;

use millpond_fault_injection::controls::{RULES, RUNS, Scenario, catch};
use millpond_testkit::broker::KafkaBroker;

/// Runs the scenarios of a kind on the program as it is, and on one that breaks each rule; prints what it took, a line of JSON each.
fn controls(of: impl Fn(Scenario) -> bool, broker: Option<&KafkaBroker>) {
    let seed = crate::seed();
    let scenarios: BTreeSet<Scenario> =
        RULES.iter().map(|rule| rule.scenario).filter(|scenario| of(*scenario)).collect();
    for scenario in scenarios {
        scenario.run("", broker, seed).unwrap_or_else(|found| panic!("{scenario:?} of the program as it is: {found}"));
    }
    let mut missed = Vec::new();
    for rule in RULES.iter().filter(|rule| of(rule.scenario)) {
        let control = catch(*rule, broker, seed);
        println!("{}", serde_json::to_string(&control).expect("text and numbers"));
        assert!(!control.found.contains("needs a program that is built with"), "{}", control.found);
        if !control.caught {
            missed.push(rule.name);
        }
    }
    assert!(missed.is_empty(), "not caught in {RUNS} runs each: {missed:?}");
}

#[test]
fn control_every_broken_rule_of_log_plan_state_and_files_is_caught_by_kills() {
    controls(|scenario| !scenario.needs_broker() && scenario != Scenario::PowerLost, None);
}

#[test]
fn control_every_sync_that_the_program_leaves_out_is_caught_by_power_failures() {
    controls(|scenario| scenario == Scenario::PowerLost, None);
}

#[test]
fn control_every_broken_rule_of_kafka_transactions_is_caught() {
    let broker = KafkaBroker::builder().with_proxy().start().expect("a broker with a proxy");
    controls(Scenario::needs_broker, Some(&broker));
}

#[test]
fn every_negative_control_is_caught_by_some_scenario() {
    let broken: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    let names = millpond_core::failpoints::NAMES.iter().map(|(name, _)| *name);
    assert_eq!(broken, names.filter(|name| name.starts_with("break-")).collect());
    assert_eq!(broken.len(), RULES.len());
}

/// The module alone is compiled: what it says first counts, whatever else it lacks.
#[test]
fn negative_controls_do_not_compile_without_debug_assertions() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for name in ["wal", "state", "core", "kafka"] {
        let compile = |assertions: &str| {
            let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            rustc.args(["--edition", "2024", "--crate-type", "lib", "--cfg", "feature=\"negative-controls\""]);
            rustc.args(["-C", assertions, "--out-dir"]).arg(place.path());
            let module = format!("{}/../crates/{name}/src/controls.rs", env!("CARGO_MANIFEST_DIR"));
            let output = rustc.arg(module).output().expect("a compiler");
            String::from_utf8_lossy(&output.stderr).contains("breaks the program on purpose")
        };
        assert!(compile("debug-assertions=off"), "{name}");
        assert!(!compile("debug-assertions=on"), "{name}");
    }
}
