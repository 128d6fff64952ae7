//! Who may write: peeks harm nobody, fences shut out, ids and clusters are told apart.

use std::time::Duration;

use millpond_core::ErrorKind;
use millpond_core::bytes::Writer;
use millpond_core::sink::Sink;
use millpond_kafka::{KafkaSink, Partitioner};
use millpond_testkit::broker::{KafkaBroker, unique_name};

use crate::input::expect_error;
use crate::output::{Output, batch_of, seen, topic};

fn brokers() -> &'static str {
    KafkaBroker::shared().bootstrap_servers()
}

fn sink(topic: &str) -> KafkaSink {
    KafkaSink::to(brokers(), topic).wait_for_broker(Duration::from_secs(20))
}

#[test]
fn h2_a_peek_shuts_out_nobody() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut successor = Output::new(&app, "counts", sink(&topic));
    successor.open().expect("a start");
    successor.batch(1000, &[("a", "1")]).expect("a batch");
    // In the middle of a batch of the successor's.
    successor.write(2000, &[("a", "2")]).expect("output");
    let mut zombie = Output::new(&app, "counts", sink(&topic));
    assert_eq!(batch_of(zombie.peek().expect("a peek")), 1000);
    successor.prepare(2000, &[("a", "2")]).expect("prepared");
    successor.sink.commit().expect("nobody was harmed");
    assert_eq!(batch_of(zombie.peek().expect("a peek")), 2000);
    successor.batch(3000, &[("a", "3")]).expect("a batch");
    assert_eq!(seen(brokers(), &topic), ["a=1", "a=2", "a=3"]);
}

#[test]
fn a_zombie_is_fenced_and_may_recover_by_the_cursor_but_not_twice() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut old = Output::new(&app, "counts", sink(&topic));
    old.open().expect("a start");
    old.batch(1000, &[("a", "1")]).expect("a batch");
    old.write(2000, &[("a", "zombie")]).expect("output");
    let mut new = Output::new(&app, "counts", sink(&topic));
    assert_eq!(new.open().expect("a start"), 1000);
    // What the old one does now fails, and is for the engine to recover from.
    let error = expect_error(old.prepare(2000, &[("a", "zombie")]).and_then(|()| old.sink.commit()));
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("shut out"), "{error}");
    let error = expect_error(old.batch(2000, &[]));
    assert_eq!(error.kind(), ErrorKind::Retry, "nothing begins before a fence: {error}");
    new.batch(2000, &[("a", "2")]).expect("a batch");
    // The old one cannot know who is the zombie; its recovery finds the other's cursor.
    assert_eq!(old.open().expect("a recovery"), 2000);
    old.write(3000, &[("a", "zombie")]).expect("output");
    assert_eq!(new.open().expect("a recovery"), 2000);
    let error = expect_error(old.prepare(3000, &[("a", "zombie")]).and_then(|()| old.sink.commit()));
    assert_eq!(error.kind(), ErrorKind::Restore, "{error}");
    assert!(error.to_string().contains(&format!("transactional id `{app}`")), "{error}");
    new.batch(3000, &[("a", "3")]).expect("a batch");
    assert_eq!(seen(brokers(), &topic), ["a=1", "a=2", "a=3"]);
}

#[test]
fn all_sinks_of_a_cluster_share_one_transaction() {
    let (app, one, two) = (unique_name("app"), topic(1), topic(1));
    let mut first = Output::new(&app, "one", sink(&one));
    let mut second = first.beside("two", sink(&two));
    first.peek().expect("a peek");
    second.peek().expect("a peek");
    assert_eq!((first.fence().expect("a fence"), second.fence().expect("a fence")), (None, None));
    first.batch(1000, &[]).map(drop).expect("each alone");
    second.batch(1000, &[]).map(drop).expect("each alone");
    first.write(2000, &[("a", "1")]).expect("output");
    second.write(2000, &[("b", "1")]).expect("output");
    first.prepare(2000, &[("a", "1")]).expect("prepared");
    second.prepare(2000, &[("b", "1")]).expect("prepared");
    assert_eq!((seen_open(&one), seen_open(&two)), (0, 0), "nothing before the commit");
    first.sink.commit().expect("the first commits for both");
    assert_eq!((seen(brokers(), &one), seen(brokers(), &two)), (vec!["a=1".to_owned()], vec!["b=1".to_owned()]));
    second.sink.commit().expect("the other finds it done");
    // An abort of one is the abort of both.
    first.write(3000, &[("a", "x")]).expect("output");
    second.write(3000, &[("b", "x")]).expect("output");
    first.sink.abort().expect("an abort");
    second.sink.abort().expect("the other finds it done");
    // A recovery of all: both are asked again, in order.
    for output in [&mut first, &mut second] {
        assert_eq!(batch_of(output.peek().expect("a peek")), 2000);
    }
    for output in [&mut first, &mut second] {
        assert_eq!(batch_of(output.fence().expect("a fence")), 2000);
    }
    first.write(3000, &[("a", "2")]).expect("output");
    second.write(3000, &[]).expect("output");
    second.prepare(3000, &[]).expect("prepared");
    first.prepare(3000, &[("a", "2")]).expect("prepared");
    second.sink.commit().expect("a commit");
    first.sink.commit().expect("a commit");
    assert_eq!(
        (seen(brokers(), &one), seen(brokers(), &two)),
        (vec!["a=1".into(), "a=2".into()], vec!["b=1".to_owned()])
    );
}

/// Records below the last stable offset.
fn seen_open(topic: &str) -> i64 {
    crate::admin::end(brokers(), topic, 0, "read_committed")
}

#[test]
fn h4_two_names_of_one_cluster_are_one() {
    let (app, one, two) = (unique_name("app"), topic(1), topic(1));
    let mut first = Output::new(&app, "one", sink(&one));
    let other_name = KafkaBroker::shared().other_bootstrap_servers();
    let mut second = first.beside("two", KafkaSink::to(other_name, &two));
    first.peek().expect("a peek");
    second.peek().expect("a peek");
    first.fence().expect("a fence");
    second.fence().expect("a fence");
    // Two producers of one id would shut out each other.
    for batch in 1..=3 {
        first.write(batch * 1000, &[("a", "1")]).expect("output");
        second.write(batch * 1000, &[("b", "1")]).expect("output");
        first.prepare(batch * 1000, &[("a", "1")]).expect("prepared");
        second.prepare(batch * 1000, &[("b", "1")]).expect("prepared");
        first.sink.commit().expect("a commit");
        second.sink.commit().expect("a commit");
    }
    assert_eq!((seen(brokers(), &one).len(), seen(brokers(), &two).len()), (3, 3));
}

#[test]
fn h4_after_a_change_of_id_the_old_one_is_shut_out_too() {
    let (app, topic) = (unique_name("app"), topic(1));
    let cursors = unique_name("cursors");
    let with_id = |id: &str| sink(&topic).transactional_id(id).cursor_topic(&cursors);
    let (old_id, new_id) = (unique_name("old"), unique_name("new"));
    let mut old = Output::new(&app, "counts", with_id(&old_id));
    old.open().expect("a start");
    old.batch(1000, &[("a", "1")]).expect("a batch");
    old.write(2000, &[("a", "zombie")]).expect("output");
    old.prepare(2000, &[("a", "zombie")]).expect("prepared");
    // Started with a new id, while the old process still runs.
    let mut new = Output::new(&app, "counts", with_id(&new_id));
    new.start.remembered = old.sink.remember();
    assert_eq!(new.open().expect("a start"), 1000);
    expect_error(old.sink.commit());
    new.batch(2000, &[("a", "2")]).expect("a batch");
    assert_eq!(seen(brokers(), &topic), ["a=1", "a=2"]);
}

#[test]
fn h4_another_cluster_behind_old_names_is_refused() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut remembered = Writer::new();
    remembered.u8(1);
    remembered.text("another-cluster-id");
    remembered.list(&[&*app], |out, id| out.text(id));
    let mut output = Output::new(&app, "counts", sink(&topic));
    output.start.remembered = remembered.into_bytes();
    let error = expect_error(output.peek());
    assert_eq!(error.kind(), ErrorKind::Restore);
    assert!(error.to_string().contains("another-cluster-id"), "{error}");
    assert!(error.to_string().contains(KafkaBroker::shared().cluster_id()), "{error}");
}

#[test]
fn sinks_of_one_cluster_that_do_not_fit_are_refused() {
    let (app, one, two) = (unique_name("app"), topic(1), topic(1));
    let mut first = Output::new(&app, "one", sink(&one).setting("linger.ms", "3"));
    first.peek().expect("a peek");
    let unfit: [(KafkaSink, &str); 4] = [
        (sink(&two).transactional_id("x"), "transactional id"),
        (sink(&two).cursor_topic("x"), "cursor topic"),
        (sink(&two).setting("linger.ms", "4"), "`linger.ms`"),
        (sink(&one).setting("linger.ms", "3").partitioner(Partitioner::Crc32), "partitioner"),
    ];
    for (sink, part) in unfit {
        let error = expect_error(first.beside("two", sink).peek());
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_sink_that_was_recovered_goes_on() {
    let (app, topic) = (unique_name("app"), topic(1));
    let mut output = Output::new(&app, "counts", sink(&topic));
    for round in 0..5_u64 {
        assert_eq!(output.open().expect("a start"), round * 1000);
        output.batch((round + 1) * 1000, &[("a", "1")]).expect("a batch");
        // Some rounds end in the middle of a batch.
        if round == 1 || round == 2 {
            output.write((round + 2) * 1000, &[("a", "never")]).expect("output");
        }
    }
    assert_eq!(seen(brokers(), &topic), ["a=1"; 5]);
}
