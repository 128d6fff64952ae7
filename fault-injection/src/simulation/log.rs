//! The log as the oracle sees it: the engine's own, and what it has said is durable.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use millpond_core::Result;
use millpond_core::log::{BatchLog, Done, LocalBatchLog, LogEntry};
use millpond_core::source::BlockId;

use super::scheduler::Scheduler;

/// What a log has acknowledged, over all starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    /// The newest plan's last batch, in ms: P.
    pub(super) planned_ms: u64,
    /// Blocks that no plan has.
    blocks: BTreeSet<BlockId>,
}

/// A log that notes what it acknowledges, and checks that the next start finds it.
pub(super) struct WatchedLog {
    pub(super) log: LocalBatchLog,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) acknowledged: Arc<Mutex<Acknowledged>>,
    /// S, before which nothing of the log is needed.
    pub(super) snapshot_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl WatchedLog {
    fn note(&self, at: BlockId, entry: &LogEntry) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match entry {
            LogEntry::Plan(plan) => {
                acknowledged.planned_ms = plan.last.as_ms();
                for block in plan.sources.iter().flat_map(|source| &source.plan.blocks) {
                    acknowledged.blocks.remove(block);
                }
            }
            LogEntry::Block(_) => {
                acknowledged.blocks.insert(at);
            }
            LogEntry::Run(_) | LogEntry::SinkIntroduced(_) => {}
        }
    }
}

impl BatchLog for WatchedLog {
    fn recover(&self, visit: &mut dyn FnMut(BlockId, LogEntry) -> Result<()>) -> Result<()> {
        let mut found = Acknowledged { planned_ms: (self.snapshot_ms)(), ..Acknowledged::default() };
        let mut taken = BTreeSet::new();
        self.log.recover(&mut |at, entry| {
            match &entry {
                LogEntry::Plan(plan) => {
                    found.planned_ms = plan.last.as_ms();
                    taken.extend(plan.sources.iter().flat_map(|source| &source.plan.blocks).copied());
                }
                LogEntry::Block(_) => drop(found.blocks.insert(at)),
                _ => {}
            }
            visit(at, entry)
        })?;
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        if found.planned_ms < acknowledged.planned_ms {
            let (was, is) = (acknowledged.planned_ms, found.planned_ms);
            self.scheduler.broken(format!("the plan of batch {was} ms was acknowledged, the log ends at {is} ms"));
        }
        // A plan that was not acknowledged may be there all the same, and what it takes goes with it.
        acknowledged.blocks.retain(|block| !taken.contains(block));
        let lost: Vec<&BlockId> = acknowledged.blocks.difference(&found.blocks).collect();
        if !lost.is_empty() {
            self.scheduler.broken(format!("acknowledged blocks are not in the log: {lost:?}"));
        }
        acknowledged.planned_ms = found.planned_ms;
        Ok(())
    }

    fn append(&self, entry: &LogEntry) -> Result<BlockId> {
        let outcome = self.log.append(entry);
        if let Ok(at) = &outcome {
            self.note(*at, entry);
        }
        outcome
    }

    fn submit(&self, entry: LogEntry, done: Done) {
        // Without a thread: what is submitted in a simulation is appended.
        done(self.append(&entry));
    }

    fn read(&self, id: BlockId) -> Result<LogEntry> {
        self.log.read(id)
    }

    fn release(&self, before: BlockId) -> Result<()> {
        self.log.release(before)
    }

    fn end(&self) -> BlockId {
        self.log.end()
    }

    fn close(&self) -> Result<()> {
        self.log.close()
    }
}
