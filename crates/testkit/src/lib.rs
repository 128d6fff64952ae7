//! What tests of a Millpond pipeline need: a real Kafka broker, readers of what it holds, and oracles that say whether
//! every result is there exactly once.

pub mod broker;
mod error;

pub use error::{Error, ErrorKind, Result};
