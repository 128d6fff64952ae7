//! Records that the broker no longer has: told with their number, never jumped over in silence.

use std::time::Duration;

use millpond_core::ErrorKind;
use millpond_core::source::Source;
use millpond_kafka::{KafkaSource, Lost, Utf8};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer};

use crate::admin;
use crate::input::{Input, eventually, expect_error};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn make(topic: &str) {
    KafkaBroker::shared().create_topic(topic, 1, &[]).expect("a topic");
}

fn write(topic: &str, from: usize, to: usize) {
    let records = (from..to).map(|n| Outgoing::value(n.to_string()).partition(0));
    Producer::new(brokers()).expect("a producer").produce(topic, records).expect("records");
}

fn source(topic: &str) -> KafkaSource<Utf8> {
    KafkaSource::subscribe(brokers(), [topic])
        .wait_for_broker(Duration::from_secs(20))
        .discover_every(Duration::from_millis(200))
        .utf8()
}

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// A source that has planned ten records of a topic, which holds twenty more by now.
fn stopped_at_ten(topic: &str) -> Input<Utf8> {
    make(topic);
    write(topic, 0, 10);
    let mut input = Input::start(source(topic)).expect("a start");
    assert_eq!(input.take(10), texts(0..10));
    input.source.stop();
    write(topic, 10, 30);
    input
}

#[test]
fn a_lost_range_at_start_is_an_error_that_counts_it() {
    let topic = unique_name("lost");
    let input = stopped_at_ten(&topic);
    admin::delete_records(brokers(), &topic, 0, 25);
    let error = expect_error(input.crash(source(&topic)));
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains(&format!("{topic}/0 now begins at offset 25")), "{error}");
    assert!(error.to_string().contains("15 offsets are lost"), "{error}");
}

#[test]
fn a_lost_range_is_counted_and_jumped_over_if_the_program_says_so() {
    let topic = unique_name("lost");
    let input = stopped_at_ten(&topic);
    admin::delete_records(brokers(), &topic, 0, 25);
    let mut input = input.crash(source(&topic).on_lost_range(Lost::LogAndSkip)).expect("a start");
    assert_eq!(input.take(5), texts(25..30));
    assert_eq!(input.source.metrics().lost_offsets(), 15);
    assert!(input.events().iter().any(|event| event.contains("15 offsets are lost")), "{:?}", input.events());
    // The jump is in the positions: a restart does not count it again.
    let mut again = input.crash(source(&topic)).expect("a start");
    again.expect_nothing();
}

#[test]
fn a_lost_range_of_a_replay_is_an_error_that_counts_it() {
    let topic = unique_name("lost");
    make(&topic);
    write(&topic, 0, 10);
    let mut input = Input::start(source(&topic)).expect("a start");
    let plans = input.plan_until(10);
    admin::delete_records(brokers(), &topic, 0, 4);
    // In memory it still is.
    assert_eq!(input.items(&plans), texts(0..10));
    let mut input = input.crash(source(&topic)).expect("a start: what comes next is there");
    let error = expect_error(input.read(&plans[0]));
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("4 offsets are lost"), "{error}");
}

#[test]
fn h5_a_topic_deleted_and_made_again_is_another_one() {
    let topic = unique_name("again");
    let input = stopped_at_ten(&topic);
    let plans = input.plans.clone();
    KafkaBroker::shared().delete_topic(&topic).expect("a deletion");
    make(&topic);
    write(&topic, 100, 140);
    // The same offsets are there, with other records.
    let log = input.log.clone();
    let error = expect_error(input.crash(source(&topic)));
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains(&format!("topic {topic} was deleted and made again")), "{error}");
    // Accepted by name, it is read from its beginning.
    let mut input = Input::new(source(&topic).on_lost_range(Lost::LogAndSkip));
    (input.plans, input.log) = (plans.clone(), log);
    input.start_again().expect("a start");
    let error = expect_error(input.read(plans.iter().find(|plan| plan.records > 0).expect("a plan with records")));
    assert!(error.to_string().contains("was deleted and made again"), "{error}");
    assert_eq!(input.take(40), texts(100..140));
}

#[test]
fn a_topic_deleted_while_it_is_read_stops_the_source_with_a_clear_error() {
    let topic = unique_name("gone");
    make(&topic);
    write(&topic, 0, 10);
    let mut input = Input::start(source(&topic)).expect("a start");
    assert_eq!(input.take(10), texts(0..10));
    KafkaBroker::shared().delete_topic(&topic).expect("a deletion");
    let event = input.wait_for_event("fatal");
    assert!(event.contains(&format!("topic {topic} was deleted")), "{event}");
    let error = eventually("an error of plan", || input.plan().err());
    assert_eq!(error.kind(), ErrorKind::Restore);
    // And so says a restart.
    let error = expect_error(input.crash(source(&topic)));
    assert!(error.to_string().contains(&format!("topic {topic} is gone")), "{error}");
}

#[test]
fn a_topic_made_again_while_it_is_read_goes_on_if_the_program_says_so() {
    let topic = unique_name("again");
    make(&topic);
    write(&topic, 0, 10);
    let mut input = Input::start(source(&topic).on_lost_range(Lost::LogAndSkip)).expect("a start");
    assert_eq!(input.take(10), texts(0..10));
    KafkaBroker::shared().delete_topic(&topic).expect("a deletion");
    input.wait_for_event(&format!("topic {topic} was deleted"));
    make(&topic);
    write(&topic, 50, 55);
    assert_eq!(input.take(5), texts(50..55));
}
