//! The machine loses power under real processes: all that was not synced is gone, or any part of it.

use std::path::Path;
use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::kafka::Kafka;
use millpond_fault_injection::points::{self, Point};
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Dice, Ended, Lineage, Result, World};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::disk::{
    Call, Disk, Effect, Keep, Loss, Rule, keep_by_lot, lose_power_after, lose_power_at,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A world of files on a disk with a journal.
fn recorded(pipeline: Pipeline, seed: u64) -> (Files, Lineage, Disk) {
    let world = Files::new(pipeline, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let mut disk = Disk::under(world.place(), &["pond", "out", "second"]).unwrap();
    disk.record(&mut lineage).unwrap();
    (world, lineage, disk)
}

/// What many power failures took.
#[derive(Debug, Default)]
struct Taken {
    failures: u32,
    names: usize,
    files: usize,
}

impl Taken {
    fn add(&mut self, loss: Loss) {
        self.failures += 1;
        self.names += loss.names;
        self.files += loss.files;
    }
}

/// Loses power at each of these points, and, twice in a row, at those of recovery; then lets a last process come to the end.
fn sweep(
    (world, lineage, disk): (&mut dyn World, &mut Lineage, &mut Disk),
    points: &[Point],
    mut keep: impl FnMut() -> Keep,
) {
    let in_doubt = Point { name: "after-commit", hit: 2 };
    let recovery = points::RECOVERY.iter().flat_map(|point| [in_doubt, *point, *point]);
    let mut taken = Taken::default();
    for point in points.iter().copied().chain(recovery) {
        taken.add(lose_power_at(disk, lineage, world, point, keep()).unwrap());
    }
    println!("{taken:?}");
    assert!(taken.names > 50 && taken.files > 20, "hardly anything was lost: {taken:?}");
    lineage.finish(world).unwrap();
}

fn files_points() -> Vec<Point> {
    [points::ENGINE, points::SINK, points::FILE_SINK].concat()
}

#[test]
fn power_lost_at_every_point_files_to_files_is_exactly_once_though_nothing_unsynced_is_left() {
    let (mut world, mut lineage, mut disk) = recorded(Pipeline::Files, 101);
    sweep((&mut world, &mut lineage, &mut disk), &files_points(), || Keep::Synced);
}

#[test]
fn power_lost_at_every_point_receiver_to_files_is_exactly_once_whatever_survives() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let (mut world, mut lineage, mut disk) = recorded(Pipeline::Spool, seed);
    let points = [&files_points(), points::RECEIVER].concat();
    sweep((&mut world, &mut lineage, &mut disk), &points, || keep_by_lot(&mut dice));
}

#[test]
fn power_lost_at_every_point_of_the_log_and_of_commits_kafka_to_kafka_is_exactly_once_whatever_survives() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaContent, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let mut disk = Disk::under(world.place(), &["pond"]).unwrap();
    disk.record(&mut lineage).unwrap();
    let points = [points::ENGINE, points::SINK, points::KAFKA_SINK].concat();
    for point in points {
        let keep = if dice.below(2) == 0 { Keep::Synced } else { keep_by_lot(&mut dice) };
        lose_power_at(&mut disk, &mut lineage, &mut world, point, keep).unwrap();
    }
    lineage.finish(&mut world).unwrap();
}

#[test]
fn power_lost_at_random_changes_of_the_disk_is_exactly_once_whatever_survives() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let (mut world, mut lineage, mut disk) = recorded(Pipeline::TwoFileSinks, seed);
    for _ in 0..30 {
        let (changes, keep) = (1 + dice.below(600), keep_by_lot(&mut dice));
        lose_power_after(&mut disk, &mut lineage, &mut world, changes, keep).unwrap();
    }
    lineage.finish(&mut world).unwrap();
}

#[test]
fn whatever_survives_of_one_moment_the_next_start_makes_the_same_of_it() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let (mut world, mut lineage, mut disk) = recorded(Pipeline::Files, seed);
    lose_power_after(&mut disk, &mut lineage, &mut world, 400 + dice.below(200), Keep::Synced).unwrap();
    world.feed().unwrap();
    let mut process = lineage.start("manifest-renamed=kill@2").unwrap();
    process.wait(LIMIT).unwrap();
    let moment = disk.moment().unwrap();
    for _ in 0..12 {
        let keep = Keep::Random(dice.below(u64::MAX));
        disk.lose_power_in(&moment, keep).unwrap();
        world.forget();
        lineage.finish(&mut world).unwrap_or_else(|found| panic!("{keep:?}: {found}"));
    }
}

#[test]
fn h27_power_lost_after_each_change_of_the_first_start_leaves_a_directory_that_the_next_one_completes() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    for changes in (1..120).step_by(7) {
        let (mut world, mut lineage, mut disk) = recorded(Pipeline::Files, seed);
        let changes = changes + dice.below(7);
        lose_power_after(&mut disk, &mut lineage, &mut world, changes, Keep::Synced).unwrap();
        lineage.finish(&mut world).unwrap_or_else(|found| panic!("after {changes} changes: {found}"));
    }
}

#[test]
fn a_directory_made_by_a_process_that_was_killed_at_once_is_durable_when_the_next_one_has_committed() {
    let start = || {
        let mut world = Files::new(Pipeline::Files, 103).unwrap().with_directory("apps/pond").unwrap();
        let mut lineage = Lineage::new(world.setup());
        let mut disk = Disk::under(world.place(), &["apps", "out"]).unwrap();
        disk.record(&mut lineage).unwrap();
        world.feed().unwrap();
        (world, lineage, disk)
    };
    let (_world, mut lineage, disk) = start();
    lineage.start("after-commit=kill@1").unwrap().wait(LIMIT).unwrap();
    let mut made = disk.directories_made().unwrap();
    // What is thrown away at each start, and output: other tests.
    let passing = |path: &Path| path.to_string_lossy().contains("/live") || path.to_string_lossy().contains("/batch-");
    made.retain(|(_, path)| !passing(path));
    assert!(made.len() >= 8, "{made:?}");
    for (changes, path) in made {
        let (mut world, mut lineage, mut disk) = start();
        let at = || format!("killed when {} was made", path.display());
        disk.cut_after(Some(changes)).unwrap();
        assert_eq!(lineage.start("").unwrap().wait(LIMIT).unwrap(), Ended::Killed, "{}", at());
        disk.cut_after(None).unwrap();
        let point = Point { name: "after-commit", hit: 1 };
        let lost = lose_power_at(&mut disk, &mut lineage, &mut world, point, Keep::Synced);
        lost.and_then(|_| lineage.finish(&mut world)).unwrap_or_else(|found| panic!("{}: {found}", at()));
    }
}

#[test]
fn a_savepoint_that_was_made_is_still_there_when_the_power_is_lost() {
    let mut world = Files::new(Pipeline::Files, 104).unwrap();
    let mut lineage = Lineage::new(world.setup());
    world.feed().unwrap();
    lineage.finish(&mut world).unwrap();
    let mut disk = Disk::under(world.place(), &["saved"]).unwrap();
    disk.record(&mut lineage).unwrap();
    let savepoint = world.place().join("saved/today/words");
    lineage.setup_mut().savepoint_to = Some(savepoint.clone());
    let mut process = lineage.start("").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Well, "{}", process.said());
    disk.check().unwrap();
    disk.lose_power(Keep::Synced).unwrap();
    world.judge_state_in(&savepoint).unwrap();
}

/// Syncs of these paths are answered and not made, while power is lost in the midst of a few commits and checkpoints.
fn run_with_a_lie_about(calls: &[Call], paths: &str) -> Result<()> {
    let (mut world, lineage, mut disk) = recorded(Pipeline::Files, 102);
    let mut lineage = lineage_with_little_patience(lineage);
    disk.record(&mut lineage)?;
    if !paths.is_empty() {
        disk.set(&[Rule::new(calls, Effect::Lie, paths)])?;
    }
    let points = [("manifest-renamed", 4), ("after-commit", 3), ("files-renamed", 4), ("state-applied", 5)];
    for (name, hit) in points {
        lose_power_at(&mut disk, &mut lineage, &mut world, Point { name, hit }, Keep::Synced)?;
    }
    lineage.finish(&mut world)
}

fn lineage_with_little_patience(lineage: Lineage) -> Lineage {
    lineage.patience(Duration::from_secs(10))
}

/// A sync that is left out must be found out, each for itself: else the test is blind, or the sync is for nothing.
#[test]
fn control_each_sync_that_is_answered_and_not_made_is_caught() {
    run_with_a_lie_about(&[], "").expect("the disk as it is");
    let lies = [
        (Call::Sync, "*/pond/log/*"),
        (Call::SyncDirectory, "*/pond/log"),
        (Call::Sync, "*/pond/live/*.sst"),
        (Call::Sync, "*/pond/live/*MANIFEST-*"),
        (Call::Sync, "*/pond/checkpoints/manifests/*"),
        (Call::SyncDirectory, "*/pond/checkpoints/manifests"),
        (Call::SyncDirectory, "*/pond/checkpoints/files"),
        (Call::SyncDirectory, "*/pond/checkpoints"),
        (Call::SyncDirectory, "*/pond"),
        (Call::Sync, "*/out/_millpond/cursor.new"),
        (Call::Sync, "*/out/_millpond/batch-*"),
        (Call::SyncDirectory, "*/out/_millpond/batch-*"),
        (Call::SyncDirectory, "*/out/_millpond"),
        (Call::SyncDirectory, "*/out"),
    ];
    let caught =
        lies.map(|(call, paths)| (paths, run_with_a_lie_about(&[call], paths).map_err(|found| found.to_string())));
    for (paths, outcome) in &caught {
        println!("{paths}: {outcome:?}");
    }
    let blind: Vec<&&str> = caught.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(paths, _)| paths).collect();
    assert!(blind.is_empty(), "nobody noticed that nothing was synced at {blind:?}");
}
