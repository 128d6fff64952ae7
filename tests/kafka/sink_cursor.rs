//! Output, cursor and offsets become visible together or not at all, and the cursor is found again.

use std::time::Duration;

use millpond_core::sink::{Cursor, Sink, SourcePositions};
use millpond_core::{BatchTime, ErrorKind};
use millpond_kafka::KafkaSink;
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer, Transaction, read_committed};

use crate::admin;
use crate::input::{Input, expect_error};
use crate::output::{Output, batch_of, cursor, seen, topic};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn sink(topic: &str) -> KafkaSink {
    KafkaSink::to(brokers(), topic).wait_for_broker(Duration::from_secs(20))
}

#[test]
fn a_batch_and_its_cursor_are_committed_and_found_by_the_next_start() {
    let (app, topic) = (unique_name("app"), topic(2));
    let mut output = Output::new(&app, "counts", sink(&topic));
    assert_eq!(output.peek().expect("a peek"), None);
    assert_eq!(output.fence().expect("a fence"), None);
    output.batch(1000, &[("a", "1"), ("b", "2")]).expect("a batch");
    output.batch(2000, &[("a", "3")]).expect("a batch");
    assert_eq!(seen(brokers(), &topic), ["a=1", "a=3", "b=2"]);
    let mut again = Output::new(&app, "counts", sink(&topic));
    assert_eq!(again.peek().expect("a peek"), Some(cursor(2000, &[("a", "3")])));
    assert_eq!(again.fence().expect("a fence"), Some(cursor(2000, &[("a", "3")])));
    // The topic is the application's, compacted, with one partition.
    let cursors = read_committed(brokers(), &format!("{app}.millpond-cursor")).expect("the cursor topic");
    assert_eq!(cursors.iter().map(|record| record.key_text()).collect::<Vec<_>>(), ["counts", "counts"]);
}

#[test]
fn a_batch_without_output_commits_its_cursor() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    for batch in 1..=5 {
        output.batch(batch * 1000, &[]).expect("an empty batch");
    }
    assert_eq!(Output::new(&app, "counts", sink(&topic)).open().expect("a start"), 5000);
    assert_eq!(seen(brokers(), &topic), Vec::<String>::new());
}

#[test]
fn q9_a_crash_before_the_commit_leaves_nothing_and_after_it_everything() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    output.batch(1000, &[("a", "1")]).expect("a batch");
    // Output written, offsets and cursor not.
    output.write(2000, &[("a", "2")]).expect("output");
    std::mem::forget(output);
    let mut output = Output::new(&app, "counts", sink(&topic));
    assert_eq!(output.open().expect("a start"), 1000);
    assert_eq!(seen(brokers(), &topic), ["a=1"]);
    // Cursor written too, not committed.
    output.write(2000, &[("a", "2")]).expect("output");
    output.prepare(2000, &[("a", "2")]).expect("prepared");
    std::mem::forget(output);
    let mut output = Output::new(&app, "counts", sink(&topic));
    assert_eq!(output.open().expect("a start"), 1000);
    // Committed, and dead before anybody heard of it.
    output.batch(2000, &[("a", "2")]).expect("a batch");
    std::mem::forget(output);
    let mut output = Output::new(&app, "counts", sink(&topic));
    assert_eq!(output.open().expect("a start"), 2000);
    assert_eq!(seen(brokers(), &topic), ["a=1", "a=2"]);
}

#[test]
fn h25_a_deployment_that_took_a_sink_over_is_the_one_whose_cursor_counts() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut old = Output::new(&app, "counts", sink(&topic));
    old.open().expect("a start");
    old.batch(1000, &[("a", "1")]).expect("a batch");
    old.batch(3000, &[("a", "3")]).expect("a batch");
    // Begun from a savepoint of batch 1000.
    let mut new = Output::new(&app, "counts", sink(&topic));
    new.open().expect("a start");
    new.sink.begin(BatchTime::from_ms(1000), &[]).expect("a beginning");
    new.sink.prepare(&Cursor { deployment: [8; 16], ..cursor(1000, &[]) }).expect("prepared");
    new.sink.commit().expect("introduced");
    let mut started = Output::new(&app, "counts", sink(&topic));
    started.peek().expect("a look");
    let found = started.fence().expect("a cursor").expect("one is there");
    assert_eq!((found.deployment, found.batch), ([8; 16], BatchTime::from_ms(1000)));
}

#[test]
fn an_aborted_batch_leaves_nothing_and_can_run_again() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    let many: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = many.iter().map(|n| (&**n, "wrong")).collect();
    output.write(1000, &pairs).expect("output");
    output.sink.abort().expect("an abort with records in flight");
    output.batch(1000, &[("a", "right")]).expect("a batch");
    output.write(2000, &pairs).expect("output");
    output.prepare(2000, &pairs).expect("prepared");
    output.sink.abort().expect("an abort of a prepared batch");
    output.batch(2000, &[("b", "right")]).expect("a batch");
    assert_eq!(seen(brokers(), &topic), ["a=right", "b=right"]);
}

#[test]
fn offsets_and_cursor_are_atomic() {
    let (app, out, input_topic) = (unique_name("app"), topic(1), topic(1));
    let records = (0..10).map(|n| Outgoing::value(n.to_string()).partition(0));
    Producer::new(brokers()).expect("a producer").produce(&input_topic, records).expect("records");
    let source = millpond_kafka::KafkaSource::subscribe(brokers(), [&input_topic]).utf8();
    let mut input = Input::start(source).expect("a start");
    let plans = input.plan_until(10);
    let positions = |plan: &millpond_core::source::Plan| {
        [SourcePositions { source: "in".into(), kind: "kafka", positions: plan.positions.clone() }]
    };
    let mut output = Output::new(&app, "out", sink(&out));
    output.open().expect("a start");
    let last = plans.last().expect("a plan");
    output.write_from(1000, &[("a", "1")], &positions(last)).expect("output");
    output.prepare(1000, &[("a", "1")]).expect("prepared");
    assert_eq!(admin::group_offset(brokers(), &app, &input_topic, 0), None, "not before the commit");
    output.sink.abort().expect("an abort");
    assert_eq!(admin::group_offset(brokers(), &app, &input_topic, 0), None, "nor after an abort");
    output.batch_from(1000, &[("a", "1")], &positions(last)).expect("a batch");
    assert_eq!(admin::group_offset(brokers(), &app, &input_topic, 0), Some(10));
    assert_eq!(seen(brokers(), &out), ["a=1"]);
}

#[test]
fn h6_offsets_may_move_backward_while_a_sink_catches_up() {
    let (app, out, input_topic) = (unique_name("app"), topic(1), topic(1));
    let source = millpond_kafka::KafkaSource::subscribe(brokers(), [&input_topic]).utf8();
    let mut input = Input::start(source).expect("a start");
    let mut at = |count: usize| {
        let records = (0..count).map(|n| Outgoing::value(n.to_string()).partition(0));
        Producer::new(brokers()).expect("a producer").produce(&input_topic, records).expect("records");
        let plan = input.plan_until(count as u64).pop().expect("a plan");
        [SourcePositions { source: "in".into(), kind: "kafka", positions: plan.positions }]
    };
    let (five, eight) = (at(5), at(3));
    let mut output = Output::new(&app, "out", sink(&out));
    output.open().expect("a start");
    output.batch_from(1000, &[], &eight).expect("a batch");
    assert_eq!(admin::group_offset(brokers(), &app, &input_topic, 0), Some(8));
    output.batch_from(2000, &[], &five).expect("a batch");
    assert_eq!(admin::group_offset(brokers(), &app, &input_topic, 0), Some(5));
    // What the cursor says does not move backward.
    assert_eq!(Output::new(&app, "out", sink(&out)).open().expect("a start"), 2000);
}

#[test]
fn h1_a_cursor_behind_somebody_elses_open_transaction_is_waited_for() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    output.batch(1000, &[("a", "1")]).expect("a batch");
    let cursors = format!("{app}.millpond-cursor");
    let mut open =
        Transaction::begin(brokers(), &unique_name("other"), Duration::from_secs(60)).expect("a transaction");
    open.produce(&cursors, [Outgoing::tombstone("nobody").partition(0)]).expect("a record");
    output.batch(2000, &[("a", "2")]).expect("a batch behind the open transaction");
    // The end that a reader of committed records sees lies before the newest cursor.
    let mut hurried = Output::new(&app, "counts", sink(&topic).wait_for_broker(Duration::from_secs(4)));
    assert_eq!(batch_of(hurried.peek().expect("a peek")), 1000, "as far as it can be seen");
    let error = expect_error(hurried.fence());
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains(&cursors) && error.to_string().contains("partition 0"), "{error}");
    // With patience the newest is found, when the other is decided.
    let mut patient = Output::new(&app, "counts", sink(&topic));
    patient.peek().expect("a peek");
    let end = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        open.abort().expect("an abort");
    });
    assert_eq!(batch_of(patient.fence().expect("a fence")), 2000);
    end.join().expect("no panic");
}

#[test]
fn h1_the_newest_cursor_is_the_one_of_the_largest_batch() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    output.batch(3000, &[]).expect("a batch");
    // A later record of an earlier batch, as a delayed writer might leave.
    let cursors = format!("{app}.millpond-cursor");
    let late = Outgoing::value(cursor(2000, &[]).encode()).key("counts").partition(0);
    Producer::new(brokers()).expect("a producer").produce(&cursors, [late]).expect("a record");
    assert_eq!(Output::new(&app, "counts", sink(&topic)).open().expect("a start"), 3000);
}

#[test]
fn a_cursor_topic_that_would_lose_cursors_is_refused() {
    let topic = topic(1);
    type Topic<'a> = (&'a str, u32, &'a [(&'a str, &'a str)], &'a str);
    let policies: [Topic<'_>; 3] = [
        ("deletes", 1, &[("cleanup.policy", "delete")], "cleanup policy `delete`"),
        ("compacts-and-deletes", 1, &[("cleanup.policy", "compact,delete")], "cleanup policy `compact,delete`"),
        ("two-partitions", 2, &[("cleanup.policy", "compact")], "has 2 partitions"),
    ];
    for (name, partitions, config, part) in policies {
        let cursors = unique_name(name);
        KafkaBroker::shared().create_topic(&cursors, partitions, config).expect("a topic");
        let mut output = Output::new(&unique_name("app"), "counts", sink(&topic).cursor_topic(&cursors));
        let error = expect_error(output.peek());
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part) && error.to_string().contains(&cursors), "{error}");
    }
    let good = unique_name("compacts");
    KafkaBroker::shared().create_topic(&good, 1, &[("cleanup.policy", "compact")]).expect("a topic");
    let mut output = Output::new(&unique_name("app"), "counts", sink(&topic).cursor_topic(&good));
    output.open().expect("a start");
    output.batch(1000, &[]).expect("a batch");
    let error = expect_error(Output::new("a b", "counts", sink(&topic)).peek());
    assert!(error.to_string().contains("cursor_topic()"), "{error}");
}

#[test]
fn garbage_in_the_cursor_topic_is_told_with_its_place() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.open().expect("a start");
    let cursors = format!("{app}.millpond-cursor");
    Producer::new(brokers())
        .expect("a producer")
        .produce(&cursors, [Outgoing::value("no cursor").key("counts").partition(0)])
        .expect("a record");
    let error = expect_error(Output::new(&app, "counts", sink(&topic)).peek());
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains(&format!("cursor topic {cursors}, offset 0")), "{error}");
}
