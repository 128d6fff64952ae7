//! Processes that have no address space for more threads: no client of Kafka is made, and nobody waits for one that never will be.

use std::process::Command;
use std::time::Duration;

use millpond_core::{BatchContext, ErrorKind};
use millpond_kafka::{KafkaSource, OffsetRange};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::chaos::{Ended, Process, wait_until};
use millpond_testkit::{Outgoing, Producer};

const BROKERS: &str = "MILLPOND_TEST_BROKERS_WITHOUT_THREADS";
const TOPIC: &str = "MILLPOND_TEST_TOPIC_WITHOUT_THREADS";
const LIMIT: Duration = Duration::from_secs(30);

/// A limit in bytes that this process has; `None` if it is unlimited.
fn soft_limit(name: &str) -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().ok()
}

/// Not a test of its own: a process that reads a range when its address space has been limited.
#[test]
fn victim() {
    let (Ok(brokers), Ok(topic)) = (std::env::var(BROKERS), std::env::var(TOPIC)) else { return };
    eprintln!("ready");
    let is_limited = || Ok(soft_limit("Max address space").map(drop));
    wait_until(LIMIT, "a limit", is_limited).unwrap();
    let source = KafkaSource::subscribe(&brokers, [&topic]).wait_for_broker(LIMIT).utf8();
    match BatchContext::new().source(source.ranges([OffsetRange::new(&topic, 0, 0..1)])).and_then(|rdd| rdd.collect()) {
        Ok(records) => eprintln!("read {records:?}"),
        Err(error) => {
            eprintln!("refused: {error}");
            assert_eq!(error.kind(), ErrorKind::Retry);
        }
    }
    // What the end of a process wants of memory is not what is tested.
    std::process::exit(0);
}

#[test]
fn a_client_that_the_machine_has_no_threads_for_is_an_error_that_says_so_and_no_wait_without_end() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("threads");
    broker.create_topic(&topic, 1, &[]).unwrap();
    Producer::new(broker.bootstrap_servers()).unwrap().produce(&topic, [Outgoing::value("first")]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (mut refused, mut read) = (0, 0);
    let stack = soft_limit("Max stack size").unwrap_or(2 << 20);
    // From less than one thread's stack to enough for a client.
    for stacks in 0..8 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "threads::victim", "--nocapture"]);
        command.env(BROKERS, broker.bootstrap_servers()).env(TOPIC, &topic);
        let mut process = Process::start(&command, "", &directory.path().join(stacks.to_string())).unwrap();
        process.wait_ready(LIMIT).unwrap();
        process.limit_address_space(stacks * stack + stack / 2).unwrap();
        let ended = process.wait(LIMIT * 2).unwrap();
        let said = process.said();
        println!("{stacks} stacks: {ended:?}: {}", said.lines().last().unwrap_or_default());
        // Where an allocation fails, it dies of it.
        let died = matches!(ended, Ended::Otherwise(_));
        assert!(
            died || said.contains(r#"read ["first"]"#) || said.contains("has no 5 threads more for a Kafka client"),
            "{said}"
        );
        refused += u32::from(said.contains("has no 5 threads"));
        read += u32::from(said.contains("read "));
    }
    assert!(refused > 2 && read > 0, "{refused} were refused, {read} did read");
}
