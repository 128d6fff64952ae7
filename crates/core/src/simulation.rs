//! Running an engine in one thread, under a clock and a chance that a simulation rules. For our own tests.
//!
//! The simulation is a [`Simulator`]: the engine gives it its actors (driver, computing thread, committer, checkpoint writer) in
//! place of starting threads, and asks it where it would wait. What the actors do is the engine's own code. What a simulation
//! needs beside it is there already: the log's file system, the clock and the sinks are traits.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::{Builder, Running, StreamingContext};
use crate::error::Result;

/// A part of an engine that takes one step after the other.
pub trait Actor: Send {
    /// Whether there is something to do.
    fn is_ready(&self) -> bool;

    /// When there will be something to do, if nothing comes before.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does it; false if that was the last.
    fn step(&mut self) -> bool;
}

/// Who runs the actors.
pub trait Simulator: Send + Sync + 'static {
    /// Takes another actor in.
    fn add(&self, name: &str, actor: Box<dyn Actor>);

    /// Called by an actor that waits: runs others until `ready` says yes, or until this time. False if the time came first, or
    /// if nobody can do anything any more.
    fn wait(&self, ready: &dyn Fn() -> bool, until: Option<Instant>) -> bool;

    /// The time, which never goes back.
    fn now(&self) -> Instant;

    /// Random bytes for an id.
    fn random(&self, id: &mut [u8; 16]);
}

/// Lets a simulation run the context that is opened. Computing takes one thread, the simulation's; the state's database is a
/// map in memory that checkpoints to files, if `database_in_memory` says so.
pub fn simulate(builder: Builder, simulator: Arc<dyn Simulator>, database_in_memory: bool) -> Builder {
    builder.simulated(simulator, database_in_memory)
}

/// Gives the context to its simulator, as [`StreamingContext::start`] gives it to a thread, and does not wait for its recovery.
///
/// # Errors
/// None in a simulation.
pub fn begin(context: StreamingContext) -> Result<Running> {
    context.spawn()
}

/// Begins a graceful stop and does not wait for its end.
pub fn begin_graceful_stop(running: &Running) {
    running.ask_to_stop();
}
