//! The rules of what is numbered or ordered per key.

use std::collections::{BTreeMap, HashMap};

use super::{Violation, Violations, by_place, number};
use crate::record::Record;

/// Checks that for each key (a missing one counts as empty) the header `n` is 1, 2, 3, ... in the order of its partition,
/// without a gap or a repeat.
pub fn per_key_sequence(output: &[Record]) -> Violations {
    let mut violations = Violations::default();
    let mut newest: HashMap<&[u8], (u64, i32)> = HashMap::new();
    for record in by_place(output) {
        let Some(found) = number(record.header("n")) else {
            violations.add(Violation::Unreadable { record: record.clone(), lacks: "a header `n` with a number" });
            continue;
        };
        let (before, partition) =
            newest.entry(record.key.as_deref().unwrap_or_default()).or_insert((0, record.partition));
        if *partition != record.partition {
            violations.add(Violation::TwoPartitions { record: record.clone() });
        }
        let due = *before + 1;
        if found != due {
            violations.add(Violation::WrongNumber { record: record.clone(), found, at_least: due, at_most: due });
        }
        (*before, *partition) = (found, record.partition);
    }
    violations
}

/// Checks that the values of each key (a missing one counts as empty) are those of the input, in its order: nothing lost,
/// repeated, added or moved.
///
/// Both are taken in the order of their partitions; a key whose input lies in two partitions has no order and is not for
/// this oracle but for [`exactly_once`](super::exactly_once).
pub fn per_key_order(input: &[Record], output: &[Record]) -> Violations {
    fn values(records: &[Record]) -> BTreeMap<&[u8], Vec<Option<&[u8]>>> {
        let mut values = BTreeMap::<_, Vec<_>>::new();
        for record in by_place(records) {
            values.entry(record.key.as_deref().unwrap_or_default()).or_default().push(record.value.as_deref());
        }
        values
    }
    let text = |value: Option<Option<&[u8]>>| {
        value.map(|bytes| bytes.map_or_else(|| "(tombstone)".to_owned(), |bytes| String::from_utf8_lossy(bytes).into()))
    };
    let (expected, found) = (values(input), values(output));
    let mut violations = Violations::default();
    for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
        let of = |values: &BTreeMap<_, Vec<_>>| values.get(key).cloned().unwrap_or_default();
        let (expected, found) = (of(&expected), of(&found));
        let differs = |place: &usize| expected.get(*place) != found.get(*place);
        if let Some(place) = (0..expected.len().max(found.len())).find(differs) {
            violations.add(Violation::WrongOrder {
                key: String::from_utf8_lossy(key).into_owned(),
                place,
                found: text(found.get(place).copied()),
                expected: text(expected.get(place).copied()),
            });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(numbers: &[(&str, &str)]) -> Vec<Record> {
        let record =
            |(offset, (key, n)): (usize, &(&str, &str))| super::super::tests::record(offset as i64, key, "v", ("n", n));
        numbers.iter().enumerate().map(record).collect()
    }

    fn valued(values: &[(&str, &str)]) -> Vec<Record> {
        let record = |(offset, (key, value)): (usize, &(&str, &str))| {
            super::super::tests::record(offset as i64, key, value, ("n", "1"))
        };
        values.iter().enumerate().map(record).collect()
    }

    fn only(violations: &Violations) -> &Violation {
        assert_eq!(violations.count(), 1, "{violations}");
        &violations.first()[0]
    }

    #[test]
    fn numbers_without_gap_or_repeat_hold() {
        per_key_sequence(&numbered(&[("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("b", "3")])).assert_none();
    }

    #[test]
    fn a_gap_is_caught() {
        let violations = per_key_sequence(&numbered(&[("a", "1"), ("a", "3")]));
        assert!(matches!(only(&violations), Violation::WrongNumber { found: 3, at_least: 2, .. }));
        assert!(violations.to_string().contains("skipped: 3 where 2 is due"), "{violations}");
    }

    #[test]
    fn a_repeat_is_caught() {
        let violations = per_key_sequence(&numbered(&[("a", "1"), ("a", "1")]));
        assert!(violations.to_string().contains("repeated: 1 where 2 is due"), "{violations}");
    }

    #[test]
    fn a_sequence_that_does_not_begin_at_one_is_caught() {
        assert!(matches!(
            only(&per_key_sequence(&numbered(&[("a", "2")]))),
            Violation::WrongNumber { at_least: 1, .. }
        ));
    }

    #[test]
    fn a_missing_key_is_the_empty_key() {
        let mut seen = numbered(&[("", "1"), ("", "2")]);
        seen[1].key = None;
        per_key_sequence(&seen).assert_none();
    }

    #[test]
    fn a_record_without_a_number_is_caught() {
        assert!(matches!(only(&per_key_sequence(&numbered(&[("a", "one")]))), Violation::Unreadable { .. }));
    }

    #[test]
    fn a_sequence_over_two_partitions_is_caught() {
        let mut seen = numbered(&[("a", "1"), ("a", "2")]);
        seen[1].partition = 1;
        assert!(matches!(only(&per_key_sequence(&seen)), Violation::TwoPartitions { .. }));
    }

    #[test]
    fn values_in_order_hold_whatever_other_keys_do() {
        let input = valued(&[("a", "1"), ("a", "2"), ("b", "1")]);
        per_key_order(&input, &valued(&[("b", "1"), ("a", "1"), ("a", "2")])).assert_none();
    }

    #[test]
    fn swapped_values_are_caught() {
        let violations = per_key_order(&valued(&[("a", "1"), ("a", "2")]), &valued(&[("a", "2"), ("a", "1")]));
        assert!(matches!(only(&violations), Violation::WrongOrder { place: 0, .. }));
    }

    #[test]
    fn a_lost_and_an_added_value_are_caught() {
        let lost = per_key_order(&valued(&[("a", "1"), ("a", "2")]), &valued(&[("a", "1")]));
        assert!(matches!(only(&lost), Violation::WrongOrder { place: 1, found: None, expected: Some(_), .. }));
        let added = per_key_order(&valued(&[("a", "1")]), &valued(&[("a", "1"), ("b", "1")]));
        assert!(matches!(only(&added), Violation::WrongOrder { place: 0, found: Some(_), expected: None, .. }));
    }

    #[test]
    fn a_tombstone_is_not_an_empty_value() {
        let (input, mut seen) = (valued(&[("a", "")]), valued(&[("a", "")]));
        per_key_order(&input, &seen).assert_none();
        seen[0].value = None;
        assert_eq!(per_key_order(&input, &seen).count(), 1);
    }
}
