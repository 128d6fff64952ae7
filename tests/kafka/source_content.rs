//! Content in the log: recovery needs nothing of the broker.

use std::time::Duration;

use millpond_core::source::Source;
use millpond_kafka::{KafkaSource, Lost, Raw};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer};

use crate::input::{Input, eventually};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn topic(partitions: u32) -> String {
    let topic = unique_name("content");
    KafkaBroker::shared().create_topic(&topic, partitions, &[]).expect("a topic");
    topic
}

fn write(topic: &str, range: std::ops::Range<usize>, partitions: usize) {
    let record = |n: usize| {
        let record = Outgoing::value(format!("value {n}")).key(n.to_string()).header("n", n.to_string());
        record.partition((n % partitions) as i32).timestamp_ms(n as i64 + 1)
    };
    Producer::new(brokers()).expect("a producer").produce(topic, range.map(record)).expect("records");
}

fn source(topic: &str) -> KafkaSource<Raw> {
    KafkaSource::subscribe(brokers(), [topic]).discover_every(Duration::from_millis(200)).log_content().raw()
}

#[test]
fn a_batch_is_replayed_from_the_log_after_its_topic_was_deleted() {
    let topic = topic(2);
    write(&topic, 0..500, 2);
    let mut input = Input::start(source(&topic)).expect("a start");
    let plans = input.plan_until(500);
    let live = input.items(&plans);
    assert_eq!(live.len(), 500);
    assert!(plans.iter().all(|plan| !plan.blocks.is_empty()), "content is in blocks");
    KafkaBroker::shared().delete_topic(&topic).expect("a deletion");
    let mut input = input.crash(source(&topic)).expect("a start without the topic");
    assert_eq!(input.items(&plans), live, "records come back whole, in the same order");
    assert!(input.wait_for_event("is gone").starts_with("error"), "said, but not fatal");
}

#[test]
fn recovery_from_the_log_does_not_wait_for_a_broker() {
    let topic = topic(1);
    write(&topic, 0..10, 1);
    let mut input = Input::start(source(&topic)).expect("a start");
    let plans = input.plan_until(10);
    let live = input.items(&plans);
    let nobody =
        KafkaSource::subscribe("127.0.0.1:9", [&topic]).wait_for_broker(Duration::from_millis(300)).log_content().raw();
    let mut input = input.crash(nobody).expect("a start without a broker");
    assert_eq!(input.items(&plans), live);
    let event = input.wait_for_event("fatal");
    assert!(event.contains("no Kafka broker of 127.0.0.1:9 answered within 300ms"), "{event}");
}

#[test]
fn blocks_that_no_batch_had_taken_are_taken_by_the_next_start_once() {
    let topic = topic(2);
    write(&topic, 0..100, 2);
    // By default each partition gives a record at least, and so a whole block.
    let mut input = Input::start(source(&topic).min_records_per_partition(0)).expect("a start");
    eventually("all records", || (input.source.metrics().fetched_records() == 100).then_some(()));
    let first = input.plan_at_most(Some(1)).expect("a plan");
    assert!(first.records > 0 && first.records < 100, "a part: {}", first.records);
    assert!(input.source.has_waiting());
    let mut items = input.items(&[first]);
    // The rest lies in the log; more comes at the broker.
    let mut input = input.crash(source(&topic)).expect("a start");
    write(&topic, 100..120, 2);
    items.extend(input.take(120 - items.len() as u64));
    let mut values: Vec<usize> = items
        .iter()
        .map(|item| String::from_utf8_lossy(item.key.as_deref().unwrap_or_default()).parse().expect("a number"))
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..120).collect::<Vec<_>>());
    input.expect_nothing();
}

#[test]
fn large_records_have_blocks_of_their_own() {
    let topic = topic(1);
    let records = (0..5).map(|n| Outgoing::value(vec![n; 700_000]).partition(0));
    Producer::new(brokers()).expect("a producer").produce(&topic, records).expect("records");
    let mut input = Input::start(source(&topic)).expect("a start");
    let plans = input.plan_until(5);
    assert_eq!(plans.iter().map(|plan| plan.blocks.len()).sum::<usize>(), 5);
    let live = input.items(&plans);
    let mut input = input.crash(source(&topic)).expect("a start");
    assert_eq!(input.items(&plans), live);
}

#[test]
fn content_goes_on_behind_a_lost_range_and_over_a_restart() {
    let topic = topic(1);
    write(&topic, 0..10, 1);
    let mut input = Input::start(source(&topic)).expect("a start");
    assert_eq!(input.take(10).len(), 10);
    input.source.stop();
    write(&topic, 10..30, 1);
    crate::admin::delete_records(brokers(), &topic, 0, 25);
    let skip = || source(&topic).on_lost_range(Lost::LogAndSkip);
    let input = input.crash(skip()).expect("a start");
    eventually("what is left", || (input.source.metrics().fetched_records() == 5).then_some(()));
    // Logged, in no plan, behind a gap.
    let mut input = input.crash(skip()).expect("a start");
    let offsets: Vec<i64> = input.take(5).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [25, 26, 27, 28, 29]);
    input.expect_nothing();
}
