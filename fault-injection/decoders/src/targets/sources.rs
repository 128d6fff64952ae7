//! What the embedded sources put into plans, positions and blocks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::bytes::{Reader, Writer};
use crate::check;
use crate::check::{comes_back, stable, watched, within};
use crate::error::Result;
use crate::fields::Fields;
use crate::log::{read_position, write_position};
use crate::plan::PartitionPosition;
use crate::source::files::plan::{self, Range};
use crate::source::files::progress::{Progress, describe};
use crate::source::queue_plan::{self, Taken};
use crate::source::receiver::payload::{Codec, append_raw};
use crate::source::receiver::sequences::{self, Givers};
use crate::source::{BlockId, Plan, RefusedRecord, SourceOutput, receiver};

/// The plans and positions of files.
pub(super) fn files(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 4 {
        0 => stable(bytes, plan::decode, |ranges| plan::encode(ranges)),
        1 => {
            let ranges = Fields(bytes).list(|fields| {
                fields.list(|fields| Range {
                    path: PathBuf::from(fields.text()),
                    size: fields.u64(),
                    mtime_ns: fields.u64(),
                    from: fields.u64(),
                    to: fields.u64(),
                    records: fields.u64(),
                })
            });
            comes_back(&ranges, plan::decode, |ranges| plan::encode(ranges));
        }
        2 => {
            let decode = |bytes: &[u8]| Progress::from_positions(&positions(bytes)?);
            stable(bytes, decode, |progress| encoded(&progress.positions()));
            for position in watched(bytes, positions).unwrap_or_default() {
                let _ = describe(&position);
            }
        }
        _ => {
            // One position alone, of the window or of a file.
            let partition = if bytes.first() == Some(&0) { "." } else { "/in/a.txt" };
            let position = PartitionPosition {
                partition: partition.into(),
                position: bytes.get(1..).unwrap_or_default().to_vec(),
            };
            let _ = describe(&position);
            let decode = |bytes: &[u8]| Progress::from_positions(&positions(bytes)?);
            stable(&encoded(&[position]), decode, |progress| encoded(&progress.positions()));
        }
    }
}

fn positions(bytes: &[u8]) -> Result<Vec<PartitionPosition>> {
    let mut bytes = Reader::new("positions", bytes);
    let positions = bytes.list(read_position)?;
    bytes.end()?;
    Ok(positions)
}

fn encoded(positions: &[PartitionPosition]) -> Vec<u8> {
    let mut out = Writer::new();
    out.list(positions, write_position);
    out.into_bytes()
}

/// Blocks, plans and positions of receivers, and the plans and positions of a queue.
pub(super) fn receivers(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 8 {
        0 => block(Codec::lines(), bytes),
        1 => block(Codec::<(u64, String)>::values(), bytes),
        2 => stable(bytes, sequences::decode, sequences::encode),
        3 => {
            let recover = |bytes: &[u8]| {
                let mut givers = Givers::Many(BTreeMap::new());
                givers.recover(&positions(bytes)?).map(|()| givers)
            };
            stable(bytes, recover, |givers| encoded(&givers.positions()));
        }
        4 => {
            let mut fields = Fields(bytes);
            let blocks = fields.list(Fields::block);
            let plan = Plan { read: fields.0.to_vec(), blocks, ..Plan::default() };
            if let Some(partitions) = watched(bytes, |_| receiver::plan::partitions(&plan)) {
                let counts: Vec<Vec<u64>> =
                    partitions.iter().map(|blocks| blocks.iter().map(|(_, records)| *records).collect()).collect();
                let again = Plan { read: receiver::plan::encode(&counts), ..plan };
                assert_eq!(receiver::plan::partitions(&again).expect("just encoded"), partitions);
            }
        }
        5 => stable(bytes, Taken::decode, |taken| taken.encode()),
        6 => {
            let decode = |bytes: &[u8]| {
                queue_plan::read_position(&PartitionPosition { partition: "queue".into(), position: bytes.to_vec() })
            };
            stable(bytes, decode, |&(queue, next)| queue_plan::position(queue, next).position);
        }
        _ => {
            let mut fields = Fields(bytes);
            let numbers = fields.list(|fields| (fields.text(), fields.u64())).into_iter().collect();
            comes_back(&numbers, sequences::decode, sequences::encode);
            let records: Vec<(u64, String)> = fields.list(|fields| (fields.u64(), fields.text()));
            let codec = Codec::values();
            let mut payload = codec.header().to_vec();
            records.iter().for_each(|record| codec.append(record, &mut payload).expect("far below the limit"));
            append_raw(b"the beginning", true, &mut payload);
            let mut out = Collected::default();
            let count = codec.decode("fuzz", BlockId([0; 16]), &payload, &mut out).expect("just encoded");
            assert_eq!((count, out.refused), (records.len() as u64 + 1, 1));
            assert_eq!(out.records, records);
        }
    }
}

/// What a block gave.
struct Collected<T> {
    records: Vec<T>,
    refused: u64,
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        Collected { records: Vec::new(), refused: 0 }
    }
}

impl<T> SourceOutput<T> for Collected<T> {
    fn records(&mut self, chunk: Vec<T>) -> Result<()> {
        self.records.extend(chunk);
        Ok(())
    }

    fn wants_refused(&self) -> bool {
        true
    }

    fn refused(&mut self, _record: RefusedRecord) -> Result<()> {
        self.refused += 1;
        Ok(())
    }

    fn skipped(&mut self, _count: u64) {}
}

/// A block, and what it holds written once more.
fn block<T: Clone + PartialEq + std::fmt::Debug>(codec: Codec<T>, bytes: &[u8]) {
    let decode = |bytes: &[u8]| {
        let mut out = Collected::default();
        let count = codec.decode("fuzz", BlockId([0; 16]), bytes, &mut out)?;
        assert_eq!(count, out.records.len() as u64 + out.refused);
        Ok::<_, crate::Error>(out.records)
    };
    // Chunks are handed over with room for 4096 records, and a text may be given the room it claims, as in the target `codec`.
    let limit = millpond_state::codec::VALUE_LIMIT_BYTES + (1 << 20) + 4 * check::FACTOR * bytes.len();
    let Some(records) = within(limit, bytes, decode) else { return };
    let mut again = codec.header().to_vec();
    records.iter().for_each(|record| codec.append(record, &mut again).expect("it was decoded"));
    assert_eq!(decode(&again).expect("just encoded"), records);
}
