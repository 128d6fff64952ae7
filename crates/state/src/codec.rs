//! The one codec: how users' values become bytes and come back, and how a key's bytes choose its
//! shard. bincode 2.0.1 (pinned: it has no successor), variable-length integers, a limit on what a
//! decoder may ask for. A key is its encoded bytes (hard case H15): its hash, its shard and its
//! place in the database all follow from them, never from the type's own `Eq` or `Hash`.

use crate::error::{Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes that one value may make a decoder read or reserve: 64 MiB. Longer values are refused
/// when they are encoded, so that nothing is stored that could not be read back.
pub const VALUE_LIMIT_BYTES: usize = 64 << 20;

/// The codec's number in every stored value: bincode 2, standard configuration.
pub(crate) const CODEC_BINCODE_2: u8 = 1;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<VALUE_LIMIT_BYTES>,
> = bincode::config::standard().with_limit::<VALUE_LIMIT_BYTES>();

/// Appends the encoding of `value` to `out`.
///
/// # Errors
/// [`ErrorKind::Codec`] if serde refuses the value or it is longer than [`VALUE_LIMIT_BYTES`];
/// `out` is then as it was.
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let outcome = bincode::serde::encode_into_writer(value, Appender(out), CONFIG);
    let length = out.len() - start;
    let error = match outcome {
        Ok(()) if length <= VALUE_LIMIT_BYTES => return Ok(()),
        Ok(()) => Error::new(
            ErrorKind::Codec,
            format!(
                "a value of type {} takes {length} bytes, more than the limit of {VALUE_LIMIT_BYTES}",
                std::any::type_name::<T>()
            ),
        ),
        Err(source) => Error::new(
            ErrorKind::Codec,
            format!("cannot encode a value of type {}: {source}", std::any::type_name::<T>()),
        ),
    };
    out.truncate(start);
    Err(error)
}

/// Encodes `value` into the first bytes of `out` and gives their number; `None` if they do not fit or serde refuses, with
/// zeros in `out` again.
#[inline]
pub(crate) fn encode_into<T: Serialize + ?Sized, const N: usize>(value: &T, out: &mut [u8; N]) -> Option<usize> {
    let mut place = Place { out, used: 0 };
    match bincode::serde::encode_into_writer(value, &mut place, CONFIG) {
        Ok(()) => Some(place.used),
        Err(_) => {
            *out = [0; N];
            None
        }
    }
}

/// Decodes a value that [`encode`] made; all of `bytes` must be used up.
///
/// # Errors
/// [`ErrorKind::Codec`] if the bytes are not an encoding of a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bincode::serde::decode_from_slice::<T, _>(bytes, CONFIG) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(Error::new(
            ErrorKind::Codec,
            format!(
                "a value of type {} decoded from {used} bytes, but {} were stored",
                std::any::type_name::<T>(),
                bytes.len()
            ),
        )),
        Err(source) => Err(Error::new(
            ErrorKind::Codec,
            format!("cannot decode a value of type {}: {source}", std::any::type_name::<T>()),
        )),
    }
}

/// Encodes `value`, decodes that, and encodes once more: both encodings must be equal. Types for
/// which they are not would be found out only at recovery (hard case H16).
///
/// # Errors
/// [`ErrorKind::Codec`], naming the type and the likely cause.
pub fn check_round_trip<T: Serialize + DeserializeOwned>(value: &T) -> Result<()> {
    let mut first = Vec::new();
    encode(value, &mut first)?;
    check_bytes_round_trip::<T>(&first)
}

/// As [`check_round_trip`], for a value that has been encoded already.
pub(crate) fn check_bytes_round_trip<T: Serialize + DeserializeOwned>(first: &[u8]) -> Result<()> {
    let decoded = decode::<T>(first).map_err(|error| unfit::<T>(&error.to_string()))?;
    let mut second = Vec::with_capacity(first.len());
    encode(&decoded, &mut second).map_err(|error| unfit::<T>(&error.to_string()))?;
    if second == first { Ok(()) } else { Err(unfit::<T>("it decodes to another value than was encoded")) }
}

fn unfit<T>(what: &str) -> Error {
    Error::new(
        ErrorKind::Codec,
        format!(
            "type {} cannot be kept: its encoding does not come back ({what}). Likely causes: \
             #[serde(untagged)], #[serde(flatten)], #[serde(skip_serializing_if)], an internally \
             tagged enum, or a field that holds any JSON value. Remove the attribute, or keep such a part as a String",
            std::any::type_name::<T>()
        ),
    )
}

/// The stable hash of a key: [`key_hash`] of its encoding.
///
/// # Errors
/// As [`encode`].
#[inline]
pub fn hash_of<K: Serialize + ?Sized>(key: &K) -> Result<u64> {
    Ok(key_hash(crate::key::KeyBytes::encode(key)?.as_bytes()))
}

/// The stable hash of an encoded key: xxh3, 64 bits, seed 0.
#[inline]
pub fn key_hash(encoded_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded_key)
}

/// The shard of a key with this hash: the top bits of the hash, scaled to `shards`.
#[inline]
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    // The product of a 32-bit and a 16-bit number shifted by 32 is below `shards`.
    (((hash >> 32) * u64::from(shards)) >> 32) as u16
}

/// The partition of a key with this hash: partitions are runs of neighbouring shards.
///
/// `partitions` must be between 1 and `shards`.
#[inline]
pub fn partition_of(hash: u64, shards: u16, partitions: usize) -> usize {
    usize::from(shard_of(hash, shards)) * partitions / usize::from(shards)
}

/// Lets bincode append to a vector without a detour over `std::io::Write`.
struct Appender<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Appender<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Lets bincode write to a place of a fixed size.
struct Place<'a, const N: usize> {
    out: &'a mut [u8; N],
    used: usize,
}

impl<const N: usize> bincode::enc::write::Writer for &mut Place<'_, N> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        let end = self.used + bytes.len();
        let place = self.out.get_mut(self.used..end).ok_or(bincode::error::EncodeError::UnexpectedEnd)?;
        place.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn values_come_back() {
        let value = (String::from("a"), Some(-3_i64), vec![1_u8, 2]);
        let mut bytes = vec![9];
        encode(&value, &mut bytes).unwrap();
        assert_eq!(bytes[0], 9, "encode appends");
        assert_eq!(decode::<(String, Option<i64>, Vec<u8>)>(&bytes[1..]).unwrap(), value);
    }

    #[test]
    fn trailing_and_missing_bytes_are_errors() {
        assert_eq!(decode::<u8>(&[1, 2]).unwrap_err().kind(), ErrorKind::Codec);
        assert_eq!(decode::<(u8, u8)>(&[1]).unwrap_err().kind(), ErrorKind::Codec);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_reserved() {
        // A string that claims 2^62 bytes.
        let bytes = [253, 0, 0, 0, 0, 0, 0, 0, 0x40];
        assert_eq!(decode::<String>(&bytes).unwrap_err().kind(), ErrorKind::Codec);
    }

    #[derive(Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        b: u8,
    }

    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: std::collections::BTreeMap<String, u8>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
    }

    #[test]
    fn h16_types_that_do_not_come_back_are_refused_by_name() {
        let skips = check_round_trip(&Skips { a: None, b: 7 }).unwrap_err();
        assert!(skips.to_string().contains("Skips"), "{skips}");
        assert!(skips.to_string().contains("skip_serializing_if"), "{skips}");
        let untagged = check_round_trip(&Untagged::Text("x".into())).unwrap_err();
        assert_eq!(untagged.kind(), ErrorKind::Codec);
        assert!(untagged.to_string().contains("untagged"), "{untagged}");
        assert!(check_round_trip(&Untagged::Number(1)).is_err());
        let inner = [("k".to_string(), 1)].into();
        assert_eq!(check_round_trip(&Flat { inner }).unwrap_err().kind(), ErrorKind::Codec);
        check_round_trip(&(1_u8, "fine".to_string())).unwrap();
    }

    #[test]
    fn h15_keys_that_differ_in_bytes_are_different_keys() {
        let bytes = |value: f64| {
            let mut out = Vec::new();
            encode(&value, &mut out).unwrap();
            out
        };
        assert_ne!(key_hash(&bytes(0.0)), key_hash(&bytes(-0.0)));
    }

    #[test]
    fn the_hash_is_stable() {
        // Written down once: a change would move every key to another shard.
        assert_eq!(key_hash(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(key_hash(b"millpond"), key_hash(b"millpond"));
    }

    #[test]
    fn shards_and_partitions_cover_their_range_in_order() {
        assert_eq!(shard_of(0, 128), 0);
        assert_eq!(shard_of(u64::MAX, 128), 127);
        assert_eq!(shard_of(u64::MAX, u16::MAX), u16::MAX - 1);
        let mut seen = [false; 16];
        for shard in 0..128_u64 {
            let hash = shard << 57;
            assert_eq!(u64::from(shard_of(hash, 128)), shard);
            seen[partition_of(hash, 128, 16)] = true;
        }
        assert_eq!(seen, [true; 16]);
        assert_eq!(partition_of(u64::MAX, 128, 3), 2);
    }
}
