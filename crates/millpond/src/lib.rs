//! Stream processing with state, in a library that a service links in: discretized streams, exactly once through
//! `kill -9`.
//!
//! Input is cut into small batches; keyed state lives in RocksDB; sinks commit a batch's output in one transaction with its
//! position. Start with [`StreamingContext::builder`], and with the guide in the repository's `docs/`.

pub use millpond_core::*;

#[cfg(feature = "kafka")]
pub use millpond_kafka as kafka;

/// What most programs need.
pub mod prelude {
    pub use millpond_core::sink::{FileSink, at_least_once};
    pub use millpond_core::source::{FileSource, RefusedRecord};
    pub use millpond_core::{
        BatchContext, BatchTime, DStream, Graph, Rdd, Running, State, StreamingContext, Values, milliseconds, minutes,
        seconds,
    };
    #[cfg(feature = "kafka")]
    pub use millpond_kafka::{KafkaSink, KafkaSource};
    pub use std::time::Duration;
}

/// The examples of the README, which are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
