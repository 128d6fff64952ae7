//! What the Kafka source and sink put into plans, positions, blocks and manifests.

use crate::check::{comes_back, stable, watched};
use crate::error::Result;
use crate::fields::Fields;
use crate::kafka::sink::remembered::Remembered;
use crate::kafka::source::content::{Place, append_record, begin_records, decode_records};
use crate::kafka::source::ranges::{Range, decode_ranges, encode_ranges};
use crate::plan::PartitionPosition;
use crate::position::{Position, TopicId, decode_all, parse_partition_name};

/// An owned record of a block.
type Stored = (i64, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

pub(super) fn run(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 8 {
        0 => stable(bytes, Position::decode, Position::encode),
        1 => stable(bytes, decode_ranges, |ranges| encode_ranges(ranges)),
        2 => stable(bytes, records, |records| block(records)),
        3 => stable(bytes, Place::decode, Place::encode),
        4 => stable(bytes, Remembered::decode, Remembered::encode),
        5 => {
            if let Ok(name) = std::str::from_utf8(bytes) {
                let _ = parse_partition_name(name);
                let position = PartitionPosition { partition: name.into(), position: bytes.to_vec() };
                let _ = watched(bytes, |_| decode_all(&[position]));
            }
        }
        6 => {
            let mut fields = Fields(bytes);
            let position = position(&mut fields);
            comes_back(&position, Position::decode, Position::encode);
            let (topic, partition) = (fields.text().replace('/', "."), (fields.u32() >> 1) as i32);
            let place =
                Place { topic, partition, from: offset(&mut fields), first: offset(&mut fields), after: position };
            comes_back(&place, Place::decode, Place::encode);
            let ranges = fields.list(|fields| {
                let (one, two) = (offset(fields), offset(fields));
                let (index, records, blocks) = (fields.u32(), fields.u64(), fields.u32());
                Range { index, start: one.min(two), end: one.max(two), records, blocks }
            });
            comes_back(&ranges, decode_ranges, |ranges| encode_ranges(ranges));
        }
        _ => {
            let mut fields = Fields(bytes);
            let mut remembered = Remembered::default();
            for _ in 0..fields.u8() % 4 {
                remembered.add(&fields.text(), &fields.text());
            }
            comes_back(&remembered, Remembered::decode, Remembered::encode);
            let made: Vec<Stored> = fields.list(|fields| {
                let headers = |fields: &mut Fields<'_>| (fields.text(), fields.option(Fields::bytes));
                let time = fields.option(offset);
                (offset(fields), time, fields.option(Fields::bytes), fields.option(Fields::bytes), fields.list(headers))
            });
            comes_back(&made, records, |records| block(records));
        }
    }
}

/// Neither offsets nor times have their highest bit set.
fn offset(fields: &mut Fields<'_>) -> i64 {
    (fields.u64() >> 1) as i64
}

fn position(fields: &mut Fields<'_>) -> Position {
    Position {
        cluster: fields.u64(),
        topic_id: TopicId(fields.fixed()),
        next: offset(fields),
        reached: fields.u8() & 1 == 1,
    }
}

fn records(payload: &[u8]) -> Result<Vec<Stored>> {
    let mut found = Vec::new();
    let count = decode_records(payload, |record| {
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        found.push((record.offset, record.timestamp_ms, own(record.key), own(record.value), record.headers.clone()));
        Ok(())
    })?;
    assert_eq!(count, found.len() as u64);
    Ok(found)
}

fn block(records: &[Stored]) -> Vec<u8> {
    let mut out = begin_records(records.len() as u32);
    for (offset, time, key, value, headers) in records {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        append_record(&mut out, *offset, *time, key.as_deref(), value.as_deref(), &headers);
    }
    out.into_bytes()
}
