//! Where a key stands in its partition, and keys that are looked up together.

use crate::error::Result;
use crate::key::KeyBytes;

/// The place of a key in a [`Partition`](crate::Partition), good until the task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub(crate) u32);

impl Slot {
    /// The slot as an index: dense, so that a task can keep things of its own beside it.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Keys to be looked up together, by [`Partition::slots`](crate::Partition::slots).
#[derive(Default)]
pub struct KeyBlock {
    pub(crate) keys: Vec<(u64, KeyBytes)>,
    pub(crate) found: Vec<Option<u32>>,
}

impl KeyBlock {
    /// How many keys are worth looking up together: what they touch stays in the first cache.
    pub const KEYS: usize = 128;

    /// Adds a key; `hash` is [`codec::key_hash`](crate::codec::key_hash) of its encoding.
    ///
    /// # Errors
    /// As [`codec::encode`](crate::codec::encode).
    #[inline]
    pub fn push<K: serde::Serialize + ?Sized>(&mut self, hash: u64, key: &K) -> Result<()> {
        self.keys.push((hash, KeyBytes::encode(key)?));
        Ok(())
    }

    /// Adds a key that is encoded already; `hash` is [`codec::key_hash`](crate::codec::key_hash) of it.
    #[inline]
    pub fn push_encoded(&mut self, hash: u64, key: &[u8]) {
        self.keys.push((hash, KeyBytes::new(key)));
    }

    /// Keys in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
