//! A key's encoded bytes as a table entry holds them: in place up to 22 bytes, else on the heap.

/// Longest key that needs no allocation. With it a key takes 24 bytes.
const INLINE_BYTES: usize = 22;

#[derive(Clone)]
pub(crate) enum Key {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
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
            Key::Heap(bytes) => bytes.len() + crate::memory::ALLOCATION_BYTES,
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
}
