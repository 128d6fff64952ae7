//! Programs broken on purpose: a suite that cannot fail proves nothing. The same kills that find nothing in the program as it is
//! must find something here.

use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::kafka::Kafka;
use millpond_fault_injection::points::Point;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Finding, Lineage, World, kill_at};
use millpond_testkit::broker::KafkaBroker;

/// Kills after which a broken program must have been found out.
const KILLS: u32 = 5;

/// Kills at a point again and again and lets the last process come to its end; what is found first.
fn find(lineage: &mut Lineage, world: &mut dyn World, point: Point, others: &str) -> Result<(), Finding> {
    (0..KILLS).try_for_each(|_| kill_at(lineage, world, point, others))?;
    lineage.finish(world)
}

#[test]
fn control_a_checkpoint_published_before_the_commit_is_caught() {
    // Commits are slow, so that there is time for a checkpoint before one.
    let slow = "before-commit=sleep(60)";
    let point = Point { name: "manifest-renamed", hit: 2 };
    let run = |control: &str| {
        let mut world = Files::new(Pipeline::Files, 11).unwrap();
        let mut lineage = Lineage::new(world.setup()).patience(Duration::from_secs(20));
        find(&mut lineage, &mut world, point, &format!("{slow};{control}"))
    };
    run("").expect("the program as it is");
    let found = run("break-checkpoint-before-commit=return").expect_err("not caught").to_string();
    assert!(found.contains("sink `out` has committed batch") && found.contains("the checkpoint in"), "{found}");
}

#[test]
fn control_a_cursor_outside_of_the_transaction_is_caught() {
    let point = Point { name: "before-commit", hit: 3 };
    let run = |control: &str| {
        let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, 12).unwrap();
        let mut lineage = Lineage::new(world.setup()).patience(Duration::from_secs(20));
        find(&mut lineage, &mut world, point, control)
    };
    run("").expect("the program as it is");
    let found = run("break-cursor-outside-transaction=return").expect_err("not caught").to_string();
    assert!(found.contains("no output for key"), "{found}");
}
