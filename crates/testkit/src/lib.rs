//! What tests of a Millpond pipeline need: a real Kafka broker, readers of what it holds, and oracles that say whether
//! every result is there exactly once.

pub mod broker;
pub mod chaos;
mod clock;
mod collecting;
pub mod conformance;
mod error;
mod kafka_reader;
mod live_reader;
pub mod oracle;
mod pond;
mod producer;
mod record;

pub use clock::ManualClock;
pub use collecting::{Collected, CollectedRecord, CollectingSink, Collection};
pub use error::{Error, ErrorKind, Result};
pub use kafka_reader::{READ_LIMIT, read_committed, read_committed_within};
pub use live_reader::{Difference, LiveReader, LiveReading};
pub use pond::{KeyValue, Output, TestPond};
pub use producer::{Producer, Transaction};
pub use record::{Outgoing, Record};

#[cfg(doctest)]
mod pages;
