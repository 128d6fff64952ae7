//! Negative controls: implementations broken on purpose, which the suites must catch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use millpond_core::log::{BatchLog, Done, LogEntry, MemoryBatchLog};
use millpond_core::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond_core::source::{
    BlockId, Plan, PlanRequest, Queue, QueueSource, Replay, Source, SourcePartition, SourceStart,
};
use millpond_core::{BatchTime, Result};
use millpond_testkit::conformance::batch_log::{self, BatchLogHarness};
use millpond_testkit::conformance::sink::{self, SinkHarness};
use millpond_testkit::conformance::source::{self, SourceHarness};
use millpond_testkit::{CollectingSink, Collection};

/// Runs a suite that must fail, and returns what it said.
fn fails(suite: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(suite)).expect_err("a broken implementation passed");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"").to_string())
}

/// What is wrong with a sink.
#[derive(Clone, Copy)]
enum SinkFault {
    ForgetsItsCursor,
    CommitsWhatIsAborted,
    IsNotFenced,
    WritesAnEmptyBatchWithoutCursor,
}

struct BrokenSink {
    sink: CollectingSink,
    fault: SinkFault,
    written: bool,
    prepared: bool,
}

impl Sink for BrokenSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Transactional
    }
    fn describe(&self) -> String {
        "broken".into()
    }
    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.sink.peek(start)
    }
    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        match self.fault {
            SinkFault::ForgetsItsCursor => self.sink.fence(start).map(|_| None),
            _ => self.sink.fence(start),
        }
    }
    fn begin(&mut self, batch: BatchTime, positions: &[SourcePositions]) -> Result<()> {
        (self.written, self.prepared) = (false, false);
        self.sink.begin(batch, positions)
    }
    fn write(&mut self, records: Records) -> Result<()> {
        self.written |= !records.is_empty();
        self.sink.write(records)
    }
    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        self.prepared = true;
        self.sink.prepare(cursor)
    }
    fn commit(&mut self) -> Result<()> {
        match self.fault {
            SinkFault::WritesAnEmptyBatchWithoutCursor if !self.written => self.sink.abort(),
            SinkFault::IsNotFenced => self.sink.commit().or(Ok(())),
            _ => self.sink.commit(),
        }
    }
    fn abort(&mut self) -> Result<()> {
        match self.fault {
            SinkFault::CommitsWhatIsAborted if std::mem::take(&mut self.prepared) => self.sink.commit(),
            _ => self.sink.abort(),
        }
    }
}

struct BrokenSinkHarness(Collection, SinkFault);

impl SinkHarness for BrokenSinkHarness {
    type Sink = BrokenSink;
    fn open(&mut self) -> BrokenSink {
        BrokenSink { sink: self.0.sink(), fault: self.1, written: false, prepared: false }
    }
    fn visible(&mut self) -> Vec<Vec<u8>> {
        self.0.committed("out").into_iter().flat_map(|batch| batch.records).filter_map(|record| record.value).collect()
    }
}

#[test]
fn broken_sinks_are_caught() {
    let said = |fault| fails(|| sink::run(|| BrokenSinkHarness(Collection::new(), fault)));
    assert!(said(SinkFault::ForgetsItsCursor).contains("the cursor after the fence"));
    assert!(said(SinkFault::CommitsWhatIsAborted).contains("step 2"));
    assert!(said(SinkFault::IsNotFenced).contains("shut out has committed"));
    assert!(said(SinkFault::WritesAnEmptyBatchWithoutCursor).contains("the cursor after the fence"));
}

/// A log that loses its newest entry in a crash.
struct Forgetful(MemoryBatchLog, usize);

struct ForgetfulLog(MemoryBatchLog, usize);

impl BatchLogHarness for Forgetful {
    type Log = ForgetfulLog;
    fn open(&mut self) -> ForgetfulLog {
        self.1 += 1;
        ForgetfulLog(self.0.clone(), self.1)
    }
}

impl BatchLog for ForgetfulLog {
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()> {
        let mut all = Vec::new();
        self.0.recover(&mut |position, entry| {
            all.push((position, entry));
            Ok(())
        })?;
        if self.1 > 1 {
            all.pop();
        }
        all.into_iter().try_for_each(|(position, entry)| visit(position, entry))
    }
    fn append(&self, entry: &LogEntry) -> Result<BlockId> {
        self.0.append(entry)
    }
    fn submit(&self, entry: LogEntry, done: Done) {
        self.0.submit(entry, done);
    }
    fn read(&self, position: BlockId) -> Result<LogEntry> {
        self.0.read(position)
    }
    fn release(&self, position: BlockId) -> Result<()> {
        self.0.release(position)
    }
    fn end(&self) -> BlockId {
        self.0.end()
    }
    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[test]
fn a_log_that_forgets_is_caught() {
    let said = fails(|| batch_log::run(|| Forgetful(MemoryBatchLog::new(), 0)));
    assert!(said.contains("recovery gives all"), "{said}");
}

/// What is wrong with a source.
#[derive(Clone, Copy)]
enum SourceFault {
    StartsFromTheBeginning,
    LeavesOutARecordInAReplay,
    PlansAgainWhatItPlanned,
}

struct BrokenSource {
    source: QueueSource<u64>,
    fault: SourceFault,
    reads: usize,
    asked: u64,
}

impl Source for BrokenSource {
    type Item = u64;
    fn kind(&self) -> &'static str {
        "broken"
    }
    fn identity(&self) -> String {
        String::new()
    }
    fn replay(&self) -> Replay {
        Replay::ByPosition
    }
    fn start(&mut self, start: SourceStart) -> Result<()> {
        match self.fault {
            SourceFault::StartsFromTheBeginning => self.source.start(SourceStart { positions: None, ..start }),
            _ => self.source.start(start),
        }
    }
    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        match self.fault {
            SourceFault::PlansAgainWhatItPlanned => {
                self.asked += 1;
                self.source.plan(&PlanRequest { time: request.time + millpond_core::seconds(self.asked), ..*request })
            }
            _ => self.source.plan(request),
        }
    }
    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<u64>>>> {
        self.reads += 1;
        let mut partitions = self.source.read(plan)?;
        if matches!(self.fault, SourceFault::LeavesOutARecordInAReplay) && self.reads > 1 {
            partitions.pop();
        }
        Ok(partitions)
    }
    fn release(&mut self, _: BatchTime) {}
}

struct BrokenSourceHarness(Queue<u64>, SourceFault, u64);

impl SourceHarness for BrokenSourceHarness {
    type Source = BrokenSource;
    fn open(&mut self) -> BrokenSource {
        let source = QueueSource::one_at_a_time(&self.0).replayable();
        BrokenSource { source, fault: self.1, reads: 0, asked: 0 }
    }
    fn give(&mut self, count: usize) -> Vec<u64> {
        self.2 += count as u64;
        let numbers: Vec<u64> = (self.2 - count as u64..self.2).collect();
        numbers.chunks(5).for_each(|element| self.0.push(element.to_vec()));
        numbers
    }
}

#[test]
fn broken_sources_are_caught() {
    let said = |fault| fails(|| source::run(|| BrokenSourceHarness(Queue::new(), fault, 0)));
    assert!(said(SourceFault::StartsFromTheBeginning).contains("read twice"));
    assert!(said(SourceFault::LeavesOutARecordInAReplay).contains("count"));
    assert!(said(SourceFault::PlansAgainWhatItPlanned).contains("left == right"));
}
