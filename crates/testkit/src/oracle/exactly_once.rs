//! Every expected item once, and nothing else.

use std::collections::BTreeMap;
use std::fmt;

use super::write_first;

/// How a multiset that was seen differs from the one that was expected; each item with the number of copies in question.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ExactlyOnce<T> {
    /// Expected, and not seen as often.
    pub missing: Vec<(T, u64)>,
    /// Expected, and seen more often.
    pub duplicated: Vec<(T, u64)>,
    /// Seen, and not expected at all.
    pub unexpected: Vec<(T, u64)>,
    expected_count: u64,
    seen_count: u64,
}

/// Compares what was seen with what was expected, as multisets: an item that is expected three times must be seen three
/// times.
///
/// ```
/// use millpond_testkit::oracle::exactly_once;
/// let report = exactly_once(["a", "b", "b"], ["b", "b", "b", "c"]);
/// assert_eq!(report.missing, [("a", 1)]);
/// assert_eq!(report.duplicated, [("b", 1)]);
/// assert_eq!(report.unexpected, [("c", 1)]);
/// ```
pub fn exactly_once<T: Ord>(
    expected: impl IntoIterator<Item = T>,
    seen: impl IntoIterator<Item = T>,
) -> ExactlyOnce<T> {
    #[derive(Default)]
    struct Copies {
        expected: u64,
        seen: u64,
    }
    let mut copies: BTreeMap<T, Copies> = BTreeMap::new();
    let (mut expected_count, mut seen_count) = (0, 0);
    for item in expected {
        expected_count += 1;
        copies.entry(item).or_default().expected += 1;
    }
    for item in seen {
        seen_count += 1;
        copies.entry(item).or_default().seen += 1;
    }
    let (mut missing, mut duplicated, mut unexpected) = (Vec::new(), Vec::new(), Vec::new());
    for (item, Copies { expected, seen }) in copies {
        if expected == 0 {
            unexpected.push((item, seen));
        } else if seen > expected {
            duplicated.push((item, seen - expected));
        } else if seen < expected {
            missing.push((item, expected - seen));
        }
    }
    ExactlyOnce { missing, duplicated, unexpected, expected_count, seen_count }
}

impl<T> ExactlyOnce<T> {
    /// True if everything was seen exactly as often as expected.
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.duplicated.is_empty() && self.unexpected.is_empty()
    }
}

impl<T: fmt::Debug> ExactlyOnce<T> {
    /// For tests: stops with all that is known if it does not hold.
    ///
    /// # Panics
    ///
    /// If something is missing, duplicated or unexpected.
    #[track_caller]
    pub fn assert_holds(&self) {
        assert!(self.holds(), "{self}");
    }
}

impl<T: fmt::Debug> fmt::Display for ExactlyOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, seen {}", self.expected_count, self.seen_count)?;
        if self.holds() {
            return f.write_str(": each exactly once");
        }
        for (what, items) in
            [("missing", &self.missing), ("duplicated", &self.duplicated), ("unexpected", &self.unexpected)]
        {
            let copies: u64 = items.iter().map(|(_, copies)| copies).sum();
            if copies > 0 {
                write!(f, "\n{what}: {copies}")?;
                write_first(f, items.iter().map(|(item, n)| format!("{item:?} ({n} times)")), items.len() as u64)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_multisets_hold_in_any_order() {
        let report = exactly_once([3, 1, 3], [3, 3, 1]);
        report.assert_holds();
        assert_eq!(report.to_string(), "expected 3, seen 3: each exactly once");
    }

    #[test]
    fn a_lost_item_is_missing() {
        let report = exactly_once([1, 2, 2, 2], [1, 2]);
        assert!(!report.holds());
        assert_eq!((report.missing, report.duplicated, report.unexpected), (vec![(2, 2)], vec![], vec![]));
    }

    #[test]
    fn a_repeated_item_is_duplicated() {
        let report = exactly_once([1, 2], [1, 2, 2, 2]);
        assert!(!report.holds());
        assert_eq!((report.missing, report.duplicated, report.unexpected), (vec![], vec![(2, 2)], vec![]));
    }

    #[test]
    fn an_item_from_nowhere_is_unexpected() {
        let report = exactly_once([1], [1, 9]);
        assert!(!report.holds());
        assert_eq!(report.to_string(), "expected 1, seen 2\nunexpected: 1\n  9 (1 times)");
    }

    #[test]
    fn a_loss_does_not_hide_a_duplicate_elsewhere() {
        let report = exactly_once([1, 2], [1, 1]);
        assert_eq!((report.missing, report.duplicated), (vec![(2, 1)], vec![(1, 1)]));
    }

    #[test]
    #[should_panic(expected = "missing: 1")]
    fn asserting_says_what_is_wrong() {
        exactly_once([1], []).assert_holds();
    }
}
