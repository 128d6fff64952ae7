//! Real processes killed with SIGKILL at every named point and at random: readers see every result exactly once.

mod bad_brokers;
mod bad_input;
mod chaos;
mod controls;
mod disk_damage;
mod disk_faults;
mod disk_power;
mod disk_sweep;
mod files;
mod groups;
mod hard_cases;
mod inside;
mod kafka;
mod late_cursor;
mod matrix;
mod model;
mod simulation;

use millpond_fault_injection::Dice;

/// A random seed, printed, or the one in `MILLPOND_SEED`.
fn seed() -> u64 {
    let chosen = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = chosen.unwrap_or_else(Dice::seed_of_now);
    println!("MILLPOND_SEED={seed}");
    seed
}

/// Not a test: what the processes run that the tests start and kill.
#[test]
fn victim() {
    millpond_fault_injection::victim::run_if_asked();
}
