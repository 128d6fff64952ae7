//! The launcher against the real thing.

use std::time::Instant;

use millpond_testkit::ErrorKind;
use millpond_testkit::broker::{KafkaBroker, unique_name};

#[test]
fn a_killed_broker_comes_back_with_its_data_at_its_address() {
    let mut broker = KafkaBroker::builder().start().unwrap();
    let address = broker.bootstrap_servers().to_owned();
    broker.create_topic("kept", 3, &[("cleanup.policy", "compact")]).unwrap();
    let id = broker.topic_id("kept").unwrap();

    broker.kill().unwrap();
    let error = broker.pause().unwrap_err();
    assert!(error.to_string().contains("not running"), "{error}");
    let restarted = Instant::now();
    broker.restart().unwrap();
    println!("restart after a kill: {:.1?}", restarted.elapsed());

    assert_eq!(broker.bootstrap_servers(), address);
    assert_eq!(broker.topic_id("kept").unwrap(), id);
    let error = broker.create_topic("kept", 3, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("cannot create topic kept"), "{error}");

    broker.stop().unwrap();
    let restarted = Instant::now();
    broker.restart().unwrap();
    println!("restart after a stop: {:.1?}", restarted.elapsed());
    assert_eq!(broker.topic_id("kept").unwrap(), id);
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
    assert_eq!(broker.open_transactions().unwrap(), []);
}
