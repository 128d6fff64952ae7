//! Records in blocks of the log, when a source logs their content (docs/formats.md, "Blocks of a Kafka source").

use millpond_core::bytes::{Reader, Writer};
use millpond_core::{Error, ErrorKind, Result};

use crate::position::{Position, parse_partition_name, partition_name};

const VERSION: u8 = 1;

/// A record whose content was read from the log.
pub(crate) struct StoredRecord<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Begins the payload of a block that holds so many records.
pub(crate) fn begin_records(count: u32) -> Writer {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.u32(count);
    out
}

/// Appends a record to a payload.
pub(crate) fn append_record(
    out: &mut Writer,
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, Option<&[u8]>)],
) {
    out.u64(offset as u64);
    // No time is before the epoch to Kafka but -1, which is none.
    out.u64(timestamp_ms.unwrap_or(-1) as u64);
    write_option(out, key);
    write_option(out, value);
    out.list(headers, |out, (name, value)| {
        out.text(name);
        write_option(out, *value);
    });
}

fn write_option(out: &mut Writer, bytes: Option<&[u8]>) {
    out.u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        out.bytes(bytes);
    }
}

fn read_option<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>> {
    Ok(if reader.u8()? != 0 { Some(reader.bytes()?) } else { None })
}

/// Reads the payload of a block, a record at a time; gives how many there were.
pub(crate) fn decode_records<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&StoredRecord<'a>) -> Result<()>,
) -> Result<u64> {
    let mut reader = Reader::new("a block of a Kafka source", payload);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(reader.broken(&format!("version {version}, this program reads version {VERSION}")));
    }
    let count = reader.u32()?;
    for _ in 0..count {
        let offset = reader.u64()? as i64;
        let timestamp_ms = Some(reader.u64()? as i64).filter(|time| *time >= 0);
        let (key, value) = (read_option(&mut reader)?, read_option(&mut reader)?);
        let headers = reader.list(|reader| Ok((reader.text()?, read_option(reader)?.map(<[u8]>::to_vec))))?;
        each(&StoredRecord { offset, timestamp_ms, key, value, headers })?;
    }
    reader.end()?;
    Ok(u64::from(count))
}

/// What goes with a block: its partition, and how it joins what was logged before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Where the partition stood before: the end of the block before this one.
    pub(crate) from: i64,
    /// Its first record.
    pub(crate) first: i64,
    /// Where the partition stands after it.
    pub(crate) after: Position,
}

impl Place {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text(&partition_name(&self.topic, self.partition));
        out.u64(self.from as u64);
        out.u64(self.first as u64);
        out.rest(&self.after.encode());
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Place> {
        let mut reader = Reader::new("the place of a block of a Kafka source", bytes);
        let name = reader.text()?;
        let (topic, partition) = parse_partition_name(&name)?;
        let (from, first) = (reader.u64()? as i64, reader.u64()? as i64);
        Ok(Place { topic: topic.to_owned(), partition, from, first, after: Position::decode(reader.rest())? })
    }

    /// Whether it is what comes next in a partition that was fetched up to `fetched`.
    ///
    /// A block is logged again if one before it could not be: then the first copy stands before its predecessor in the log,
    /// and must not count.
    pub(crate) fn follows(&self, fetched: i64) -> bool {
        self.from <= fetched && fetched <= self.first
    }
}

/// The error of a block that holds another number of records than planned.
pub(crate) fn wrong_count(found: u64, planned: u64) -> Error {
    Error::new(ErrorKind::Restore, format!("blocks of the log hold {found} records where {planned} were planned"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::TopicId;

    #[test]
    fn places_come_back_as_written() {
        let after = Position { cluster: 1, topic_id: TopicId([2; 16]), next: 5, reached: true };
        let place = Place { topic: "a-b".into(), partition: 3, from: 1, first: 2, after };
        assert_eq!(Place::decode(&place.encode()).ok(), Some(place));
    }

    #[test]
    fn a_block_counts_only_behind_its_predecessor() {
        let after = Position { cluster: 1, topic_id: TopicId([2; 16]), next: 20, reached: true };
        let second = Place { topic: "t".into(), partition: 0, from: 10, first: 10, after };
        assert!(!second.follows(0), "its predecessor is not in the log");
        assert!(second.follows(10));
        assert!(!second.follows(20), "it has counted already");
        // Offsets 10 to 14 were lost and jumped over, which a plan may have said already.
        let behind_a_gap = Place { first: 15, ..second };
        assert!(behind_a_gap.follows(10) && behind_a_gap.follows(15));
    }

    #[test]
    fn a_cut_block_is_an_error() {
        let mut out = Writer::new();
        out.u8(VERSION);
        out.u32(1);
        out.u64(7);
        out.u64(1000);
        write_option(&mut out, Some(b"k"));
        write_option(&mut out, None);
        out.list(&[("h", Some(&b"v"[..]))], |out, (name, value)| {
            out.text(name);
            write_option(out, *value);
        });
        let bytes = out.into_bytes();
        let mut seen = 0;
        let whole = decode_records(&bytes, |record| {
            seen += 1;
            assert_eq!(
                (record.offset, record.timestamp_ms, record.key, record.value),
                (7, Some(1000), Some(&b"k"[..]), None)
            );
            assert_eq!(record.headers, [("h".to_owned(), Some(b"v".to_vec()))]);
            Ok(())
        });
        assert_eq!((whole.ok(), seen), (Some(1), 1));
        for length in 0..bytes.len() {
            assert!(decode_records(&bytes[..length], |_| Ok(())).is_err(), "{length} bytes");
        }
    }
}
