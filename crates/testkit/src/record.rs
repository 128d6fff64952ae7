//! Records as tests see them: what was read with its place, and what is to be written.

use std::fmt;

/// A record read from a topic, or made from what another sink holds to be checked by an [`oracle`](crate::oracle).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// The partition it lies in.
    pub partition: i32,
    /// Its offset there. Gaps between offsets are normal: control records take offsets, compaction removes records.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers in order, names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// The key as text; empty without a key, bytes that are no UTF-8 replaced.
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The value as text; empty for a tombstone, bytes that are no UTF-8 replaced.
    pub fn value_text(&self) -> String {
        text(self.value.as_deref())
    }

    /// The last header of this name as text; `None` if there is none or it is no UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Whether two records are the same but for the place they lie in and their time.
    pub fn same_content(&self, other: &Record) -> bool {
        (&self.key, &self.value, &self.headers) == (&other.key, &other.value, &other.headers)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {:?}={:?}", self.partition, self.offset, self.key_text(), self.value_text())?;
        for (name, value) in &self.headers {
            write!(f, " {name}:{:?}", text(value.as_deref()))?;
        }
        Ok(())
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// A record to be written; made from its value, the rest is added.
///
/// ```
/// use millpond_testkit::Outgoing;
/// let record = Outgoing::value("1 espresso").key("card-7").header("n", "1").partition(0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outgoing {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Outgoing {
    /// A record with a value and no key.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Outgoing { value: Some(value.into()), ..Outgoing::default() }
    }

    /// A record without a value.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Outgoing::default().key(key)
    }

    /// Gives it a key. Without a partition of its own it goes where the Java client would send that key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Sends it to this partition whatever its key.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Its timestamp in milliseconds since 1970. Default: the time at which it is sent.
    pub fn timestamp_ms(mut self, timestamp: i64) -> Self {
        self.timestamp_ms = Some(timestamp);
        self
    }
}
