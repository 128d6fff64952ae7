//! Every fault of the table once, each after the other on one lineage, judged at its end; and a few at random.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use millpond_fault_injection::arena::is_possible;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Arena, faults};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::{Fault, faults as standard};

/// A broker that may be killed, behind a proxy, for one test at a time.
fn broker() -> MutexGuard<'static, KafkaBroker> {
    static BROKER: OnceLock<Mutex<KafkaBroker>> = OnceLock::new();
    let start = || Mutex::new(KafkaBroker::builder().with_proxy().start().expect("a broker"));
    BROKER.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Inflicts all faults that the table has for this test, in its order.
fn inflict(test: &str, pipeline: Pipeline, broker: Option<&KafkaBroker>) {
    let seed = crate::seed();
    let rows = faults::of_test(test);
    assert!(!rows.is_empty(), "the table has no fault for {test}");
    let mut arena = Arena::new(pipeline, broker, seed).unwrap();
    println!("{:?}", arena.setup().recipe);
    let began = std::time::Instant::now();
    let tell = |fault: &str, _: &_| println!("{:7.1?} {fault}", began.elapsed());
    let report = arena.chaos().faults(rows.clone()).seed(seed).progress(tell).run();
    report.assert_clean();
    assert_eq!(report.faults.values().sum::<u64>(), rows.len() as u64);
    assert!(report.results_judged > 0);
}

#[test]
fn each_fault_of_a_process_leaves_receivers_to_files_exactly_once() {
    inflict("each_fault_of_a_process_leaves_receivers_to_files_exactly_once", Pipeline::Receivers, None);
}

#[test]
fn each_fault_of_the_disk_and_the_clock_leaves_receivers_to_files_exactly_once() {
    inflict("each_fault_of_the_disk_and_the_clock_leaves_receivers_to_files_exactly_once", Pipeline::Receivers, None);
}

#[test]
fn each_fault_of_transactions_leaves_a_window_over_kafka_exactly_once() {
    let test = "each_fault_of_transactions_leaves_a_window_over_kafka_exactly_once";
    inflict(test, Pipeline::KafkaWindow, Some(KafkaBroker::shared()));
}

#[test]
fn each_fault_of_the_broker_leaves_a_word_count_exactly_once() {
    inflict("each_fault_of_the_broker_leaves_a_word_count_exactly_once", Pipeline::KafkaCount, Some(&broker()));
}

#[test]
fn each_fault_of_the_network_leaves_a_pipeline_of_a_seed_exactly_once() {
    inflict(
        "each_fault_of_the_network_leaves_a_pipeline_of_a_seed_exactly_once",
        Pipeline::KafkaRandom,
        Some(&broker()),
    );
}

#[test]
fn faults_drawn_by_a_seed_leave_pipelines_of_a_seed_exactly_once() {
    let seed = crate::seed();
    let drawn = |fault: &Fault| is_possible(fault, Pipeline::KafkaRandom);
    for seed in [seed, seed.wrapping_add(1)] {
        let mut arena = Arena::new(Pipeline::KafkaRandom, Some(KafkaBroker::shared()), seed).unwrap();
        println!("{:?}", arena.setup().recipe);
        let faults = standard::of_processes().into_iter().filter(drawn);
        arena.chaos().faults(faults).at_random(8).seed(seed).run().assert_clean();
    }
}

#[test]
fn the_table_of_faults_is_the_one_that_the_failure_matrix_shows() {
    let text = std::fs::read_to_string(crate::matrix::root().join("docs/failure-matrix.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Faults of the chaos suite")).unwrap();
    let shown: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    let table = faults::markdown();
    assert_eq!(shown, table.lines().collect::<Vec<_>>(), "the table in the code is:\n{table}");
    let mut names: Vec<String> = faults::table().iter().map(|row| row.fault.name().to_owned()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), shown.len(), "a name stands in the table twice");
}
