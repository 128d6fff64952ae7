//! What the input demands, against what readers of the sinks see.

use std::collections::{BTreeMap, BTreeSet};

use super::Batch;
use super::world::{World, word};

fn texts(batches: &[Batch]) -> Vec<(u64, Vec<String>)> {
    let text = |value: &Vec<u8>| String::from_utf8_lossy(value).into_owned();
    batches.iter().map(|batch| (batch.time_ms, batch.values.iter().map(text).collect())).collect()
}

impl World {
    /// Whether as many records have come out as went in.
    pub(super) fn is_complete(&self) -> bool {
        let (acknowledged, _) = self.givers.told();
        let wanted = self.input.all().iter().map(Vec::len).sum::<usize>() + acknowledged.len();
        let copied: usize = self.outside.committed("copy").iter().map(|batch| batch.values.len()).sum();
        copied >= wanted && self.givers.is_idle()
    }

    /// Every record once, in order, and the counts of each batch a fold over what the batch had.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let copied = texts(&self.outside.committed("copy"));
        let records: Vec<&String> = copied.iter().flat_map(|(_, records)| records).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = records.iter().find(|record| !seen.insert(**record)) {
            return Err(format!("record `{twice}` was written twice"));
        }
        for (number, partition) in self.input.all().into_iter().enumerate() {
            let start = format!("{number}-");
            let found: Vec<&&String> = records.iter().filter(|record| record.starts_with(&start)).collect();
            if found.len() != partition.len() || found.iter().zip(&partition).any(|(found, wanted)| **found != wanted) {
                let (found, wanted) = (found.len(), partition.len());
                return Err(format!(
                    "partition {number} of the input: {found} records came out of {wanted}, or out of order"
                ));
            }
        }
        let (acknowledged, in_doubt) = self.givers.told();
        if let Some(lost) = acknowledged.iter().find(|record| !seen.contains(record)) {
            return Err(format!("record `{lost}` was acknowledged, and is lost"));
        }
        let given: BTreeSet<&String> = acknowledged.iter().chain(&in_doubt).collect();
        let strange = records.iter().find(|record| record.starts_with("pushed-") && !given.contains(*record));
        if let Some(strange) = strange {
            return Err(format!("record `{strange}` came out, and nobody pushed it"));
        }
        self.judge_counts(&copied)?;
        let late = texts(&self.outside.committed("late"));
        if !copied.ends_with(&late) {
            return Err(format!("the sink that was added later has {late:?}, not the last batches of {copied:?}"));
        }
        if let Some(open) = self.outside.left_open() {
            return Err(format!("still open at the end: {open}"));
        }
        Ok(())
    }

    fn judge_counts(&mut self, copied: &[(u64, Vec<String>)]) -> Result<(), String> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let counted = texts(&self.outside.committed("counts"));
        let batches = copied.iter().filter(|(_, records)| !records.is_empty());
        let mut wanted = Vec::new();
        for (time_ms, records) in batches {
            let mut touched: Vec<&str> = records.iter().map(|record| word(record)).collect();
            touched.iter().for_each(|word| *counts.entry(word).or_default() += 1);
            touched.sort_unstable();
            touched.dedup();
            let values: Vec<String> = touched.iter().map(|word| format!("[\"{word}\",{}]", counts[word])).collect();
            wanted.push((*time_ms, values));
        }
        let sort = |(time_ms, mut values): (u64, Vec<String>)| {
            values.sort_unstable();
            (time_ms, values)
        };
        let counted: Vec<_> = counted.into_iter().map(sort).collect();
        let wanted: Vec<_> = wanted.into_iter().map(sort).collect();
        self.set_batches(wanted.len() as u64);
        match counted.iter().zip(&wanted).find(|(counted, wanted)| counted != wanted) {
            Some((counted, wanted)) => Err(format!("counts {counted:?}, wanted {wanted:?}")),
            None if counted.len() != wanted.len() => {
                Err(format!("{} batches of counts, wanted {}", counted.len(), wanted.len()))
            }
            None => Ok(()),
        }
    }
}
