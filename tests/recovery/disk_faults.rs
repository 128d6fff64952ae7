//! The disk is full, fails or lags under real processes; the clock jumps.

use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::points;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Ended, Lineage, World, kill_at};
use millpond_testkit::chaos::disk::{Call, Disk, EIO, Effect, Rule};

const LIMIT: Duration = Duration::from_secs(60);

fn faulty(pipeline: Pipeline, seed: u64) -> (Files, Lineage, Disk) {
    let world = Files::new(pipeline, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    let disk = Disk::under(world.place(), &["pond", "out"]).unwrap();
    disk.attach(&mut lineage);
    (world, lineage, disk)
}

#[test]
fn a_disk_that_cannot_be_read_at_a_start_is_an_error_with_the_path_and_nothing_is_started_empty() {
    let (mut world, mut lineage, mut disk) = faulty(Pipeline::Files, 220);
    kill_at(&mut lineage, &mut world, points::Point { name: "checkpoint-deleted", hit: 1 }, "").unwrap();
    for paths in ["*/pond/log/*.log", "*/checkpoints/manifests/*", "*/checkpoints/FORMAT", "*/out/_millpond/cursor"] {
        disk.set(&[Rule::new(&[Call::Read], Effect::Fail(EIO), paths)]).unwrap();
        let mut process = lineage.start("").unwrap();
        assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{paths}: {}", process.said());
        let said = process.said();
        let folder = paths.trim_start_matches('*').split('*').next().unwrap();
        assert!(said.contains("Input/output error") && said.contains(folder), "{paths}: {said}");
        world.look().unwrap();
    }
    disk.heal().unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn on_a_slow_disk_batches_are_late_and_nothing_is_lost() {
    for pipeline in [Pipeline::Files, Pipeline::Spool] {
        let (mut world, mut lineage, mut disk) = faulty(pipeline, 221);
        disk.set(&[Rule::new(&[Call::Sync, Call::SyncDirectory], Effect::Slow(40), "*")]).unwrap();
        for _ in 0..2 {
            kill_at(&mut lineage, &mut world, points::Point { name: "after-commit", hit: 3 }, "").unwrap();
        }
        lineage.finish(&mut world).unwrap();
        assert!(disk.met(0).unwrap() > 10, "hardly anything was synced");
    }
}

#[test]
fn h19_a_write_of_the_log_torn_at_any_byte_is_the_end_of_the_log_and_no_damage() {
    for pipeline in [Pipeline::Files, Pipeline::Spool] {
        let (mut world, mut lineage, mut disk) = faulty(pipeline, 222);
        for (write, bytes) in [(6, 1), (7, 40), (8, 64), (9, 200), (5, 511), (4, 4096)] {
            let torn = Rule::new(&[Call::Write], Effect::Torn(bytes), "*/pond/log/*").from(write);
            disk.set(&[torn]).unwrap();
            world.feed().unwrap();
            let mut process = lineage.start("").unwrap();
            assert_eq!(process.wait(LIMIT).unwrap(), Ended::Killed, "{}", process.said());
            world.look().unwrap();
        }
        disk.heal().unwrap();
        lineage.finish(&mut world).unwrap();
    }
}

#[test]
fn a11_a_clock_that_jumps_an_hour_back_and_forth_under_live_processes_loses_and_doubles_nothing() {
    const HOUR: i64 = 3600;
    for pipeline in [Pipeline::Files, Pipeline::Spool] {
        let (mut world, mut lineage, disk) = faulty(pipeline, 223);
        // Files bear the times of the real clock: the batches that take them may be an hour ahead, far beyond the remember window.
        for (before, live) in [(0, -HOUR), (-HOUR, 0), (0, HOUR), (HOUR, -HOUR), (-HOUR, 0)] {
            disk.shift_clock(before).unwrap();
            world.feed().unwrap();
            let mut process = lineage.start("").unwrap();
            process.wait_ready(LIMIT).unwrap();
            disk.shift_clock(live).unwrap();
            world.feed().unwrap();
            process.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
            process.kill().unwrap();
        }
        lineage.finish(&mut world).unwrap();
    }
}
