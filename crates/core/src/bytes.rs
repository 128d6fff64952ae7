//! Bytes written by hand: little-endian numbers, lengths before variable parts, bounds on everything read.

use crate::error::{Error, ErrorKind, Result};

/// The most elements of a list that is read back.
const MAX_LIST: usize = 1 << 24;

/// Builds a byte string.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Nothing yet.
    pub fn new() -> Self {
        Writer::default()
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes of a length both sides know.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A length of four bytes, then the bytes.
    ///
    /// # Panics
    /// Above 4 GiB.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("no part of an entry comes near 4 GiB");
        self.u32(length);
        self.fixed(bytes);
    }

    /// As [`bytes`](Writer::bytes), UTF-8.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Everything up to the end.
    pub fn rest(&mut self, bytes: &[u8]) {
        self.fixed(bytes);
    }

    /// A count of four bytes, then the elements.
    pub fn list<T>(&mut self, elements: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.u32(elements.len() as u32);
        for element in elements {
            write(self, element);
        }
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what a [`Writer`] wrote. Every step checks its bounds.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which should be `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { what, bytes, length: bytes.len() }
    }

    /// The error that says what is wrong and where.
    pub fn broken(&self, why: &str) -> Error {
        let at = self.length - self.bytes.len();
        Error::new(ErrorKind::Restore, format!("{} is damaged at byte {at} of {}: {why}", self.what, self.length))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.bytes.len() {
            return Err(self.broken(&format!("{count} bytes wanted, {} left", self.bytes.len())));
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    /// Bytes of a known length.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A length, then bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// A length, then UTF-8.
    pub fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.broken("a name is not UTF-8"))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// A count, then elements.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
        let count = self.u32()? as usize;
        // Every element takes at least a byte, so a damaged count cannot ask for memory that is not there.
        if count > MAX_LIST || count > self.bytes.len() {
            return Err(self.broken(&format!("a list of {count} elements")));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// None or one, written as a list.
    pub fn optional<T>(&mut self, read: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Option<T>> {
        let mut elements = self.list(read)?;
        match elements.len() {
            0 | 1 => Ok(elements.pop()),
            count => Err(self.broken(&format!("{count} elements, at most one wanted"))),
        }
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.broken(&format!("{} bytes too many", self.bytes.len()))) }
    }
}
