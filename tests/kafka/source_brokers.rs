//! Brokers that are away, come late, die and come back, and one that wants a password.

use std::time::{Duration, Instant};

use millpond_core::ErrorKind;
use millpond_kafka::{KafkaSink, KafkaSource, Utf8};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::{Outgoing, Producer};

use crate::input::{Input, expect_error};
use crate::output::Output;

fn write(brokers: &str, topic: &str, value: &str) {
    let records = [Outgoing::value(value).partition(0)];
    Producer::new(brokers).expect("a producer").produce(topic, records).expect("a record");
}

fn source(brokers: &str, topic: &str) -> KafkaSource<Utf8> {
    KafkaSource::subscribe(brokers, [topic]).wait_for_broker(Duration::from_secs(60)).utf8()
}

#[test]
fn a_source_waits_for_a_broker_at_its_start_and_outlives_one_that_is_lost() {
    let broker = KafkaBroker::builder().start().expect("a broker");
    let brokers = broker.bootstrap_servers().to_owned();
    broker.create_topic("in", 1, &[]).expect("a topic");
    write(&brokers, "in", "before");
    broker.kill().expect("a kill");
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        broker.restart().expect("a restart");
        broker
    });
    let mut input = Input::start(source(&brokers, "in")).expect("a start, when the broker has come");
    let broker = later.join().expect("no panic");
    assert_eq!(input.take(1), ["before"]);
    let plans = input.plans.clone();

    broker.kill().expect("a kill");
    let event = input.wait_for_event("error");
    assert!(event.starts_with("error source `in`"), "{event}");
    assert_eq!(input.plan().expect("an empty plan meanwhile").records, 0);
    broker.restart().expect("a restart");
    write(&brokers, "in", "after");
    assert_eq!(input.take(1), ["after"]);
    assert!(!input.events().iter().any(|event| event.starts_with("fatal")), "{:?}", input.events());

    // A replay waits too.
    broker.kill().expect("a kill");
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        broker.restart().expect("a restart");
        broker
    });
    let mut input = input.crash(source(&brokers, "in")).expect("a start, when the broker has come");
    assert_eq!(input.items(&plans), ["before"]);
    drop(later.join().expect("no panic"));
}

#[test]
fn a_broker_that_never_comes_is_a_clear_error_within_the_limit() {
    let began = Instant::now();
    let source = KafkaSource::subscribe("127.0.0.1:9", ["in"]).wait_for_broker(Duration::from_millis(500)).utf8();
    let error = expect_error(Input::start(source));
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("no Kafka broker of 127.0.0.1:9 answered within 500ms"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn sasl_plain_lets_in_who_has_the_password() {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required user_pond=\"secret\";";
    let broker = KafkaBroker::builder()
        .with_proxy()
        .setting("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:SASL_PLAINTEXT")
        .setting("listener.name.proxied.sasl.enabled.mechanisms", "PLAIN")
        .setting("listener.name.proxied.plain.sasl.jaas.config", module)
        .start()
        .expect("a broker");
    for topic in ["in", "out"] {
        broker.create_topic(topic, 1, &[]).expect("a topic");
    }
    write(broker.bootstrap_servers(), "in", "secret words");
    let address = broker.proxied_servers();
    let login = |password: &'static str| {
        [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "pond"),
            ("sasl.password", password),
        ]
    };
    let source = |password| {
        login(password).into_iter().fold(source(&address, "in"), |source, (key, value)| source.setting(key, value))
    };
    let sink = |password| {
        let sink = KafkaSink::to(&address, "out").wait_for_broker(Duration::from_secs(30));
        login(password).into_iter().fold(sink, |sink, (key, value)| sink.setting(key, value))
    };
    let mut input = Input::start(source("secret")).expect("a start");
    assert_eq!(input.take(1), ["secret words"]);
    let mut output = Output::new("app", "out", sink("secret"));
    output.open().expect("a start");
    output.batch(1000, &[("a", "1")]).expect("a batch");
    assert_eq!(crate::output::seen(broker.bootstrap_servers(), "out"), ["a=1"]);

    // No waiting cures a wrong password.
    for error in
        [expect_error(Input::start(source("wrong"))), expect_error(Output::new("app", "out", sink("wrong")).peek())]
    {
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("refuse the client"), "{error}");
    }
}
