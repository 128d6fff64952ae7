//! Apache Kafka for Millpond: [`KafkaSource`] replays by offset, [`KafkaSink`] commits a batch's output, its cursor and the
//! offsets of its input in one transaction.
//!
//! Programs depend on the `millpond` crate, which re-exports what they need. No type of librdkafka stands in a public
//! signature.

mod client;
mod controls;
mod create;
mod decode;
mod error;
mod failpoint;
#[cfg(test)]
mod formats_tests;
pub mod inspect;
mod native;
mod position;
mod record;
mod settings;
#[doc(hidden)]
pub mod simulation;
mod sink;
mod source;

pub use decode::{Decode, DecodeWith, Json, Raw, Utf8};
pub use record::{OwnedRecord, RecordRef};
pub use sink::{KafkaSink, Partitioner};
pub use source::{KafkaRanges, KafkaSource, KafkaSourceMetrics, Lost, OffsetRange, StartingOffsets};
