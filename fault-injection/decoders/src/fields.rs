//! Values made of the fuzzer's bytes, field by field: what a program can have made, as against what a disk can have made of it.

use crate::plan::{BlockId, PartitionPosition};
use crate::time::BatchTime;

/// Bytes that are used up from the front; when there are no more, everything is zero and empty.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Up to so many bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Exactly so many bytes.
    pub fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.fixed())
    }

    /// A number: small ones and those at the edges are frequent.
    pub fn u64(&mut self) -> u64 {
        match self.u8() {
            255 => u64::from_le_bytes(self.fixed()),
            254 => u64::MAX - u64::from(self.u8()),
            small => small.into(),
        }
    }

    /// As [`u64`](Self::u64).
    pub fn u32(&mut self) -> u32 {
        self.u64() as u32
    }

    /// A run of bytes.
    pub fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.u8());
        self.take(length).to_vec()
    }

    /// A text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Nothing, or something.
    pub fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.u8() & 1 == 1).then(|| make(self))
    }

    /// Some of a kind.
    pub fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.u8() % 9;
        (0..count).map(|_| make(self)).collect()
    }

    pub(crate) fn time(&mut self) -> BatchTime {
        BatchTime::from_ms(self.u64())
    }

    pub(crate) fn position(&mut self) -> PartitionPosition {
        PartitionPosition { partition: self.text(), position: self.bytes() }
    }

    pub(crate) fn block(&mut self) -> BlockId {
        BlockId(self.fixed())
    }
}
