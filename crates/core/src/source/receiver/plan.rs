//! What a batch takes from a receiver, as bytes in the plan (docs/formats.md, "Plans and positions of sources").

use super::super::{BlockId, Plan};
use crate::bytes::{Reader, Writer};
use crate::error::Result;

const VERSION: u8 = 1;

/// How many records each block has, by partition.
pub(crate) fn encode(partitions: &[Vec<u64>]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.list(partitions, |out, blocks| out.list(blocks, |out, records| out.u64(*records)));
    out.into_bytes()
}

/// The blocks of a plan with their records, by partition.
pub(crate) fn partitions(plan: &Plan) -> Result<Vec<Vec<(BlockId, u64)>>> {
    // The stretch of batches that no source gave anything to.
    if plan.read.is_empty() && plan.blocks.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = Reader::new("a plan of a receiver", &plan.read);
    match bytes.u8()? {
        VERSION => {}
        other => return Err(bytes.broken(&format!("version {other}, this program reads version {VERSION}"))),
    }
    let counts = bytes.list(|bytes| bytes.list(Reader::u64))?;
    bytes.end()?;
    if counts.iter().map(Vec::len).sum::<usize>() != plan.blocks.len() {
        return Err(bytes.broken("it does not fit its blocks"));
    }
    let mut blocks = plan.blocks.iter().copied();
    Ok(counts.into_iter().map(|counts| blocks.by_ref().zip(counts).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_whose_blocks_are_in_no_partition_is_damaged_and_not_empty() {
        assert_eq!(partitions(&Plan::default()).ok(), Some(Vec::new()));
        for read in [Vec::new(), encode(&[]), encode(&[vec![3, 4]])] {
            let plan = Plan { read, blocks: vec![BlockId([1; 16])], ..Plan::default() };
            assert!(partitions(&plan).is_err(), "{plan:?}");
        }
    }
}
