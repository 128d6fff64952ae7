//! The output of one task as a sink gets it: encoded records in one arena, with their digest.

use xxhash_rust::xxh3::Xxh3;

use super::Digest;

const ABSENT: u32 = u32::MAX;

/// Encoded records, in the order in which one task wrote them.
#[derive(Clone, Debug, Default)]
pub struct Records {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    headers: Vec<Header>,
    digest: Digest,
    /// The values before the encoder, where a test listens.
    pub(crate) values: Vec<serde_json::Value>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Span,
    value: Span,
    headers: (u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Header {
    name: Span,
    value: Span,
}

/// A part of the arena; `ABSENT` as its length: none.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: u32,
}

impl Span {
    const NONE: Span = Span { start: 0, len: ABSENT };

    fn of<'a>(&self, arena: &'a [u8]) -> Option<&'a [u8]> {
        (self.len != ABSENT).then(|| &arena[self.start..self.start + self.len as usize])
    }
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    records: &'a Records,
    entry: &'a Entry,
}

impl<'a> RecordView<'a> {
    /// The key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.entry.key.of(&self.records.arena)
    }

    /// The value, if it has one (none is a tombstone to Kafka).
    pub fn value(&self) -> Option<&'a [u8]> {
        self.entry.value.of(&self.records.arena)
    }

    /// The headers in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let (from, to) = self.entry.headers;
        let records = self.records;
        records.headers[from as usize..to as usize].iter().map(|header| {
            let name = header.name.of(&records.arena).unwrap_or_default();
            (std::str::from_utf8(name).unwrap_or_default(), header.value.of(&records.arena))
        })
    }
}

impl Records {
    /// No records.
    pub fn new() -> Self {
        Records::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordView<'_>> {
        self.entries.iter().map(|entry| RecordView { records: self, entry })
    }

    /// Their count and the sum of their hashes: does not depend on order.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Adds a record without headers.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut writer = self.record();
        if let Some(key) = key {
            writer = writer.key(key);
        }
        if let Some(value) = value {
            writer = writer.value(value);
        }
        writer.end();
    }

    /// Begins a record; it is added by [`RecordWriter::end`].
    pub fn record(&mut self) -> RecordWriter<'_> {
        let first_header = self.headers.len() as u32;
        RecordWriter {
            entry: Entry { key: Span::NONE, value: Span::NONE, headers: (first_header, first_header) },
            records: self,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        assert!(bytes.len() < ABSENT as usize, "a key, value or header of {} bytes: the limit is 4 GiB", bytes.len());
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    }
}

/// Writes one record into [`Records`].
#[derive(Debug)]
#[must_use = "a record is added by `end`"]
pub struct RecordWriter<'a> {
    records: &'a mut Records,
    entry: Entry,
}

impl RecordWriter<'_> {
    /// Sets the key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.entry.key = self.records.append(key.as_ref());
        self
    }

    /// Sets the value. A record without a value is a tombstone to Kafka.
    pub fn value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.entry.value = self.records.append(value.as_ref());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = Header { name: self.records.append(name.as_bytes()), value: self.records.append(value.as_ref()) };
        self.records.headers.push(header);
        self.entry.headers.1 += 1;
        self
    }

    /// Adds a header without a value.
    pub fn null_header(mut self, name: &str) -> Self {
        let header = Header { name: self.records.append(name.as_bytes()), value: Span::NONE };
        self.records.headers.push(header);
        self.entry.headers.1 += 1;
        self
    }

    /// Adds the record.
    pub fn end(self) {
        let entry = self.entry;
        let records = self.records;
        let hash = record_hash(RecordView { records, entry: &entry });
        records.digest.add(hash);
        records.entries.push(entry);
    }
}

/// The hash of a record: its parts with their lengths, so that no two records share their bytes.
fn record_hash(record: RecordView<'_>) -> u64 {
    let mut headers = record.headers();
    if headers.len() == 0 {
        // The common case without the streaming state: two short hashes, mixed.
        let key = record.key().map_or(0x9e37_79b9_7f4a_7c15, |key| xxhash_rust::xxh3::xxh3_64_with_seed(key, 1));
        return record.value().map_or(!key, |value| xxhash_rust::xxh3::xxh3_64_with_seed(value, key));
    }
    let mut hasher = Xxh3::with_seed(2);
    let mut part = |bytes: Option<&[u8]>| {
        hasher.update(&bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hasher.update(bytes.unwrap_or_default());
    };
    part(record.key());
    part(record.value());
    headers.by_ref().for_each(|(name, value)| {
        part(Some(name.as_bytes()));
        part(value);
    });
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_order_and_tells_records_apart() {
        let digest = |pairs: &[(&str, &str)]| {
            let mut records = Records::new();
            for (key, value) in pairs {
                records.push(Some(key.as_bytes()), Some(value.as_bytes()));
            }
            records.digest()
        };
        assert_eq!(digest(&[("a", "1"), ("b", "2")]), digest(&[("b", "2"), ("a", "1")]));
        assert_ne!(digest(&[("a", "1"), ("b", "2")]), digest(&[("a", "2"), ("b", "1")]));
        assert_ne!(digest(&[("ab", "c")]), digest(&[("a", "bc")]));
        assert_ne!(digest(&[("a", "1")]), digest(&[("a", "1"), ("a", "1")]));
    }

    #[test]
    fn records_come_back_as_written() {
        let mut records = Records::new();
        records.push(None, Some(b"v"));
        records.record().key("k").value("w").header("batch", "12").null_header("n").end();
        records.push(Some(b""), None);
        let seen: Vec<_> = records.iter().map(|r| (r.key(), r.value(), r.headers().count())).collect();
        assert_eq!(
            seen,
            [(None, Some(&b"v"[..]), 0), (Some(&b"k"[..]), Some(&b"w"[..]), 2), (Some(&b""[..]), None, 0)]
        );
        let headers: Vec<_> = records.iter().nth(1).map(|r| r.headers().collect()).unwrap_or_default();
        assert_eq!(headers, [("batch", Some(&b"12"[..])), ("n", None)]);
    }
}
