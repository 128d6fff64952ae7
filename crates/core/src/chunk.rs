//! How many records travel together.

/// Bytes of a chunk, about. Small enough for the first cache, and far below 64 KiB: whenever a piece of that size is given back, glibc
/// tidies up all that was freed before, which the next records then have to split again.
const BYTES: usize = 32 << 10;

/// How many records of a type travel together, about 32 KiB of them: so many a source hands over at once. At least 16, at most 2048.
///
/// ```
/// use millpond_core::source::chunk_len;
/// assert_eq!(chunk_len::<u64>(), 2048);
/// assert_eq!(chunk_len::<[u8; 64]>(), 512);
/// ```
pub const fn chunk_len<T>() -> usize {
    let size = if size_of::<T>() == 0 { 1 } else { size_of::<T>() };
    match BYTES / size {
        0..16 => 16,
        more @ 16..2048 => more,
        _ => 2048,
    }
}

/// Room for a chunk.
pub(crate) fn chunk<T>() -> Vec<T> {
    Vec::with_capacity(chunk_len::<T>())
}
