//! Offsets over restarts, through a whole context.

use std::time::Duration;

use millpond_core::{Running, StreamingContext, milliseconds};
use millpond_kafka::KafkaSource;
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Collection, Outgoing, Producer};

use crate::input::LIMIT;
use crate::output::topic;

#[test]
fn q4_every_record_is_in_the_state_exactly_once_over_a_restart() {
    let brokers = KafkaBroker::shared().bootstrap_servers();
    let (input, app, place) = (topic(1), unique_name("app"), tempfile::tempdir().expect("a directory"));
    let collection = Collection::new();
    let start = || -> Running {
        let context = StreamingContext::builder(&app)
            .directory(place.path().join("pond"))
            .batch_interval(milliseconds(50))
            .checkpoint_interval(milliseconds(200))
            .open(|graph| {
                graph
                    .source("numbers", KafkaSource::subscribe(brokers, [&input]).utf8())
                    .map(|number| ((), number.parse::<u64>().expect("a number")))
                    .update_state_by_key("sum", |new, old| Some(old.unwrap_or(0) + new.sum()))
                    .map(|((), sum)| sum)
                    .sink_json("out", collection.sink());
                Ok(())
            });
        context.and_then(StreamingContext::start).expect("it starts")
    };
    let sums = || -> Vec<u64> {
        let batches = collection.committed("out");
        let records = batches.iter().flat_map(|batch| &batch.records);
        records
            .map(|record| serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("a sum"))
            .collect()
    };
    let until = |sum: u64| {
        let since = std::time::Instant::now();
        while sums().last() != Some(&sum) {
            assert!(since.elapsed() < LIMIT, "{sum} did not come: {:?}", sums());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let produce = |numbers: std::ops::RangeInclusive<u64>| {
        let records = numbers.map(|number| Outgoing::value(number.to_string()).partition(0));
        Producer::new(brokers).expect("a producer").produce(&input, records).expect("produced");
    };

    let running = start();
    produce(1..=10);
    until(55);
    running.stop().expect("it stops, as killed");
    produce(11..=15);
    let running = start();
    produce(16..=20);
    until(210);
    running.stop_gracefully().expect("it stops");
    let sums = sums();
    assert!(sums.is_sorted() && sums.last() == Some(&210), "nothing twice, nothing missing: {sums:?}");
}
