//! How the testkit replaces sources and sinks of a pipeline by name, without the pipeline knowing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::log::BatchLog;
use crate::sink::{Records, Sink};
use crate::source::{FedRecord, PartitionPosition, Plan, PlanRequest, Replay, SourceStart};
use crate::stream::{AnySource, Input, Replace, ReplaceSource};
use crate::time::BatchTime;

/// Makes the sink that stands in for the one of this name.
pub type ReplaceSink = Box<dyn Fn(&str) -> Option<Box<dyn Sink>> + Send>;

/// What a test replaces.
#[derive(Default)]
pub struct TestHooks {
    /// Where the records of replaced sources come from: every source, if given.
    pub feed: Option<Feed>,
    /// What stands in for sinks.
    pub sinks: Option<ReplaceSink>,
    /// What stands in for the log on disk.
    pub log: Option<Arc<dyn BatchLog>>,
}

impl std::fmt::Debug for TestHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TestHooks { feed, sinks, log } = self;
        write!(f, "TestHooks {{ feed: {}, sinks: {}, log: {} }}", feed.is_some(), sinks.is_some(), log.is_some())
    }
}

impl Replace {
    pub(crate) fn of(hooks: TestHooks) -> Replace {
        let TestHooks { feed, sinks, log: _ } = hooks;
        let keep_values = sinks.is_some();
        let source = feed.map(|feed| {
            let replace =
                move |source| Box::new(FedSource { source, feed: feed.clone(), planned: 0 }) as Box<dyn AnySource>;
            Box::new(replace) as ReplaceSource
        });
        let sink = sinks.map(|replace| {
            let replace = move |name: &str, sink| replace(name).unwrap_or(sink);
            Box::new(replace) as crate::stream::ReplaceSink
        });
        Replace { source, sink, keep_values }
    }
}

/// The records that tests feed to sources, by name. Clones share them, so that they outlive a crash.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    fed: Arc<Mutex<BTreeMap<String, Vec<FedRecord>>>>,
}

impl Feed {
    /// Nothing fed yet.
    pub fn new() -> Self {
        Feed::default()
    }

    /// Feeds records to the source of this name: the next batch holds them.
    pub fn feed(&self, source: &str, records: impl IntoIterator<Item = FedRecord>) {
        self.lock().entry(source.to_owned()).or_default().extend(records);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<FedRecord>>> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fed_to(&self, source: &str) -> usize {
        self.lock().get(source).map_or(0, Vec::len)
    }

    fn range(&self, source: &str, from: usize, to: usize) -> Vec<FedRecord> {
        self.lock().get(source).map_or_else(Vec::new, |records| records[from..to].to_vec())
    }
}

impl Records {
    /// The values before the encoder, as JSON: filled only where sinks are replaced by a test.
    pub fn values(&self) -> &[serde_json::Value] {
        &self.values
    }
}

/// A source whose records a test feeds; its decoder is the real one's.
struct FedSource {
    source: Box<dyn AnySource>,
    feed: Feed,
    planned: usize,
}

impl AnySource for FedSource {
    fn name(&self) -> &Arc<str> {
        self.source.name()
    }

    fn kind(&self) -> &'static str {
        "fed"
    }

    fn replay(&self) -> Replay {
        Replay::ByPosition
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        let number =
            |position: &PartitionPosition| position.position.as_slice().try_into().map(u64::from_le_bytes).ok();
        self.planned = start.positions.iter().flatten().find_map(number).unwrap_or(0) as usize;
        Ok(())
    }

    fn plan(&mut self, _: &PlanRequest) -> Result<Plan> {
        let (from, to) = (self.planned, self.feed.fed_to(self.name()));
        self.planned = to;
        let number = |n: usize| (n as u64).to_le_bytes();
        Ok(Plan {
            read: [number(from), number(to)].concat(),
            blocks: Vec::new(),
            positions: vec![PartitionPosition { partition: "fed".into(), position: number(to).to_vec() }],
            records: (to - from) as u64,
            watermark_ms: None,
        })
    }

    fn read(&mut self, plan: Option<&Plan>) -> Result<Input> {
        let Some(plan) = plan.filter(|plan| plan.records > 0) else { return self.source.read(None) };
        let mut read = crate::bytes::Reader::new("the plan of a fed source", &plan.read);
        let (from, to) = (read.u64()? as usize, read.u64()? as usize);
        self.source.feed(self.feed.range(self.name(), from, to))
    }

    fn release(&mut self, _: BatchTime) {}

    fn stop_receiving(&mut self, _: std::time::Duration) -> Result<()> {
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        self.feed.fed_to(self.name()) > self.planned
    }

    fn stop(&mut self) {}

    fn feed(&self, records: Vec<FedRecord>) -> Result<Input> {
        self.source.feed(records)
    }
}
