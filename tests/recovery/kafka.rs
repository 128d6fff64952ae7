//! Kills of pipelines that write to Kafka, with a real broker.

use std::time::Duration;

use millpond_fault_injection::kafka::Kafka;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Dice, Lineage, World, kill_at_random, points, sweep};
use millpond_testkit::broker::KafkaBroker;

#[test]
fn killed_at_every_point_kafka_to_kafka_is_exactly_once() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, 3).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let points = [points::ENGINE, points::SINK, points::KAFKA_SINK].concat();
    sweep(&mut lineage, &mut world, &points, points::RECOVERY).unwrap();
}

#[test]
fn killed_at_the_points_of_blocks_and_commits_kafka_logged_by_content_is_exactly_once() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaContent, 4).unwrap();
    let mut lineage = Lineage::new(world.setup());
    // Every other frame of its log is a block.
    let log = |name| [3, 4].map(|hit| points::Point { name, hit });
    let points = [&log("log-appended"), &log("log-synced"), points::SINK, points::KAFKA_SINK].concat();
    sweep(&mut lineage, &mut world, &points, &[]).unwrap();
}

#[test]
fn killed_at_the_points_of_commits_a_copy_keeps_the_order_of_each_key() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCopy, 5).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let points = [points::SINK, points::KAFKA_SINK].concat();
    sweep(&mut lineage, &mut world, &points, &[]).unwrap();
}

#[test]
fn h11_killed_at_the_points_of_commits_two_sinks_of_different_kinds_each_have_everything_once() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaAndFiles, 6).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let points = [points::SINK, points::KAFKA_SINK, points::FILE_SINK].concat();
    sweep(&mut lineage, &mut world, &points, &[]).unwrap();
}

#[test]
fn killed_thirty_times_at_random_kafka_to_kafka_is_exactly_once() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    for _ in 0..30 {
        kill_at_random(&mut lineage, &mut world, &mut dice, Duration::from_millis(800)).unwrap();
    }
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_backlog_larger_than_the_log_takes_at_once_is_cut_into_blocks() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaContent, 7).unwrap();
    // A frame of this log takes 32 KiB: this is more in each partition, and all there at the first fetch.
    (0..40).for_each(|_| world.feed().unwrap());
    Lineage::new(world.setup()).finish(&mut world).unwrap();
}
