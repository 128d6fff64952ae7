//! A replayable source that gives group i, i = 1 to 30, whole to one batch, and nothing after that.

use std::sync::Arc;

use millpond_core::source::{
    PartitionPosition, Plan, PlanRequest, Replay, Source, SourceOutput, SourcePartition, SourceStart,
};
use millpond_core::{BatchTime, Error, ErrorKind, Result};

pub(super) const GROUPS: u64 = 30;

/// A record: its group, its number in it from 0, and one of five keys.
pub(super) type Member = (u64, u64, String);

/// Group i has i members.
pub(super) fn group(i: u64) -> Vec<Member> {
    let key = |number: u64| ["a", "b", "c", "d", "e"][((i * 3 + number * number) % 5) as usize];
    (0..i).map(|number| (i, number, key(number).to_owned())).collect()
}

#[derive(Default)]
pub(super) struct Groups {
    /// The last group that is planned.
    given: u64,
    newest: Option<(BatchTime, Plan)>,
}

/// Half of a group.
struct Half {
    group: u64,
    second: bool,
}

fn number(bytes: &[u8]) -> Result<u64> {
    let bytes = bytes.try_into().map_err(|_| Error::new(ErrorKind::Restore, "a group's number has 8 bytes"))?;
    Ok(u64::from_le_bytes(bytes))
}

impl Source for Groups {
    type Item = Member;

    fn kind(&self) -> &'static str {
        "groups"
    }

    fn identity(&self) -> String {
        format!("{GROUPS}")
    }

    fn replay(&self) -> Replay {
        Replay::ByPosition
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        if let Some(position) = start.positions.iter().flatten().next() {
            self.given = number(&position.position)?;
        }
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        if let Some((_, plan)) = self.newest.iter().find(|(time, _)| *time == request.time) {
            return Ok(plan.clone());
        }
        let next = if self.given < GROUPS { self.given + 1 } else { 0 };
        self.given = self.given.max(next);
        let position = self.given.to_le_bytes().into();
        let plan = Plan {
            read: next.to_le_bytes().into(),
            positions: vec![PartitionPosition { partition: "groups".into(), position }],
            records: next,
            ..Plan::default()
        };
        self.newest = Some((request.time, plan.clone()));
        Ok(plan)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<Member>>>> {
        // What no source gave anything to has no bytes.
        let group = if plan.read.is_empty() { 0 } else { number(&plan.read)? };
        Ok([false, true].map(|second| Arc::new(Half { group, second }) as Arc<dyn SourcePartition<Member>>).into())
    }

    fn release(&mut self, _: BatchTime) {}
}

impl SourcePartition<Member> for Half {
    fn compute(&self, out: &mut dyn SourceOutput<Member>) -> Result<()> {
        let mut members = group(self.group);
        let second = members.split_off(members.len() / 2);
        out.records(if self.second { second } else { members })
    }

    fn records(&self) -> u64 {
        if self.second { self.group - self.group / 2 } else { self.group / 2 }
    }
}
