//! Ranges: what a plan says, and that a replay finds exactly it.

use std::time::Duration;

use millpond_core::ErrorKind;
use millpond_core::bytes::Writer;
use millpond_core::source::Plan;
use millpond_kafka::{KafkaSource, Utf8};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer, Transaction};

use crate::input::{Input, eventually, expect_error};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn topic() -> String {
    let topic = unique_name("range");
    KafkaBroker::shared().create_topic(&topic, 1, &[]).expect("a topic");
    topic
}

fn values<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Outgoing> {
    values.into_iter().map(|value| Outgoing::value(value).partition(0)).collect()
}

fn write(topic: &str, records: Vec<Outgoing>) {
    Producer::new(brokers()).expect("a producer").produce(topic, records).expect("records");
}

fn source(topic: &str) -> KafkaSource<Utf8> {
    KafkaSource::subscribe(brokers(), [topic]).wait_for_broker(Duration::from_secs(20)).utf8()
}

/// A plan as the source would have written it for one partition (docs/formats.md).
fn range(like: &Plan, start: u64, end: u64, records: u64) -> Plan {
    let mut read = Writer::new();
    read.u8(1);
    read.list(&[()], |out, ()| {
        out.u32(0);
        [start, end, records].into_iter().for_each(|number| out.u64(number));
        out.u32(0);
    });
    Plan { read: read.into_bytes(), records, ..like.clone() }
}

#[test]
fn q7_a_range_gives_its_records_or_an_error() {
    let topic = topic();
    write(&topic, values(["the", "quick", "brown", "fox"]));
    let mut input = Input::start(source(&topic)).expect("a start");
    let like = input.plan().expect("a plan");
    let mut read = |start, end, records| input.read(&range(&like, start, end, records));
    let items = |got: Vec<crate::input::Got<String>>| got.into_iter().flat_map(|got| got.items).collect::<Vec<_>>();
    assert_eq!(items(read(0, 4, 4).expect("all")), ["the", "quick", "brown", "fox"]);
    assert_eq!(items(read(1, 3, 2).expect("the middle")), ["quick", "brown"]);
    assert_eq!(items(read(0, 0, 0).expect("nothing")), Vec::<String>::new());
    let error = expect_error(read(0, 5, 5));
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(
        error.to_string().contains("ends at offset 4") && error.to_string().contains("1 offsets are lost"),
        "{error}"
    );
    let error = expect_error(read(3, 1, 1));
    assert!(error.to_string().contains("from 3 to 1"), "{error}");
}

#[test]
fn q7b_a_range_is_exact_whatever_comes_later() {
    let topic = topic();
    write(&topic, values(["a"; 5].into_iter().chain(["b"; 3]).chain(["c"; 10])));
    let mut input = Input::start(source(&topic)).expect("a start");
    let like = input.plan().expect("a plan");
    assert_eq!(input.items(&[range(&like, 0, 18, 18)]).len(), 18);
    write(&topic, values(["one"]));
    assert_eq!(input.items(&[range(&like, 18, 18, 0)]), Vec::<String>::new());
    write(&topic, values(["late"; 22]));
    assert_eq!(input.items(&[range(&like, 18, 19, 1)]), ["one"]);
    // A seek back, and one on from where the last range ended.
    assert_eq!(input.items(&[range(&like, 4, 6, 2)]), ["a", "b"]);
    assert_eq!(input.items(&[range(&like, 6, 9, 3)]), ["b", "b", "c"]);
}

#[test]
fn h5_a_range_ends_one_past_its_last_record_and_replays_though_aborted_records_follow() {
    let topic = topic();
    write(&topic, values(["a", "b"]));
    let mut aborted =
        Transaction::begin(brokers(), &unique_name("abort"), Duration::from_secs(30)).expect("a transaction");
    aborted.produce(&topic, values(["never"; 3])).expect("records");
    aborted.abort().expect("an abort");
    let mut input = Input::start(source(&topic)).expect("a start");
    assert_eq!(input.take(2), ["a", "b"]);
    input.expect_nothing();
    let plans = input.plans.clone();
    let mut input = input.crash(source(&topic)).expect("a start");
    assert_eq!(input.items(&plans), ["a", "b"]);
    // Behind them the next records: also when the aborted ones lie inside the range.
    write(&topic, values(["c"]));
    assert_eq!(input.take(1), ["c"]);
    let plans = input.plans.clone();
    let mut input = input.crash(source(&topic)).expect("a start");
    assert_eq!(input.items(&plans), ["a", "b", "c"]);
}

#[test]
fn h5_records_missing_inside_a_range_are_an_error_that_counts_them() {
    let topic = topic();
    write(&topic, values(["a", "b", "c"]));
    let mut input = Input::start(source(&topic)).expect("a start");
    let like = input.plan().expect("a plan");
    // As if two more had been there, which compaction has removed.
    let error = expect_error(input.read(&range(&like, 0, 3, 5)));
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("2 of the 5 records"), "{error}");
}

#[test]
fn h7_an_open_transaction_holds_one_partition_back_and_the_others_go_on() {
    let topic = unique_name("held");
    KafkaBroker::shared().create_topic(&topic, 2, &[]).expect("a topic");
    let record = |partition, value: &str| Outgoing::value(value).partition(partition);
    let source = source(&topic).discover_every(Duration::from_millis(200));
    let mut input = Input::start(source).expect("a start");
    let metrics = input.source.metrics();
    let mut open = Transaction::begin(brokers(), &unique_name("open"), Duration::from_secs(60)).expect("a transaction");
    open.produce(&topic, [record(0, "undecided")]).expect("a record");
    write(&topic, vec![record(0, "behind"), record(1, "free")]);
    assert_eq!(input.take(1), ["free"]);
    eventually("the partition that is held back is counted", || (metrics.held_back_partitions() == 1).then_some(()));
    input.expect_nothing();
    open.commit().expect("a commit");
    let mut items = input.take(2);
    items.sort();
    assert_eq!(items, ["behind", "undecided"]);
    eventually("nothing is held back any more", || (metrics.held_back_partitions() == 0).then_some(()));
}

#[test]
fn uncommitted_records_are_read_if_the_program_says_so() {
    let topic = topic();
    let mut open = Transaction::begin(brokers(), &unique_name("open"), Duration::from_secs(60)).expect("a transaction");
    open.produce(&topic, values(["undecided"])).expect("a record");
    let mut input = Input::start(source(&topic).read_uncommitted()).expect("a start");
    assert_eq!(input.take(1), ["undecided"]);
    open.abort().expect("an abort");
}
