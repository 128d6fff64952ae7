//! Kills of pipelines that write to files.

use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Dice, Lineage, kill_at_random, points, sweep};

#[test]
fn killed_at_every_point_files_to_files_is_exactly_once() {
    let mut world = Files::new(Pipeline::Files, 1).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let points = [points::ENGINE, points::SINK, points::FILE_SINK].concat();
    sweep(&mut lineage, &mut world, &points, points::RECOVERY).unwrap();
}

#[test]
fn killed_at_every_point_receiver_to_files_is_exactly_once() {
    let mut world = Files::new(Pipeline::Spool, 2).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let points = [points::ENGINE, points::RECEIVER, points::SINK, points::FILE_SINK].concat();
    sweep(&mut lineage, &mut world, &points, points::RECOVERY).unwrap();
}

#[test]
fn killed_thirty_times_at_random_files_to_files_is_exactly_once() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let mut world = Files::new(Pipeline::Files, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    for _ in 0..30 {
        kill_at_random(&mut lineage, &mut world, &mut dice, Duration::from_millis(300)).unwrap();
    }
    lineage.finish(&mut world).unwrap();
}
