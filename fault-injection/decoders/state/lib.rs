//! The modules of `millpond-state` that decode bytes, and nothing else of it: so they build in seconds, and with the instruments of a
//! fuzzer, without RocksDB.

#![allow(dead_code, unreachable_pub, reason = "the modules serve the rest of millpond-state too")]

#[path = "../../../crates/state/src/codec.rs"]
pub mod codec;
#[path = "../../../crates/state/src/error.rs"]
mod error;
#[path = "../../../crates/state/src/key.rs"]
mod key;
#[path = "../../../crates/state/src/rows.rs"]
mod rows;
#[path = "../../../crates/state/src/schema.rs"]
mod schema;

#[path = "../../../crates/state/src/snapshot"]
mod snapshot {
    pub mod manifest;
}

pub use error::{Error, ErrorKind, Result};
pub use schema::Schema;
pub use snapshot::manifest::{Manifest, OperatorRecord, SnapshotFile};

/// Takes a stored value apart into schema version and payload.
///
/// # Errors
/// Bytes that are no stored value.
pub fn split_stored(stored: &[u8]) -> Result<(u32, &[u8])> {
    rows::split_stored(stored)
}

/// A value as it is stored.
///
/// # Errors
/// A value that serde refuses.
pub fn encode_stored<V: serde::Serialize>(value: &V, schema_version: u32) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    rows::encode_stored(value, schema_version, &mut out).map(|()| out)
}
