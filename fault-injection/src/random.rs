//! Random numbers from a seed that can be printed, and kills at random times.

use std::time::Duration;

use crate::{Finding, Lineage, Result, World};

/// A generator of random numbers (xorshift64*): the same for the same seed on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        // Spread the bits: neighbouring seeds must not give like numbers, and 0 would stay 0.
        Dice((seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) | 1)
    }

    /// A seed that nobody chose.
    pub fn seed_of_now() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0_u8)
    }

    /// The next number below `limit`.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % limit
    }
}

/// Starts a process and kills it at a random moment of its first `within`; gives it input before. What readers see is looked at
/// afterwards. A process that ends by itself is a finding.
pub fn kill_at_random(lineage: &mut Lineage, world: &mut dyn World, dice: &mut Dice, within: Duration) -> Result<()> {
    world.feed()?;
    let mut process = lineage.start("")?;
    let after = Duration::from_micros(dice.below(within.as_micros() as u64));
    // The moment is the fault: this sleep waits for nothing.
    std::thread::sleep(after);
    process.kill()?;
    let at = || format!("kill {} of application {}, after {after:?}", lineage.starts(), lineage.application());
    match process.wait(crate::lineage::LIMIT)? {
        crate::Ended::Killed => world.look().map_err(|finding| finding.at(at())),
        ended => Err(Finding::new(format!("the process {ended}\n{}", lineage.log())).at(at())),
    }
}
