//! Brokers that die, come late, or lose the way of a request: nothing twice, nothing missing.

use std::time::{Duration, Instant};

use millpond_core::ErrorKind;
use millpond_core::sink::Sink;
use millpond_kafka::KafkaSink;
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::chaos::Request;

use crate::input::expect_error;
use crate::output::{Output, seen};

/// Runs a batch as the engine does: after an error it recovers, and runs the batch again unless its cursor is there.
fn until_committed(output: &mut Output, batch: u64, pairs: &[(&str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        match output.batch(batch, pairs) {
            Ok(()) => return,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                output.sink.abort().expect("what is begun can be given up");
            }
        }
        while let Err(error) = output.open().map(|committed| assert!(committed == batch || committed + 1000 == batch)) {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            assert!(Instant::now() < deadline, "{error}");
        }
        if output.peek().expect("a peek").is_some_and(|cursor| cursor.batch.as_ms() == batch) {
            output.fence().expect("a fence");
            return;
        }
        output.fence().expect("a fence");
    }
}

#[test]
fn a_broker_that_is_killed_in_the_middle_and_at_the_commit_costs_nothing() {
    let broker = KafkaBroker::builder().start().expect("a broker");
    let brokers = broker.bootstrap_servers().to_owned();
    broker.create_topic("out", 2, &[]).expect("a topic");
    let mut output =
        Output::new("killed", "out", KafkaSink::to(&brokers, "out").wait_for_broker(Duration::from_secs(60)));
    output.open().expect("a start");
    output.batch(1000, &[("a", "1")]).expect("a batch");

    // In the middle of a transaction, and it comes back while the batch waits.
    output.write(2000, &[("a", "2"), ("b", "2")]).expect("output");
    broker.kill().expect("a kill");
    broker.restart().expect("a restart");
    let prepared = output.prepare(2000, &[("a", "2"), ("b", "2")]).and_then(|()| output.sink.commit());
    if prepared.is_err() {
        output.sink.abort().expect("an abort");
        if output.open().expect("a recovery") == 1000 {
            until_committed(&mut output, 2000, &[("a", "2"), ("b", "2")]);
        }
    }
    assert_eq!(seen(&brokers, "out"), ["a=1", "a=2", "b=2"]);

    // At the commit: dead when it is asked for.
    output.write(3000, &[("a", "3")]).expect("output");
    output.prepare(3000, &[("a", "3")]).expect("prepared");
    broker.kill().expect("a kill");
    let back = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        broker.restart().expect("a restart");
        broker
    });
    let committed = output.sink.commit();
    let broker = back.join().expect("no panic");
    if committed.is_err() && output.open().expect("a recovery") == 2000 {
        until_committed(&mut output, 3000, &[("a", "3")]);
    }
    until_committed(&mut output, 4000, &[("a", "4")]);
    assert_eq!(seen(&brokers, "out"), ["a=1", "a=2", "a=3", "a=4", "b=2"]);
    assert_eq!(Output::new("killed", "out", KafkaSink::to(&brokers, "out")).open().expect("a start"), 4000);
    drop(broker);
}

#[test]
fn a_broker_that_comes_later_is_waited_for_and_one_that_never_comes_is_a_clear_error() {
    let nobody = KafkaSink::to("127.0.0.1:9", "out").wait_for_broker(Duration::from_millis(500));
    let began = Instant::now();
    let error = expect_error(Output::new("app", "out", nobody).peek());
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("no Kafka broker of 127.0.0.1:9 answered within 500ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let broker = KafkaBroker::builder().start().expect("a broker");
    let brokers = broker.bootstrap_servers().to_owned();
    broker.create_topic("late", 1, &[]).expect("a topic");
    broker.kill().expect("a kill");
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        broker.restart().expect("a restart");
        broker
    });
    let mut output =
        Output::new("app", "out", KafkaSink::to(&brokers, "late").wait_for_broker(Duration::from_secs(60)));
    assert_eq!(output.open().expect("a start, when it has come"), 0);
    output.batch(1000, &[("a", "1")]).expect("a batch");
    assert_eq!(seen(&brokers, "late"), ["a=1"]);
    drop(later.join().expect("no panic"));
}

/// Version 1 of the protocol: EndTxn names no transaction. One that is delayed on the way can commit half of the next.
#[test]
fn a_commit_that_is_delayed_on_its_way_does_not_commit_half_of_the_next_transaction() {
    let broker = KafkaBroker::builder().with_proxy().start().expect("a broker");
    let proxy = broker.proxy().expect("one was asked for");
    let direct = broker.bootstrap_servers();
    broker.create_topic("out", 1, &[]).expect("a topic");
    let sink = KafkaSink::to(proxy.address().to_string(), "out").wait_for_broker(Duration::from_secs(30));
    let mut output = Output::new(&unique_name("proxied"), "out", sink);
    output.open().expect("a start");
    for batch in 1..=4 {
        output.write(batch * 1000, &[("a", "1")]).expect("output");
        output.prepare(batch * 1000, &[("a", "1")]).expect("prepared");
        // The request is kept back and its connection closed: librdkafka asks again on another one.
        proxy.keep_back(Request::EndTransaction);
        let committed = output.sink.commit();
        assert!(proxy.has_caught(), "the commit went through the proxy");
        if committed.is_err() {
            assert!(output.open().expect("a recovery") >= (batch - 1) * 1000);
            continue;
        }
        // The next transaction is open, with one of its two records at the broker, when the old request arrives.
        output.sink.begin(millpond_core::BatchTime::from_ms(batch * 1000 + 500), &[]).expect("a beginning");
        output.sink.write(crate::output::records(&[("half", "1")])).expect("output");
        wait_for_record(&broker, batch);
        proxy.deliver().expect("the broker's answer");
        let stable = crate::admin::end(direct, "out", 0, "read_committed");
        output.sink.write(crate::output::records(&[("half", "2")])).expect("output");
        let prepared = output.sink.prepare(&crate::output::cursor(batch * 1000 + 500, &[]));
        output.sink.abort().expect("an abort");
        prepared.expect("nobody interfered");
        let seen = seen(direct, "out");
        assert!(!seen.iter().any(|record| record.starts_with("half")), "{seen:?}, stable at {stable}");
        output.open().expect("a start");
    }
    assert_eq!(seen(direct, "out"), ["a=1"; 4]);
}

/// Waits until the record of the open transaction is at the broker.
fn wait_for_record(broker: &KafkaBroker, _batch: u64) {
    let brokers = broker.bootstrap_servers();
    crate::input::eventually("the record of the open transaction", || {
        let end = |isolation| crate::admin::end(brokers, "out", 0, isolation);
        (end("read_uncommitted") > end("read_committed")).then_some(())
    });
}
