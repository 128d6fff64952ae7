//! What was done to a lineage, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

/// Kills by place, and how long recoveries took.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// SIGKILLs by the failpoint they came at; `"random"` at no point.
    pub kills: BTreeMap<String, u64>,
    /// By recovery: the bytes of the checkpoints it found, and the time from the start of the process until it was live.
    pub recoveries: Vec<(u64, Duration)>,
}

impl Tally {
    /// Counts a kill at this place.
    pub fn kill(&mut self, place: &str) {
        *self.kills.entry(place.to_owned()).or_default() += 1;
    }

    /// All kills.
    pub fn kill_count(&self) -> u64 {
        self.kills.values().sum()
    }
}
