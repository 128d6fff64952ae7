//! Kills, freezes, doubles and cuts off Millpond's own processes, and says whether readers saw every result exactly once.
//!
//! The machinery is that of users: [`millpond_testkit::chaos`]. Here is what it is used on: a process is this very program, started
//! again as a [`victim`], which runs one of the pipelines; a [`World`] stands around it, gives input, and knows what readers must see
//! ([`files`], [`kafka`], [`echoed`]); an [`Arena`] has both. [`points`] lists the failpoints.

pub mod arena;
pub mod controls;
pub mod damage;
pub mod disk_sweep;
pub mod echoed;
pub mod faults;
pub mod files;
pub mod kafka;
pub mod line_server;
mod lineage;
pub mod points;
pub mod recipe;
pub mod simulation;
mod state;
pub mod victim;
mod words;

pub use arena::Arena;
pub use lineage::{Lineage, SetupMut};
pub use millpond_testkit::chaos::{Dice, Ended, Finding, Process, Result, World, kill_at, kill_at_random, sweep};
pub use state::stored_counts;
pub use words::Words;
