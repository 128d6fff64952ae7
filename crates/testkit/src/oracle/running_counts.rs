//! The rules of a running count per key: key = what is counted, value = its count so far, header `batch` = the batch that
//! wrote it, in ms.

use std::collections::{BTreeMap, HashMap};

use super::{Violation, Violations, by_place, number};
use crate::record::Record;

struct Count<'a> {
    record: &'a Record,
    key: String,
    count: u64,
    batch_ms: u64,
}

fn read<'a>(record: &'a Record, violations: &mut Violations) -> Option<Count<'a>> {
    let lacks = if record.key.is_none() {
        "a key"
    } else if number(Some(&record.value_text())).is_none() {
        "a count as its value"
    } else {
        "a header `batch` in ms"
    };
    match (&record.key, number(Some(&record.value_text())), number(record.header("batch"))) {
        (Some(_), Some(count), Some(batch_ms)) => Some(Count { record, key: record.key_text(), count, batch_ms }),
        _ => {
            violations.add(Violation::Unreadable { record: record.clone(), lacks });
            None
        }
    }
}

/// Checks a running count per key against the keys of the input, in any order.
///
/// For each key: its records lie in one partition, its counts grow strictly and end at how often the input has it, and a
/// batch writes it once at most. In each partition batches stand in order.
pub fn running_counts<K: AsRef<str>>(input: impl IntoIterator<Item = K>, output: &[Record]) -> Violations {
    let mut totals: HashMap<String, u64> = HashMap::new();
    for key in input {
        match totals.get_mut(key.as_ref()) {
            Some(total) => *total += 1,
            None => drop(totals.insert(key.as_ref().to_owned(), 1)),
        }
    }
    let mut violations = Violations::default();
    let mut newest_batch_ms: HashMap<i32, u64> = HashMap::new();
    let mut newest: BTreeMap<String, Count<'_>> = BTreeMap::new();
    for record in by_place(output) {
        let Some(seen) = read(record, &mut violations) else { continue };
        let newest_batch_ms = newest_batch_ms.entry(record.partition).or_default();
        if seen.batch_ms < *newest_batch_ms {
            violations.add(Violation::BatchOutOfOrder { record: record.clone(), after_batch_ms: *newest_batch_ms });
        }
        *newest_batch_ms = seen.batch_ms.max(*newest_batch_ms);

        let Some(total) = totals.get(&seen.key) else {
            violations.add(Violation::KeyUnexpected { record: record.clone() });
            continue;
        };
        let mut at_least = 1;
        if let Some(before) = newest.get(&seen.key) {
            at_least = before.count + 1;
            if before.record.partition != record.partition {
                violations.add(Violation::TwoPartitions { record: record.clone() });
            }
            if before.batch_ms == seen.batch_ms {
                violations.add(Violation::TwiceInBatch { record: record.clone() });
            }
        }
        if !(at_least..=*total).contains(&seen.count) {
            let (record, found) = (record.clone(), seen.count);
            violations.add(Violation::WrongNumber { record, found, at_least, at_most: *total });
        }
        newest.insert(seen.key.clone(), seen);
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_unstable();
    for (key, expected) in totals {
        match newest.get(&key).map(|last| last.count) {
            None => violations.add(Violation::KeyMissing { key }),
            Some(found) if found != expected => violations.add(Violation::WrongTotal { key, found, expected }),
            Some(_) => {}
        }
    }
    violations
}

/// Checks that after each batch the counts are those of the input up to some point: nothing was counted wrong even for
/// one batch and put right later.
///
/// Only for an input that has one order, for example one partition; `input` gives its keys in that order. Totals are the
/// affair of [`running_counts`].
pub fn counts_follow_input<K: AsRef<str>>(input: impl IntoIterator<Item = K>, output: &[Record]) -> Violations {
    let mut violations = Violations::default();
    let mut batches: BTreeMap<u64, Vec<Count<'_>>> = BTreeMap::new();
    for record in by_place(output) {
        if let Some(seen) = read(record, &mut violations) {
            batches.entry(seen.batch_ms).or_default().push(seen);
        }
    }
    let mut input = input.into_iter();
    let (mut expected, mut found) = (HashMap::<String, u64>::new(), HashMap::<String, u64>::new());
    let (mut counted, mut consumed) = (0_u64, 0_u64);
    for (batch_ms, counts) in batches {
        let mut touched = Vec::new();
        for Count { key, count, .. } in counts {
            let before = found.insert(key.clone(), count).unwrap_or(0);
            counted = counted.saturating_add(count).saturating_sub(before);
            touched.push(key);
        }
        while consumed < counted {
            let Some(key) = input.next() else { break };
            *expected.entry(key.as_ref().to_owned()).or_default() += 1;
            touched.push(key.as_ref().to_owned());
            consumed += 1;
        }
        touched.sort_unstable();
        touched.dedup();
        for key in touched {
            let count = |counts: &HashMap<String, u64>| counts.get(&key).copied().unwrap_or(0);
            let (found, expected) = (count(&found), count(&expected));
            if found != expected {
                violations.add(Violation::NoPrefix { batch_ms, counted, key, found, expected });
                // The next batches would all be off by the same; the first one tells.
                return violations;
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(counts: &[(&str, u64, u64)]) -> Vec<Record> {
        let count = |(offset, (key, count, batch)): (usize, &(&str, u64, u64))| {
            super::super::tests::record(offset as i64, key, &count.to_string(), ("batch", &batch.to_string()))
        };
        counts.iter().enumerate().map(count).collect()
    }

    fn only(violations: &Violations) -> &Violation {
        assert_eq!(violations.count(), 1, "{violations}");
        &violations.first()[0]
    }

    #[test]
    fn a_running_count_holds() {
        let seen = output(&[("a", 2, 500), ("b", 1, 500), ("a", 3, 1000)]);
        running_counts(["a", "b", "a", "a"], &seen).assert_none();
        counts_follow_input(["a", "b", "a", "a"], &seen).assert_none();
    }

    #[test]
    fn a_repeated_count_is_caught() {
        let violations = running_counts(["a", "a"], &output(&[("a", 1, 500), ("a", 1, 1000), ("a", 2, 1500)]));
        assert!(matches!(only(&violations), Violation::WrongNumber { found: 1, at_least: 2, at_most: 2, .. }));
        assert!(violations.to_string().contains("repeated: 1 where 2 is due"), "{violations}");
    }

    #[test]
    fn a_count_beyond_the_input_is_caught() {
        let violations = running_counts(["a"], &output(&[("a", 2, 500)]));
        assert!(matches!(violations.first()[0], Violation::WrongNumber { found: 2, at_least: 1, at_most: 1, .. }));
        assert!(matches!(violations.first()[1], Violation::WrongTotal { found: 2, expected: 1, .. }));
    }

    #[test]
    fn a_count_that_ends_too_low_is_caught() {
        let violations = running_counts(["a", "a"], &output(&[("a", 1, 500)]));
        assert_eq!(only(&violations), &Violation::WrongTotal { key: "a".into(), found: 1, expected: 2 });
    }

    #[test]
    fn a_key_without_output_is_caught() {
        let violations = running_counts(["a", "b"], &output(&[("a", 1, 500)]));
        assert_eq!(only(&violations), &Violation::KeyMissing { key: "b".into() });
    }

    #[test]
    fn a_key_from_nowhere_is_caught() {
        let violations = running_counts(["a"], &output(&[("a", 1, 500), ("z", 1, 500)]));
        assert!(matches!(only(&violations), Violation::KeyUnexpected { .. }));
    }

    #[test]
    fn a_key_written_twice_in_a_batch_is_caught() {
        let violations = running_counts(["a", "a"], &output(&[("a", 1, 500), ("a", 2, 500)]));
        assert!(matches!(only(&violations), Violation::TwiceInBatch { .. }));
    }

    #[test]
    fn batches_out_of_order_are_caught() {
        let violations = running_counts(["a", "b"], &output(&[("a", 1, 1000), ("b", 1, 500)]));
        assert!(matches!(only(&violations), Violation::BatchOutOfOrder { after_batch_ms: 1000, .. }));
    }

    #[test]
    fn a_key_in_two_partitions_is_caught() {
        let mut seen = output(&[("a", 1, 500), ("a", 2, 1000)]);
        seen[1].partition = 1;
        assert!(matches!(only(&running_counts(["a", "a"], &seen)), Violation::TwoPartitions { .. }));
    }

    #[test]
    fn records_of_another_form_are_caught() {
        let mut seen = output(&[("a", 1, 500), ("a", 2, 1000), ("a", 3, 1500)]);
        seen[0].key = None;
        seen[1].value = Some("two".into());
        seen[2].headers.clear();
        let violations = running_counts(["a", "a", "a"], &seen);
        let lacks: Vec<_> = violations.first().iter().map(ToString::to_string).collect();
        assert!(lacks[0].starts_with("record without a key"), "{lacks:?}");
        assert!(lacks[1].starts_with("record without a count"), "{lacks:?}");
        assert!(lacks[2].starts_with("record without a header `batch`"), "{lacks:?}");
    }

    #[test]
    fn a_wrong_count_that_is_put_right_later_is_caught_by_the_order_of_the_input() {
        // "b" is counted before its turn: after the first batch no prefix of two records has it.
        let seen = output(&[("a", 1, 500), ("b", 1, 500), ("a", 2, 1000)]);
        running_counts(["a", "a", "b"], &seen).assert_none();
        let violations = counts_follow_input(["a", "a", "b"], &seen);
        assert!(matches!(only(&violations), Violation::NoPrefix { batch_ms: 500, counted: 2, .. }), "{violations}");
    }

    #[test]
    fn counts_beyond_the_input_follow_no_prefix() {
        let violations = counts_follow_input(["a"], &output(&[("a", 5, 500)]));
        assert!(matches!(only(&violations), Violation::NoPrefix { found: 5, expected: 1, .. }));
    }
}
