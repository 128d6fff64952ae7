//! What decoders see, what happens to records that they refuse, and the limits on what is taken and held.

use std::sync::Arc;

use millpond_core::ErrorKind;
use millpond_core::log::Budget;
use millpond_core::source::Source;
use millpond_kafka::{KafkaSource, OwnedRecord};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer};

use crate::input::{Got, Input, eventually, expect_error};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn topic_with(partitions: u32, records: impl IntoIterator<Item = Outgoing>) -> String {
    let topic = unique_name("records");
    KafkaBroker::shared().create_topic(&topic, partitions, &[]).expect("a topic");
    Producer::new(brokers()).expect("a producer").produce(&topic, records).expect("records");
    topic
}

#[test]
fn a_record_comes_whole() {
    let records = [
        Outgoing::value("v").key("k").header("h", "1").header("h", "2").timestamp_ms(1_700_000_000_123),
        Outgoing::tombstone("gone").timestamp_ms(1),
        Outgoing::value("").key("").timestamp_ms(2),
        Outgoing::value("no key").timestamp_ms(3),
    ];
    let topic = topic_with(1, records.map(|record| record.partition(0)));
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).raw()).expect("a start");
    let record = |offset, key: Option<&str>, value: Option<&str>, time, headers: &[(&str, &str)]| OwnedRecord {
        topic: topic.clone(),
        partition: 0,
        offset,
        timestamp_ms: Some(time),
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: headers.iter().map(|(name, value)| ((*name).into(), Some((*value).into()))).collect(),
    };
    let expected = [
        record(0, Some("k"), Some("v"), 1_700_000_000_123, &[("h", "1"), ("h", "2")]),
        record(1, Some("gone"), None, 1, &[]),
        record(2, Some(""), Some(""), 2, &[]),
        record(3, None, Some("no key"), 3, &[]),
    ];
    assert_eq!(input.take(4), expected);
    // Once more, as a process that was started again reads them.
    let mut again = input.crash(KafkaSource::subscribe(brokers(), [&topic]).raw()).expect("a start");
    let plans = again.plans.clone();
    assert_eq!(again.items(&plans), expected);
}

#[test]
fn a_decoder_sees_a_borrowed_record() {
    let topic = topic_with(1, [Outgoing::value("value").key("key").header("n", "7").partition(0)]);
    let source = KafkaSource::subscribe(brokers(), [&topic]).decode(|record| {
        let header = record.header("n").ok_or("no header")?;
        Ok::<_, &str>((record.key().map(<[u8]>::len), record.value().map(<[u8]>::len), header.to_vec()))
    });
    let mut input = Input::start(source).expect("a start");
    assert_eq!(input.take(1), [(Some(3), Some(5), b"7".to_vec())]);
}

#[test]
fn json_goes_through_serde() {
    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Order {
        card: String,
        cents: u64,
    }
    let topic = topic_with(1, [Outgoing::value(r#"{"card":"a","cents":120}"#).partition(0)]);
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).json::<Order>()).expect("a start");
    assert_eq!(input.take(1), [Order { card: "a".into(), cents: 120 }]);
}

fn with_a_bad_record() -> String {
    let bad = Outgoing::value(vec![0xff, 0xfe]).key("k").header("h", "1").partition(0);
    topic_with(1, [Outgoing::value("a").partition(0), bad, Outgoing::value("c").partition(0)])
}

#[test]
fn a_refused_record_stops_the_pipeline_with_its_place() {
    let topic = with_a_bad_record();
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).utf8()).expect("a start");
    let plans = input.plan_until(3);
    let error = expect_error(plans.iter().try_for_each(|plan| input.read(plan).map(drop)));
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains(&format!("topic {topic}, partition 0, offset 1")), "{error}");
}

#[test]
fn a_refused_record_is_skipped_and_counted_if_the_program_says_so() {
    let topic = with_a_bad_record();
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).utf8().skip_refused()).expect("a start");
    let metrics = input.source.metrics();
    let plans = input.plan_until(3);
    let got: Vec<_> = plans.iter().flat_map(|plan| input.read(plan).expect("a plan can be read")).collect();
    assert_eq!(got.iter().flat_map(|got| got.items.clone()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(got.iter().map(|got| got.skipped).sum::<u64>(), 1);
    assert_eq!(metrics.skipped_records(), 1);
}

#[test]
fn a_refused_record_goes_to_the_second_stream_whole() {
    let topic = with_a_bad_record();
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).utf8()).expect("a start");
    let mut got = Got::with_refused();
    for plan in input.plan_until(3) {
        for partition in input.source.read(&plan).expect("a plan can be read") {
            partition.compute(&mut got).expect("nothing stops");
        }
    }
    assert_eq!(got.items, ["a", "c"]);
    let [refused] = &got.refused[..] else { panic!("one record: {:?}", got.refused) };
    assert_eq!(refused.origin, format!("topic {topic}, partition 0, offset 1"));
    assert_eq!((refused.key.as_deref(), refused.value.as_deref()), (Some(&b"k"[..]), Some(&[0xff, 0xfe][..])));
    assert_eq!(refused.headers, [("h".to_owned(), Some(b"1".to_vec()))]);
    assert!(refused.reason.contains("utf-8"), "{}", refused.reason);
}

#[test]
fn records_that_a_test_feeds_go_through_the_decoder() {
    let source = KafkaSource::subscribe("nowhere:1", ["x"]).utf8();
    let partition = source.feed(vec!["a".into(), ("k", "b").into()]).expect("it can be fed");
    let mut got = Got::default();
    partition.compute(&mut got).expect("fed records can be read");
    assert_eq!((got.items, partition.records()), (vec!["a".to_owned(), "b".to_owned()], 2));
}

#[test]
fn p9_a_batch_takes_no_more_of_a_partition_than_it_is_allowed() {
    let record = |n: usize| Outgoing::value(n.to_string()).partition((n % 2) as i32);
    let topic = topic_with(2, (0..100).map(record));
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).max_records_per_partition(10).utf8())
        .expect("a start");
    eventually("all records", || (input.source.metrics().fetched_records() == 100).then_some(()));
    let sizes: Vec<Vec<u64>> = (0..6)
        .map(|_| {
            let plan = input.plan().expect("a plan");
            input.read(&plan).expect("a plan can be read").iter().map(|got| got.records).collect()
        })
        .collect();
    assert_eq!(sizes, [[10, 10], [10, 10], [10, 10], [10, 10], [10, 10], [0, 0]]);
}

#[test]
fn p9_a_rate_is_shared_out_by_lag_within_the_maximum_rate_of_a_partition() {
    // Partition 0 is three times as far behind as partition 1.
    let record = |n: usize| Outgoing::value(n.to_string()).partition(i32::from(n % 4 == 3));
    let topic = topic_with(2, (0..160).map(record));
    // Batches of 1 s.
    let source = KafkaSource::subscribe(brokers(), [&topic]).max_rate_per_partition(10).utf8();
    let mut input = Input::start(source).expect("a start");
    eventually("all records", || (input.source.metrics().fetched_records() == 160).then_some(()));
    let mut sizes = |max: Option<u64>| {
        let plan = input.plan_at_most(max).expect("a plan");
        input.read(&plan).expect("a plan can be read").iter().map(|got| got.records).collect::<Vec<_>>()
    };
    assert_eq!(sizes(None), [10, 10]);
    // 110 and 30 are left.
    assert_eq!(sizes(Some(7)), [6, 1]);
    assert_eq!(sizes(Some(1)), [1, 1]);
    // Beyond the maximum of the one the other may give more.
    assert_eq!(sizes(Some(18)), [10, 8]);
}

#[test]
fn a_limit_on_the_batch_is_shared_out_and_plans_are_read_again_alike() {
    let record = |n: usize| Outgoing::value(n.to_string()).partition(i32::from(n >= 30));
    let topic = topic_with(2, (0..40).map(record));
    let source = || KafkaSource::subscribe(brokers(), [&topic]).utf8();
    let mut input = Input::start(source()).expect("a start");
    eventually("all records", || (input.source.metrics().fetched_records() == 40).then_some(()));
    for _ in 0..4 {
        assert_eq!(input.plan_at_most(Some(10)).expect("a plan").records, 10);
    }
    let plans = input.plans.clone();
    let live: Vec<Vec<String>> = plans.iter().map(|plan| input.items(std::slice::from_ref(plan))).collect();
    assert_eq!(live.iter().map(Vec::len).collect::<Vec<_>>(), [10; 4]);
    let mut again = input.crash(source()).expect("a start");
    let replayed: Vec<Vec<String>> = plans.iter().map(|plan| again.items(std::slice::from_ref(plan))).collect();
    assert_eq!(replayed, live);
}

#[test]
fn a_partition_far_behind_rests_and_goes_on_without_a_gap() {
    const FAR_BEHIND: usize = 70_000;
    let record = |n: usize| Outgoing::value(n.to_string()).partition(i32::from(n >= FAR_BEHIND));
    let topic = topic_with(2, (0..FAR_BEHIND + 100).map(record));
    let source = KafkaSource::subscribe(brokers(), [&topic]).max_records_per_partition(1000);
    let source = source.decode(|record| {
        let number = std::str::from_utf8(record.value().unwrap_or_default()).ok().and_then(|text| text.parse().ok());
        number.ok_or("no number")
    });
    let mut input = Input::start(source).expect("a start");
    // Much more than the limit asks for is not fetched ahead.
    eventually("a rest", || (input.source.metrics().fetched_records() > 20_000).then_some(()));
    let items: Vec<usize> = input.take((FAR_BEHIND + 100) as u64);
    let (behind, other): (Vec<usize>, Vec<usize>) = items.into_iter().partition(|n| *n < FAR_BEHIND);
    assert!(behind.iter().copied().eq(0..FAR_BEHIND), "each once, in order");
    assert!(other.iter().copied().eq(FAR_BEHIND..FAR_BEHIND + 100));
    input.expect_nothing();
}

#[test]
fn fetching_rests_while_the_budget_is_used_up() {
    let value = "x".repeat(10_000);
    let topic = topic_with(1, (0..3000).map(|_| Outgoing::value(&*value).partition(0)));
    let mut input = Input::new(KafkaSource::subscribe(brokers(), [&topic]).utf8());
    input.budget = Budget::new(2 << 20);
    let budget = Arc::clone(&input.budget);
    input.start_again().expect("a start");
    let mut seen = 0;
    while seen < 3000 {
        eventually("a full budget, or all", || {
            let fetched = input.source.metrics().fetched_records();
            (!budget.has_room() || fetched == 3000).then_some(())
        });
        // One fetch beyond: what librdkafka had in its queue.
        assert!(budget.used_bytes() <= 24 << 20, "{} bytes", budget.used_bytes());
        let plan = input.plan().expect("a plan");
        seen += input.items(std::slice::from_ref(&plan)).len();
        let time = Input::<millpond_kafka::Utf8>::time(input.plans.len() - 1);
        input.source.release(time);
    }
    assert_eq!((seen, budget.used_bytes()), (3000, 0));
}

#[test]
fn a_stopped_source_gives_its_memory_back() {
    let topic = topic_with(1, (0..1000).map(|n| Outgoing::value(n.to_string()).partition(0)));
    let mut input = Input::start(KafkaSource::subscribe(brokers(), [&topic]).utf8()).expect("a start");
    eventually("all records", || (input.source.metrics().fetched_records() == 1000).then_some(()));
    let plan = input.plan_at_most(Some(10)).expect("a plan");
    input.source.stop_receiving(std::time::Duration::from_secs(10)).expect("it stops");
    assert!(!input.source.has_waiting(), "the broker keeps what no batch holds");
    assert_eq!(input.plan().expect("a plan").records, 0);
    assert_eq!(input.items(&[plan]).len(), 10, "a batch that was planned can still be read");
    input.source.stop();
    assert_eq!(input.budget.used_bytes(), 0);
    // Nothing is lost: the next start reads what was dropped.
    input.plans.truncate(1);
    input.start_again().expect("a start");
    assert_eq!(input.take(990)[0], "10");
}
