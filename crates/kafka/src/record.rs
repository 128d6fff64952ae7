//! Records as decoders see them: a borrowed view, wherever the record lies.

use std::fmt;
use std::slice;

use millpond_core::source::{FedRecord, RefusedRecord};
use serde::{Deserialize, Serialize};

use crate::native;
use crate::source::content::StoredRecord;

/// A record of a topic, borrowed: nothing of it is copied before a decoder asks for it.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    rest: Rest<'a>,
}

/// What few decoders ask for is looked up when they do.
#[derive(Clone, Copy)]
enum Rest<'a> {
    Fetched(native::MessageView<'a>),
    Stored { timestamp_ms: Option<i64>, headers: &'a [(String, Option<Vec<u8>>)] },
}

impl<'a> RecordRef<'a> {
    pub(crate) fn fetched(topic: &'a str, partition: i32, message: native::MessageView<'a>) -> Self {
        let (offset, key, value) = (message.offset(), message.key(), message.value());
        RecordRef { topic, partition, offset, key, value, rest: Rest::Fetched(message) }
    }

    pub(crate) fn stored(topic: &'a str, partition: i32, record: &'a StoredRecord<'a>) -> Self {
        let rest = Rest::Stored { timestamp_ms: record.timestamp_ms, headers: &record.headers };
        RecordRef { topic, partition, offset: record.offset, key: record.key, value: record.value, rest }
    }

    /// A record that a test feeds in place of a received one.
    pub(crate) fn fed(record: &'a FedRecord, offset: i64) -> Self {
        let rest = Rest::Stored { timestamp_ms: i64::try_from(record.timestamp_ms).ok(), headers: &[] };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        RecordRef { topic: "fed", partition: 0, offset, key, value, rest }
    }

    /// The topic it was read from.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition of the topic.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Its offset in the partition. Gaps between offsets are normal.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value; `None` for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The record's time in milliseconds since the epoch, as its producer or the broker set it; `None` if it has none.
    pub fn timestamp_ms(&self) -> Option<i64> {
        match &self.rest {
            Rest::Fetched(message) => message.timestamp_ms(),
            Rest::Stored { timestamp_ms, .. } => *timestamp_ms,
        }
    }

    /// The headers in order. Names may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        match self.rest {
            Rest::Fetched(message) => Headers::Fetched(message.headers()),
            Rest::Stored { headers, .. } => Headers::Stored(headers.iter()),
        }
    }

    /// The value of the last header of this name; `None` if there is none, or it has no value.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(found, _)| *found == name).last()?.1
    }

    /// Copies everything.
    pub fn to_owned(&self) -> OwnedRecord {
        OwnedRecord {
            topic: self.topic.to_owned(),
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms(),
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: self.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        }
    }

    /// `orders, partition 3, offset 4711`.
    pub(crate) fn origin(&self) -> String {
        format!("topic {}, partition {}, offset {}", self.topic, self.partition, self.offset)
    }

    pub(crate) fn refused(&self, reason: String) -> RefusedRecord {
        let OwnedRecord { key, value, headers, .. } = self.to_owned();
        RefusedRecord { origin: self.origin(), reason, key, value, headers }
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRef")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("key", &self.key)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

enum Headers<'a> {
    Fetched(native::Headers<'a>),
    Stored(slice::Iter<'a, (String, Option<Vec<u8>>)>),
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Headers::Fetched(headers) => headers.next(),
            Headers::Stored(headers) => headers.next().map(|(name, value)| (&**name, value.as_deref())),
        }
    }
}

/// A record of a topic, copied whole: what [`KafkaSource::raw`](crate::KafkaSource::raw) gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnedRecord {
    /// The topic it was read from.
    pub topic: String,
    /// The partition of the topic.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Its time in milliseconds since the epoch, if it has one.
    pub timestamp_ms: Option<i64>,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}
