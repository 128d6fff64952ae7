//! What every target holds its decoder to.

use std::fmt::{Debug, Display};

use crate::allocation::peak_of;

/// Bytes that any decoder may take whatever it is given: buffers, messages of errors.
pub const FLAT_BYTES: usize = 64 << 10;
/// Bytes that a decoder may take for a byte of its input: a list of empty lists has four bytes on disk for each, 24 in memory, and room
/// to grow.
pub const FACTOR: usize = 32;

/// Decodes under watch: in memory as its input allows, with an error that can be printed.
///
/// # Panics
/// If it takes more.
pub fn watched<T, E: Display>(input: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, E>) -> Option<T> {
    within(FLAT_BYTES + FACTOR * input.len(), input, decode)
}

/// As [`watched`], with a limit on memory of its own.
///
/// # Panics
/// If it takes more.
pub fn within<T, E: Display>(limit: usize, input: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, E>) -> Option<T> {
    let (decoded, peak) = peak_of(|| decode(input).map_err(|error| error.to_string()));
    assert!(peak <= limit, "{peak} bytes of memory for {} bytes of input, the limit is {limit}", input.len());
    decoded.ok()
}

/// What is decoded comes back from its own encoding, which does not change any more.
///
/// # Panics
/// If it does not.
pub fn stable<T: PartialEq + Debug, E: Display + Debug>(
    input: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Some(value) = watched(input, &decode) {
        comes_back(&value, decode, encode);
    }
}

/// A value comes back from its encoding.
///
/// # Panics
/// If it does not.
pub fn comes_back<T: PartialEq + Debug, E: Display + Debug>(
    value: &T,
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let bytes = encode(value);
    let again = watched(&bytes, decode).unwrap_or_else(|| panic!("{value:?} is not decoded"));
    assert_eq!(&again, value);
    assert_eq!(encode(&again), bytes, "another encoding of {value:?}");
}

/// The bytes with their last four replaced by the CRC-32 of those before: else no fuzzer would come past a checksum.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes[..bytes.len().saturating_sub(4)].to_vec();
    sealed.extend(crc32fast::hash(&sealed).to_le_bytes());
    sealed
}
