//! One process after the other killed at a failpoint, in one lineage; and the end that must follow.

use std::time::Duration;

use crate::lineage::LIMIT;
use crate::points::Point;
use crate::{Ended, Finding, Lineage, Result, World};

/// Starts a process that is killed at a point, gives it input and waits for its death. Other failpoints can be armed with it
/// (`""` for none).
///
/// What readers see is looked at afterwards. That the process ends by itself is a finding.
pub fn kill_at(lineage: &mut Lineage, world: &mut dyn World, point: Point, others: &str) -> Result<()> {
    world.feed()?;
    let mut process = lineage.start(&format!("{}=kill@{};{others}", point.name, point.hit))?;
    let at = || format!("application {}, {} hit {}", lineage.application(), point.name, point.hit);
    // Some points want more input than there was: more comes as long as the process lives.
    for _ in 0..LIMIT.as_secs() {
        match process.wait(Duration::from_secs(1)) {
            Ok(Ended::Killed) => return world.look().map_err(|finding| finding.at(at())),
            Ok(ended) => {
                return Err(Finding::new(format!("the process {ended}: {}", process.said())).at(at()));
            }
            Err(_) => world.feed()?,
        }
    }
    Err(Finding::new("the point was never hit").at(at()))
}

/// Kills at each of these points, the recovery points after a kill in the midst of a commit each, and lets a last process come
/// to the end.
pub fn sweep(lineage: &mut Lineage, world: &mut dyn World, points: &[Point], recovery: &[Point]) -> Result<()> {
    for point in points {
        kill_at(lineage, world, *point, "")?;
    }
    let in_doubt = Point { name: "after-commit", hit: 2 };
    for point in recovery {
        kill_at(lineage, world, in_doubt, "")?;
        kill_at(lineage, world, *point, "")?;
        // A recovery that was killed is recovered from.
        kill_at(lineage, world, *point, "")?;
    }
    lineage.finish(world)
}

impl Lineage {
    /// Lets a last process read all input, stops it gracefully, and judges what readers saw: in any case, as an output that
    /// does not come is judged best by what is missing in it.
    pub fn finish(&mut self, world: &mut dyn World) -> Result<()> {
        let mut process = self.start("")?;
        process.wait_ready(self.has_patience_for())?;
        let complete = process.wait_while_alive(self.has_patience_for(), "all output", || world.is_complete());
        process.terminate()?;
        let ended = process.wait(LIMIT)?;
        if ended != Ended::Well {
            return Err(Finding::new(format!("asked to stop, the process {ended}: {}", process.said())));
        }
        world.look()?;
        let judged = world.judge().and(complete);
        judged.map_err(|finding| finding.at(format!("after {} starts of {}", self.starts(), self.application())))
    }
}
