//! What tests of a Millpond pipeline need: a real Kafka broker, readers of what it holds, and oracles that say whether
//! every result is there exactly once.

pub mod broker;
mod error;
mod kafka_reader;
mod live_reader;
pub mod oracle;
mod producer;
mod record;

pub use error::{Error, ErrorKind, Result};
pub use kafka_reader::{READ_LIMIT, read_committed, read_committed_within};
pub use live_reader::{Difference, LiveReader, LiveReading};
pub use producer::{Producer, Transaction};
pub use record::{Outgoing, Record};
