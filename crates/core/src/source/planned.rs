//! The plans a source has made and not seen committed: planning a batch twice changes nothing.

use std::collections::BTreeMap;

use super::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// Plans by batch, until they are released.
#[derive(Debug, Default)]
pub(crate) struct PlannedBatches {
    plans: BTreeMap<BatchTime, Plan>,
    newest: Option<BatchTime>,
}

impl PlannedBatches {
    /// The plan of a batch that was planned before, `None` for a new batch.
    ///
    /// # Errors
    /// A batch before the newest one that was never planned, or was released: its records can no
    /// longer be told from those of later batches.
    pub(crate) fn again(&self, time: BatchTime) -> Result<Option<Plan>> {
        if let Some(plan) = self.plans.get(&time) {
            return Ok(Some(plan.clone()));
        }
        match self.newest {
            Some(newest) if time <= newest => Err(Error::new(
                ErrorKind::Program,
                format!("batch {time} cannot be planned: batch {newest} has been planned already"),
            )),
            _ => Ok(None),
        }
    }

    /// Keeps a new plan.
    pub(crate) fn keep(&mut self, time: BatchTime, plan: &Plan) {
        self.newest = Some(time);
        self.plans.insert(time, plan.clone());
    }

    /// Forgets the plans up to a batch and gives them back.
    pub(crate) fn release(&mut self, committed: BatchTime) -> Vec<Plan> {
        let mut released = Vec::new();
        while let Some(first) = self.plans.first_entry().filter(|first| *first.key() <= committed) {
            released.push(first.remove());
        }
        released
    }
}
