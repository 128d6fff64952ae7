//! The launcher against the real thing.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{ErrorKind, Outgoing, Producer, read_committed, read_committed_within};

const MILLPOND_KAFKA: &str = env!("CARGO_BIN_EXE_millpond-kafka");

#[test]
fn a_killed_broker_comes_back_with_its_data_at_its_address() {
    let broker = KafkaBroker::builder().start().unwrap();
    let servers = broker.bootstrap_servers().to_owned();
    broker.create_topic("kept", 3, &[]).unwrap();
    let id = broker.topic_id("kept").unwrap();
    Producer::new(&servers).unwrap().produce("kept", [Outgoing::value("acknowledged")]).unwrap();

    broker.kill().unwrap();
    assert!(TcpStream::connect(&servers).is_err());
    let error = broker.pause().unwrap_err();
    assert!(error.to_string().contains("not running"), "{error}");
    let restart_began = Instant::now();
    broker.restart().unwrap();
    println!("restart after a kill: {:.1?}", restart_began.elapsed());
    assert_eq!(broker.bootstrap_servers(), servers);
    assert_eq!(broker.topic_id("kept").unwrap(), id);
    assert_eq!(read_committed(&servers, "kept").unwrap()[0].value_text(), "acknowledged");

    broker.stop().unwrap();
    let restart_began = Instant::now();
    broker.restart().unwrap();
    println!("restart after a stop: {:.1?}", restart_began.elapsed());
    assert_eq!(read_committed(&servers, "kept").unwrap().len(), 1);
}

#[test]
fn a_paused_broker_does_not_answer_until_it_is_resumed() {
    let broker = KafkaBroker::builder().start().unwrap();
    let servers = broker.bootstrap_servers().to_owned();
    broker.create_topic("t", 1, &[]).unwrap();
    broker.pause().unwrap();
    let error = read_committed_within(&servers, "t", Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    broker.resume().unwrap();
    assert_eq!(read_committed(&servers, "t").unwrap(), []);
}

#[test]
fn a_topic_that_is_there_or_wrong_is_refused() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("twice");
    broker.create_topic(&topic, 1, &[("cleanup.policy", "compact")]).unwrap();
    let error = broker.create_topic(&topic, 1, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().starts_with(&format!("cannot create topic {topic} on ")), "{error}");
    assert!(broker.create_topic("odd", 1, &[("no.such.setting", "1")]).is_err());
}

#[test]
fn a_deleted_topic_made_again_has_another_id() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("again");
    broker.create_topic(&topic, 1, &[]).unwrap();
    let first = broker.topic_id(&topic).unwrap();
    broker.delete_topic(&topic).unwrap();
    assert!(broker.delete_topic(&topic).is_err());
    broker.create_topic(&topic, 2, &[]).unwrap();
    assert_ne!(broker.topic_id(&topic).unwrap(), first);
}

#[test]
fn one_cluster_is_reached_by_two_names() {
    let broker = KafkaBroker::shared();
    let topic = unique_name("names");
    assert_ne!(broker.bootstrap_servers(), broker.other_bootstrap_servers());
    broker.create_topic(&topic, 1, &[]).unwrap();
    Producer::new(&broker.other_bootstrap_servers()).unwrap().produce(&topic, [Outgoing::value("x")]).unwrap();
    assert_eq!(read_committed(broker.bootstrap_servers(), &topic).unwrap().len(), 1);
}

#[test]
fn clients_of_the_proxied_listener_never_get_past_the_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let broker = KafkaBroker::builder().proxied_by(address).start().unwrap();
    broker.create_topic("t", 1, &[]).unwrap();
    let passed = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let (passed, behind) = (Arc::clone(&passed), broker.behind_proxy());
        move || forward(&proxy, behind, &passed)
    });
    // One connection by the address given, one by the address that the broker has told.
    Producer::new(&address.to_string()).unwrap().produce("t", [Outgoing::value("x")]).unwrap();
    assert!(passed.load(Ordering::Relaxed) >= 2, "{passed:?}");
    assert_eq!(read_committed(broker.bootstrap_servers(), "t").unwrap().len(), 1);
}

/// Forwards every connection, and counts them.
fn forward(listener: &TcpListener, to: SocketAddr, count: &AtomicUsize) {
    for client in listener.incoming() {
        let (Ok(client), Ok(broker)) = (client, TcpStream::connect(to)) else { return };
        count.fetch_add(1, Ordering::Relaxed);
        for (from, to) in [(&client, &broker), (&broker, &client)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from, &mut to));
        }
    }
}

#[test]
fn a_setting_reaches_the_broker_and_a_bad_one_is_told_with_its_log() {
    let error = KafkaBroker::builder().setting("num.io.threads", "none").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("num.io.threads"), "{error}");
    // One that only the running broker stumbles over.
    let error = KafkaBroker::builder().setting("metric.reporters", "no.such.Class").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let text = error.to_string();
    assert!(text.contains("ended while starting") && text.contains("no.such.Class"), "{text}");
}

#[test]
fn a_start_that_takes_too_long_is_given_up() {
    let error = KafkaBroker::builder().ready_limit(Duration::ZERO).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("was not ready within 0ns"), "{error}");
}

#[test]
fn the_broker_and_its_data_go_when_its_owner_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut owner = Command::new(MILLPOND_KAFKA)
        .env("TMPDIR", place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(' ').find(|word| word.starts_with("127.0.0.1:")).expect("an address").to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);

    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = || TcpStream::connect(&address).is_err() && fs::read_dir(place.path()).unwrap().count() == 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !gone() {
        assert!(Instant::now() < deadline, "the broker or its data outlive its owner");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kafka_is_fetched_once_however_many_want_it_and_whatever_a_killed_fetch_has_left() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("libs.partial")).unwrap();
    fs::write(home.path().join("libs.partial/half.jar"), "half").unwrap();
    let fetch = || {
        let mut fetch = Command::new(MILLPOND_KAFKA);
        fetch.arg("--fetch-only").env("MILLPOND_KAFKA_HOME", home.path()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let both = [fetch(), fetch()];
    for one in both {
        let output = one.wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Apache Kafka 4.3.1 is in"), "{output:?}");
    }
    let jars: Vec<_> = fs::read_dir(home.path().join("libs")).unwrap().map(|jar| jar.unwrap().file_name()).collect();
    assert!(jars.contains(&"kafka_2.13-4.3.1.jar".into()), "{jars:?}");
    assert!(!jars.contains(&"half.jar".into()), "{jars:?}");
    assert!(!home.path().join("libs.partial").exists());
}

#[test]
fn missing_programs_are_named_with_the_way_to_get_them() {
    let (empty_path, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |home: &std::path::Path| -> Output {
        let mut program = Command::new(MILLPOND_KAFKA);
        program.env("PATH", empty_path.path()).env("MILLPOND_KAFKA_HOME", home).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(home.path());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("Maven (mvn) is not installed") && text.contains("`make setup`"), "{text}");

    fs::create_dir(home.path().join("libs")).unwrap();
    let output = run(home.path());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("Java (java) is not installed") && text.contains("`make setup`"), "{text}");
}
