//! The blocks of one source from the log to the batch: waiting, planned, released.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::planned::PlannedBatches;
use super::super::{BlockId, PartitionPosition, Plan, PlanRequest};
use super::plan::encode;
use super::sequences::Givers;
use crate::error::Result;
use crate::time::BatchTime;

/// Blocks share a partition of the batch up to so many bytes.
const PARTITION_BYTES: u64 = 256 << 10;

/// At most so many blocks a batch: a plan must fit into an entry of the log.
const BATCH_BLOCKS: usize = 100_000;

/// A durable block that no batch has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The position that its giver gave with it; empty for none.
    pub(crate) position: Vec<u8>,
}

/// Which blocks wait, which are planned, and the bytes of those that came in this process.
#[derive(Debug)]
pub(crate) struct Tracker {
    waiting: BTreeMap<BlockId, Waiting>,
    memory: HashMap<BlockId, Arc<[u8]>>,
    planned: PlannedBatches,
    /// Where the givers stand after the newest planned block.
    givers: Givers,
}

impl Tracker {
    pub(crate) fn new(givers: Givers) -> Self {
        Tracker { waiting: BTreeMap::new(), memory: HashMap::new(), planned: PlannedBatches::default(), givers }
    }

    /// Goes on after a restart, from the positions of the newest plan.
    pub(crate) fn recover(&mut self, positions: Option<&[PartitionPosition]>) -> Result<()> {
        self.waiting.clear();
        self.memory.clear();
        self.planned = PlannedBatches::default();
        self.givers.recover(positions.unwrap_or_default())
    }

    /// A block is durable. `payload` if it is in memory.
    pub(crate) fn add(&mut self, id: BlockId, block: Waiting, payload: Option<Arc<[u8]>>) {
        if let Some(payload) = payload {
            self.memory.insert(id, payload);
        }
        self.waiting.insert(id, block);
    }

    /// The plan of a batch: all that waits, in the order of the log, or as many whole blocks as the
    /// limit on records allows, one at least. A batch planned before gets the same plan.
    pub(crate) fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        if let Some(plan) = self.planned.again(request.time)? {
            return Ok(plan);
        }
        let mut plan = Plan::default();
        let mut partitions: Vec<Vec<u64>> = Vec::new();
        let mut partition_bytes = 0;
        while let Some(first) = self.waiting.first_entry() {
            let records = first.get().records;
            let full = request.max_records.is_some_and(|max| plan.records + records > max);
            if plan.blocks.len() == BATCH_BLOCKS || (full && !plan.blocks.is_empty()) {
                break;
            }
            let (id, block) = first.remove_entry();
            plan.blocks.push(id);
            plan.records += records;
            match partitions.last_mut() {
                Some(newest) if partition_bytes + block.bytes <= PARTITION_BYTES => newest.push(records),
                _ => {
                    partitions.push(vec![records]);
                    partition_bytes = 0;
                }
            }
            partition_bytes += block.bytes;
            self.givers.pass(block.position)?;
        }
        plan.read = if partitions.is_empty() { Vec::new() } else { encode(&partitions) };
        plan.positions = self.givers.positions();
        self.planned.keep(request.time, &plan);
        Ok(plan)
    }

    /// Forgets the blocks of committed batches; gives the bytes of memory that are free now.
    pub(crate) fn release(&mut self, committed: BatchTime) -> u64 {
        let released = self.planned.release(committed);
        let blocks = released.iter().flat_map(|plan| &plan.blocks);
        blocks.filter_map(|block| self.memory.remove(block)).map(|payload| payload.len() as u64).sum()
    }

    /// All bytes of memory, given up.
    pub(crate) fn clear_memory(&mut self) -> u64 {
        self.memory.drain().map(|(_, payload)| payload.len() as u64).sum()
    }

    pub(crate) fn payload(&self, block: BlockId) -> Option<Arc<[u8]>> {
        self.memory.get(&block).cloned()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The last planned number of each producer, where there are many givers.
    pub(crate) fn numbers(&self) -> Option<&BTreeMap<String, u64>> {
        match &self.givers {
            Givers::One(_) => None,
            Givers::Many(numbers) => Some(numbers),
        }
    }

    /// The giver's position after the newest durable block; `None` if it never gave one.
    pub(crate) fn last_position(&self) -> Option<Vec<u8>> {
        let newest = self.waiting.values().rev().map(|block| &block.position).find(|position| !position.is_empty());
        let planned = match &self.givers {
            Givers::One(position) => position,
            Givers::Many(_) => return None,
        };
        Some(newest.unwrap_or(planned).clone()).filter(|position| !position.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::plan::partitions;
    use super::*;

    fn id(n: u8) -> BlockId {
        BlockId([n; 16])
    }

    fn request(time: u64) -> PlanRequest {
        PlanRequest { time: BatchTime::from_ms(time), interval: Duration::from_secs(1), max_records: None }
    }

    fn add(tracker: &mut Tracker, numbers: std::ops::RangeInclusive<u8>) {
        for n in numbers {
            let block = Waiting { records: 10, bytes: 100, position: vec![n] };
            tracker.add(id(n), block, Some(vec![n; 100].into()));
        }
    }

    #[test]
    fn m2_a_plan_takes_what_waits_and_planning_again_changes_nothing() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        add(&mut tracker, 1..=5);
        let first = tracker.plan(&request(1000)).unwrap();
        assert_eq!(first.blocks, (1..=5).map(id).collect::<Vec<_>>());
        assert_eq!((first.records, &first.positions[0].position[..]), (50, &[5][..]));
        assert!(!tracker.is_waiting());
        let second = tracker.plan(&request(2000)).unwrap();
        assert_eq!((second.blocks.len(), second.records), (0, 0));
        assert_eq!(second.positions, first.positions, "an idle partition keeps its position");
        assert_eq!(tracker.plan(&request(1000)).unwrap(), first);
        add(&mut tracker, 6..=10);
        assert_eq!(tracker.plan(&request(2000)).unwrap(), second);
        assert!(tracker.is_waiting());
        assert_eq!(tracker.plan(&request(3000)).unwrap().blocks.len(), 5);
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        // docs/formats.md, "Plans and positions of sources": partitions, and the records of each block.
        let mut expected = vec![1, 2, 0, 0, 0, 2, 0, 0, 0];
        [5_u64, 6].iter().for_each(|records| expected.extend(records.to_le_bytes()));
        expected.extend([1, 0, 0, 0]);
        expected.extend(7_u64.to_le_bytes());
        assert_eq!(encode(&[vec![5, 6], vec![7]]), expected);
    }

    #[test]
    fn blocks_are_planned_in_the_order_of_the_log() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        for n in [3, 1, 2] {
            add(&mut tracker, n..=n);
        }
        assert_eq!(tracker.plan(&request(1000)).unwrap().blocks, [id(1), id(2), id(3)]);
    }

    #[test]
    fn a_limit_on_records_is_kept_by_whole_blocks_and_one_goes_always() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        add(&mut tracker, 1..=5);
        let limited = |time, max| PlanRequest { max_records: Some(max), ..request(time) };
        assert_eq!(tracker.plan(&limited(1000, 25)).unwrap().blocks.len(), 2);
        assert_eq!(tracker.plan(&limited(2000, 5)).unwrap().blocks.len(), 1);
    }

    #[test]
    fn small_blocks_share_a_partition() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        for n in 1..=5 {
            let block = Waiting { records: u64::from(n), bytes: PARTITION_BYTES / 2, position: vec![] };
            tracker.add(id(n), block, None);
        }
        let plan = tracker.plan(&request(1000)).unwrap();
        let expected = vec![vec![(id(1), 1), (id(2), 2)], vec![(id(3), 3), (id(4), 4)], vec![(id(5), 5)]];
        assert_eq!(partitions(&plan).unwrap(), expected);
    }

    #[test]
    fn memory_is_given_back_on_release() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        add(&mut tracker, 1..=2);
        tracker.plan(&request(1000)).unwrap();
        add(&mut tracker, 3..=3);
        assert!(tracker.payload(id(1)).is_some());
        assert_eq!(tracker.release(BatchTime::from_ms(1000)), 200);
        assert!(tracker.payload(id(1)).is_none() && tracker.payload(id(3)).is_some());
        assert_eq!(tracker.clear_memory(), 100);
    }

    #[test]
    fn the_last_position_is_that_of_the_newest_durable_block() {
        let mut tracker = Tracker::new(Givers::One(Vec::new()));
        assert_eq!(tracker.last_position(), None);
        add(&mut tracker, 1..=2);
        assert_eq!(tracker.last_position(), Some(vec![2]));
        let positions = tracker.plan(&request(1000)).unwrap().positions;
        tracker.recover(Some(&positions)).unwrap();
        assert_eq!(tracker.last_position(), Some(vec![2]));
    }
}
