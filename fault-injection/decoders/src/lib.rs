//! Every decoder of bytes that come from disk or network, as targets of a fuzzer: [`TARGETS`].
//!
//! The modules that decode are those of the crates themselves, taken in by path: so the targets build without RocksDB and librdkafka, in
//! seconds, and with the instruments of a fuzzer. This crate therefore looks like `millpond-core` to them (`crate::bytes` is there where
//! they expect it), and to those of `millpond-kafka` like a crate `millpond_core`. The log needs no such thing: `millpond-wal` has no native part.
//!
//! What each target holds its decoder to, for any bytes:
//! - it does not panic, and neither do its errors when they are printed;
//! - it takes memory in proportion to what it is given ([`allocation`], [`check`]);
//! - what it decodes, it encodes to bytes that decode to the same, and encode to the same again;
//! - what a program can have made is decoded as it was ([`fields`]).
//!
//! `tests/replay.rs` runs the corpus and random mutations of it in `cargo test`; `make fuzz TARGET=cursor SECONDS=600` runs libFuzzer,
//! which looks for new ways through the code by what was covered.

// The tests of the modules it takes in run where those are at home.
#![cfg(not(test))]
#![allow(dead_code, unreachable_pub, reason = "the modules serve the rest of their crates too")]

extern crate self as millpond_core;

pub mod allocation;
pub mod check;
pub mod fields;
mod targets;

pub use targets::{TARGETS, Target, target};

// What follows is the tree of `millpond-core`, as far as it decodes.

#[path = "../../../crates/core/src/bytes.rs"]
pub mod bytes;
#[path = "../../../crates/core/src/chunk.rs"]
mod chunk;
#[path = "../../../crates/core/src/error.rs"]
mod error;
#[path = "../../../crates/core/src/plan.rs"]
mod plan;
#[path = "../../../crates/core/src/time.rs"]
mod time;

mod controls {
    pub(crate) const fn broken(_rule: &str) -> bool {
        false
    }
}

#[path = "../../../crates/core/src/engine"]
mod engine {
    pub(crate) mod manifest;
    pub(crate) mod note;
}

#[path = "../../../crates/core/src/log"]
mod log {
    pub(crate) mod entry;

    pub(crate) use entry::{read_position, write_position};
}

#[path = "../../../crates/core/src/rdd"]
mod rdd {
    pub(crate) mod save {
        pub(crate) mod chunks;
    }
}

#[path = "../../../crates/core/src/sink"]
mod sink {
    pub(crate) mod cursor;
    pub(crate) mod files {
        pub(crate) mod cursor_file;
        pub(crate) mod disk;
    }

    pub(crate) use cursor::Cursor;
    pub(crate) use files::disk;
}

/// Sources.
#[path = "../../../crates/core/src/source"]
pub mod source {
    pub(crate) mod files {
        pub(crate) mod listing;
        pub(crate) mod plan;
        pub(crate) mod progress;
    }
    mod output;
    pub(crate) mod queue_plan;
    pub(crate) mod receiver {
        pub(crate) mod payload;
        pub(crate) mod plan;
        pub(crate) mod sequences;
        mod ticket;
    }
    pub(crate) mod refusal;

    pub use crate::plan::{BlockId, PartitionPosition, Plan};
    pub use output::{FedRecord, RefusedRecord, SourceOutput};
}

#[path = "../../../crates/core/src/stream"]
mod stream {
    mod fingerprint;
    pub(crate) mod state {
        pub(crate) mod time_rows;
    }
    pub(crate) mod window {
        pub(crate) mod rows;
    }

    pub(crate) use fingerprint::Fingerprint;
}

pub use error::{BoxError, Error, ErrorKind, Result};
pub use time::BatchTime;

// And that of `millpond-kafka`.

#[path = "../../../crates/kafka/src/position.rs"]
mod position;

#[path = "../../../crates/kafka/src"]
mod kafka {
    pub(crate) mod sink {
        pub(crate) mod remembered;
    }
    pub(crate) mod source {
        pub(crate) mod content;
        pub(crate) mod ranges;
    }
}
