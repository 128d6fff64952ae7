//! Oracles: they know from the input alone what the output must be, and say how it differs.
//!
//! All of them take what a `read_committed` reader saw; none of them looks into the pipeline.

mod exactly_once;
mod running_counts;
mod sequences;

use std::fmt;

pub use exactly_once::{ExactlyOnce, exactly_once};
pub use running_counts::{counts_follow_input, running_counts};
pub use sequences::{per_key_order, per_key_sequence};

use crate::record::Record;

/// So many findings are kept and shown; the rest is only counted.
const KEPT_LIMIT: usize = 1000;
const SHOWN_LIMIT: usize = 10;

/// How an output breaks a rule; empty if it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Violations {
    kept: Vec<Violation>,
    count: u64,
}

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The record is not of the form that the rule is about.
    Unreadable {
        /// The record.
        record: Record,
        /// What it lacks.
        lacks: &'static str,
    },
    /// The input demands output for this key, and there is none.
    KeyMissing {
        /// The key.
        key: String,
    },
    /// No input has this key.
    KeyUnexpected {
        /// The first record with it.
        record: Record,
    },
    /// The records of one key lie in two partitions, so that they have no order.
    TwoPartitions {
        /// The first record in the second partition.
        record: Record,
    },
    /// A number that must grow by its rule did not: one that is too low is a repeat, one that is too high a gap.
    WrongNumber {
        /// The record.
        record: Record,
        /// The number in it.
        found: u64,
        /// The least that would be right.
        at_least: u64,
        /// The most that would be right.
        at_most: u64,
    },
    /// The last count of a key is not how often the input has it.
    WrongTotal {
        /// The key.
        key: String,
        /// The last count in the output.
        found: u64,
        /// How often the input has it.
        expected: u64,
    },
    /// One batch has written this key twice.
    TwiceInBatch {
        /// The second record.
        record: Record,
    },
    /// A batch lies behind a later one in the same partition.
    BatchOutOfOrder {
        /// The record.
        record: Record,
        /// The later batch before it, in ms.
        after_batch_ms: u64,
    },
    /// After this batch the counts are those of no prefix of the input.
    NoPrefix {
        /// The batch, in ms.
        batch_ms: u64,
        /// How many input records the counts add up to.
        counted: u64,
        /// A key with a wrong count.
        key: String,
        /// Its count in the output.
        found: u64,
        /// Its count in that prefix of the input.
        expected: u64,
    },
    /// The values of a key are not those of the input in their order.
    WrongOrder {
        /// The key.
        key: String,
        /// The place of the first difference, counted from 0.
        place: usize,
        /// The value there, if any.
        found: Option<String>,
        /// The value that belongs there, if any.
        expected: Option<String>,
    },
}

impl Violations {
    /// True if the rule holds.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of the [first](Violations::first) are results that were seen more than once, or are in no input.
    pub fn duplicates(&self) -> u64 {
        self.kept.iter().filter(|violation| violation.is_duplicate() == Some(true)).count() as u64
    }

    /// How many of the [first](Violations::first) are results that are missing.
    pub fn losses(&self) -> u64 {
        self.kept.iter().filter(|violation| violation.is_duplicate() == Some(false)).count() as u64
    }

    /// The first of them, a thousand at most.
    pub fn first(&self) -> &[Violation] {
        &self.kept
    }

    /// For tests: stops with all that is known if the rule is broken.
    ///
    /// # Panics
    ///
    /// If there is a violation.
    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.is_empty(), "{self}");
    }

    fn add(&mut self, violation: Violation) {
        self.count += 1;
        if self.kept.len() < KEPT_LIMIT {
            self.kept.push(violation);
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => f.write_str("no violations")?,
            1 => f.write_str("1 violation")?,
            count => write!(f, "{count} violations")?,
        }
        write_first(f, self.kept.iter(), self.count)
    }
}

impl Violation {
    /// Something too much, or something too little, if it can be told.
    fn is_duplicate(&self) -> Option<bool> {
        match self {
            Self::KeyMissing { .. } => Some(false),
            Self::KeyUnexpected { .. } | Self::TwiceInBatch { .. } => Some(true),
            Self::WrongNumber { found, at_least, .. } => Some(found < at_least),
            Self::WrongTotal { found, expected, .. } => Some(found > expected),
            _ => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { record, lacks } => write!(f, "record without {lacks}: {record:?}"),
            Self::KeyMissing { key } => write!(f, "no output for key {key:?}"),
            Self::KeyUnexpected { record } => write!(f, "no input has the key of {record:?}"),
            Self::TwoPartitions { record } => write!(f, "the key lies in another partition before: {record:?}"),
            Self::WrongNumber { record, found, at_least, at_most } => {
                let what = if found < at_least { "repeated" } else { "skipped" };
                write!(f, "{what}: {found} where ")?;
                if at_least == at_most {
                    write!(f, "{at_least}")?
                } else {
                    write!(f, "{at_least} to {at_most}")?
                }
                write!(f, " is due: {record:?}")
            }
            Self::WrongTotal { key, found, expected } => {
                write!(f, "key {key:?} ends at {found}, the input has it {expected} times")
            }
            Self::TwiceInBatch { record } => write!(f, "the key has been written in this batch before: {record:?}"),
            Self::BatchOutOfOrder { record, after_batch_ms } => {
                write!(f, "stands behind one of batch {after_batch_ms}: {record:?}")
            }
            Self::NoPrefix { batch_ms, counted, key, found, expected } => write!(
                f,
                "after batch {batch_ms}, which has counted {counted} records, key {key:?} is at {found}; the first {counted} \
                 records of the input have it {expected} times"
            ),
            Self::WrongOrder { key, place, found, expected } => {
                write!(f, "key {key:?}, value {place}: found {found:?}, expected {expected:?}")
            }
        }
    }
}

/// The first few of `count` findings, a line each.
fn write_first(
    f: &mut fmt::Formatter<'_>,
    findings: impl Iterator<Item = impl fmt::Display>,
    count: u64,
) -> fmt::Result {
    for finding in findings.take(SHOWN_LIMIT) {
        write!(f, "\n  {finding}")?;
    }
    if count > SHOWN_LIMIT as u64 { write!(f, "\n  ... and {} more", count - SHOWN_LIMIT as u64) } else { Ok(()) }
}

/// Records in the order that readers see: that of each partition.
fn by_place(records: &[Record]) -> Vec<&Record> {
    let mut ordered: Vec<_> = records.iter().collect();
    ordered.sort_by_key(|record| (record.partition, record.offset));
    ordered
}

/// A header that holds a decimal number.
fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with a key, a value and one header.
    pub(super) fn record(offset: i64, key: &str, value: &str, header: (&str, &str)) -> Record {
        Record {
            partition: 0,
            offset,
            key: Some(key.into()),
            value: Some(value.into()),
            headers: vec![(header.0.to_owned(), Some(header.1.into()))],
            timestamp_ms: None,
        }
    }

    #[test]
    fn many_violations_are_counted_and_the_first_shown() {
        let mut violations = Violations::default();
        for number in 0..KEPT_LIMIT as u64 + 5 {
            violations.add(Violation::KeyMissing { key: number.to_string() });
        }
        assert_eq!((violations.count(), violations.first().len()), (1005, 1000));
        let text = violations.to_string();
        assert!(text.starts_with("1005 violations\n  no output for key \"0\"\n"), "{text}");
        assert!(text.ends_with("... and 995 more"), "{text}");
    }

    #[test]
    fn records_are_taken_by_place_not_as_listed() {
        let records = [record(5, "a", "", ("n", "1")), record(2, "b", "", ("n", "1"))];
        assert_eq!(by_place(&records)[0].key_text(), "b");
    }
}
