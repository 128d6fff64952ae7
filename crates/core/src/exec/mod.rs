//! Running the tasks of a batch: a pool of threads, tasks with what they stage, stages with retries.
//!
//! A *stage* is a set of tasks that need nothing of each other; what stands between stages is an
//! exchange ([`crate::rdd`]). A task that fails leaves nothing behind and is computed again from its lineage.

pub(crate) mod accumulator;
mod pool;
mod speculate;
mod stage;
mod task;

pub use accumulator::Accumulator;
pub(crate) use pool::Pool;
pub use speculate::Speculation;
pub(crate) use stage::{Executor, Stage, run_stages};
pub(crate) use task::{Effect, Task, panicked};
