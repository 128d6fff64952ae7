//! The rows of the family in which a keyed operator keeps its times (docs/formats-state.md, "What a keyed operator keeps").

use serde::{Deserialize, Serialize};

/// A row of the family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Row {
    /// One a partition, once the operator has had its first batch.
    Begun(Begun),
    Chunk(Chunk),
}

/// That an operator has begun, and how far it has looked for keys that time out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// `None` without a timeout.
    pub(crate) timeout_ms: Option<u64>,
    /// Deadlines that one bucket holds.
    pub(crate) bucket_ms: u64,
    /// Of the buckets: a changed timeout schedules all keys anew.
    pub(crate) generation: u32,
    /// The batch up to which buckets have been looked at.
    pub(crate) checked_ms: u64,
}

/// Keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// In the first chunk of a bucket: how many there are after it.
    pub(crate) more: u32,
    /// In the first chunk: the earliest deadline of all.
    pub(crate) earliest_ms: u64,
    /// Each key as four bytes of length and its encoding.
    #[serde(with = "as_bytes")]
    pub(crate) keys: Vec<u8>,
}

/// The key of a row; its encoding is followed by that of the salt.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RowKey {
    Begun,
    Chunk { generation: u32, bucket: u64, chunk: u32 },
}

/// The keys in entries, in order.
pub(crate) fn keys(mut entries: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = entries.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        entries = rest;
        Some(key)
    })
}

/// Bytes as serde's bytes: as a `Vec<u8>` they would be read and measured one by one.
mod as_bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes)
    }

    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}
