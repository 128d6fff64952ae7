//! The faults of the disk and the clock: power that fails, disks that are full, fail or lag, a clock that jumps.

use super::disk::trouble::{FAILING_SYNCS, FULL_DISKS, Part, SYNCS, Trouble};
use super::disk::{Disk, Effect, Keep, Rule, keep_by_lot, lose_power_after};
use super::{Expected, Fault, Needs, Result, Scene, Seen};

type Outputs = &'static [&'static str];

/// All faults of the disk and the clock, with the feature `disk`. `outputs` are the directories that the program's file sinks write to, by
/// their names beside the application's directory; none for a program that writes to Kafka only.
///
/// Leave `clock-jumps` out for a program that reads files or writes to Kafka: input files bear the times of the real clock, and brokers
/// refuse records from the future.
///
/// ```
/// use millpond_testkit::chaos::faults;
/// let faults = faults::of_disk(&[]).into_iter().filter(|fault| fault.name() != "clock-jumps");
/// let names: Vec<String> = faults.map(|fault| fault.name().to_owned()).collect();
/// assert!(names.contains(&"power-lost".to_owned()) && names.contains(&"log-full".to_owned()));
/// ```
pub fn of_disk(outputs: Outputs) -> Vec<Fault> {
    let mut faults = vec![power_lost(outputs), power_lost_twice(outputs), slow_disk(outputs), clock_jumps(outputs)];
    let is_there = |trouble: &Trouble| trouble.part != Part::Output || !outputs.is_empty();
    for trouble in FULL_DISKS.into_iter().filter(is_there) {
        let name = format!("{:?}-full", trouble.part).to_lowercase();
        faults.push(troubled(name, "the disk is full there, and has room again later", trouble, outputs));
    }
    for trouble in FAILING_SYNCS.into_iter().filter(is_there) {
        let name = format!("{:?}-sync-fails", trouble.part).to_lowercase();
        faults.push(troubled(name, "a sync fails there, once", trouble, outputs));
    }
    faults
}

fn power_lost(outputs: Outputs) -> Fault {
    let what = "the power fails at any change of the disk; what was not synced is gone, or any part of it";
    Fault::new("power-lost", what, Expected::Recovers, Needs::Process, move |scene| {
        Disk::in_scene(scene, outputs, |disk, scene| {
            disk.record(scene.lineage)?;
            let (changes, keep) = (1 + scene.dice.below(600), keep_by_lot(scene.dice));
            lose_power_after(disk, scene.lineage, scene.world, changes, keep)?;
            recovered(scene)
        })
    })
}

fn power_lost_twice(outputs: Outputs) -> Fault {
    let what = "the power fails, and again while the next start recovers; nothing unsynced is left";
    Fault::new("power-lost-twice", what, Expected::Recovers, Needs::Process, move |scene| {
        Disk::in_scene(scene, outputs, |disk, scene| {
            disk.record(scene.lineage)?;
            for changes in [1 + scene.dice.below(600), 1 + scene.dice.below(60)] {
                lose_power_after(disk, scene.lineage, scene.world, changes, Keep::Synced)?;
            }
            recovered(scene)
        })
    })
}

/// What a power failure took from readers' sight is there again when the next process is live.
fn recovered(scene: &mut Scene<'_>) -> Result<Seen> {
    let mut process = scene.lineage.start("")?;
    // Before that its recovery may not have put it back.
    process.wait_ready(scene.limit)?;
    scene.wait_complete(&mut process)?;
    scene.lineage.note_recovery(&process);
    process.kill()?;
    scene.lineage.tally_mut().kill("after-all-output");
    Ok(Seen::WentOn)
}

fn slow_disk(outputs: Outputs) -> Fault {
    let what = "each sync takes 30 ms longer";
    Fault::new("slow-disk", what, Expected::Recovers, Needs::Process, move |scene| {
        Disk::in_scene(scene, outputs, |disk, scene| {
            disk.set(&[Rule::new(SYNCS, Effect::Slow(30), "*")])?;
            scene.world.feed()?;
            recovered(scene)
        })
    })
}

/// One hour, in seconds.
const HOUR: i64 = 3600;

fn clock_jumps(outputs: Outputs) -> Fault {
    let what = "the clock jumps an hour back under a live process, and forward, and back again before the next start";
    Fault::new("clock-jumps", what, Expected::Recovers, Needs::Process, move |scene| {
        Disk::in_scene(scene, outputs, |disk, scene| {
            for (before, live) in [(0, -HOUR), (-HOUR, HOUR), (0, 0)] {
                disk.shift_clock(before)?;
                scene.world.feed()?;
                let mut process = scene.lineage.start("")?;
                process.wait_ready(scene.limit)?;
                disk.shift_clock(live)?;
                scene.world.feed()?;
                scene.wait_complete(&mut process)?;
                process.kill()?;
            }
            Ok(Seen::WentOn)
        })
    })
}

fn troubled(name: String, what: &str, trouble: Trouble, outputs: Outputs) -> Fault {
    let what = format!("{what} ({:?}), at any moment", trouble.part);
    // Whether it goes on or stops depends on the moment: `check` says what may be.
    Fault::new(name, what, Expected::Recovers, Needs::Process, move |scene| {
        Disk::in_scene(scene, outputs, |disk, scene| {
            let from = 1 + scene.dice.below(40);
            // Not every program of a suite writes to all of them.
            let place = scene.lineage.directory().with_file_name("");
            let written = |output: &&&str| place.join(output).exists();
            let output = outputs.iter().find(written).or(outputs.first()).copied().unwrap_or_default();
            let outcome = trouble.inflict(disk, scene.lineage, scene.world, output, from)?;
            trouble.check(&outcome)?;
            recovered(scene)
        })
    })
}
