//! What every implementation of the engine's traits must do, as functions that its own tests call.
//!
//! Each suite takes a harness: how to make the thing, how to make it again after a crash, how to look at what it did.
//! A crash is a drop without a word before it. The suites panic where the contract is broken, naming it.
//!
//! ```
//! use millpond::log::MemoryBatchLog;
//! use millpond_testkit::conformance::batch_log::{self, BatchLogHarness};
//!
//! struct InMemory(MemoryBatchLog);
//!
//! impl BatchLogHarness for InMemory {
//!     type Log = MemoryBatchLog;
//!     fn open(&mut self) -> MemoryBatchLog {
//!         self.0.clone()
//!     }
//! }
//!
//! batch_log::run(|| InMemory(MemoryBatchLog::new()));
//! ```
//!
//! The suite of [`SnapshotStore`](millpond_state::SnapshotStore) is [`snapshot_store`].

pub mod batch_log;
pub mod sink;
pub mod source;

pub use millpond_state::conformance::snapshot_store;

use std::hash::{BuildHasher, Hasher, RandomState};

/// Small random numbers that can be had again from their seed.
struct Random(u64);

impl Random {
    /// From `MILLPOND_SEED`, or from a seed of its own; prints it either way.
    fn new(what: &str) -> Self {
        let given = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("{what}: MILLPOND_SEED={seed}");
        Random(seed)
    }

    /// A number below `bound` (SplitMix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
