//! When the worker is killed: random, and the same again from the same seed.

use std::time::Duration;

use millpond::{Error, ErrorKind, Result};

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// So long after the process was started, wherever that finds it: mostly while it recovers.
    AfterStart(Duration),
    /// When it has committed so many batches, and so long after that.
    AfterBatches(u32, Duration),
}

/// All kills of a run.
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) kills: Vec<Kill>,
}

/// Batches that a worker may commit before it is killed.
const BATCHES: u64 = 6;
/// Batches that it may commit beyond, until it is noticed and killed.
const MORE_BATCHES: u32 = 4;
/// Batches that are left for the end.
const LAST_BATCHES: u32 = 20;

impl Schedule {
    pub(crate) fn new(seed: u64, kills: u32) -> Schedule {
        let mut random = Random(seed);
        let mut kill = || match random.below(4) {
            0 => Kill::AfterStart(Duration::from_millis(random.below(250))),
            _ => {
                let batches = 1 + random.below(BATCHES) as u32;
                Kill::AfterBatches(batches, Duration::from_micros(random.below(50_000)))
            }
        };
        Schedule { seed, kills: (0..kills).map(|_| kill()).collect() }
    }

    /// How many batches the input must make at least, so that it is not used up before the last kill.
    pub(crate) fn batches(&self) -> u64 {
        let batches = |kill: &Kill| match kill {
            Kill::AfterStart(_) => u64::from(MORE_BATCHES),
            Kill::AfterBatches(batches, _) => u64::from(batches + MORE_BATCHES),
        };
        self.kills.iter().map(batches).sum::<u64>() + u64::from(LAST_BATCHES)
    }
}

pub(crate) fn random_seed() -> Result<u64> {
    // Short enough to be typed again.
    getrandom::u32()
        .map(u64::from)
        .map_err(|error| Error::new(ErrorKind::Retry, format!("the system gives no random numbers: {error}")))
}

/// SplitMix64: small, and good enough to choose moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_kills_again_and_another_one_others() {
        assert_eq!(Schedule::new(7, 20).kills, Schedule::new(7, 20).kills);
        assert_ne!(Schedule::new(7, 20).kills, Schedule::new(8, 20).kills);
    }

    #[test]
    fn kills_come_during_recovery_and_during_batches() {
        let kills = Schedule::new(1, 100).kills;
        let early = kills.iter().filter(|kill| matches!(kill, Kill::AfterStart(_))).count();
        assert!((10..50).contains(&early), "{early} of 100 kills are timed by the start");
    }
}
