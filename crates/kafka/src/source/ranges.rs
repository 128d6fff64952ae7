//! The ranges of a plan, in bytes (docs/formats.md, "Plans of a Kafka source").
//!
//! A plan names each of its partitions once, in its positions; ranges refer to them by their place.

use millpond_core::Result;
use millpond_core::bytes::{Reader, Writer};

const VERSION: u8 = 1;

/// What a batch takes of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The place of the partition among the plan's positions.
    pub(crate) index: u32,
    /// Where the partition stood before.
    pub(crate) start: i64,
    /// One past the last record of the batch.
    pub(crate) end: i64,
    pub(crate) records: u64,
    /// How many blocks of the log hold them, if their content is logged.
    pub(crate) blocks: u32,
}

pub(crate) fn encode_ranges(ranges: &[Range]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.list(ranges, |out, range| {
        out.u32(range.index);
        out.u64(range.start as u64);
        out.u64(range.end as u64);
        out.u64(range.records);
        out.u32(range.blocks);
    });
    out.into_bytes()
}

pub(crate) fn decode_ranges(bytes: &[u8]) -> Result<Vec<Range>> {
    // The stretch of batches that no source gave anything to.
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new("the plan of a Kafka source", bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(reader.broken(&format!("version {version}, this program reads version {VERSION}")));
    }
    let ranges = reader.list(|reader| {
        let index = reader.u32()?;
        let (start, end) = (reader.u64()? as i64, reader.u64()? as i64);
        if start < 0 || end < start {
            return Err(reader.broken(&format!("a range from {start} to {end}")));
        }
        Ok(Range { index, start, end, records: reader.u64()?, blocks: reader.u32()? })
    })?;
    reader.end()?;
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_as_written() {
        let ranges = [
            Range { index: 0, start: 0, end: 4, records: 4, blocks: 0 },
            Range { index: 7, start: 1 << 40, end: (1 << 40) + 9, records: 2, blocks: 3 },
        ];
        assert_eq!(decode_ranges(&encode_ranges(&ranges)).ok().as_deref(), Some(&ranges[..]));
        let bytes = encode_ranges(&ranges);
        for length in 1..bytes.len() {
            assert!(decode_ranges(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn q7_a_range_that_ends_before_it_begins_is_an_error() {
        let ranges = [Range { index: 0, start: 5, end: 4, records: 0, blocks: 0 }];
        let error = decode_ranges(&encode_ranges(&ranges)).expect_err("5 to 4");
        assert!(error.to_string().contains("from 5 to 4"), "{error}");
    }
}
