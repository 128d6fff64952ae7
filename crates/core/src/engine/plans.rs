//! The plans since the oldest retained checkpoint, in memory: what a replay reads, and what the log must keep.

use std::collections::VecDeque;

use super::machine::Planned;
use crate::log::{BatchPlan, LogEntry};
use crate::source::BlockId;
use crate::time::BatchTime;

/// A plan and where it stands in the log.
pub(crate) struct StoredPlan {
    pub(crate) plan: BatchPlan,
    at: BlockId,
}

impl StoredPlan {
    /// The oldest place in the log that this plan needs.
    fn needs(&self) -> BlockId {
        let blocks = self.plan.sources.iter().flat_map(|source| &source.plan.blocks);
        blocks.copied().chain([self.at]).min().unwrap_or(self.at)
    }
}

/// The plans after S, oldest first.
#[derive(Default)]
pub(crate) struct Plans {
    after_snapshot: VecDeque<StoredPlan>,
}

impl Plans {
    pub(crate) fn push(&mut self, plan: BatchPlan, at: BlockId) {
        self.after_snapshot.push_back(StoredPlan { plan, at });
    }

    pub(crate) fn get(&self, batch: BatchTime) -> Option<&BatchPlan> {
        self.after_snapshot.iter().map(|stored| &stored.plan).find(|plan| plan.last == batch)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BatchPlan> {
        self.after_snapshot.iter().map(|stored| &stored.plan)
    }

    pub(crate) fn planned(&self) -> Vec<Planned> {
        self.iter().map(|plan| Planned { first: plan.first, last: plan.last, records: plan.records() }).collect()
    }

    /// A checkpoint of `batch` is there: its plans are history.
    pub(crate) fn forget(&mut self, batch: BatchTime) {
        while self.after_snapshot.front().is_some_and(|stored| stored.plan.last <= batch) {
            self.after_snapshot.pop_front();
        }
    }

    /// The oldest place in the log that a restart from a checkpoint of `batch` needs, as far as plans go.
    pub(crate) fn needed_after(&self, batch: BatchTime) -> Option<BlockId> {
        self.after_snapshot.iter().filter(|stored| stored.plan.last > batch).map(StoredPlan::needs).min()
    }
}

/// What recovery reads of the log.
#[derive(Default)]
pub(crate) struct LogState {
    pub(crate) plans: Plans,
    pub(crate) runs: Vec<[u8; 16]>,
    pub(crate) introduced: Vec<String>,
    /// Blocks in no plan, with their sources.
    pub(crate) unplanned: Vec<(BlockId, String)>,
    /// Whether there was anything at all.
    pub(crate) entries: u64,
}

impl LogState {
    /// Takes the next entry in; `snapshot` is S.
    pub(crate) fn read(&mut self, at: BlockId, entry: LogEntry, snapshot: BatchTime) {
        self.entries += 1;
        match entry {
            LogEntry::Block(block) => self.unplanned.push((at, block.source)),
            LogEntry::Plan(plan) => {
                let planned: std::collections::HashSet<BlockId> =
                    plan.sources.iter().flat_map(|source| source.plan.blocks.iter().copied()).collect();
                if !planned.is_empty() {
                    self.unplanned.retain(|(block, _)| !planned.contains(block));
                }
                if plan.last > snapshot {
                    self.plans.push(plan, at);
                }
            }
            LogEntry::Run(run) => self.runs.push(run),
            LogEntry::SinkIntroduced(name) => self.introduced.push(name),
        }
    }
}
