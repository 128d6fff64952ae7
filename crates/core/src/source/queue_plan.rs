//! What a batch takes from a queue, as bytes in the plan, and where the queue stands (docs/formats.md, "Plans and positions of sources").

use super::PartitionPosition;
use crate::bytes::{Reader, Writer};
use crate::error::Result;

const VERSION: u8 = 1;

/// What a batch takes from a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) queue: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) default: bool,
    pub(crate) partitions: u32,
    pub(crate) records: u64,
}

impl Taken {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        for value in [self.queue, self.from, self.to, self.records] {
            out.u64(value);
        }
        out.u8(self.default.into());
        out.u32(self.partitions);
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut bytes = Reader::new("a plan of a queue", bytes);
        match bytes.u8()? {
            VERSION => {}
            other => return Err(bytes.broken(&format!("version {other}, this program reads version {VERSION}"))),
        }
        let (queue, from, to, records) = (bytes.u64()?, bytes.u64()?, bytes.u64()?, bytes.u64()?);
        let taken = Taken { queue, from, to, records, default: bytes.u8()? != 0, partitions: bytes.u32()? };
        bytes.end()?;
        Ok(taken)
    }
}

/// Where a queue stands: its id and the number of its next element.
pub(crate) fn position(queue: u64, next: u64) -> PartitionPosition {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.u64(queue);
    out.u64(next);
    PartitionPosition { partition: "queue".into(), position: out.into_bytes() }
}

/// Reads what [`position`] wrote.
pub(crate) fn read_position(position: &PartitionPosition) -> Result<(u64, u64)> {
    let mut bytes = Reader::new("a position of a queue", &position.position);
    match bytes.u8()? {
        VERSION => {}
        other => return Err(bytes.broken(&format!("version {other}, this program reads version {VERSION}"))),
    }
    let found = (bytes.u64()?, bytes.u64()?);
    bytes.end()?;
    Ok(found)
}
