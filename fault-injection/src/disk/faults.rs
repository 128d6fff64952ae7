//! Faults of the disk and the clock, with what is expected of them, written down before they are tried.
//!
//! A [`Trouble`] is a disk that refuses, fails or lags under a living process, at one part of what the process writes. [`of_disk`]
//! makes of them, of power failures and of clocks that jump what [`Chaos`](millpond_testkit::chaos::Chaos) inflicts.

use std::path::Path;
use std::time::{Duration, Instant};

use millpond_testkit::chaos::{Expected, Fault, LIMIT, Lineage, Needs, Scene, Seen};

use super::{Call, Disk, EIO, ENOSPC, Effect, Keep, Rule, keep_by_lot, lose_power_after};
use crate::{Ended, Finding, Result, World};

/// A part of the disk that a process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The write-ahead log.
    Log,
    /// The open database.
    State,
    /// The checkpoints.
    Checkpoints,
    /// What a file sink writes, its cursor too.
    Output,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 4] = [Part::Log, Part::State, Part::Checkpoints, Part::Output];

    /// The paths of this part, of an application in this directory.
    pub fn paths(self, directory: &Path) -> String {
        let of = |inner: &str| directory.join(inner).display().to_string();
        match self {
            Part::Log => of("log*"),
            Part::State => of("live*"),
            Part::Checkpoints => of("checkpoints*"),
            Part::Output => directory.with_file_name("out*").display().to_string(),
        }
    }
}

/// A disk that does not do what it is asked to.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Where.
    pub part: Part,
    /// What is asked of it.
    pub calls: &'static [Call],
    /// What it does.
    pub effect: Effect,
    /// How often; 0: until the cause is gone.
    pub times: u64,
    /// What must come of it in a process that is live.
    pub live: Expected,
}

const GROWS: &[Call] = &[Call::Grow, Call::Create, Call::Mkdir, Call::Link];
const SYNCS: &[Call] = &[Call::Sync, Call::SyncDirectory];
const FULL: &str = "No space left on device";
const FAILS: &str = "Input/output error";

/// A disk that is full at one part, until there is room again: the log is waited for; the rest is tried again a few times, by a recovery
/// inside of the process, and then the process stops with the error.
pub const FULL_DISKS: [Trouble; 4] = [
    full(Part::Log, Expected::Recovers),
    full(Part::State, Expected::Stops(FULL)),
    full(Part::Checkpoints, Expected::Stops(FULL)),
    full(Part::Output, Expected::Stops(FULL)),
];

const fn full(part: Part, live: Expected) -> Trouble {
    Trouble { part, calls: GROWS, effect: Effect::Fail(ENOSPC), times: 0, live }
}

/// One call that fails: a failed sync or write of the log is the end of the process, as nobody knows what is on the disk then;
/// everything else is recovered from inside of it.
pub const ONE_FAILURE: [Trouble; 8] = [
    once(Part::Log, SYNCS, Expected::Stops(FAILS)),
    once(Part::State, SYNCS, Expected::Recovers),
    once(Part::Checkpoints, SYNCS, Expected::Recovers),
    once(Part::Output, SYNCS, Expected::Recovers),
    once(Part::Log, &[Call::Write], Expected::Stops(FAILS)),
    once(Part::State, &[Call::Write], Expected::Recovers),
    once(Part::Checkpoints, &[Call::Write, Call::Rename, Call::Link], Expected::Recovers),
    once(Part::Output, &[Call::Write, Call::Rename, Call::Mkdir], Expected::Recovers),
];

const fn once(part: Part, calls: &'static [Call], live: Expected) -> Trouble {
    Trouble { part, calls, effect: Effect::Fail(EIO), times: 1, live }
}

/// What came of a trouble.
#[derive(Debug)]
pub struct Outcome {
    /// The trouble began when the process was live, not while it started.
    pub live: bool,
    /// The trouble began at all.
    pub met: bool,
    /// What the process did.
    pub seen: Seen,
}

impl Trouble {
    /// The rule of it, from the `from`th call on.
    pub fn rule(&self, directory: &Path, from: u64) -> Rule {
        Rule::new(self.calls, self.effect, self.part.paths(directory)).from(from).times(self.times)
    }

    /// Starts a process that meets this trouble at the `from`th such call. If it lives on with it for a while, the cause goes away:
    /// then all output has to come, and the process is killed.
    pub fn inflict(&self, disk: &mut Disk, lineage: &mut Lineage, world: &mut dyn World, from: u64) -> Result<Outcome> {
        /// So long the cause stays while the process bears it.
        const STAYS: Duration = Duration::from_millis(700);
        world.feed()?;
        disk.set(&[self.rule(lineage.directory(), from)])?;
        let mut process = lineage.start("")?;
        let deadline = Instant::now() + LIMIT;
        let (mut met, mut live, mut began, mut fed) = (false, false, Instant::now(), 0);
        while Instant::now() < deadline {
            let ended = process.ends_within(Duration::from_millis(10))?;
            if !met && disk.met(0)? >= from {
                (met, began) = (true, Instant::now());
                live = process.said().lines().any(|line| line == "ready");
            }
            if let Some(ended) = ended {
                disk.heal()?;
                return match ended {
                    Ended::Failed => Ok(Outcome { live, met, seen: Seen::Stopped(process.said()) }),
                    ended => Err(Finding::new(format!("the process {ended}: {}", process.said()))),
                };
            }
            if met && began.elapsed() > STAYS {
                disk.heal()?;
            }
            // Some calls want more input than there was.
            if !met && fed < 40 && world.is_complete()? {
                world.feed()?;
                fed += 1;
                continue;
            }
            if world.is_complete()? && (self.times > 0 || !met || began.elapsed() > STAYS) {
                process.kill()?;
                lineage.tally_mut().kill("after-all-output");
                disk.heal()?;
                return Ok(Outcome { live, met, seen: Seen::WentOn });
            }
        }
        Err(Finding::new(format!("the process neither went on nor stopped within {LIMIT:?}: {}", process.said())))
    }

    /// Whether this had to come of it. A trouble at the start may stop the start in any case, with the same words.
    pub fn check(&self, outcome: &Outcome) -> Result<()> {
        let text = match self.effect {
            Effect::Fail(ENOSPC) => FULL,
            _ => FAILS,
        };
        let well = match (&outcome.seen, self.live) {
            (Seen::WentOn, Expected::Recovers) => true,
            // The room may have come in time, and a trouble that was never met is none.
            (Seen::WentOn, _) if !outcome.met || self.times == 0 || !outcome.live => true,
            // Zeros that the log writes ahead are tried again: nothing was in them.
            (Seen::WentOn, _) => self.calls.contains(&Call::Write),
            (Seen::Stopped(said), Expected::Stops(_)) => said.contains(text),
            (Seen::Stopped(said), _) => !outcome.live && said.contains(text),
            (Seen::Refused(_), _) => false,
        };
        match well {
            true => Ok(()),
            false => Err(Finding::new(format!("{self:?}: {outcome:?}"))),
        }
    }
}

/// All faults of the disk and the clock, for an application whose directory stands beside the `roots` that it also writes to: see
/// [`Disk::under`].
pub fn of_disk(roots: &'static [&'static str]) -> Vec<Fault> {
    let mut faults = vec![power_lost(roots), power_lost_twice(roots), slow_disk(roots), clock_jumps(roots)];
    for trouble in FULL_DISKS {
        let name = format!("{:?}-full", trouble.part).to_lowercase();
        faults.push(troubled(name, "the disk is full there, and has room again later", trouble, roots));
    }
    for trouble in ONE_FAILURE.into_iter().filter(|trouble| trouble.calls == SYNCS) {
        let name = format!("{:?}-sync-fails", trouble.part).to_lowercase();
        faults.push(troubled(name, "a sync fails there, once", trouble, roots));
    }
    faults
}

/// A disk under the lineage for the time of one fault.
fn with_disk<T>(
    scene: &mut Scene<'_>,
    roots: &[&str],
    fault: impl FnOnce(&mut Disk, &mut Scene<'_>) -> Result<T>,
) -> Result<T> {
    let directory = scene.lineage.directory();
    let place = directory.parent().ok_or_else(|| Finding::new("the directory has nothing above it"))?;
    let mut disk = Disk::under(place, roots)?;
    disk.attach(scene.lineage);
    let outcome = fault(&mut disk, scene);
    Disk::detach(scene.lineage);
    outcome
}

fn power_lost(roots: &'static [&'static str]) -> Fault {
    let what = "the power fails at any change of the disk; what was not synced is gone, or any part of it";
    Fault::new("power-lost", what, Expected::Recovers, Needs::Process, move |scene| {
        with_disk(scene, roots, |disk, scene| {
            disk.record(scene.lineage)?;
            let (changes, keep) = (1 + scene.dice.below(600), keep_by_lot(scene.dice));
            lose_power_after(disk, scene.lineage, scene.world, changes, keep)?;
            recovered(scene)
        })
    })
}

fn power_lost_twice(roots: &'static [&'static str]) -> Fault {
    let what = "the power fails, and again while the next start recovers; nothing unsynced is left";
    Fault::new("power-lost-twice", what, Expected::Recovers, Needs::Process, move |scene| {
        with_disk(scene, roots, |disk, scene| {
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

fn slow_disk(roots: &'static [&'static str]) -> Fault {
    let what = "each sync takes 30 ms longer";
    Fault::new("slow-disk", what, Expected::Recovers, Needs::Process, move |scene| {
        with_disk(scene, roots, |disk, scene| {
            disk.set(&[Rule::new(SYNCS, Effect::Slow(30), "*")])?;
            scene.world.feed()?;
            recovered(scene)
        })
    })
}

/// One hour, in seconds.
const HOUR: i64 = 3600;

fn clock_jumps(roots: &'static [&'static str]) -> Fault {
    let what = "the clock jumps an hour back under a live process, and forward, and back again before the next start";
    Fault::new("clock-jumps", what, Expected::Recovers, Needs::Process, move |scene| {
        with_disk(scene, roots, |disk, scene| {
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

fn troubled(name: String, what: &str, trouble: Trouble, roots: &'static [&'static str]) -> Fault {
    let what = format!("{what} ({:?}), at any moment", trouble.part);
    // Whether it goes on or stops depends on the moment: `check` says what may be.
    Fault::new(name, what, Expected::Recovers, Needs::Process, move |scene| {
        with_disk(scene, roots, |disk, scene| {
            let from = 1 + scene.dice.below(40);
            let outcome = trouble.inflict(disk, scene.lineage, scene.world, from)?;
            trouble.check(&outcome)?;
            recovered(scene)
        })
    })
}
