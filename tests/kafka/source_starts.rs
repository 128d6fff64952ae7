//! Which partitions a source reads, and from where.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_core::ErrorKind;
use millpond_kafka::{KafkaSource, StartingOffsets};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer};

use crate::admin;
use crate::input::{Input, counts, expect_error};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn topic(partitions: u32) -> String {
    named_topic(&unique_name("start"), partitions)
}

fn named_topic(name: &str, partitions: u32) -> String {
    KafkaBroker::shared().create_topic(name, partitions, &[]).expect("a topic");
    name.to_owned()
}

fn write<'a>(topic: &str, values: impl IntoIterator<Item = &'a str>) {
    let records = values.into_iter().map(|value| Outgoing::value(value).partition(0));
    Producer::new(brokers()).expect("a producer").produce(topic, records).expect("records");
}

/// `a` seven times, `b` nine times.
fn write_basic(topic: &str) {
    write(topic, ["a"; 7].into_iter().chain(["b"; 9]));
}

fn given(offsets: &[(&str, u64)]) -> StartingOffsets {
    let offsets = offsets.iter().map(|(topic, offset)| ((topic.to_string(), 0), *offset));
    StartingOffsets::Given(offsets.collect::<BTreeMap<_, _>>())
}

#[test]
fn q1_three_topics_one_from_a_given_offset() {
    let topics = [topic(1), topic(1), topic(1)];
    topics.iter().for_each(|topic| write_basic(topic));
    let source = KafkaSource::subscribe(brokers(), &topics).starting_offsets(given(&[(&topics[2], 2)])).utf8();
    let mut input = Input::start(source).expect("a start");
    let plans = input.plan_until(46);
    let mut sizes = vec![0; 3];
    let mut items = Vec::new();
    for plan in &plans {
        let parts = input.read(plan).expect("a plan can be read");
        assert_eq!(parts.len(), 3, "a partition of the batch for each of the topics");
        for (part, size) in parts.iter().zip(&mut sizes) {
            assert_eq!(part.records, part.items.len() as u64);
            *size += part.items.len();
        }
        items.extend(parts.into_iter().flat_map(|part| part.items));
    }
    assert_eq!(sizes, [16, 16, 14]);
    assert_eq!(counts(items), BTreeMap::from([("a".to_owned(), 19), ("b".to_owned(), 27)]));
    input.expect_nothing();
}

#[test]
fn q2_a_pattern_reads_the_topics_that_match_wholly() {
    let prefix = unique_name("pat");
    let topics: Vec<String> =
        ["1", "2", "3", "x"].iter().map(|end| named_topic(&format!("{prefix}{end}"), 1)).collect();
    topics.iter().for_each(|topic| write_basic(topic));
    let starting = given(&[(&topics[1], 3), (&topics[2], 4)]);
    let source = KafkaSource::subscribe_pattern(brokers(), format!(r"{prefix}\d")).starting_offsets(starting).utf8();
    let mut input = Input::start(source).expect("a start");
    assert_eq!(input.take(41).len(), 16 * 3 - 7);
    input.expect_nothing();
}

#[test]
fn q3_latest_sees_only_what_comes_after_the_start() {
    let topic = topic(1);
    write(&topic, ["a"; 10]);
    let source = KafkaSource::subscribe(brokers(), [&topic]).starting_offsets(StartingOffsets::Latest).utf8();
    let mut input = Input::start(source).expect("a start");
    write(&topic, ["b"; 10]);
    assert_eq!(input.take(10), ["b"; 10]);
}

#[test]
fn q3_a_given_offset_at_or_past_the_end_is_waited_for() {
    let topic = topic(1);
    write(&topic, ["a"; 10]);
    let start = |offset| {
        let source = KafkaSource::assign(brokers(), [(&topic, 0)]).discover_every(Duration::from_millis(200)).utf8();
        Input::start(source.starting_offsets(given(&[(&topic, offset)]))).expect("a start")
    };
    let (mut at_end, mut past_end) = (start(10), start(11));
    assert_eq!(at_end.plan().expect("a plan").records, 0);
    assert_eq!(past_end.plan().expect("a plan").records, 0);
    // Also over a restart before the partition has grown so far.
    let again = KafkaSource::assign(brokers(), [(&topic, 0)]).discover_every(Duration::from_millis(200)).utf8();
    let mut past_end = past_end.crash(again).expect("a start");
    write(&topic, ["b"; 10]);
    assert_eq!(at_end.take(10), ["b"; 10]);
    assert_eq!(past_end.take(9), ["b"; 9]);
    past_end.expect_nothing();
    assert_eq!(past_end.events(), Vec::<String>::new());
}

#[test]
fn a_time_is_a_starting_offset() {
    let topic = topic(1);
    let at = |time: i64| Outgoing::value(time.to_string()).timestamp_ms(time).partition(0);
    let now = 1_700_000_000_000;
    Producer::new(brokers())
        .expect("a producer")
        .produce(&topic, [at(now), at(now + 1000), at(now + 2000)])
        .expect("records");
    let start = |time| {
        let source = KafkaSource::subscribe(brokers(), [&topic]).utf8();
        Input::start(source.starting_offsets(StartingOffsets::ByTimestamp(time))).expect("a start")
    };
    let mut second = start(now as u64 + 500);
    assert_eq!(second.take(2), [(now + 1000).to_string(), (now + 2000).to_string()]);
    // Later than all: behind the newest.
    let mut none = start(now as u64 + 5000);
    write(&topic, ["new"]);
    assert_eq!(none.take(1), ["new"]);
}

#[test]
fn h5_a_partition_found_later_starts_at_its_beginning() {
    let topic = topic(1);
    let source = || {
        KafkaSource::subscribe(brokers(), [&topic])
            .starting_offsets(StartingOffsets::Latest)
            .discover_every(Duration::from_millis(200))
            .utf8()
    };
    let mut input = Input::start(source()).expect("a start");
    assert_eq!(input.plan().expect("a plan").positions.len(), 1);
    admin::set_partitions(brokers(), &topic, 3);
    let write = |partition, value: &str| {
        // Each time one that knows of the new partitions.
        let mut producer = Producer::new(brokers()).expect("a producer");
        producer.produce(&topic, [Outgoing::value(value).partition(partition)]).expect("a record");
    };
    write(1, "one");
    write(2, "two");
    let mut items = input.take(2);
    items.sort();
    assert_eq!(items, ["one", "two"]);
    assert_eq!(input.plans.last().map(|plan| plan.positions.len()), Some(3));
    // And one that is found by a restart.
    admin::set_partitions(brokers(), &topic, 4);
    write(3, "three");
    let mut input = input.crash(source()).expect("a start");
    assert_eq!(input.take(1), ["three"]);
}

#[test]
fn a_topic_that_appears_later_is_found_by_its_pattern() {
    let prefix = unique_name("later");
    let source =
        KafkaSource::subscribe_pattern(brokers(), format!("{prefix}-.*")).discover_every(Duration::from_millis(200));
    let mut input = Input::start(source.starting_offsets(StartingOffsets::Latest).utf8()).expect("a start");
    assert_eq!(input.plan().expect("a plan").positions.len(), 0);
    let topic = named_topic(&format!("{prefix}-a"), 1);
    write(&topic, ["first"]);
    // A sink's own cursors are no input, whatever the pattern says.
    let cursors = named_topic(&format!("{prefix}-b.millpond-cursor"), 1);
    write(&cursors, ["a cursor"]);
    assert_eq!(input.take(1), ["first"]);
    input.expect_nothing();
}

#[test]
fn h5_an_idle_partition_with_starting_offset_latest_loses_nothing_over_two_restarts() {
    let topic = topic(2);
    let record = |partition, value: &str| Outgoing::value(value).partition(partition);
    let mut producer = Producer::new(brokers()).expect("a producer");
    producer.produce(&topic, [record(0, "old"), record(1, "old")]).expect("records");
    let source = || KafkaSource::subscribe(brokers(), [&topic]).starting_offsets(StartingOffsets::Latest).utf8();
    let mut input = Input::start(source()).expect("a start");
    producer.produce(&topic, [record(0, "a")]).expect("records");
    assert_eq!(input.take(1), ["a"]);
    let mut input = input.crash(source()).expect("a start");
    producer.produce(&topic, [record(0, "b")]).expect("records");
    assert_eq!(input.take(1), ["b"]);
    // Written to partition 1 while nobody runs, in which nothing has ever come.
    let (plans, log) = (input.plans.clone(), input.log.clone());
    drop(input);
    producer.produce(&topic, [record(1, "c")]).expect("records");
    let mut input = Input::new(source());
    (input.plans, input.log) = (plans, log);
    input.start_again().expect("a start");
    assert_eq!(input.take(1), ["c"]);
}

#[test]
fn a_topic_that_is_not_there_is_a_clear_error() {
    let limit = Duration::from_secs(1);
    let source = KafkaSource::subscribe(brokers(), ["no-such-topic"]).wait_for_broker(limit).utf8();
    let error = expect_error(Input::start(source));
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("topic no-such-topic does not exist"), "{error}");
    let topic = topic(2);
    let error = expect_error(Input::start(KafkaSource::assign(brokers(), [(&topic, 5)]).wait_for_broker(limit).utf8()));
    assert!(error.to_string().contains(&format!("topic {topic} has no partition 5")), "{error}");
}

#[test]
fn settings_that_break_exactly_once_are_refused_by_name() {
    for (key, value) in [("isolation.level", "read_uncommitted"), ("enable.auto.commit", "true"), ("group.id", "g")] {
        let source = KafkaSource::subscribe(brokers(), ["x"]).setting(key, value).utf8();
        let error = expect_error(Input::start(source));
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
    let source = KafkaSource::subscribe(brokers(), ["x"]).setting("no.such.setting", "1").utf8();
    let error = expect_error(Input::start(source));
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("no.such.setting"), "{error}");
}
