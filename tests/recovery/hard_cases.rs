//! Hard cases that need real processes: creation, sudden ends without a last word, changed programs and settings.

use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::points::{self, Point};
use millpond_fault_injection::victim::{Pipeline, Poison};
use millpond_fault_injection::{Ended, Lineage, World, kill_at};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn h27_killed_at_every_step_of_the_first_start_the_next_one_completes_it() {
    let steps = [
        points::RECOVERY,
        &["state-frozen", "state-written", "checkpoint-linked", "manifest-written", "manifest-renamed"].map(first),
        &["log-segment-created", "log-appended", "log-synced", "plan-appended", "plan-synced"].map(first),
        &["output-written", "before-commit", "after-commit", "files-renamed"].map(first),
    ];
    for point in steps.concat() {
        let mut world = Files::new(Pipeline::Files, 51).unwrap();
        let mut lineage = Lineage::new(world.setup());
        kill_at(&mut lineage, &mut world, point, "").unwrap();
        lineage.finish(&mut world).unwrap();
    }
}

fn first(name: &'static str) -> Point {
    Point { name, hit: 1 }
}

#[test]
fn h28_an_abort_or_a_stack_overflow_leaves_no_last_word_and_the_corrected_program_goes_on() {
    for poison in [Poison::Abort, Poison::StackOverflow] {
        let mut world = Files::new(Pipeline::Files, 52).unwrap();
        let mut lineage = Lineage::new(world.setup());
        lineage.setup_mut().poison = poison;
        world.feed().unwrap();
        world.feed_lines(vec!["poison in the middle".into()]).unwrap();
        world.feed().unwrap();
        // The batch of the poison is planned: it kills every start until the program is put right.
        for _ in 0..3 {
            let mut process = lineage.start("").unwrap();
            let ended = process.wait(LIMIT).unwrap();
            assert!(matches!(ended, Ended::Otherwise(_)), "{poison:?}: it {ended}: {}", process.said());
            world.look().unwrap();
        }
        lineage.setup_mut().poison = Poison::None;
        lineage.finish(&mut world).unwrap();
    }
}

#[test]
fn a_panic_in_a_function_of_the_program_stops_it_by_name_and_the_corrected_program_goes_on() {
    let mut world = Files::new(Pipeline::Files, 53).unwrap();
    let mut lineage = Lineage::new(world.setup());
    lineage.setup_mut().poison = Poison::Panic;
    world.feed().unwrap();
    world.feed_lines(vec!["poison in the middle".into()]).unwrap();
    world.feed().unwrap();
    let mut process = lineage.start("").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    let said = process.said();
    assert!(said.contains("operator `lines.filter`, batch") && said.contains("panicked: poison"), "{said}");
    lineage.setup_mut().poison = Poison::None;
    lineage.finish(&mut world).unwrap();
}

#[test]
fn h10_a_batch_that_fails_while_a_checkpoint_is_being_published_goes_back_to_that_checkpoint() {
    let mut world = Files::new(Pipeline::Files, 58).unwrap();
    let mut lineage = Lineage::new(world.setup());
    lineage.setup_mut().poison = Poison::Panic;
    lineage.setup_mut().checkpoint_every = 1;
    world.feed().unwrap();
    world.feed_lines(vec!["poison in the middle".into()]).unwrap();
    // Each checkpoint is held up when it is in place and nobody has been told.
    let mut process = lineage.start("manifest-renamed=sleep(300)").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    // The cause is told, not a trouble of the recovery.
    let said = process.said();
    assert!(said.contains("operator `lines.filter`, batch") && said.contains("panicked: poison"), "{said}");
    lineage.setup_mut().poison = Poison::None;
    lineage.finish(&mut world).unwrap();
}

#[test]
fn h12_a_changed_program_killed_before_its_first_checkpoint_is_not_locked_out() {
    let mut world = Files::new(Pipeline::Files, 54).unwrap();
    let mut lineage = Lineage::new(world.setup());
    world.feed().unwrap();
    // Stopped gracefully: S = C = P.
    lineage.finish(&mut world).unwrap();
    // Another sink is another graph; no checkpoint comes any more by itself.
    lineage.setup_mut().pipeline = Pipeline::TwoFileSinks;
    lineage.setup_mut().checkpoint_every = 1_000_000;
    for hit in [10, 5, 1] {
        kill_at(&mut lineage, &mut world, Point { name: "after-commit", hit }, "").unwrap();
    }
    // The old program cannot take over with batches of the new one to replay.
    lineage.setup_mut().pipeline = Pipeline::Files;
    let mut process = lineage.start("").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    assert!(process.said().contains("the program was changed while batches"), "{}", process.said());
    lineage.setup_mut().pipeline = Pipeline::TwoFileSinks;
    lineage.finish(&mut world).unwrap();
}

#[test]
fn h13_sums_of_floating_point_numbers_are_the_same_in_a_replay_whatever_the_number_of_threads() {
    let mut world = Files::new(Pipeline::FloatSums, 55).unwrap();
    let mut lineage = Lineage::new(world.setup());
    // Batches of many partitions, all of them replayed.
    lineage.setup_mut().batch_limit_bytes = 2000;
    lineage.setup_mut().checkpoint_every = 1_000_000;
    for threads in [1, 8, 3, 1, 2] {
        lineage.setup_mut().threads = threads;
        // A digest that does not meet would end the process with an error before.
        kill_at(&mut lineage, &mut world, Point { name: "after-commit", hit: 3 }, "").unwrap();
    }
}

#[test]
fn h13_the_number_of_partitions_is_fixed_at_creation() {
    let mut world = Files::new(Pipeline::Files, 56).unwrap();
    let mut lineage = Lineage::new(world.setup());
    kill_at(&mut lineage, &mut world, points::SINK[2], "").unwrap();
    lineage.setup_mut().partitions = 3;
    let mut process = lineage.start("").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    assert!(process.said().contains("was created with 2 partitions, the settings say 3"), "{}", process.said());
    lineage.setup_mut().partitions = 2;
    lineage.finish(&mut world).unwrap();
}

#[test]
fn h11_killed_between_the_commits_of_two_sinks_the_one_behind_is_caught_up_and_the_other_sees_nothing_twice() {
    let mut world = Files::new(Pipeline::TwoFileSinks, 57).unwrap();
    let mut lineage = Lineage::new(world.setup());
    // Each batch comes to these points twice, once for each sink.
    for hit in [5, 6, 7, 8] {
        for name in ["before-commit", "after-commit", "files-renamed"] {
            kill_at(&mut lineage, &mut world, Point { name, hit }, "").unwrap();
        }
    }
    lineage.finish(&mut world).unwrap();
}
