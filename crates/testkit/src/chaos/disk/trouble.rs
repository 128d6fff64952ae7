//! A disk that refuses or fails under a living process, at one part of what the process writes, with what is expected of it, written down
//! before it is tried.

use std::path::Path;
use std::time::{Duration, Instant};

use super::control::beginning_with;
use super::{Call, Disk, EIO, ENOSPC, Effect, Rule};
use crate::chaos::{Ended, Expected, Finding, LIMIT, Lineage, Result, Seen, World};

/// A part of the disk that a process writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
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
    /// The paths of this part, of an application in this directory with such an output beside it.
    pub(crate) fn paths(self, directory: &Path, output: &str) -> String {
        beginning_with(&match self {
            Part::Log => directory.join("log"),
            Part::State => directory.join("live"),
            Part::Checkpoints => directory.join("checkpoints"),
            Part::Output => directory.with_file_name(output),
        })
    }
}

/// A disk that does not do what it is asked to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    /// Where.
    pub(crate) part: Part,
    /// What is asked of it.
    pub(crate) calls: &'static [Call],
    /// What it does.
    pub(crate) effect: Effect,
    /// How often; 0: until the cause is gone.
    pub(crate) times: u64,
    /// What must come of it in a process that is live.
    pub(crate) live: Expected,
}

const GROWS: &[Call] = &[Call::Grow, Call::Create, Call::Mkdir, Call::Link];
pub(crate) const SYNCS: &[Call] = &[Call::Sync, Call::SyncDirectory];
const FULL: &str = "No space left on device";
const FAILS: &str = "Input/output error";

/// A disk that is full at one part, until there is room again: the log is waited for; the rest is tried again a few times, by a recovery
/// inside of the process, and then the process stops with the error.
pub(crate) const FULL_DISKS: [Trouble; 4] = [
    full(Part::Log, Expected::Recovers),
    full(Part::State, Expected::Stops(FULL)),
    full(Part::Checkpoints, Expected::Stops(FULL)),
    full(Part::Output, Expected::Stops(FULL)),
];

const fn full(part: Part, live: Expected) -> Trouble {
    Trouble { part, calls: GROWS, effect: Effect::Fail(ENOSPC), times: 0, live }
}

/// One sync that fails: of the log it is the end of the process, as nobody knows what is on the disk then; everything else is recovered from
/// inside of it.
pub(crate) const FAILING_SYNCS: [Trouble; 4] = [
    once(Part::Log, Expected::Stops(FAILS)),
    once(Part::State, Expected::Recovers),
    once(Part::Checkpoints, Expected::Recovers),
    once(Part::Output, Expected::Recovers),
];

const fn once(part: Part, live: Expected) -> Trouble {
    Trouble { part, calls: SYNCS, effect: Effect::Fail(EIO), times: 1, live }
}

/// What came of a trouble.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The trouble began when the process was live, not while it started.
    pub(crate) live: bool,
    /// The trouble began at all.
    pub(crate) met: bool,
    /// What the process did.
    pub(crate) seen: Seen,
}

impl Trouble {
    /// The rule of it, from the `from`th call on.
    pub(crate) fn rule(&self, directory: &Path, output: &str, from: u64) -> Rule {
        Rule::new(self.calls, self.effect, self.part.paths(directory, output)).from(from).times(self.times)
    }

    /// Starts a process that meets this trouble at the `from`th such call. If it lives on with it for a while, the cause goes away:
    /// then all output has to come, and the process is killed.
    pub(crate) fn inflict(
        &self,
        disk: &mut Disk,
        lineage: &mut Lineage,
        world: &mut dyn World,
        output: &str,
        from: u64,
    ) -> Result<Outcome> {
        /// So long the cause stays while the process bears it.
        const STAYS: Duration = Duration::from_millis(700);
        world.feed()?;
        disk.set(&[self.rule(lineage.directory(), output, from)])?;
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
            // One that has to stop may have put out everything before it knows.
            let has_borne = match self.live {
                Expected::Recovers if self.times > 0 => true,
                _ => !met || began.elapsed() > STAYS,
            };
            if has_borne && world.is_complete()? {
                process.kill()?;
                lineage.tally_mut().kill("after-all-output");
                disk.heal()?;
                return Ok(Outcome { live, met, seen: Seen::WentOn });
            }
        }
        Err(Finding::new(format!("the process neither went on nor stopped within {LIMIT:?}: {}", process.said())))
    }

    /// Whether this had to come of it. A trouble at the start may stop the start in any case, with the same words.
    pub(crate) fn check(&self, outcome: &Outcome) -> Result<()> {
        let text = match self.effect {
            Effect::Fail(ENOSPC) => FULL,
            _ => FAILS,
        };
        let well = match (&outcome.seen, self.live) {
            (Seen::WentOn, Expected::Recovers) => true,
            // The room may have come in time, and a trouble that was never met is none.
            (Seen::WentOn, _) if !outcome.met || self.times == 0 || !outcome.live => true,
            (Seen::Stopped(said), Expected::Stops(_)) => said.contains(text),
            (Seen::Stopped(said), _) => !outcome.live && said.contains(text),
            _ => false,
        };
        match well {
            true => Ok(()),
            false => Err(Finding::new(format!("{self:?}: {outcome:?}"))),
        }
    }
}
