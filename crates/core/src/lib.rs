//! The engine of Millpond: batch time, `Rdd` and `DStream`, planning, recovery, the traits for
//! sources, sinks and the log, and the sources and sinks that need no server.
//!
//! Programs depend on the `millpond` crate, which re-exports what they need.

pub mod batch;
pub mod bytes;
mod chunk;
pub mod clock;
mod controls;
pub mod engine;
pub mod error;
mod exec;
pub mod failpoints;
pub mod inspect;
pub mod listen;
pub mod log;
mod plan;
pub mod rate;
pub mod rdd;
#[doc(hidden)]
pub mod simulation;
pub mod sink;
pub mod source;
pub mod stream;
pub mod testing;
pub mod time;

pub use batch::{BatchContext, Broadcast};
pub use engine::{Builder, ContextState, Progress, Running, StreamingContext};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use exec::{Accumulator, Speculation};
pub use rdd::Rdd;
pub use stream::{DStream, Graph, State, Values};
pub use time::{BatchTime, milliseconds, minutes, seconds};
