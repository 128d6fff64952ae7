//! Readers and writers against a real broker: what is committed is seen once, what is not is not.

use std::time::Duration;

use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::oracle::exactly_once;
use millpond_testkit::{ErrorKind, LiveReader, Outgoing, Producer, Transaction, read_committed, read_committed_within};

const MINUTE: Duration = Duration::from_secs(60);

fn values(records: &[millpond_testkit::Record]) -> Vec<String> {
    records.iter().map(millpond_testkit::Record::value_text).collect()
}

#[test]
fn what_is_written_is_read_back_unchanged() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("unchanged");
    broker.create_topic(&topic, 2, &[]).unwrap();
    let mut producer = Producer::new(broker.bootstrap_servers()).unwrap();
    let full =
        Outgoing::value("v").key("k").header("n", "1").header("n", "2").partition(1).timestamp_ms(1_700_000_000_000);
    producer
        .produce(&topic, [full, Outgoing::tombstone("gone").partition(0), Outgoing::value("").partition(0)])
        .unwrap();

    let read = read_committed(broker.bootstrap_servers(), &topic).unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!((read[0].partition, read[0].offset, &read[0].key, &read[0].value), (0, 0, &Some("gone".into()), &None));
    assert_eq!((read[1].offset, &read[1].key, &read[1].value), (1, &None, &Some(Vec::new())));
    assert_eq!((read[2].partition, &read[2].key_text()[..], &read[2].value_text()[..]), (1, "k", "v"));
    assert_eq!(read[2].header("n"), Some("2"));
    assert_eq!(read[2].headers.len(), 2);
    assert_eq!(read[2].timestamp_ms, Some(1_700_000_000_000));
}

#[test]
fn an_empty_topic_has_no_records_and_a_missing_one_is_an_error() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("empty");
    broker.create_topic(&topic, 3, &[]).unwrap();
    assert_eq!(read_committed(broker.bootstrap_servers(), &topic).unwrap(), []);
    let error = read_committed_within(broker.bootstrap_servers(), "nowhere", Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.to_string(), "there is no topic nowhere");
}

#[test]
fn aborted_records_are_not_read_and_gaps_do_not_matter() {
    let broker = KafkaBroker::shared();
    let (topic, id) = (unique_name("gaps"), unique_name("gaps"));
    let servers = broker.bootstrap_servers();
    broker.create_topic(&topic, 1, &[]).unwrap();
    for round in 0..5 {
        let mut transaction = Transaction::begin(servers, &id, MINUTE).unwrap();
        transaction.produce(&topic, [Outgoing::value(format!("{round}"))]).unwrap();
        if round % 2 == 0 { transaction.commit().unwrap() } else { transaction.abort().unwrap() }
    }
    let read = read_committed(servers, &topic).unwrap();
    assert_eq!(values(&read), ["0", "2", "4"]);
    // The topic ends with control records: its end is not the last record.
    assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 4, 8]);
}

#[test]
fn h1_a_reader_waits_for_an_open_transaction_instead_of_stopping_short() {
    let broker = KafkaBroker::shared();
    let (topic, id) = (unique_name("open"), unique_name("open"));
    let servers = broker.bootstrap_servers();
    broker.create_topic(&topic, 1, &[]).unwrap();
    let mut transaction = Transaction::begin(servers, &id, MINUTE).unwrap();
    transaction.produce(&topic, [Outgoing::value("open")]).unwrap();
    Producer::new(servers).unwrap().produce(&topic, [Outgoing::value("behind it")]).unwrap();

    let open = broker.open_transactions().unwrap();
    assert!(open.iter().any(|found| found.transactional_id == id && found.state == "Ongoing"), "{open:?}");
    let error = read_committed_within(servers, &topic, Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    let text = error.to_string();
    assert!(text.starts_with(&format!("partition 0 of topic {topic} ends at offset 2, but a transaction")), "{text}");

    let read = std::thread::scope(|threads| {
        let reading = threads.spawn(|| read_committed(servers, &topic));
        transaction.commit().unwrap();
        reading.join().unwrap().unwrap()
    });
    assert_eq!(values(&read), ["open", "behind it"]);
    assert!(broker.open_transactions().unwrap().iter().all(|found| found.transactional_id != id));
}

#[test]
fn a_dropped_transaction_stays_open_until_its_id_is_used_again() {
    let broker = KafkaBroker::shared();
    let (topic, id) = (unique_name("dropped"), unique_name("dropped"));
    let servers = broker.bootstrap_servers();
    broker.create_topic(&topic, 1, &[]).unwrap();
    let mut transaction = Transaction::begin(servers, &id, MINUTE).unwrap();
    transaction.produce(&topic, [Outgoing::value("lost")]).unwrap();
    drop(transaction);
    assert!(read_committed_within(servers, &topic, Duration::from_secs(1)).is_err());

    let mut successor = Transaction::begin(servers, &id, MINUTE).unwrap();
    successor.produce(&topic, [Outgoing::value("kept")]).unwrap();
    successor.commit().unwrap();
    assert_eq!(values(&read_committed(servers, &topic).unwrap()), ["kept"]);
}

#[test]
fn a_live_reader_sees_through_a_kill_of_the_broker_what_is_there_later() {
    let broker = KafkaBroker::builder().start().unwrap();
    let servers = broker.bootstrap_servers().to_owned();
    broker.create_topic("t", 4, &[]).unwrap();
    let mut producer = Producer::new(&servers).unwrap();
    producer.produce("t", [Outgoing::value("before")]).unwrap();

    let reader = LiveReader::start(&servers, "t").unwrap();
    let mut written: Vec<_> = (0..1000).map(|n| format!("a{n}")).collect();
    producer.produce("t", written.iter().map(|value| Outgoing::value(&value[..]).key(&value[..]))).unwrap();
    reader.wait_for(MINUTE, |seen| seen.len() == 1000).unwrap();
    broker.kill().unwrap();
    broker.restart().unwrap();
    let after: Vec<_> = (0..1000).map(|n| format!("b{n}")).collect();
    producer.produce("t", after.iter().map(|value| Outgoing::value(&value[..]))).unwrap();
    written.extend(after);

    let reading = reader.finish().unwrap();
    assert!(reading.is_consistent(), "{reading}");
    exactly_once(written.clone(), values(&reading.live)).assert_holds();
    written.push("before".into());
    exactly_once(written, values(&reading.from_beginning)).assert_holds();
}

#[test]
fn a_live_reader_that_waits_for_too_much_says_what_it_has() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("too-much");
    broker.create_topic(&topic, 1, &[]).unwrap();
    let reader = LiveReader::start(broker.bootstrap_servers(), &topic).unwrap();
    Producer::new(broker.bootstrap_servers()).unwrap().produce(&topic, [Outgoing::value("only")]).unwrap();
    reader.wait_for(MINUTE, |seen| !seen.is_empty()).unwrap();
    let error = reader.wait_for(Duration::from_millis(100), |seen| seen.len() > 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("1 records, the last Some(0@0 \"\"=\"only\")"), "{error}");
}

#[test]
fn a_record_that_is_too_large_is_an_error_and_not_a_loss_in_silence() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("small");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "1000")]).unwrap();
    let mut producer = Producer::new(broker.bootstrap_servers()).unwrap();
    let error = producer.produce(&topic, [Outgoing::value(vec![b'x'; 5000])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("1 records were not written"), "{error}");
    producer.produce(&topic, [Outgoing::value("small")]).unwrap();
}
