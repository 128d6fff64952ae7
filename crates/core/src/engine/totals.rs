//! The values of accumulators: after the newest computed batch, for checkpoints, and after the newest committed one, for whoever
//! looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::exec::Accumulator;
use crate::listen::AccumulatorInfo;
use crate::time::BatchTime;

pub(crate) struct Totals {
    accumulators: Arc<[Accumulator]>,
    /// After the newest computed batch, by name; also what the program no longer has.
    computed: BTreeMap<String, i64>,
    /// After each batch computed and not committed.
    uncommitted: VecDeque<(BatchTime, Vec<i64>)>,
}

impl Totals {
    /// Those of a checkpoint.
    pub(crate) fn new(accumulators: Arc<[Accumulator]>, checkpoint: &BTreeMap<String, i64>) -> Self {
        let totals = Totals { accumulators, computed: checkpoint.clone(), uncommitted: VecDeque::new() };
        totals.accumulators.iter().zip(totals.values()).for_each(|(accumulator, value)| accumulator.set(value));
        totals
    }

    /// Back to a checkpoint, inside of the process. What was shown as committed stays.
    pub(crate) fn recover(&mut self, checkpoint: &BTreeMap<String, i64>) {
        self.computed = checkpoint.clone();
        self.uncommitted.clear();
    }

    /// A batch has been computed. `committed`: C.
    pub(crate) fn computed(&mut self, batch: BatchTime, added: &[i64], committed: BatchTime) -> Vec<AccumulatorInfo> {
        let add = |(accumulator, &added): (&Accumulator, &i64)| {
            let value = self.computed.entry(accumulator.name().to_string()).or_default();
            *value = value.wrapping_add(added);
            AccumulatorInfo { name: accumulator.name().clone(), added, value: *value }
        };
        let infos = self.accumulators.iter().zip(added).map(add).collect();
        if batch >= committed {
            self.uncommitted.push_back((batch, self.values()));
        }
        if batch == committed {
            // A replay has come to where the sinks are: there is no commit to come.
            self.committed(batch);
        }
        infos
    }

    /// A batch has been committed.
    pub(crate) fn committed(&mut self, batch: BatchTime) {
        while self.uncommitted.front().is_some_and(|(uncommitted, _)| *uncommitted <= batch) {
            let (_, values) = self.uncommitted.pop_front().unwrap_or_default();
            self.accumulators.iter().zip(values).for_each(|(accumulator, value)| accumulator.set(value));
        }
    }

    /// After the newest computed batch, for a checkpoint of it.
    pub(crate) fn for_checkpoint(&self) -> BTreeMap<String, i64> {
        self.computed.clone()
    }

    fn values(&self) -> Vec<i64> {
        let value = |accumulator: &Accumulator| self.computed.get(&**accumulator.name()).copied().unwrap_or_default();
        self.accumulators.iter().map(value).collect()
    }
}
