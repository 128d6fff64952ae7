//! SIGKILL at a failpoint, at a random moment, and at many points one after the other.

use std::time::{Duration, Instant};

use super::process::LIMIT;
use super::{Dice, Ended, Finding, Lineage, Result, World};

/// A failpoint, and at which of its hits a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name: one of [`millpond::failpoints::NAMES`].
    pub name: &'static str,
    /// Counted from 1. Batches come before it and after it, so it is not the first but for what happens once.
    pub hit: u32,
}

impl Point {
    /// A point and its hit.
    pub const fn new(name: &'static str, hit: u32) -> Self {
        Point { name, hit }
    }
}

/// Starts a process that is killed at a point, gives it input and waits for its death. Other failpoints can be armed with it
/// (`""` for none).
///
/// What readers see is looked at afterwards. That the process ends by itself is a finding.
///
/// # Errors
/// What was found.
pub fn kill_at(lineage: &mut Lineage, world: &mut dyn World, point: Point, others: &str) -> Result<()> {
    world.feed()?;
    let mut process = lineage.start(&format!("{}=kill@{};{others}", point.name, point.hit))?;
    let at = |lineage: &Lineage| format!("application {}, {} hit {}", lineage.application(), point.name, point.hit);
    // Some points want more input than there was: more comes as long as the process lives.
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match process.ends_within(Duration::from_secs(1))? {
            Some(Ended::Killed) => {
                lineage.tally_mut().kill(point.name);
                lineage.note_recovery(&process);
                return world.look().map_err(|finding| finding.at(at(lineage)));
            }
            Some(ended) => {
                return Err(Finding::new(format!("the process {ended}: {}", process.said())).at(at(lineage)));
            }
            None => world.feed()?,
        }
    }
    Err(Finding::new("the point was never hit").at(at(lineage)).at(process.said()))
}

/// Starts a process and kills it at a random moment of its first `within`; gives it input before. What readers see is looked at
/// afterwards. A process that ends by itself is a finding.
///
/// # Errors
/// What was found.
pub fn kill_at_random(lineage: &mut Lineage, world: &mut dyn World, dice: &mut Dice, within: Duration) -> Result<()> {
    world.feed()?;
    let mut process = lineage.start("")?;
    let after = Duration::from_micros(dice.below(within.as_micros() as u64));
    // The moment is the fault: this waits for nothing.
    let early = process.ends_within(after)?;
    process.kill()?;
    let at = format!("kill {} of application {}, after {after:?}", lineage.starts(), lineage.application());
    match early {
        None => {
            lineage.tally_mut().kill("random");
            lineage.note_recovery(&process);
            world.look().map_err(|finding| finding.at(at))
        }
        Some(ended) => Err(Finding::new(format!("the process {ended}\n{}", lineage.log())).at(at)),
    }
}

/// Kills at each of these points, the recovery points after a kill in the midst of a commit each, and lets a last process come
/// to the end.
///
/// # Errors
/// What was found.
pub fn sweep(lineage: &mut Lineage, world: &mut dyn World, points: &[Point], recovery: &[Point]) -> Result<()> {
    for point in points {
        kill_at(lineage, world, *point, "")?;
    }
    let in_doubt = Point::new("after-commit", 2);
    for point in recovery {
        kill_at(lineage, world, in_doubt, "")?;
        kill_at(lineage, world, *point, "")?;
        // A recovery that was killed is recovered from.
        kill_at(lineage, world, *point, "")?;
    }
    lineage.finish(world)
}
