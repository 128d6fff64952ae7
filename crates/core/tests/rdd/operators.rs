//! Each operator and action against what a loop over the same records gives, over random records, partitions and threads.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millpond_core::{BatchContext, Rdd};
use proptest::prelude::*;

type Pairs = Vec<(u8, i64)>;

/// Records, their partitions, the partitions of a shuffle, and threads.
fn pairs() -> impl Strategy<Value = (Pairs, usize, usize, usize)> {
    (prop::collection::vec((0_u8..12, -50_i64..50), 0..300), 1_usize..6, 1_usize..9, 1_usize..4)
}

fn context(partitions: usize, threads: usize) -> BatchContext {
    BatchContext::builder().threads(threads).partitions(partitions).open().expect("within the limits")
}

fn collect<T: Send + 'static>(rdd: &Rdd<T>) -> Vec<T> {
    rdd.collect().expect("computed")
}

fn sorted<T: Ord + Send + 'static>(rdd: &Rdd<T>) -> Vec<T> {
    let mut records = collect(rdd);
    records.sort();
    records
}

/// The values of each key, in record order.
fn grouped(records: &Pairs) -> BTreeMap<u8, Vec<i64>> {
    let mut groups: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    records.iter().for_each(|(key, value)| groups.entry(*key).or_default().push(*value));
    groups
}

/// As one record a value.
fn of_groups<V: Clone>(groups: &BTreeMap<u8, V>) -> Vec<(u8, V)> {
    groups.iter().map(|(key, value)| (*key, value.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn narrow_operators_keep_the_order((records, parts, shuffle, threads) in pairs()) {
        let rdd = context(shuffle, threads).parallelize(records.clone(), parts);
        prop_assert_eq!(rdd.partitions(), parts);
        prop_assert_eq!(&collect(&rdd), &records);
        prop_assert_eq!(collect(&rdd.clone().map(|(k, v)| (v, k))), records.iter().map(|(k, v)| (*v, *k)).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().keys()), records.iter().map(|(k, _)| *k).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().values()), records.iter().map(|(_, v)| *v).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().filter(|(_, v)| v % 2 == 0)), records.iter().filter(|(_, v)| v % 2 == 0).copied().collect::<Vec<_>>());
        let twice = |v: i64| [v, 2 * v];
        prop_assert_eq!(collect(&rdd.clone().values().flat_map(twice)), records.iter().flat_map(|(_, v)| twice(*v)).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().flat_map_values(twice)), records.iter().flat_map(|(k, v)| twice(*v).map(|v| (*k, v))).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().map_values(|v| v + 1)), records.iter().map(|(k, v)| (*k, v + 1)).collect::<Vec<_>>());
        prop_assert_eq!(collect(&rdd.clone().glom()).concat(), records.clone());
        prop_assert_eq!(collect(&rdd.clone().union(&rdd)), [records.clone(), records.clone()].concat());
        let numbered: Vec<_> = records.iter().copied().zip(0_u64..).collect();
        prop_assert_eq!(collect(&rdd.clone().zip_with_index()), numbered);
        let of_partition = collect(&rdd.clone().glom());
        let by_index = rdd.map_partitions_with_index(|index, records| records.map(move |record| (index, record)));
        let expected: Vec<_> = of_partition.into_iter().enumerate().flat_map(|(i, records)| records.into_iter().map(move |r| (i, r))).collect();
        prop_assert_eq!(collect(&by_index), expected);
    }

    #[test]
    fn folds_by_key((records, parts, shuffle, threads) in pairs()) {
        let rdd = context(shuffle, threads).parallelize(records.clone(), parts);
        let groups = grouped(&records);
        let sums: BTreeMap<u8, i64> = groups.iter().map(|(k, v)| (*k, v.iter().sum())).collect();
        prop_assert_eq!(sorted(&rdd.clone().group_by_key()), of_groups(&groups));
        prop_assert_eq!(sorted(&rdd.clone().reduce_by_key(|a, b| a + b)), of_groups(&sums));
        prop_assert_eq!(sorted(&rdd.clone().fold_by_key(0, |a, b| a + b)), of_groups(&sums));
        let with_count = rdd.clone().aggregate_by_key((0, 0_u64), |(sum, n), v| (sum + v, n + 1), |a, b| (a.0 + b.0, a.1 + b.1));
        let expected: Vec<_> = groups.iter().map(|(k, v)| (*k, (v.iter().sum(), v.len() as u64))).collect();
        prop_assert_eq!(sorted(&with_count), expected);
        // In record order, also where partitions meet.
        let texts = rdd.clone().combine_by_key(|v| v.to_string(), |text, v| format!("{text},{v}"), |a, b| format!("{a},{b}"));
        let expected: Vec<_> = groups.iter().map(|(k, v)| (*k, v.iter().map(i64::to_string).collect::<Vec<_>>().join(","))).collect();
        prop_assert_eq!(sorted(&texts), expected);
        let mut counts = rdd.count_by_key().expect("computed");
        counts.sort_unstable();
        prop_assert_eq!(counts, groups.iter().map(|(k, v)| (*k, v.len() as u64)).collect::<Vec<_>>());
        let mut counts = rdd.clone().values().count_by_value().expect("computed");
        counts.sort_unstable();
        let mut expected: BTreeMap<i64, u64> = BTreeMap::new();
        records.iter().for_each(|(_, v)| *expected.entry(*v).or_default() += 1);
        prop_assert_eq!(counts, expected.into_iter().collect::<Vec<_>>());
        let distinct: BTreeSet<_> = records.iter().copied().collect();
        prop_assert_eq!(sorted(&rdd.distinct()), distinct.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn joins_against_nested_loops((left, parts, shuffle, threads) in pairs(), (right, right_parts, ..) in pairs()) {
        let context = context(shuffle, threads);
        let (l, r) = (context.parallelize(left.clone(), parts), context.parallelize(right.clone(), right_parts));
        let (lefts, rights) = (grouped(&left), grouped(&right));
        let in_right = |k: &u8| rights.get(k).cloned().unwrap_or_default();
        let in_left = |k: &u8| lefts.get(k).cloned().unwrap_or_default();
        let mut inner = Vec::new();
        for (k, v) in &left {
            inner.extend(right.iter().filter(|(other, _)| other == k).map(|(_, w)| (*k, (*v, *w))));
        }
        let mut only_left: Vec<_> = left.iter().filter(|(k, _)| in_right(k).is_empty()).copied().collect();
        let only_right: Vec<_> = right.iter().filter(|(k, _)| in_left(k).is_empty()).copied().collect();
        let mut expected = inner.clone();
        expected.sort_unstable();
        prop_assert_eq!(sorted(&l.clone().join(&r)), expected);
        let mut expected: Vec<_> = inner.iter().map(|(k, (v, w))| (*k, (*v, Some(*w)))).collect();
        expected.extend(only_left.iter().map(|(k, v)| (*k, (*v, None))));
        expected.sort_unstable();
        prop_assert_eq!(sorted(&l.clone().left_outer_join(&r)), expected);
        let mut expected: Vec<_> = inner.iter().map(|(k, (v, w))| (*k, (Some(*v), *w))).collect();
        expected.extend(only_right.iter().map(|(k, w)| (*k, (None, *w))));
        expected.sort_unstable();
        prop_assert_eq!(sorted(&l.clone().right_outer_join(&r)), expected);
        let mut expected: Vec<_> = inner.iter().map(|(k, (v, w))| (*k, (Some(*v), Some(*w)))).collect();
        expected.extend(only_left.iter().map(|(k, v)| (*k, (Some(*v), None))));
        expected.extend(only_right.iter().map(|(k, w)| (*k, (None, Some(*w)))));
        expected.sort_unstable();
        prop_assert_eq!(sorted(&l.clone().full_outer_join(&r)), expected);
        let keys: BTreeSet<u8> = lefts.keys().chain(rights.keys()).copied().collect();
        let expected: Vec<_> = keys.iter().map(|k| (*k, (in_left(k), in_right(k)))).collect();
        prop_assert_eq!(sorted(&l.clone().cogroup(&r)), expected);
        only_left.sort_unstable();
        prop_assert_eq!(sorted(&l.subtract_by_key(&r)), only_left);
    }

    #[test]
    fn partitions_and_order((records, parts, shuffle, threads) in pairs(), wanted in 1_usize..7) {
        let rdd = context(shuffle, threads).parallelize(records.clone(), parts);
        let mut expected = records.clone();
        expected.sort_unstable();

        let spread = collect(&rdd.clone().repartition(wanted).glom());
        prop_assert_eq!(spread.len(), wanted);
        let sizes: Vec<usize> = spread.iter().map(Vec::len).collect();
        // Each of the partitions spreads its own with a difference of at most one.
        prop_assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= parts, "{:?}", sizes);
        let mut spread = spread.concat();
        spread.sort_unstable();
        prop_assert_eq!(&spread, &expected);

        let fewer = rdd.clone().coalesce(wanted);
        prop_assert_eq!(fewer.partitions(), wanted.min(parts));
        prop_assert_eq!(collect(&fewer), records.clone());

        let by_key = collect(&rdd.clone().partition_by(wanted).glom());
        prop_assert_eq!(by_key.len(), wanted);
        let groups = grouped(&records);
        let mut seen = BTreeMap::new();
        for partition in &by_key {
            for (key, values) in grouped(partition) {
                prop_assert!(seen.insert(key, values).is_none(), "key {} is in two partitions", key);
            }
        }
        prop_assert_eq!(seen, groups);

        // Stable: values of a key keep their order.
        let mut by_key = records.clone();
        by_key.sort_by_key(|(key, _)| *key);
        let ordered = rdd.clone().sort_by_key();
        prop_assert_eq!(ordered.partitions(), parts);
        prop_assert_eq!(collect(&ordered), by_key);
        let mut descending = records.clone();
        descending.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        prop_assert_eq!(collect(&rdd.clone().sort_by_key_descending()), descending.clone());
        let mut by_value = records.clone();
        by_value.sort_by_key(|(_, value)| *value);
        prop_assert_eq!(collect(&rdd.clone().sort_by(|(_, value)| *value)), by_value);
        descending.truncate(wanted);
        prop_assert_eq!(collect(&rdd.top_by(wanted, |(key, _)| *key)), descending);
    }

    #[test]
    fn actions((records, parts, shuffle, threads) in pairs(), n in 0_usize..400) {
        let rdd = context(shuffle, threads).parallelize(records.clone(), parts);
        let values: Vec<i64> = records.iter().map(|(_, v)| *v).collect();
        let of_values = rdd.clone().values();
        prop_assert_eq!(rdd.count().expect("computed"), records.len() as u64);
        prop_assert_eq!(rdd.is_empty().expect("computed"), records.is_empty());
        prop_assert_eq!(rdd.first().expect("computed"), records.first().copied());
        prop_assert_eq!(rdd.take(n).expect("computed"), records.iter().take(n).copied().collect::<Vec<_>>());
        prop_assert_eq!(of_values.reduce(|a, b| a + b).expect("computed"), values.iter().copied().reduce(|a, b| a + b));
        prop_assert_eq!(of_values.fold(0, |a, b| a + b).expect("computed"), values.iter().sum::<i64>());
        let text = of_values.aggregate(String::new(), |text, v| format!("{text}{v} "), |a, b| a + &b).expect("computed");
        prop_assert_eq!(text, values.iter().map(|v| format!("{v} ")).collect::<String>());
        let mut ordered = values.clone();
        ordered.sort_unstable();
        prop_assert_eq!(of_values.take_ordered(n).expect("computed"), ordered.iter().copied().take(n).collect::<Vec<_>>());
        prop_assert_eq!(of_values.top(n).expect("computed"), ordered.iter().rev().copied().take(n).collect::<Vec<_>>());
        let (sender, seen) = std::sync::mpsc::channel();
        of_values.for_each(move |v| sender.send(v).expect("read below")).expect("computed");
        let mut seen: Vec<i64> = seen.iter().collect();
        seen.sort_unstable();
        prop_assert_eq!(&seen, &ordered);
    }

    #[test]
    fn a_sample_is_the_same_for_the_same_seed((records, parts, shuffle, threads) in pairs(), seed in any::<u64>()) {
        let rdd = context(shuffle, threads).parallelize(records.clone(), parts);
        let drawn = collect(&rdd.clone().zip_with_index().sample(0.5, seed));
        prop_assert_eq!(&drawn, &collect(&context(1, 1).parallelize(records.clone(), parts).zip_with_index().sample(0.5, seed)));
        let places: HashMap<u64, (u8, i64)> = records.iter().copied().zip(0..).map(|(record, at)| (at, record)).collect();
        prop_assert!(drawn.windows(2).all(|two| two[0].1 < two[1].1), "in order, none twice");
        prop_assert!(drawn.iter().all(|(record, at)| places[at] == *record));
        prop_assert_eq!(collect(&rdd.clone().sample(0.0, seed)), Vec::new());
        prop_assert_eq!(collect(&rdd.sample(1.0, seed)), records);
    }
}

#[test]
fn a_sample_has_about_its_share_of_every_partition() {
    let rdd = BatchContext::new().parallelize(0..40_000_u32, 4);
    for fraction in [0.01, 0.3, 0.9] {
        let sizes: Vec<usize> = collect(&rdd.clone().sample(fraction, 7).glom()).iter().map(Vec::len).collect();
        let (expected, deviation) = (10_000.0 * fraction, (10_000.0 * fraction * (1.0 - fraction)).sqrt());
        assert!(sizes.iter().all(|size| (*size as f64 - expected).abs() < 5.0 * deviation), "{fraction}: {sizes:?}");
    }
    let other = collect(&rdd.clone().sample(0.5, 1));
    assert_ne!(other, collect(&rdd.sample(0.5, 2)), "another seed draws others");
}

#[test]
fn for_each_partition_sees_empty_ones_too() {
    let (sender, seen) = std::sync::mpsc::channel();
    let rdd = BatchContext::new().parallelize(vec![1, 2], 3);
    rdd.for_each_partition(move |index, records| {
        sender.send((index, records.collect::<Vec<i32>>())).expect("read below");
    })
    .expect("computed");
    let mut seen: Vec<_> = seen.iter().collect();
    seen.sort();
    assert_eq!(seen, [(0, vec![]), (1, vec![1]), (2, vec![2])]);
}
