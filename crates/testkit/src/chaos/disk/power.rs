//! Processes that die with the power: what the disk had not been told to keep is gone when the next one starts.

use std::time::Duration;

use super::{Disk, Keep, Loss};
use crate::chaos::{Dice, Ended, Finding, LIMIT, Lineage, Point, Result, World};

/// Starts a process that dies at a point; then the power is lost, and with it what was not synced.
///
/// # Errors
/// What was found.
pub fn lose_power_at(
    disk: &mut Disk,
    lineage: &mut Lineage,
    world: &mut dyn World,
    point: Point,
    keep: Keep,
) -> Result<Loss> {
    let died = die(lineage, world, &format!("{}=kill@{}", point.name, point.hit));
    let lost = died.and_then(|()| disk.check()).and_then(|()| disk.lose_power(keep));
    lost.map_err(|found| found.at(format!("power lost at {} hit {}, {keep:?}", point.name, point.hit)))
}

/// Starts a process that dies when it has changed the disk so many times; then the power is lost.
///
/// # Errors
/// What was found.
pub fn lose_power_after(
    disk: &mut Disk,
    lineage: &mut Lineage,
    world: &mut dyn World,
    changes: u64,
    keep: Keep,
) -> Result<Loss> {
    disk.cut_after(Some(changes))?;
    let died = die(lineage, world, "");
    let lost = died.and_then(|()| disk.check()).and_then(|()| disk.lose_power(keep));
    disk.cut_after(None)?;
    lost.map_err(|found| found.at(format!("power lost after {changes} changes of the disk, {keep:?}")))
}

/// What survives a power failure, by lot: often nothing, else something.
pub fn keep_by_lot(dice: &mut Dice) -> Keep {
    match dice.below(4) {
        0 => Keep::Synced,
        1 => Keep::Torn(".log", dice.below(u64::MAX)),
        _ => Keep::Random(dice.below(u64::MAX)),
    }
}

/// Starts a process and waits until it has died of SIGKILL, giving it more input as long as it lives.
fn die(lineage: &mut Lineage, world: &mut dyn World, failpoints: &str) -> Result<()> {
    world.feed()?;
    let mut process = lineage.start(failpoints)?;
    for _ in 0..LIMIT.as_secs() {
        let Some(ended) = process.ends_within(Duration::from_secs(1))? else {
            world.feed()?;
            continue;
        };
        if ended != Ended::Killed {
            return Err(Finding::new(format!("the process {ended}: {}", process.said())));
        }
        lineage.tally_mut().kill("power-lost");
        lineage.note_recovery(&process);
        // One that died in its recovery had not yet put in place again what the last power failure took from readers' sight.
        return if process.ready_after().is_some() { world.look() } else { Ok(()) };
    }
    Err(Finding::new("the process never came there"))
}
