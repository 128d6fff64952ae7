//! Records that the program itself puts in, from memory: for tests, examples and experiments.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::planned::PlannedBatches;
use super::queue_plan::{Taken, position, read_position};
use super::{Plan, PlanRequest, Replay, Source, SourceEvents, SourceOutput, SourcePartition, SourceStart};
use crate::chunk::chunk_len;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// Where the program puts records for a [`QueueSource`]. Clones are the same queue.
///
/// ```
/// use millpond_core::source::{Queue, QueueSource};
/// let queue = Queue::new();
/// let source = QueueSource::one_at_a_time(&queue);
/// queue.push(vec!["a", "b"]);
/// assert_eq!(queue.waiting(), 1);
/// ```
pub struct Queue<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    /// Tells this queue from one of an earlier process.
    id: u64,
    /// What was pushed and may still be read, the oldest with the number `first`.
    kept: VecDeque<Arc<Vec<T>>>,
    first: u64,
    /// The number of the next one that no batch has.
    next: u64,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let id = getrandom::u64().unwrap_or_default();
        Queue { inner: Arc::new(Mutex::new(Inner { id, kept: VecDeque::new(), first: 0, next: 0 })) }
    }

    /// Adds an element of the queue: the records of one batch, or some of those of one.
    pub fn push(&self, records: Vec<T>) {
        self.lock().kept.push_back(Arc::new(records));
    }

    /// Elements that no batch has taken.
    pub fn waiting(&self) -> usize {
        let inner = self.lock();
        (inner.end() - inner.next) as usize
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn get(&self, number: u64) -> Option<Arc<Vec<T>>> {
        self.kept.get(number.checked_sub(self.first)? as usize).cloned()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// The records of a [`Queue`].
///
/// A queue lives in memory, so a crash of the process loses what was not committed: [`Replay::None`], and refused for
/// exactly-once output. [`replayable`](QueueSource::replayable) is for tests in which only the context dies.
pub struct QueueSource<T> {
    queue: Queue<T>,
    one_at_a_time: bool,
    default: Option<Arc<Vec<T>>>,
    partitions: usize,
    replayable: bool,
    planned: PlannedBatches,
    /// After this number nothing is taken: receiving was stopped.
    end: Option<u64>,
    events: Option<SourceEvents>,
}

impl<T> QueueSource<T> {
    /// Each batch takes one element of the queue.
    pub fn one_at_a_time(queue: &Queue<T>) -> Self {
        QueueSource {
            queue: queue.clone(),
            one_at_a_time: true,
            default: None,
            partitions: 1,
            replayable: false,
            planned: PlannedBatches::default(),
            end: None,
            events: None,
        }
    }

    /// Each batch takes all waiting elements; each keeps its partitions.
    pub fn all_waiting(queue: &Queue<T>) -> Self {
        QueueSource { one_at_a_time: false, ..QueueSource::one_at_a_time(queue) }
    }

    /// What a batch gets when nothing waits; without it, nothing.
    pub fn default(mut self, records: Vec<T>) -> Self {
        self.default = Some(Arc::new(records));
        self
    }

    /// Divides each element into so many partitions, contiguous and of about the same length; default: 1.
    ///
    /// # Panics
    /// If `partitions` is 0.
    pub fn partitions(mut self, partitions: usize) -> Self {
        assert!(partitions > 0, "0 partitions");
        self.partitions = partitions;
        self
    }

    /// Keeps everything that was ever pushed, so that a context that is opened again with the same queue, in the same
    /// process, replays it: [`Replay::ByPosition`]. For tests: memory grows, and a new process stops with an error at a
    /// batch that has to be replayed.
    pub fn replayable(mut self) -> Self {
        self.replayable = true;
        self
    }
}

impl<T> fmt::Debug for QueueSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueSource").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> Source for QueueSource<T> {
    type Item = T;

    fn kind(&self) -> &'static str {
        "queue"
    }

    fn identity(&self) -> String {
        String::new()
    }

    fn replay(&self) -> Replay {
        if self.replayable { Replay::ByPosition } else { Replay::None }
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        if let Some(position) = start.positions.as_deref().and_then(<[_]>::first) {
            let (id, next) = read_position(position)?;
            let mut queue = self.queue.lock();
            if id == queue.id {
                // What an earlier context planned without its plan becoming durable is there to be planned again.
                queue.next = next.clamp(queue.first, queue.end());
            }
        } else {
            let mut queue = self.queue.lock();
            queue.next = queue.first;
        }
        self.planned = PlannedBatches::default();
        self.end = None;
        self.events = Some(start.events);
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        if let Some(plan) = self.planned.again(request.time)? {
            return Ok(plan);
        }
        let mut queue = self.queue.lock();
        let from = queue.next;
        let end = self.end.unwrap_or_else(|| queue.end());
        let mut records = 0;
        while queue.next < end && !(self.one_at_a_time && queue.next > from) {
            let count = queue.get(queue.next).map_or(0, |element| element.len() as u64);
            if queue.next > from && request.max_records.is_some_and(|max| records + count > max) {
                break;
            }
            records += count;
            queue.next += 1;
        }
        let to = queue.next;
        // After the last element has been handed over, a stop must not go on for ever with defaults.
        let default = self.default.as_ref().filter(|_| to == from && self.end.is_none());
        records += default.map_or(0, |default| default.len() as u64);
        let partitions = self.partitions as u32;
        let taken = Taken { queue: queue.id, from, to, default: default.is_some(), partitions, records };
        let positions = vec![position(queue.id, to)];
        drop(queue);
        let plan = Plan { read: taken.encode(), blocks: Vec::new(), positions, records, watermark_ms: None };
        self.planned.keep(request.time, &plan);
        Ok(plan)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
        if plan.read.is_empty() {
            return Ok(Vec::new());
        }
        let taken = Taken::decode(&plan.read)?;
        let elements = if taken.default {
            self.default.clone().map(|default| vec![default])
        } else {
            let queue = self.queue.lock();
            (taken.from..taken.to).map(|number| queue.get(number).filter(|_| taken.queue == queue.id)).collect()
        };
        let Some(elements) = elements else {
            let lost = Error::new(
                ErrorKind::Restore,
                format!("{} records of a queue were lost with the process that held them in memory", taken.records),
            );
            if self.replayable {
                return Err(lost);
            }
            if let Some(events) = &self.events {
                events.error(lost);
            }
            return Ok(Vec::new());
        };
        Ok(elements.iter().flat_map(|element| divide(element, taken.partitions as usize)).collect())
    }

    fn release(&mut self, committed: BatchTime) {
        let released = self.planned.release(committed);
        if self.replayable {
            return;
        }
        let Some(Ok(newest)) = released.last().map(|plan| Taken::decode(&plan.read)) else { return };
        let mut queue = self.queue.lock();
        let count = newest.to.saturating_sub(queue.first).min(queue.kept.len() as u64);
        queue.kept.drain(..count as usize);
        queue.first += count;
    }

    fn stop_receiving(&mut self, _: std::time::Duration) -> Result<()> {
        self.end = Some(self.queue.lock().end());
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        let queue = self.queue.lock();
        queue.next < self.end.unwrap_or_else(|| queue.end())
    }
}

/// Contiguous parts of about the same length.
fn divide<T: Clone + Send + Sync + 'static>(
    element: &Arc<Vec<T>>,
    partitions: usize,
) -> impl Iterator<Item = Arc<dyn SourcePartition<T>>> {
    (0..partitions).map(move |part| {
        let bound = |part: usize| part * element.len() / partitions;
        Arc::new(Part { element: Arc::clone(element), range: bound(part)..bound(part + 1) })
            as Arc<dyn SourcePartition<T>>
    })
}

struct Part<T> {
    element: Arc<Vec<T>>,
    range: std::ops::Range<usize>,
}

impl<T: Clone + Send + Sync> SourcePartition<T> for Part<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        self.element[self.range.clone()].chunks(chunk_len::<T>()).try_for_each(|chunk| out.records(chunk.to_vec()))
    }

    fn records(&self) -> u64 {
        self.range.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{collect, started, started_with};
    use super::*;
    use crate::source::SourceEvent;

    fn plan<T: Clone + Send + Sync + 'static>(source: &mut QueueSource<T>, time_ms: u64) -> Plan {
        let time = BatchTime::from_ms(time_ms);
        source.plan(&PlanRequest { time, interval: Duration::from_secs(1), max_records: None }).unwrap()
    }

    fn batch<T: Clone + Send + Sync + 'static>(source: &mut QueueSource<T>, time_ms: u64) -> Vec<T> {
        let plan = plan(source, time_ms);
        let records = collect(source, &plan).unwrap().records;
        assert_eq!(records.len() as u64, plan.records);
        records
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let taken = Taken { queue: 2, from: 3, to: 4, default: true, partitions: 5, records: 6 };
        let mut expected = vec![1];
        [2_u64, 3, 4, 6].iter().for_each(|value| expected.extend(value.to_le_bytes()));
        expected.extend([1, 5, 0, 0, 0]);
        assert_eq!(taken.encode(), expected);
        assert_eq!(Taken::decode(&expected).ok(), Some(taken));
        assert!((0..expected.len()).all(|length| Taken::decode(&expected[..length]).is_err()));
    }

    #[test]
    fn k3_one_at_a_time() {
        let queue = Queue::new();
        let mut source = started(QueueSource::one_at_a_time(&queue), None);
        let mut seen = Vec::new();
        for tick in 1..=6 {
            [2 * tick - 1, 2 * tick].iter().filter(|n| **n <= 5).for_each(|n| queue.push(vec![*n]));
            seen.push(batch(&mut source, tick * 1000));
        }
        assert_eq!(seen, [vec![1], vec![2], vec![3], vec![4], vec![5], vec![]]);
    }

    #[test]
    fn k4_all_at_once() {
        let queue = Queue::new();
        let mut source = started(QueueSource::all_waiting(&queue), None);
        (1..=3).for_each(|n| queue.push(vec![n]));
        assert_eq!(batch(&mut source, 1000), [1, 2, 3]);
        (4..=5).for_each(|n| queue.push(vec![n]));
        assert_eq!(batch(&mut source, 2000), [4, 5]);
    }

    #[test]
    fn k12_the_default_stands_in_for_nothing() {
        let queue = Queue::new();
        let mut source = started(QueueSource::one_at_a_time(&queue).default(vec![7]), None);
        assert_eq!(batch(&mut source, 1000), [7]);
        queue.push(vec![1]);
        assert_eq!(batch(&mut source, 2000), [1]);
        assert_eq!(batch(&mut source, 3000), [7]);
        let mut without = started(QueueSource::one_at_a_time(&Queue::<u32>::new()), None);
        assert_eq!(batch(&mut without, 1000), [0; 0]);
    }

    #[test]
    fn partitions_are_contiguous_halves() {
        let queue = Queue::new();
        let mut source = started(QueueSource::one_at_a_time(&queue).partitions(2), None);
        queue.push(vec![1, 2, 3, 4, 5]);
        let plan = plan(&mut source, 1000);
        let counts: Vec<_> = source.read(&plan).unwrap().iter().map(|partition| partition.records()).collect();
        assert_eq!(counts, [2, 3]);
    }

    #[test]
    fn what_is_committed_is_let_go_and_what_is_not_can_be_read_again() {
        let queue = Queue::new();
        let mut source = started(QueueSource::one_at_a_time(&queue), None);
        queue.push(vec![1]);
        queue.push(vec![2]);
        let (first, second) = (plan(&mut source, 1000), plan(&mut source, 2000));
        assert_eq!(collect(&mut source, &first).unwrap().records, [1]);
        source.release(BatchTime::from_ms(1000));
        assert_eq!(queue.lock().kept.len(), 1);
        assert_eq!(collect(&mut source, &second).unwrap().records, [2]);
    }

    #[test]
    fn a_replayable_queue_outlives_its_context() {
        let queue = Queue::new();
        let source = || QueueSource::one_at_a_time(&queue).replayable();
        assert_eq!(source().replay(), Replay::ByPosition);
        (1..=3).for_each(|n| queue.push(vec![n]));
        let mut first = started(source(), None);
        let one = plan(&mut first, 1000);
        plan(&mut first, 2000); // Never became durable.
        first.release(BatchTime::from_ms(2000));
        let mut second = started(source(), Some(one.positions.clone()));
        assert_eq!(collect(&mut second, &one).unwrap().records, [1]);
        assert_eq!(batch(&mut second, 2000), [2]);
        assert_eq!(batch(&mut second, 3000), [3]);
    }

    #[test]
    fn a_queue_of_an_earlier_process_is_not_taken_for_this_one() {
        let earlier = Queue::new();
        earlier.push(vec![1, 2]);
        let lost = plan(&mut started(QueueSource::one_at_a_time(&earlier), None), 1000);

        let queue = Queue::new();
        queue.push(vec![3]);
        let (sender, events) = std::sync::mpsc::channel();
        let mut source = started_with(QueueSource::one_at_a_time(&queue), Some(lost.positions.clone()), |start| {
            start.events = SourceEvents::new(move |event| drop(sender.send(event)));
        });
        assert_eq!(collect(&mut source, &lost).unwrap().records, [0; 0]);
        let SourceEvent::Error(error) = events.try_recv().unwrap() else { panic!("a lost batch is no fatal error") };
        assert!(error.to_string().contains("2 records of a queue were lost"), "{error}");
        assert_eq!(batch(&mut source, 2000), [3]);

        let mut replayable = started(QueueSource::one_at_a_time(&queue).replayable(), Some(lost.positions.clone()));
        assert_eq!(collect(&mut replayable, &lost).unwrap_err().kind(), ErrorKind::Restore);
    }

    #[test]
    fn after_stop_receiving_what_was_there_is_handed_over_and_no_more() {
        let queue = Queue::new();
        let mut source = started(QueueSource::one_at_a_time(&queue).default(vec![9]), None);
        queue.push(vec![1]);
        queue.push(vec![2]);
        source.stop_receiving(Duration::from_secs(10)).unwrap();
        queue.push(vec![3]);
        let mut seen = Vec::new();
        while source.has_waiting() {
            seen.push(batch(&mut source, 1000 * (seen.len() as u64 + 1)));
        }
        assert_eq!(seen, [vec![1], vec![2]]);
        assert_eq!(batch(&mut source, 9000), [0; 0]);
    }
}
