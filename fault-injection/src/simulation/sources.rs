//! The inputs of a simulated pipeline: one that can be read again by position, and one that hands records over once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millpond_core::bytes::{Reader, Writer};
use millpond_core::log::BlockLog;
use millpond_core::simulation::{Actor, Simulator};
use millpond_core::source::{
    BlockId, PartitionPosition, Plan, PlanRequest, Replay, Source, SourceOutput, SourcePartition, SourceStart,
};
use millpond_core::{BatchTime, Result};

use super::scheduler::Scheduler;

/// The input that can be read again: partitions of records, which outlive every process.
#[derive(Clone, Debug)]
pub(super) struct Input {
    partitions: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Input {
    /// So many partitions, empty.
    pub(super) fn new(partitions: usize) -> Self {
        Input { partitions: Arc::new(Mutex::new(vec![Vec::new(); partitions])) }
    }

    /// Adds a record.
    pub(super) fn push(&self, partition: usize, record: String) {
        self.lock()[partition].push(record);
    }

    /// All records, by partition.
    pub(super) fn all(&self) -> Vec<Vec<String>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<String>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records of an [`Input`].
pub(super) struct InputSource {
    input: Input,
    /// By partition, the next record.
    next: Vec<u64>,
}

impl InputSource {
    /// Not started.
    pub(super) fn new(input: &Input) -> Self {
        InputSource { next: vec![0; input.lock().len()], input: input.clone() }
    }
}

impl Source for InputSource {
    type Item = String;

    fn kind(&self) -> &'static str {
        "input"
    }

    fn identity(&self) -> String {
        String::new()
    }

    fn replay(&self) -> Replay {
        Replay::ByPosition
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        for (next, position) in self.next.iter_mut().zip(start.positions.iter().flatten()) {
            *next = Reader::new("a position", &position.position).u64()?;
        }
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        let input = self.input.lock();
        let mut read = Writer::new();
        let mut records = 0;
        for (next, partition) in self.next.iter_mut().zip(&*input) {
            let most = request.max_records.unwrap_or(u64::MAX);
            let end = (partition.len() as u64).min(next.saturating_add(most));
            read.u64(*next);
            read.u64(end);
            records += end - *next;
            *next = end;
        }
        let position = |(number, next): (usize, &u64)| PartitionPosition {
            partition: number.to_string(),
            position: next.to_le_bytes().to_vec(),
        };
        let positions = self.next.iter().enumerate().map(position).collect();
        Ok(Plan { read: read.into_bytes(), blocks: Vec::new(), positions, records, watermark_ms: None })
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<String>>>> {
        let mut read = Reader::new("a plan", &plan.read);
        let input = self.input.lock();
        let mut partitions: Vec<Arc<dyn SourcePartition<String>>> = Vec::new();
        for partition in &*input {
            let (from, to) = (read.u64()? as usize, read.u64()? as usize);
            partitions.push(Arc::new(Part(partition[from..to].to_vec())));
        }
        Ok(partitions)
    }

    fn release(&mut self, _: BatchTime) {}

    fn has_waiting(&self) -> bool {
        self.input.lock().iter().zip(&self.next).any(|(partition, next)| (partition.len() as u64) > *next)
    }
}

/// Records of one partition of a batch.
struct Part(Vec<String>);

impl SourcePartition<String> for Part {
    fn compute(&self, out: &mut dyn SourceOutput<String>) -> Result<()> {
        out.records(self.0.clone())
    }

    fn records(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Givers who push records, each until it is told that the record is durable, and what they were told.
#[derive(Clone, Debug, Default)]
pub(super) struct Givers(Arc<Mutex<Given>>);

#[derive(Debug, Default)]
struct Given {
    waiting: VecDeque<String>,
    acknowledged: Vec<String>,
    /// Pushed into a process that died or failed before it said whether it had them: never pushed again.
    in_doubt: Vec<String>,
}

impl Givers {
    /// Somebody wants to push a record.
    pub(super) fn push(&self, record: String) {
        self.lock().waiting.push_back(record);
    }

    /// Those that are durable, and those that nobody knows of.
    pub(super) fn told(&self) -> (Vec<String>, Vec<String>) {
        let given = self.lock();
        (given.acknowledged.clone(), given.in_doubt.clone())
    }

    /// Nobody wants to push anything.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source whose blocks are in the log before its givers hear of it: what a receiver is to the engine.
pub(super) struct PushedSource {
    givers: Givers,
    scheduler: Arc<Scheduler>,
    blocks: Option<BlockLog>,
    /// In the log and in no plan.
    unplanned: Arc<Mutex<Vec<BlockId>>>,
}

impl PushedSource {
    /// Not started.
    pub(super) fn new(givers: &Givers, scheduler: &Arc<Scheduler>) -> Self {
        let (givers, scheduler) = (givers.clone(), Arc::clone(scheduler));
        PushedSource { givers, scheduler, blocks: None, unplanned: Arc::default() }
    }

    fn unplanned(&self) -> MutexGuard<'_, Vec<BlockId>> {
        self.unplanned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one pushed record after the other to the log.
struct Logger {
    givers: Givers,
    blocks: BlockLog,
    unplanned: Arc<Mutex<Vec<BlockId>>>,
}

impl Actor for Logger {
    fn is_ready(&self) -> bool {
        !self.givers.lock().waiting.is_empty()
    }

    fn step(&mut self) -> bool {
        let Some(record) = self.givers.lock().waiting.pop_front() else { return true };
        // In doubt as long as nobody has said anything.
        self.givers.lock().in_doubt.push(record.clone());
        let logged = self.blocks.append(record.clone().into_bytes(), 1, Vec::new());
        let Ok(block) = logged else {
            // The log takes no more: the context is about to hear of it.
            return false;
        };
        self.unplanned.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        let mut given = self.givers.lock();
        given.in_doubt.pop();
        given.acknowledged.push(record);
        true
    }
}

impl Source for PushedSource {
    type Item = String;

    fn kind(&self) -> &'static str {
        "pushed"
    }

    fn identity(&self) -> String {
        String::new()
    }

    fn replay(&self) -> Replay {
        Replay::FromLog
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.unplanned().clone_from(&start.unplanned);
        let logger = Logger {
            givers: self.givers.clone(),
            blocks: start.blocks.clone(),
            unplanned: Arc::clone(&self.unplanned),
        };
        self.blocks = Some(start.blocks);
        self.scheduler.add("logger", Box::new(logger));
        Ok(())
    }

    fn plan(&mut self, _: &PlanRequest) -> Result<Plan> {
        let blocks = std::mem::take(&mut *self.unplanned());
        let records = blocks.len() as u64;
        let position = PartitionPosition { partition: "pushed".into(), position: vec![0] };
        Ok(Plan { read: Vec::new(), blocks, positions: vec![position], records, watermark_ms: None })
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<String>>>> {
        let Some(log) = &self.blocks else { return Ok(Vec::new()) };
        let record = |block: &BlockId| Ok(String::from_utf8_lossy(&log.read(*block)?.payload).into_owned());
        let records = plan.blocks.iter().map(record).collect::<Result<Vec<String>>>()?;
        Ok(vec![Arc::new(Part(records))])
    }

    fn release(&mut self, _: BatchTime) {}

    fn has_waiting(&self) -> bool {
        !self.unplanned().is_empty()
    }
}
