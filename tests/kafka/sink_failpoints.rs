//! A process that dies by SIGKILL at each named point of a commit, and the control that shows that these tests can fail.

use std::env;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use millpond_core::sink::Sink;
use millpond_kafka::KafkaSink;
use millpond_testkit::broker::{KafkaBroker, unique_name};

use crate::output::{Output, seen, topic};

/// What the victim is told: brokers, application, topic, the failpoint at which it dies, and the one that breaks it.
const VICTIM: &str = "MILLPOND_KAFKA_VICTIM";

fn sink(brokers: &str, topic: &str) -> KafkaSink {
    KafkaSink::to(brokers, topic).wait_for_broker(Duration::from_secs(30))
}

/// Runs in a process of its own: commits batch 1000, then dies in the middle of batch 2000.
#[test]
#[ignore = "the victim of the tests in this file"]
fn victim() {
    let told = env::var(VICTIM).expect("started by a test of this file");
    let [brokers, app, topic, point, broken] = told.split('|').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let die_there = || {
        fail::cfg_callback(point, || {
            Command::new("kill").args(["-KILL", &process::id().to_string()]).status().expect("kill runs");
            thread::sleep(Duration::from_secs(60));
        })
        .expect("a failpoint");
    };
    let mut output = Output::new(app, "counts", sink(brokers, topic));
    if point == "sink-fenced" {
        die_there();
    }
    assert_eq!(output.open().expect("a start"), 0);
    output.batch(1000, &[("a", "1")]).expect("a batch");
    if !broken.is_empty() {
        fail::cfg(broken, "return").expect("a failpoint");
    }
    die_there();
    output.batch(2000, &[("a", "2"), ("b", "2")]).expect("a batch");
    panic!("{point} was not met");
}

/// Has a victim die, then goes on as its successor; gives what a reader sees in the end.
fn die_at(point: &str, broken: &str) -> Vec<String> {
    let brokers = KafkaBroker::shared().bootstrap_servers();
    let (app, topic) = (unique_name("victim"), topic(2));
    let told = [brokers, &app, &topic, point, broken].join("|");
    let program = env::current_exe().expect("this program");
    let arguments = ["sink_failpoints::victim", "--exact", "--ignored", "--nocapture"];
    let ended = Command::new(program).args(arguments).env(VICTIM, told).output().expect("a victim");
    assert_eq!(ended.status.code(), None, "killed, not ended: {}", String::from_utf8_lossy(&ended.stderr));

    let mut output = Output::new(&app, "counts", sink(brokers, &topic));
    let committed = output.open().expect("a recovery");
    if committed < 1000 {
        output.batch(1000, &[("a", "1")]).expect("a batch");
    }
    if committed < 2000 {
        output.batch(2000, &[("a", "2"), ("b", "2")]).expect("the batch again");
    }
    output.batch(3000, &[("a", "3")]).expect("a batch");
    output.sink.close();
    seen(brokers, &topic)
}

#[test]
fn a_sink_killed_at_any_point_of_a_batch_loses_and_doubles_nothing() {
    let points =
        ["sink-fenced", "transaction-begun", "output-written", "offsets-sent", "before-commit", "after-commit"];
    for point in points {
        assert_eq!(die_at(point, ""), ["a=1", "a=2", "a=3", "b=2"], "killed at {point}");
    }
}

#[test]
fn a_cursor_outside_the_transaction_is_caught() {
    let seen = die_at("before-commit", "break-cursor-outside-transaction");
    assert_eq!(seen, ["a=1", "a=3"], "batch 2000 must be missing, else these tests could not fail");
}
