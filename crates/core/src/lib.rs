//! The engine of Millpond: batch time, `Rdd` and `DStream`, planning, recovery, the traits for
//! sources, sinks and the log, and the sources and sinks that need no server.
//!
//! Programs depend on the `millpond` crate, which re-exports what they need.

pub mod bytes;
pub mod clock;
pub mod error;
pub mod log;
pub mod sink;
pub mod source;
pub mod time;

pub use error::{BoxError, Error, ErrorKind, Result};
pub use time::{BatchTime, milliseconds, minutes, seconds};
