//! A source whose records are a function of their numbers: input that costs next to nothing and can be had again, as
//! often as anybody asks. Also an example of a source that is not Millpond's own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use millpond::source::{
    PartitionPosition, Plan, PlanRequest, Replay, Source, SourceOutput, SourcePartition, SourceStart,
};
use millpond::{BatchTime, Error, ErrorKind, Result};

/// Records handed out at a time: few enough to stay in cache.
const CHUNK: u64 = 2048;

/// A backlog of records, made from their numbers, given out in batches of a set size.
pub(crate) struct Generated<F> {
    make: Arc<F>,
    /// The numbers of the batches' ends.
    ends: VecDeque<u64>,
    next: u64,
    partitions: u64,
    /// No more than so many batches are planned and not committed: a batch is not planned long before it is computed.
    ahead: usize,
    planned: VecDeque<BatchTime>,
    stopping: bool,
    /// From this number on nothing is planned before the gate is open.
    gate: Option<(u64, Arc<AtomicBool>)>,
    /// Told when the records up to the gate have been planned, and when the last one has.
    planned_up_to: Option<Sender<u64>>,
}

impl<T, F: Fn(u64) -> T> Generated<F> {
    /// Batches of these sizes, one after the other; `make` gives the record of a number. Each batch has `partitions` partitions.
    pub(crate) fn new(sizes: impl IntoIterator<Item = u64>, partitions: u64, make: F) -> Self {
        let mut end = 0;
        let ends = sizes.into_iter().map(|size| {
            end += size;
            end
        });
        Generated {
            make: Arc::new(make),
            ends: ends.collect(),
            next: 0,
            partitions,
            ahead: 2,
            planned: VecDeque::new(),
            stopping: false,
            gate: None,
            planned_up_to: None,
        }
    }

    /// Plans a batch at each batch time, however far computing is behind: none is empty before the last record.
    pub(crate) fn by_the_clock(mut self) -> Self {
        self.ahead = usize::MAX;
        self
    }

    /// Tells the number of records planned, when the last one has been planned, and before that when those up to the gate have.
    pub(crate) fn tell(mut self, planned_up_to: Sender<u64>) -> Self {
        self.planned_up_to = Some(planned_up_to);
        self
    }

    /// Holds everything from record `number` on back until `open` is set.
    pub(crate) fn hold_at(mut self, number: u64, open: Arc<AtomicBool>) -> Self {
        self.gate = Some((number, open));
        self
    }
}

/// So many records in batches of `batch`.
pub(crate) fn batches(records: u64, batch: u64) -> impl Iterator<Item = u64> {
    (0..records.div_ceil(batch)).map(move |n| batch.min(records - n * batch))
}

impl<T: Send + 'static, F: Fn(u64) -> T + Send + Sync + 'static> Source for Generated<F> {
    type Item = T;

    fn kind(&self) -> &'static str {
        "generated"
    }

    fn identity(&self) -> String {
        String::new()
    }

    fn replay(&self) -> Replay {
        Replay::ByPosition
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        if let Some(position) = start.positions.as_deref().and_then(<[_]>::first) {
            self.next = read_numbers(&position.position)?[0];
            while self.ends.front().is_some_and(|end| *end <= self.next) {
                self.ends.pop_front();
            }
        }
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        let from = self.next;
        let held = self.gate.as_ref().is_some_and(|(number, open)| from >= *number && !open.load(Ordering::Acquire));
        let room = self.stopping || self.planned.len() < self.ahead;
        if let Some(end) = self.ends.front().copied().filter(|_| room && !held) {
            self.ends.pop_front();
            self.next = end;
            self.planned.push_back(request.time);
            let at_gate = self.gate.as_ref().is_some_and(|(number, _)| end == *number);
            if let Some(planned_up_to) = self.planned_up_to.as_ref().filter(|_| at_gate || self.ends.is_empty()) {
                // Nobody listens: nobody minds.
                let _ = planned_up_to.send(end);
            }
        }
        let next = self.next.to_le_bytes();
        Ok(Plan {
            read: [from.to_le_bytes(), next].concat(),
            blocks: Vec::new(),
            positions: vec![PartitionPosition { partition: "numbers".into(), position: next.to_vec() }],
            records: self.next - from,
            watermark_ms: None,
        })
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
        let [from, to] = read_numbers(&plan.read)?[..] else { return Err(broken()) };
        let bound = |partition: u64| from + (to - from) * partition / self.partitions;
        let partition = |n: u64| {
            let numbers = bound(n)..bound(n + 1);
            Arc::new(Numbers { numbers, make: self.make.clone() }) as Arc<dyn SourcePartition<T>>
        };
        Ok((0..self.partitions).map(partition).collect())
    }

    fn release(&mut self, committed: BatchTime) {
        while self.planned.front().is_some_and(|time| *time <= committed) {
            self.planned.pop_front();
        }
    }

    fn stop_receiving(&mut self, _: std::time::Duration) -> Result<()> {
        self.stopping = true;
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        !self.ends.is_empty()
    }
}

fn read_numbers(bytes: &[u8]) -> Result<Vec<u64>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    if numbers.is_empty() || !rest.is_empty() {
        return Err(broken());
    }
    Ok(numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
}

fn broken() -> Error {
    Error::new(ErrorKind::Restore, "a position or plan of generated records cannot be read")
}

/// A range of numbers.
struct Numbers<F> {
    numbers: Range<u64>,
    make: Arc<F>,
}

impl<T, F: Fn(u64) -> T + Send + Sync> SourcePartition<T> for Numbers<F> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut from = self.numbers.start;
        while from < self.numbers.end {
            let to = self.numbers.end.min(from + CHUNK);
            out.records((from..to).map(&*self.make).collect())?;
            from = to;
        }
        Ok(())
    }

    fn records(&self) -> u64 {
        self.numbers.end - self.numbers.start
    }
}

/// A number that looks random, from a counter (Steele, Lea and Flood's SplitMix64): a bijection.
#[inline]
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of record `n`: one of `keys`, uniformly; eight bytes that look random, as ids do.
#[inline]
pub(crate) fn uniform_key(n: u64, keys: u64) -> u64 {
    key(((u128::from(mix(n)) * u128::from(keys)) >> 64) as u64)
}

/// The key of this number.
#[inline]
pub(crate) fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_uniform_and_as_many_as_asked_for() {
        let mut counts = std::collections::HashMap::new();
        for n in 0..100_000 {
            *counts.entry(uniform_key(n, 100)).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 100);
        assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn batches_have_the_size_asked_for_and_the_last_one_the_rest() {
        assert_eq!(batches(25, 10).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(batches(20, 10).collect::<Vec<_>>(), [10, 10]);
    }
}
