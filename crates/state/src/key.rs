//! A key's encoded bytes as a table entry holds them: in place up to 22 bytes, else on the heap.

use serde::Serialize;

use crate::codec;
use crate::error::Result;

/// Longest key that needs no allocation. With it a key takes 24 bytes.
const INLINE_BYTES: usize = 22;

/// What an allocator adds to an allocation, about.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// A key as state knows it: its encoding by [`codec::encode`]. Two keys are equal if and only if their bytes are.
///
/// Takes 24 bytes, and memory of its own only above 22 bytes of encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    /// Zeros fill the rest.
    Inline {
        length: u8,
        bytes: [u8; INLINE_BYTES],
    },
    Heap(Box<[u8]>),
}

impl Default for KeyBytes {
    /// The encoding of nothing: no bytes.
    fn default() -> Self {
        KeyBytes(Place::Inline { length: 0, bytes: [0; INLINE_BYTES] })
    }
}

impl KeyBytes {
    /// A key that is encoded already.
    #[inline]
    pub fn new(key: &[u8]) -> Self {
        if key.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..key.len()].copy_from_slice(key);
            KeyBytes(Place::Inline { length: key.len() as u8, bytes })
        } else {
            KeyBytes(Place::Heap(key.into()))
        }
    }

    /// The encoding of `key`, made in place where it fits.
    ///
    /// # Errors
    /// As [`codec::encode`].
    #[inline]
    pub fn encode<K: Serialize + ?Sized>(key: &K) -> Result<Self> {
        let mut bytes = [0; INLINE_BYTES];
        match codec::encode_into(key, &mut bytes) {
            Some(length) => Ok(KeyBytes(Place::Inline { length: length as u8, bytes })),
            None => KeyBytes::encode_long(key),
        }
    }

    #[cold]
    fn encode_long<K: Serialize + ?Sized>(key: &K) -> Result<Self> {
        let mut bytes = Vec::with_capacity(64);
        codec::encode(key, &mut bytes)?;
        Ok(KeyBytes::new(&bytes))
    }

    /// Makes it the encoding of `key`, in place: where keys are gathered, a key that was made elsewhere and moved costs more than its
    /// encoding.
    ///
    /// # Errors
    /// As [`codec::encode`].
    #[inline]
    pub fn set<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<()> {
        if let Place::Inline { length, bytes } = &mut self.0 {
            *bytes = [0; INLINE_BYTES];
            if let Some(used) = codec::encode_into(key, bytes) {
                *length = used as u8;
                return Ok(());
            }
        }
        *self = KeyBytes::encode(key)?;
        Ok(())
    }

    /// The encoding.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Place::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Place::Heap(bytes) => bytes,
        }
    }

    /// Bytes on the heap, the allocator's own included.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Place::Inline { .. } => 0,
            Place::Heap(bytes) => bytes.len() + ALLOCATION_BYTES,
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
            let key = KeyBytes::new(&long[..length]);
            assert_eq!(key.as_bytes(), &long[..length]);
            assert_eq!(key.heap_bytes() == 0, length <= INLINE_BYTES);
        }
        assert_eq!(size_of::<KeyBytes>(), 24);
    }

    #[test]
    fn a_key_encoded_in_place_is_the_key_of_its_encoding() {
        for length in 0..100 {
            let text = "x".repeat(length);
            let mut encoded = Vec::new();
            codec::encode(&text, &mut encoded).unwrap();
            assert!(KeyBytes::encode(&text).unwrap() == KeyBytes::new(&encoded), "{length}");
            // What was there before must not count, nor what a failed try has left in the buffer.
            for before in ["", "a longer text", "a text that is too long to be kept in its place"] {
                let mut key = KeyBytes::encode(before).unwrap();
                key.set(&text).unwrap();
                assert!(key == KeyBytes::new(&encoded), "{length} after {before:?}");
            }
            assert_eq!(KeyBytes::encode(&text).unwrap().as_bytes(), encoded);
        }
        assert!(KeyBytes::new(b"a") != KeyBytes::new(b"a\0"));
    }
}
