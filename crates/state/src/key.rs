//! A key's encoded bytes as a table entry holds them: in place up to 22 bytes, else on the heap.

use serde::Serialize;

use crate::codec;
use crate::error::Result;

/// Longest key that needs no allocation. With it a key takes 24 bytes.
const INLINE_BYTES: usize = 22;

/// What an allocator adds to an allocation, about.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// Two keys are equal if and only if their bytes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// Zeros fill the rest.
    Inline {
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    Heap(Box<[u8]>),
}

impl Key {
    #[inline]
    pub(crate) fn new(key: &[u8]) -> Self {
        if key.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..key.len()].copy_from_slice(key);
            Key::Inline { length: key.len() as u8, bytes }
        } else {
            Key::Heap(key.into())
        }
    }

    /// The encoding of `key`, made in place where it fits.
    #[inline]
    pub(crate) fn encode<K: Serialize + ?Sized>(key: &K) -> Result<Self> {
        let mut bytes = [0; INLINE_BYTES];
        match codec::encode_into(key, &mut bytes) {
            Some(length) => Ok(Key::Inline { length: length as u8, bytes }),
            None => Key::encode_long(key),
        }
    }

    #[cold]
    fn encode_long<K: Serialize + ?Sized>(key: &K) -> Result<Self> {
        let mut bytes = Vec::with_capacity(64);
        codec::encode(key, &mut bytes)?;
        Ok(Key::new(&bytes))
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Key::Heap(bytes) => bytes,
        }
    }

    /// Bytes on the heap, the allocator's own included.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Key::Inline { .. } => 0,
            Key::Heap(bytes) => bytes.len() + ALLOCATION_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_lengths_come_back() {
        let long: Vec<u8> = (0..=255).collect();
        for length in 0..long.len() {
            let key = Key::new(&long[..length]);
            assert_eq!(key.as_bytes(), &long[..length]);
            assert_eq!(key.heap_bytes() == 0, length <= INLINE_BYTES);
        }
        assert_eq!(size_of::<Key>(), 24);
    }

    #[test]
    fn a_key_encoded_in_place_is_the_key_of_its_encoding() {
        for length in 0..100 {
            let text = "x".repeat(length);
            let mut encoded = Vec::new();
            codec::encode(&text, &mut encoded).unwrap();
            assert!(Key::encode(&text).unwrap() == Key::new(&encoded), "{length}");
            // What a failed try has left in the buffer must not count.
            assert_eq!(Key::encode(&text).unwrap().as_bytes(), encoded);
        }
        assert!(Key::new(b"a") != Key::new(b"a\0"));
    }
}
