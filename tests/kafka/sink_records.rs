//! What is written: every kind of record, to the partition the Java client would choose, and clear errors for what cannot be.

use std::time::Duration;

use millpond_core::sink::{Records, Sink};
use millpond_core::{BatchTime, ErrorKind};
use millpond_kafka::{KafkaSink, Partitioner};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::read_committed;

use crate::input::expect_error;
use crate::java;
use crate::output::{Output, cursor, seen, topic};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn sink(topic: &str) -> KafkaSink {
    KafkaSink::to(brokers(), topic).wait_for_broker(Duration::from_secs(20))
}

fn started(sink: KafkaSink) -> Output {
    let mut output = Output::new(&unique_name("app"), "out", sink);
    output.open().expect("a start");
    output
}

fn write(output: &mut Output, records: Records) {
    output.sink.begin(BatchTime::from_ms(1000), &[]).expect("a beginning");
    output.sink.write(records).expect("output");
    output.sink.prepare(&cursor(1000, &[])).expect("prepared");
    output.sink.commit().expect("a commit");
}

#[test]
fn every_kind_of_record_comes_out_as_it_was_written() {
    let topic = topic(1);
    let mut records = Records::new();
    records.push(Some(b"k"), Some(b"v"));
    records.push(None, Some(b"no key"));
    records.push(Some(b"tombstone"), None);
    records.push(Some(b""), Some(b""));
    records.record().key("k").value("w").header("n", "7").null_header("empty").header("n", "8").end();
    records.record().key("headers, no value").header("x", "").end();
    records.push(Some(b"last"), Some(b"of all"));
    write(&mut started(sink(&topic)), records.clone());
    let found = read_committed(brokers(), &topic).expect("the topic can be read");
    let expected: Vec<_> = records.iter().collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.key.as_deref(), found.value.as_deref()), (expected.key(), expected.value()));
        let headers: Vec<_> =
            expected.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
        assert_eq!(found.headers, headers);
    }
}

#[test]
fn more_records_than_the_producer_can_hold_wait_for_room() {
    let topic = topic(3);
    let mut records = Records::new();
    (0..20_000_u32).for_each(|n| records.push(Some(&n.to_be_bytes()), Some(&[7; 100])));
    write(&mut started(sink(&topic).setting("queue.buffering.max.messages", "1000")), records);
    let mut found: Vec<_> =
        read_committed(brokers(), &topic).expect("it can be read").into_iter().map(|r| r.key).collect();
    found.sort();
    assert_eq!(found, (0..20_000_u32).map(|n| Some(n.to_be_bytes().to_vec())).collect::<Vec<_>>());
}

#[test]
fn keys_go_to_the_partitions_that_the_java_client_chooses() {
    const PARTITIONS: u32 = 17;
    // Every length, with bytes of every kind.
    let keys: Vec<Vec<u8>> = (0..=64_usize)
        .flat_map(|len| (0..3_usize).map(move |seed| (0..len).map(|at| (at * 37 + seed * 101 + len) as u8).collect()))
        .collect();
    let expected = java::partitions(&keys, PARTITIONS);
    let topic = topic(PARTITIONS);
    let mut records = Records::new();
    keys.iter().enumerate().for_each(|(n, key)| {
        // Both ways of producing.
        let record = records.record().key(key).value(n.to_string());
        if n % 2 == 0 { record.end() } else { record.header("h", "1").end() }
    });
    write(&mut started(sink(&topic)), records);
    let found = read_committed(brokers(), &topic).expect("the topic can be read");
    assert_eq!(found.len(), keys.len());
    for record in found {
        let n: usize = record.value_text().parse().expect("a number");
        assert_eq!(record.partition, expected[n], "key of {} bytes: {:?}", keys[n].len(), keys[n]);
    }
}

#[test]
fn records_without_a_key_reach_more_than_one_partition_in_time() {
    let topic = topic(4);
    let mut output = started(sink(&topic));
    for batch in 1..=40_u64 {
        output.sink.begin(BatchTime::from_ms(batch), &[]).expect("a beginning");
        let mut records = Records::new();
        (0..50).for_each(|_| records.push(None, Some(b"v")));
        output.sink.write(records).expect("output");
        output.sink.prepare(&cursor(batch, &[])).expect("prepared");
        output.sink.commit().expect("a commit");
    }
    let found = read_committed(brokers(), &topic).expect("the topic can be read");
    let partitions: std::collections::BTreeSet<i32> = found.iter().map(|record| record.partition).collect();
    assert_eq!(found.len(), 2000);
    assert!(partitions.len() > 1, "all in {partitions:?}");
}

#[test]
fn another_partitioner_can_be_chosen() {
    let topic = topic(8);
    let mut records = Records::new();
    (0..200_u32).for_each(|n| records.push(Some(&n.to_be_bytes()), None));
    let keys: Vec<Vec<u8>> = (0..200_u32).map(|n| n.to_be_bytes().to_vec()).collect();
    write(&mut started(sink(&topic).partitioner(Partitioner::Crc32)), records);
    let found = read_committed(brokers(), &topic).expect("the topic can be read");
    let java = java::partitions(&keys, 8);
    let differs = found.iter().any(|record| {
        let at = keys.iter().position(|key| Some(key) == record.key.as_ref()).expect("a key");
        record.partition != java[at]
    });
    assert!(differs, "CRC-32 is not murmur2");
}

#[test]
fn a_record_that_is_too_large_is_a_clear_error() {
    // For the client, by its own setting; for the broker, by that of the topic.
    let small = unique_name("small");
    KafkaBroker::shared().create_topic(&small, 1, &[("max.message.bytes", "10000")]).expect("a topic");
    let big = topic(1);
    for (topic, size) in [(&big, 2_000_000), (&small, 50_000)] {
        let mut output = started(sink(topic));
        output.batch(1000, &[("a", "1")]).expect("a batch");
        let value = "x".repeat(size);
        let error = expect_error(output.batch(2000, &[("b", "fits"), ("a", &value)]));
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(&format!("too large for topic {topic}")), "{error}");
        assert!(error.to_string().contains(&format!("a record of {} bytes", size + 1)), "{error}");
        // Nothing of the batch is visible, and the sink goes on; after a recovery if librdkafka asked to abort before the broker had
        // any partition in the transaction, which refuses that then and costs the producer.
        output.sink.abort().expect("an abort");
        if let Err(error) = output.batch(2000, &[("a", "2")]) {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            assert_eq!(output.open().expect("a recovery"), 1000);
            output.batch(2000, &[("a", "2")]).expect("a batch");
        }
        assert_eq!(seen(brokers(), topic), ["a=1", "a=2"]);
    }
}

#[test]
fn a_topic_that_is_not_there_is_a_clear_error() {
    let sink = sink("no-such-output").wait_for_broker(Duration::from_secs(1));
    let mut output = Output::new(&unique_name("app"), "out", sink);
    let error = expect_error(output.peek());
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("topic no-such-output does not exist"), "{error}");
}

#[test]
fn settings_that_break_exactly_once_are_refused_by_name() {
    for (key, value) in [("acks", "1"), ("enable.idempotence", "false"), ("transactional.id", "x"), ("retries", "0")] {
        let error = expect_error(Output::new("app", "out", sink("x").setting(key, value)).peek());
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
    let mut output = Output::new(&unique_name("app"), "out", sink(&topic(1)).setting("no.such.setting", "1"));
    let error = expect_error(output.peek().and_then(|_| output.fence()));
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("no.such.setting"), "{error}");
}
