//! Given ranges as data sets: what `BatchContext::source` reads of a real broker, and what it says where it cannot.

use std::time::Duration;

use millpond_core::{BatchContext, ErrorKind, Rdd, Result};
use millpond_kafka::{KafkaSource, Lost, OffsetRange, Utf8};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer, Transaction};

use crate::admin;
use crate::input::expect_error;

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn topic_of(partitions: u32) -> String {
    let topic = unique_name("given");
    KafkaBroker::shared().create_topic(&topic, partitions, &[]).expect("a topic");
    topic
}

fn write(topic: &str, partition: i32, values: &[&str]) {
    let records: Vec<_> = values.iter().map(|value| Outgoing::value(*value).partition(partition)).collect();
    Producer::new(brokers()).expect("a producer").produce(topic, records).expect("records");
}

fn source(topic: &str) -> KafkaSource<Utf8> {
    KafkaSource::subscribe(brokers(), [topic]).wait_for_broker(Duration::from_secs(20)).utf8()
}

fn read(topic: &str, range: std::ops::Range<u64>) -> Result<Rdd<'static, String>> {
    BatchContext::new().source(source(topic).ranges([OffsetRange::new(topic, 0, range)]))
}

fn all(topic: &str, range: std::ops::Range<u64>) -> Vec<String> {
    read(topic, range).expect("it is there").collect().expect("it can be read")
}

#[test]
fn q7_a_range_of_four_is_these_four_however_it_is_asked() {
    let topic = topic_of(1);
    write(&topic, 0, &["the", "quick", "brown", "fox"]);
    let rdd = read(&topic, 0..4).expect("it is there");
    assert_eq!(rdd.collect().expect("read"), ["the", "quick", "brown", "fox"]);
    assert_eq!(rdd.count().expect("read again"), 4);
    assert_eq!(rdd.take(1).expect("the first"), ["the"]);
    assert_eq!(rdd.take(14).expect("all there are").len(), 4);
    assert_eq!(rdd.first().expect("the first").as_deref(), Some("the"));
    assert!(!rdd.is_empty().expect("looked at"));
    let nothing = read(&topic, 0..0).expect("nothing is there always");
    assert!(nothing.is_empty().expect("looked at") && nothing.count().expect("looked at") == 0);

    let beyond = expect_error(read(&topic, 0..5));
    assert_eq!(beyond.kind(), ErrorKind::Restore);
    let text = beyond.to_string();
    assert!(text.contains(&format!("{topic}/0 0..5")) && text.contains("ends at offset 4: 1 offsets"), "{text}");
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    let backwards = expect_error(read(&topic, 3..1));
    assert_eq!(backwards.kind(), ErrorKind::Configuration);
    assert!(backwards.to_string().contains("3..1"), "{backwards}");
    let none = unique_name("none");
    let missing = expect_error(read(&none, 0..1));
    assert!(missing.to_string().contains(&none) && missing.to_string().contains("does not exist"), "{missing}");
    let ranges = source(&topic).ranges([OffsetRange::new(&topic, 7, 0..1)]);
    let missing = expect_error(BatchContext::new().source(ranges));
    assert!(missing.to_string().contains("no partition 7"), "{missing}");
}

#[test]
fn q7b_a_range_is_exact_whatever_comes_later() {
    let topic = topic_of(1);
    write(&topic, 0, &[["a"; 5].as_slice(), &["b"; 3], &["c"; 10]].concat());
    let first = BatchContext::new()
        .source(
            KafkaSource::subscribe(brokers(), [&topic])
                .decode(|record| {
                    Ok::<_, std::convert::Infallible>((record.offset(), record.value().map(<[u8]>::to_vec)))
                })
                .ranges([OffsetRange::new(&topic, 0, 0..18)]),
        )
        .expect("it is there");
    let records = first.collect().expect("read");
    assert_eq!(records.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..18).collect::<Vec<_>>());
    let counts = first.map(|(_, value)| value.unwrap_or_default()).count_by_value().expect("read again");
    let mut counts: Vec<_> =
        counts.into_iter().map(|(value, n)| (String::from_utf8(value).expect("text"), n)).collect();
    counts.sort();
    assert_eq!(counts, [("a".into(), 5), ("b".into(), 3), ("c".into(), 10)]);

    let nothing = read(&topic, 18..18).expect("nothing is there always");
    write(&topic, 0, &["one"]);
    assert_eq!(nothing.collect().expect("read"), Vec::<String>::new());
    let one = read(&topic, 18..19).expect("it is there");
    write(&topic, 0, &["late"; 22]);
    assert_eq!(one.collect().expect("read"), ["one"]);
}

#[test]
fn ranges_of_several_partitions_are_partitions_in_the_order_given_and_join_with_what_else_there_is() {
    let topic = topic_of(2);
    write(&topic, 0, &["a", "b", "c"]);
    write(&topic, 1, &["x", "a"]);
    let range = |partition, offsets| OffsetRange::new(&topic, partition, offsets);
    let batch = BatchContext::new();
    let ranges = [range(1, 0..2), range(0, 1..3), range(0, 0..1)];
    let rdd = batch.source(source(&topic).ranges(ranges)).expect("they are there");
    assert_eq!(rdd.clone().glom().collect().expect("read"), [vec!["x", "a"], vec!["b", "c"], vec!["a"]]);
    let numbers = batch.parallelize([("a".to_owned(), 1), ("c".to_owned(), 3)], 2);
    let mut joined = rdd.map(|word| (word, ())).join(&numbers).collect().expect("read again");
    joined.sort();
    assert_eq!(joined, [("a".into(), ((), 1)), ("a".into(), ((), 1)), ("c".into(), ((), 3))]);
    let nothing = batch.source(source(&topic).ranges([])).expect("no ranges");
    assert_eq!((nothing.partitions(), nothing.count().expect("nothing to read")), (0, 0));
}

#[test]
fn aborted_records_inside_of_a_range_are_not_read() {
    let topic = topic_of(1);
    write(&topic, 0, &["a"]);
    let mut aborted =
        Transaction::begin(brokers(), &unique_name("abort"), Duration::from_secs(30)).expect("a transaction");
    aborted.produce(&topic, [Outgoing::value("never").partition(0)]).expect("a record");
    aborted.abort().expect("an abort");
    write(&topic, 0, &["b"]);
    // a, never, the marker of the abort, b
    assert_eq!(all(&topic, 0..4), ["a", "b"]);
    assert_eq!(all(&topic, 1..3), Vec::<String>::new());
}

#[test]
fn what_is_deleted_before_or_after_a_range_is_opened_is_an_error_that_counts_it() {
    let topic = topic_of(1);
    write(&topic, 0, &["a", "b", "c", "d"]);
    let rdd = read(&topic, 0..4).expect("it is there");
    assert_eq!(rdd.count().expect("read"), 4);
    admin::delete_records(brokers(), &topic, 0, 2);
    let later = expect_error(rdd.collect()).to_string();
    assert!(
        later.contains(&format!("{topic}/0 now begins at offset 2")) && later.contains("2 offsets are lost"),
        "{later}"
    );
    let before = expect_error(read(&topic, 0..4)).to_string();
    assert!(before.contains("begins at offset 2: 2 offsets of it are lost"), "{before}");
    // The operator's word: what is left.
    let left = source(&topic).on_lost_range(Lost::LogAndSkip).ranges([OffsetRange::new(&topic, 0, 0..4)]);
    assert_eq!(BatchContext::new().source(left).expect("opened").collect().expect("read"), ["c", "d"]);
}
