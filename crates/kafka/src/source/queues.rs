//! What has been fetched and belongs to no batch yet, by partition, and how a plan takes of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millpond_core::log::Budget;
use millpond_core::source::{BlockId, PartitionPosition, Plan};
use millpond_core::{Error, ErrorKind, Result};

use super::ranges::{Range, encode_ranges};
use crate::native::Messages;
use crate::position::{Position, TopicId, partition_name};

/// A topic and a partition of it. Partitions of a batch are in this order.
pub(crate) type Key = (Arc<str>, i32);

/// Bytes taken from the budget of the context, given back when they are freed.
pub(crate) struct Lease {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Lease {
    pub(crate) fn new(budget: &Arc<Budget>, bytes: u64) -> Self {
        // What is fetched is in memory already; the fetcher looks for room before it fetches.
        budget.force(bytes);
        Lease { budget: Arc::clone(budget), bytes }
    }

    fn split(&mut self, bytes: u64) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease { budget: Arc::clone(&self.budget), bytes }
    }

    fn absorb(&mut self, mut other: Lease) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Records of one partition that follow each other.
pub(crate) struct Run {
    pub(crate) records: u64,
    /// One past the last record.
    pub(crate) end: i64,
    /// The block of the log that holds them, if their content is logged.
    pub(crate) block: Option<BlockId>,
    /// In memory; `None` for blocks that an earlier process logged.
    pub(crate) memory: Option<(Messages, Lease)>,
}

/// One partition.
pub(crate) struct PartitionQueue {
    pub(crate) topic_id: TopicId,
    pub(crate) cluster: u64,
    /// Everything before belongs to a batch.
    pub(crate) next: i64,
    /// Everything before has been fetched.
    pub(crate) fetched: i64,
    /// The end of what was pushed last: as `fetched`, but for what was lost and jumped over since.
    pub(crate) pushed: i64,
    /// See [`Position::reached`].
    pub(crate) reached: bool,
    /// The end of the partition, as the last response to a fetch told it: the lag beyond what has been fetched.
    pub(crate) high: i64,
    waiting: VecDeque<Run>,
    waiting_records: u64,
}

impl PartitionQueue {
    pub(crate) fn new(position: Position) -> Self {
        let Position { cluster, topic_id, next, reached } = position;
        PartitionQueue {
            cluster,
            topic_id,
            next,
            fetched: next,
            pushed: next,
            reached,
            high: next,
            waiting: VecDeque::new(),
            waiting_records: 0,
        }
    }

    pub(crate) fn waiting_records(&self) -> u64 {
        self.waiting_records
    }

    /// Offsets to its end: never less than what waits.
    fn lag(&self) -> u64 {
        u64::try_from(self.high - self.next).unwrap_or(0).max(self.waiting_records)
    }

    /// Adds what follows. Records that are not in a block of the log join the run before them.
    pub(crate) fn push(&mut self, run: Run) {
        self.fetched = run.end;
        self.pushed = run.end;
        self.waiting_records += run.records;
        if let (Some(Run { records, end, block: None, memory: Some((messages, lease)) }), None) =
            (self.waiting.back_mut(), run.block)
        {
            *records += run.records;
            *end = run.end;
            if let Some((more, more_lease)) = run.memory {
                messages.append(more);
                lease.absorb(more_lease);
            }
            return;
        }
        self.waiting.push_back(run);
    }

    /// Jumps over what is lost: reading goes on at `to`.
    pub(crate) fn jump(&mut self, to: i64) {
        if self.waiting.is_empty() {
            self.next = to;
        }
        self.fetched = to;
    }

    /// Forgets what no batch holds, and goes back to read it again.
    pub(crate) fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_records = 0;
        self.fetched = self.next;
        self.pushed = self.next;
    }

    /// Takes up to `limit` records, in order. A block of the log is taken whole.
    fn take(&mut self, limit: u64) -> Vec<Run> {
        let mut taken = Vec::new();
        let mut left = limit;
        while left > 0 {
            let Some(mut run) = self.waiting.pop_front() else { break };
            if run.records > left {
                if run.block.is_some() && !taken.is_empty() {
                    self.waiting.push_front(run);
                    break;
                }
                if run.block.is_none() {
                    let rest = split(&mut run, left as usize);
                    self.waiting.push_front(rest);
                }
            }
            left = left.saturating_sub(run.records);
            self.waiting_records -= run.records;
            taken.push(run);
        }
        taken
    }
}

/// Keeps the first `count` records of a run in memory, gives the rest.
fn split(run: &mut Run, count: usize) -> Run {
    let Some((messages, lease)) = &mut run.memory else { unreachable!("only runs in memory are split") };
    let rest = messages.split_off(count);
    let rest_lease = lease.split(rest.bytes());
    let rest = Run { records: rest.len() as u64, end: run.end, block: None, memory: Some((rest, rest_lease)) };
    run.records = count as u64;
    run.end = messages.last_offset().unwrap_or(run.end) + 1;
    rest
}

/// The messages that a plan has taken: of which partition, from which offset.
pub(crate) type Taken = Vec<(Key, i64, Held)>;

/// The runs that a batch took of one partition.
pub(crate) struct Held {
    pub(crate) runs: Vec<Run>,
}

/// What a batch may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of each partition, at most.
    pub(crate) most: Option<u64>,
    /// Of each partition that has so many, under a total.
    pub(crate) least: u64,
    /// Of all together: backpressure.
    pub(crate) total: Option<u64>,
}

/// All partitions of a source.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) partitions: BTreeMap<Key, PartitionQueue>,
    failure: Option<(ErrorKind, String)>,
    /// Blocks in the log that do not count: the next plan names them beside its own, else they would hold the log for ever.
    pub(crate) discarded: Vec<BlockId>,
    /// The most records of a partition that any plan has asked for lately: more of it need not be fetched ahead.
    pub(crate) asked_per_partition: Option<u64>,
}

impl Queues {
    /// Remembers why reading has ended; the first reason counts.
    pub(crate) fn fail(&mut self, error: &Error) {
        self.failure.get_or_insert_with(|| (error.kind(), error.to_string()));
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.partitions.values().any(|queue| !queue.waiting.is_empty())
    }

    /// Takes what belongs to the next batch.
    pub(crate) fn plan(&mut self, of_batch: &Limits) -> Result<(Plan, Taken)> {
        // What was fetched before is planned first; after it the reason stands in the way.
        if let (Some((kind, message)), false) = (&self.failure, self.has_waiting()) {
            return Err(Error::new(*kind, message.clone()));
        }
        let limits = self.limits(of_batch);
        self.asked_per_partition = [of_batch.most, of_batch.total].into_iter().flatten().min();
        let (mut plan, mut held, mut ranges) = (Plan::default(), Vec::new(), Vec::new());
        for (index, ((key, queue), limit)) in self.partitions.iter_mut().zip(limits).enumerate() {
            let runs = queue.take(limit);
            if let Some(last) = runs.last() {
                let (start, end) = (queue.next, last.end);
                let records = runs.iter().map(|run| run.records).sum();
                let blocks: Vec<_> = runs.iter().filter_map(|run| run.block).collect();
                ranges.push(Range { index: index as u32, start, end, records, blocks: blocks.len() as u32 });
                plan.blocks.extend(blocks);
                plan.records += records;
                queue.next = end;
                held.push((key.clone(), start, Held { runs }));
            }
            let PartitionQueue { cluster, topic_id, next, reached, .. } = *queue;
            plan.positions.push(PartitionPosition {
                partition: partition_name(&key.0, key.1),
                position: Position { cluster, topic_id, next, reached }.encode(),
            });
        }
        plan.blocks.append(&mut self.discarded);
        plan.read = encode_ranges(&ranges);
        Ok((plan, held))
    }

    /// How many records each partition may give. A limit on all is shared out by lag; what a partition cannot give of its share, for
    /// its maximum or because it has not been fetched, the others may.
    fn limits(&self, limits: &Limits) -> Vec<u64> {
        let most = limits.most.unwrap_or(u64::MAX);
        let can: Vec<u64> = self.partitions.values().map(|queue| queue.waiting_records.min(most)).collect();
        let Some(total) = limits.total.filter(|total| *total < can.iter().sum()) else { return can };
        let lags: Vec<u64> = self.partitions.values().map(PartitionQueue::lag).collect();
        let shares = share(&lags, lags.iter().sum(), total);
        let mut give: Vec<u64> = shares.iter().zip(&can).map(|(share, can)| *share.min(can)).collect();
        let left: Vec<u64> = can.iter().zip(&give).map(|(can, give)| can - give).collect();
        let unused = total - give.iter().sum::<u64>();
        let more = share(&left, left.iter().sum(), unused.min(left.iter().sum()));
        for ((give, more), can) in give.iter_mut().zip(more).zip(&can) {
            *give = (*give + more).max(limits.least.min(*can));
        }
        give
    }
}

/// Shares `total` out in proportion to `wanted`, whose sum is `sum`; what rounding leaves goes to the first that want more.
fn share(wanted: &[u64], sum: u64, total: u64) -> Vec<u64> {
    let part = |want: u64| (u128::from(want) * u128::from(total) / u128::from(sum.max(1))) as u64;
    let mut shares: Vec<u64> = wanted.iter().map(|want| part(*want)).collect();
    let mut left = total - shares.iter().sum::<u64>();
    for (share, want) in shares.iter_mut().zip(wanted) {
        if left > 0 && *share < *want {
            *share += 1;
            left -= 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_all_is_shared_out_by_what_waits() {
        assert_eq!(share(&[50, 50], 100, 20), [10, 10]);
        assert_eq!(share(&[90, 10, 0], 100, 10), [9, 1, 0]);
        assert_eq!(share(&[1, 1, 1], 3, 2), [1, 1, 0]);
        assert_eq!(share(&[7, 0], 7, 0), [0, 0]);
    }

    fn block(records: u64, end: i64, id: u8) -> Run {
        Run { records, end, block: Some(BlockId([id; 16])), memory: None }
    }

    fn queue() -> PartitionQueue {
        PartitionQueue::new(Position { cluster: 0, topic_id: TopicId::default(), next: 3, reached: true })
    }

    /// Lag and records fetched of each partition, and what it may give.
    fn limits(partitions: &[(i64, u64)], limits: Limits) -> Vec<u64> {
        let mut queues = Queues::default();
        for (index, &(lag, fetched)) in partitions.iter().enumerate() {
            let mut partition = queue();
            partition.high = partition.next + lag;
            if fetched > 0 {
                partition.push(block(fetched, partition.next + fetched as i64, 1));
            }
            queues.partitions.insert(("t".into(), index as i32), partition);
        }
        queues.limits(&limits)
    }

    #[test]
    fn p9_each_partition_gives_its_share_of_the_rate_by_lag_within_its_minimum_and_maximum() {
        // 100 records/s at most and batches of 100 ms.
        let most = Limits { most: Some(10), least: 1, total: None };
        assert_eq!(limits(&[(50, 50), (50, 50)], most), [10, 10]);
        let rate = |total| Limits { total: Some(total), ..most };
        assert_eq!(limits(&[(0, 0), (0, 0)], rate(10)), [0, 0]);
        assert_eq!(limits(&[(50, 50), (50, 50)], rate(10)), [5, 5]);
        assert_eq!(limits(&[(90, 50), (10, 10)], rate(10)), [9, 1]);
        // A share beyond the maximum goes to the others; nobody is left without its minimum.
        assert_eq!(limits(&[(900, 50), (100, 50)], rate(15)), [10, 5]);
        assert_eq!(limits(&[(10_000, 50), (1, 1)], rate(5)), [5, 1]);
        assert_eq!(limits(&[(10_000, 50), (10, 10)], Limits { least: 3, ..rate(5) }), [5, 3]);
        // What has not been fetched cannot be given.
        assert_eq!(limits(&[(10_000, 2), (10, 10)], Limits { most: None, ..rate(10) }), [2, 8]);
    }

    #[test]
    fn a_plan_goes_from_the_position_to_one_past_the_last_record() {
        let mut queues = Queues::default();
        let mut first = queue();
        first.push(block(2, 9, 1));
        queues.partitions.insert(("t".into(), 0), first);
        queues.partitions.insert(("t".into(), 1), queue());
        let (plan, held) = queues.plan(&Limits::default()).expect("a plan");
        assert_eq!((plan.records, plan.positions.len(), plan.blocks.len(), held.len()), (2, 2, 1, 1));
        let ranges = super::super::ranges::decode_ranges(&plan.read).expect("ranges");
        assert_eq!(ranges, [Range { index: 0, start: 3, end: 9, records: 2, blocks: 1 }]);
        let (empty, _) = queues.plan(&Limits::default()).expect("a plan");
        // Nothing came: nothing moves, and both positions are there all the same.
        assert_eq!((empty.records, empty.positions), (0, plan.positions));
    }

    #[test]
    fn blocks_are_taken_whole() {
        let mut one = queue();
        one.push(block(5, 8, 1));
        one.push(block(5, 13, 2));
        assert_eq!(one.take(1).len(), 1);
        assert_eq!(one.take(7).len(), 1);
        assert_eq!(one.take(7).len(), 0);
    }

    #[test]
    fn a_failure_is_told_after_what_came_before_it() {
        let mut queues = Queues::default();
        let mut first = queue();
        first.push(block(1, 4, 1));
        queues.partitions.insert(("t".into(), 0), first);
        queues.fail(&Error::new(ErrorKind::Restore, "gone"));
        assert_eq!(queues.plan(&Limits::default()).expect("what was fetched").0.records, 1);
        assert_eq!(queues.plan(&Limits::default()).err().map(|error| error.kind()), Some(ErrorKind::Restore));
    }
}
