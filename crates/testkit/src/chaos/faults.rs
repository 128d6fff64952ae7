//! The faults of processes: SIGKILL, SIGSTOP, a second instance.

use std::time::{Duration, Instant};

#[cfg(feature = "disk")]
pub use super::faults_disk::of_disk;
pub use super::faults_kafka::of_kafka;
use super::kill::{Point, kill_at, kill_at_random};
use super::{Ended, Expected, Fault, Finding, Needs, Scene, Seen, wait_until};

/// A process that is killed at random is killed within this time of its start, or a little later.
const RANDOM_WITHIN: Duration = Duration::from_millis(1000);

/// All faults that need nothing but a process.
pub fn of_processes() -> Vec<Fault> {
    vec![
        killed_at_a_point(),
        killed_at_random(),
        killed_in_a_row("killed-twice", 2),
        killed_in_a_row("killed-three-times", 3),
        killed_in_recovery(),
        killed_while_stopping(),
        frozen(),
        second_instance(),
        out_of_memory(),
    ]
}

/// SIGKILL at this hit of this failpoint.
pub fn killed_at(point: Point) -> Fault {
    let what = format!("SIGKILL at hit {} of failpoint `{}`", point.hit, point.name);
    Fault::new(format!("killed-at-{}", point.name), what, Expected::Recovers, Needs::Process, move |scene| {
        kill_at(scene.lineage, scene.world, point, "")?;
        Ok(Seen::WentOn)
    })
}

/// SIGKILL at one of the scene's failpoints.
pub fn killed_at_a_point() -> Fault {
    let what = "SIGKILL at a named point of log, plan, task, commit, checkpoint or recovery";
    Fault::new("killed-at-a-point", what, Expected::Recovers, Needs::Process, |scene| {
        let all = [scene.points, scene.recovery_points].concat();
        let mut point = *scene.dice.one_of(&all);
        // What comes once in a start, or once in many batches, is waited for once only.
        if point.hit > 1 {
            point.hit += scene.dice.below(4) as u32;
        }
        kill_at(scene.lineage, scene.world, point, "")?;
        Ok(Seen::WentOn)
    })
}

/// SIGKILL at any moment.
pub fn killed_at_random() -> Fault {
    let what = "SIGKILL at any moment of the first second";
    Fault::new("killed-at-random", what, Expected::Recovers, Needs::Process, |scene| {
        kill_at_random(scene.lineage, scene.world, scene.dice, RANDOM_WITHIN)?;
        Ok(Seen::WentOn)
    })
}

/// SIGKILL, and again so soon that recovery is hardly through, `times` altogether.
pub fn killed_in_a_row(name: &str, times: u32) -> Fault {
    let what = format!("{times} SIGKILLs in a row: in the midst of a commit, then before the next start is through");
    Fault::new(name, what, Expected::Recovers, Needs::Process, move |scene| {
        let point = *scene.dice.one_of(&[Point::new("after-commit", 2), Point::new("before-commit", 2)]);
        kill_at(scene.lineage, scene.world, point, "")?;
        for _ in 1..times {
            kill_at_random(scene.lineage, scene.world, scene.dice, RANDOM_WITHIN / 3)?;
        }
        Ok(Seen::WentOn)
    })
}

/// SIGKILL in the midst of a commit, and twice at a point of the recovery from it.
pub fn killed_in_recovery() -> Fault {
    let what = "SIGKILL in the midst of a commit, then twice at one point of recovery";
    Fault::new("killed-in-recovery", what, Expected::Recovers, Needs::Process, |scene| {
        kill_at(scene.lineage, scene.world, Point::new("after-commit", 2), "")?;
        let point = *scene.dice.one_of(scene.recovery_points);
        for _ in 0..2 {
            kill_at(scene.lineage, scene.world, point, "")?;
        }
        Ok(Seen::WentOn)
    })
}

/// SIGTERM, and SIGKILL before it has stopped.
pub fn killed_while_stopping() -> Fault {
    let what = "SIGTERM, and SIGKILL before it has stopped";
    Fault::new("killed-while-stopping", what, Expected::Recovers, Needs::Process, |scene| {
        scene.world.feed()?;
        let mut process = scene.lineage.start("")?;
        process.wait_ready(scene.limit)?;
        scene.lineage.note_recovery(&process);
        scene.world.feed()?;
        process.terminate()?;
        // The moment is the fault. One that was quicker has stopped well.
        let after = Duration::from_micros(scene.dice.below(50_000));
        match process.ends_within(after)? {
            None => {
                process.kill()?;
                scene.lineage.tally_mut().kill("stopping");
            }
            Some(Ended::Well) => {}
            Some(ended) => return Err(Finding::new(format!("the process {ended}: {}", process.said()))),
        }
        Ok(Seen::WentOn)
    })
}

/// SIGSTOP for a while, then SIGCONT.
pub fn frozen() -> Fault {
    let what = "SIGSTOP at any moment, SIGCONT half a second later";
    Fault::new("frozen", what, Expected::Recovers, Needs::Process, |scene| {
        scene.world.feed()?;
        let mut process = scene.lineage.start("")?;
        process.wait_ready(scene.limit)?;
        scene.lineage.note_recovery(&process);
        scene.world.feed()?;
        process.freeze()?;
        scene.world.look()?;
        // What is waited for is time itself: batches are missed meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        process.thaw()?;
        end(scene, process)
    })
}

/// How long a process has to do without address space, if it does not die of it.
const WITHOUT_MEMORY: Duration = Duration::from_secs(5);

/// No more address space from some moment on, and then room again.
pub fn out_of_memory() -> Fault {
    let what = "no more address space from some moment on: an allocation fails, and the process with it; one that lives on after five \
                seconds gets room again";
    Fault::new("out-of-memory", what, Expected::Recovers, Needs::Process, |scene| {
        scene.world.feed()?;
        let mut process = scene.lineage.start("")?;
        process.wait_ready(scene.limit)?;
        process.limit_address_space(scene.dice.below(4 << 20))?;
        for _ in 0..20 {
            scene.world.feed()?;
        }
        // It may have had enough, it may die of it, and it may try again and again what wants memory, such as the restart of a receiver:
        // it must not stop to do that, and not go on with less than all.
        let lift_at = Instant::now() + WITHOUT_MEMORY;
        let mut lifted = false;
        wait_until(scene.limit, "all output, or the end of the process", || {
            if !lifted && Instant::now() >= lift_at {
                process.lift_address_space()?;
                lifted = true;
            }
            Ok((scene.world.is_complete()? || process.ends_within(Duration::ZERO)?.is_some()).then_some(()))
        })
        .map_err(|finding| finding.at(process.said()))?;
        process.kill()?;
        scene.lineage.tally_mut().kill("out-of-memory");
        Ok(Seen::WentOn)
    })
}

/// A second process with the same directory.
pub fn second_instance() -> Fault {
    let what = "a second process with the same directory, while the first runs";
    Fault::new("second-instance", what, Expected::Refuses("is in use"), Needs::Process, |scene| {
        scene.world.feed()?;
        let mut first = scene.lineage.start("")?;
        first.wait_ready(scene.limit)?;
        scene.lineage.note_recovery(&first);
        let log = scene.lineage.directory().with_extension("second");
        let mut second = super::Process::start(scene.lineage.launch(), "", &log)?;
        let said = scene.wait_stopped(&mut second)?;
        scene.world.feed()?;
        end(scene, first)?;
        Ok(Seen::Refused(said))
    })
}

/// All input so far has to come out; then the process is killed, as the next fault begins with none.
pub(super) fn end(scene: &mut Scene<'_>, mut process: super::Process) -> super::Result<Seen> {
    scene.wait_complete(&mut process)?;
    process.kill()?;
    scene.lineage.tally_mut().kill("after-all-output");
    Ok(Seen::WentOn)
}
