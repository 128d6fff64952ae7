//! How much memory decoded state takes: an estimate of what a value keeps on the heap, made by a
//! serializer that counts instead of writing, and the meter that all tables of a store share.

use crate::key::ALLOCATION_BYTES;
use serde::ser::{self, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes taken, summed over all tables and frozen changes of one store.
#[derive(Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces one part's last reported size by its present one.
    pub(crate) fn report(&self, last: &mut u64, now: u64) {
        // Wrapping: the sum over all parts is right whatever the order of the two halves.
        self.0.fetch_add(now.wrapping_sub(*last), Ordering::Relaxed);
        *last = now;
    }
}

/// An estimate of the bytes `value` keeps on the heap. Parts that lie inside the value itself are
/// counted too, so that it errs on the large side; what a container reserves and does not use is not.
pub(crate) fn heap_estimate<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut counter = Counter(0);
    // A type that serde refuses fails at its first encoding, with a proper error.
    let _ = value.serialize(&mut counter);
    counter.0
}

struct Counter(usize);

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value refused to be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Refused
    }
}

/// A string or vector in place: pointer, length, capacity.
const CONTAINER_BYTES: usize = 24;

macro_rules! fixed {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, _: $type) -> Result<(), Refused> {
            self.0 += size_of::<$type>();
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Counter {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Elements<'a>;
    type SerializeStructVariant = Elements<'a>;

    fixed!(
        serialize_bool: bool, serialize_char: char,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64,
    );

    fn serialize_str(self, text: &str) -> Result<(), Refused> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Refused> {
        self.0 += CONTAINER_BYTES + ALLOCATION_BYTES + bytes.len();
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.0 += 8;
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.0 += 8;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        self.0 += 8;
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.0 += 8;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, Refused> {
        self.0 += CONTAINER_BYTES + ALLOCATION_BYTES;
        Ok(Elements { counter: self, each: 0 })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Elements<'a>, Refused> {
        self.0 += 2 * CONTAINER_BYTES + ALLOCATION_BYTES;
        // A hash map keeps up to half of its places empty.
        Ok(Elements { counter: self, each: 16 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { counter: self, each: 0 })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { counter: self, each: 0 })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'a>, Refused> {
        self.0 += 8;
        Ok(Elements { counter: self, each: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Elements<'a>, Refused> {
        Ok(Elements { counter: self, each: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Elements<'a>, Refused> {
        self.0 += 8;
        Ok(Elements { counter: self, each: 0 })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a container; `each` is what the container adds to every one.
struct Elements<'a> {
    counter: &'a mut Counter,
    each: usize,
}

impl Elements<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.counter.0 += self.each;
        value.serialize(&mut *self.counter)
    }
}

macro_rules! elements {
    ($($trait:ident: $method:ident),* $(,)?) => {
        $(impl ser::$trait for Elements<'_> {
            type Ok = ();
            type Error = Refused;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.element(value)
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

elements!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Elements<'_> {
            type Ok = ();
            type Error = Refused;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Refused> {
                self.element(value)
            }
            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.element(value)
    }

    fn end(self) -> Result<(), Refused> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_not_below_the_bytes_taken() {
        assert_eq!(heap_estimate(&7_u64), 8);
        assert!(heap_estimate("0123456789") >= 10);
        let numbers: Vec<u64> = (0..100).collect();
        let bytes = heap_estimate(&numbers);
        assert!((800..=900).contains(&bytes), "{bytes}");
        let map: std::collections::HashMap<u64, u64> = (0..100).map(|n| (n, n)).collect();
        assert!(heap_estimate(&map) >= 1600 * 8 / 7);
    }

    #[test]
    fn the_meter_sums_parts_that_grow_and_shrink() {
        let meter = Meter::default();
        let (mut one, mut two) = (0, 0);
        meter.report(&mut one, 100);
        meter.report(&mut two, 50);
        meter.report(&mut one, 20);
        assert_eq!(meter.bytes(), 70);
    }
}
