//! Tasks, freezes, write-behind and checkpoints of one store, with real files.

mod common;

use common::*;
use millpond_state::{ErrorKind, OperatorSpec, StateStore, StoreOptions, codec, on_this_thread};
use std::collections::BTreeMap;

fn map<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[test]
fn what_was_checkpointed_is_there_after_a_restart_and_nothing_else() {
    let pond = Pond::small();
    {
        let (store, counts) = pond.open_with::<u64>("counts");
        put(&store, &counts, &[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]);
        assert_eq!(counts.keys(), 3);
        let info = pond.checkpoint(&store, 1);
        assert!(info.new_files > 0 && info.oldest_batch == 1, "{info:?}");
        put(&store, &counts, &[("a", None), ("d", Some(4))]);
        pond.checkpoint(&store, 2);
        // Written behind, but in no snapshot.
        put(&store, &counts, &[("e", Some(5))]);
        store.write_behind(freeze(&store, 3)).unwrap();
    }
    let (store, counts) = pond.open_with::<u64>("counts");
    assert_eq!(counts.keys(), 3);
    assert_eq!(get(&store, &counts, "a"), None);
    assert_eq!(get(&store, &counts, "b"), Some(2));
    assert_eq!(all(&counts), map([("b", 2), ("c", 3), ("d", 4)]));
    assert_eq!(pond.newest().snapshot.unwrap().meta(), b"meta");
}

#[test]
fn a_task_rolled_back_leaves_nothing() {
    let pond = Pond::new(StoreOptions { shards: 1, partitions: 1, ..Default::default() });
    let (store, lists) = pond.open_with::<Vec<u32>>("lists");
    put(&store, &lists, &[("a", Some(vec![1])), ("b", Some(vec![2]))]);
    pond.checkpoint(&store, 1);
    let key = |name: &str| (codec::key_hash(&encode_key(name)), encode_key(name));
    for rolled_back_by_drop in [false, true] {
        let mut partition = lists.partition(0);
        let slots: Vec<_> =
            ["a", "b", "c"].iter().map(|name| key(name)).map(|(hash, key)| partition.slot(hash, &key)).collect();
        partition.get_mut(slots[0]).as_mut().unwrap().push(9);
        partition.get_mut(slots[0]).as_mut().unwrap().push(10);
        partition.put(slots[1], None);
        partition.put(slots[2], Some(vec![3]));
        partition
            .visit_all(|visit| {
                visit.take();
                Ok::<_, millpond_state::Error>(())
            })
            .unwrap();
        assert!(slots.iter().all(|slot| partition.get(*slot).is_none()));
        if !rolled_back_by_drop {
            partition.rollback_task();
        }
        drop(partition);
        assert_eq!(lists.keys(), 2);
        assert_eq!(all(&lists), [("a".to_string(), vec![1]), ("b".to_string(), vec![2])].into());
        assert_eq!(freeze_rows(&store, 2), 0, "a rolled-back task leaves nothing to write");
    }
}

fn freeze_rows(store: &StateStore, batch: u64) -> usize {
    let frozen = freeze(store, batch);
    let rows = frozen.rows();
    store.write_behind(frozen).unwrap();
    rows
}

#[test]
fn a_panic_in_the_middle_of_a_visit_rolls_the_task_back() {
    let pond = Pond::new(StoreOptions { shards: 1, partitions: 1, ..Default::default() });
    let (store, names) = pond.open_with::<String>("names");
    put(&store, &names, &[("a", Some("x".into())), ("b", Some("y".into()))]);
    let mut visited = 0;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut partition = names.partition(0);
        let _ = partition.visit_all(|visit| -> Result<(), millpond_state::Error> {
            visit.put(Some("changed".into()));
            visited += 1;
            assert!(visited < 2, "a bug of the user");
            Ok(())
        });
    }));
    assert!(outcome.is_err() && visited == 2);
    assert_eq!(all(&names), [("a".into(), "x".into()), ("b".into(), "y".into())].into());
}

#[test]
fn a_visit_that_gives_back_what_it_got_costs_no_write() {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    let keys: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let changes: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(7))).collect();
    put(&store, &counts, &changes);
    assert_eq!(freeze_rows(&store, 1), 1000);
    for index in 0..counts.partitions() {
        let mut partition = counts.partition(index);
        partition
            .visit_all(|visit| {
                let value = visit.take().map(|n| if n > 7 { n + 1 } else { n });
                visit.put(value);
                Ok::<_, millpond_state::Error>(())
            })
            .unwrap();
        partition.commit_task().unwrap();
    }
    assert_eq!(freeze_rows(&store, 2), 0);
    put(&store, &counts, &[("5", Some(8))]);
    assert_eq!(freeze_rows(&store, 3), 1);
}

#[test]
fn a_key_made_and_removed_between_two_freezes_is_never_written() {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    put(&store, &counts, &[("a", None)]);
    assert_eq!(freeze_rows(&store, 1), 0);
    assert_eq!(counts.keys(), 0);
    let statistics = &store.statistics().unwrap()[0];
    assert_eq!((statistics.keys, statistics.resident_keys), (0, 0));
}

#[test]
fn a_removed_key_stays_removed_while_its_removal_is_on_its_way() {
    let pond = Pond::small();
    {
        let (store, counts) = pond.open_with::<u64>("counts");
        put(&store, &counts, &[("a", Some(1))]);
        pond.checkpoint(&store, 1);
    }
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", None)]);
    let first = freeze(&store, 2);
    assert_eq!(get(&store, &counts, "a"), None, "the database still has it");
    put(&store, &counts, &[("a", Some(2))]);
    put(&store, &counts, &[("a", None)]);
    let second = freeze(&store, 3);
    store.write_behind(first).unwrap();
    assert_eq!(get(&store, &counts, "a"), None);
    store.write_behind(second).unwrap();
    assert_eq!(freeze_rows(&store, 4), 0);
    assert_eq!(get(&store, &counts, "a"), None);
    assert_eq!(store.statistics().unwrap()[0].resident_keys, 0, "removals written behind are forgotten");
}

#[test]
fn a_visit_meets_neither_removed_keys_nor_keys_that_never_had_a_value() {
    let pond = Pond::new(StoreOptions { shards: 1, partitions: 1, ..Default::default() });
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1)), ("b", Some(2)), ("c", Some(3))]);
    pond.checkpoint(&store, 1);
    put(&store, &counts, &[("a", None)]);
    let _on_its_way = freeze(&store, 2);
    put(&store, &counts, &[("b", None)]);
    let mut partition = counts.partition(0);
    let absent = encode_key("d");
    partition.slot(codec::key_hash(&absent), &absent);
    partition.load_misses().unwrap();
    let mut visited = Vec::new();
    partition
        .visit_all(|visit| {
            visited.push((decode_key(visit.key()), visit.take()));
            visit.put(Some(4));
            Ok::<_, millpond_state::Error>(())
        })
        .unwrap();
    assert_eq!(visited, [("c".to_string(), Some(3))]);
}

#[test]
fn an_eviction_does_not_wait_for_a_task() {
    let options = StoreOptions { shards: 1, partitions: 1, memory_limit_bytes: 1000, ..Default::default() };
    let pond = Pond::new(options);
    let (store, counts) = pond.open_with::<u64>("counts");
    let mut task = counts.partition(0);
    for n in 0..100_u64 {
        let key = n.to_le_bytes();
        let slot = task.slot(codec::key_hash(&key), &key);
        task.put(slot, Some(n));
    }
    assert!(store.memory_bytes() < 1000, "reported when the task ends");
    task.load_misses().unwrap();
    store.evict();
    task.commit_task().unwrap();
    drop(task);
    assert!(store.over_limit());
}

#[test]
fn h8_a_snapshot_of_b_cannot_hold_anything_of_a_later_batch() {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    let one = freeze(&store, 1);
    // Batch 2 runs in memory while batch 1 commits.
    put(&store, &counts, &[("a", Some(2)), ("b", Some(1))]);
    let two = freeze(&store, 2);
    store.evict();
    assert_eq!(get(&store, &counts, "a"), Some(2));
    store.write_behind(one).unwrap();
    store.checkpoint(1, &*pond.snapshots, Vec::new()).unwrap();
    store.write_behind(two).unwrap();
    let late = store.checkpoint(1, &*pond.snapshots, Vec::new()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Misuse);
    assert!(late.to_string().contains("holds batch 2"), "{late}");
    drop((store, counts));
    let (_store, counts) = pond.open_with::<u64>("counts");
    assert_eq!(all(&counts), map([("a", 1)]), "the snapshot of batch 1 is of batch 1");
}

#[test]
fn h8_frozen_batches_reach_the_database_in_order_only() {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    let one = freeze(&store, 1);
    put(&store, &counts, &[("a", Some(2))]);
    let two = freeze(&store, 2);
    assert_eq!(store.write_behind(two).unwrap_err().kind(), ErrorKind::Misuse);
    // What was to be written is lost with the refused batch: there is no going on.
    assert_eq!(store.write_behind(one).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.freeze(3, &on_this_thread).err().unwrap().kind(), ErrorKind::Poisoned);
}

#[test]
fn a_freeze_with_a_task_open_or_of_an_earlier_batch_is_refused() {
    let pond = Pond::new(StoreOptions { shards: 1, partitions: 1, ..Default::default() });
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    store.write_behind(freeze(&store, 5)).unwrap();
    let earlier = store.freeze(4, &on_this_thread).err().unwrap();
    assert_eq!(earlier.kind(), ErrorKind::Misuse);
    let task = counts.partition(0);
    let open = store.freeze(5, &on_this_thread).err().unwrap();
    assert_eq!(open.kind(), ErrorKind::Misuse);
    assert!(open.to_string().contains("1 tasks are open"), "{open}");
    drop(task);
    // Neither changed anything.
    pond.checkpoint(&store, 5);
}

#[test]
fn h10_frozen_changes_that_are_dropped_poison_the_store() {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    drop(freeze(&store, 1));
    let error = store.freeze(2, &on_this_thread).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(error.to_string().contains("batch 1"), "{error}");
}

#[test]
fn operators_do_not_mix_and_one_not_opened_keeps_its_state() {
    let pond = Pond::small();
    {
        let store = pond.open();
        let one = store.operator(OperatorSpec::<u64>::new("one", "test")).unwrap();
        let two = store.operator(OperatorSpec::<String>::new("default", "test")).unwrap();
        put(&store, &one, &[("a", Some(1))]);
        put(&store, &two, &[("a", Some("x".into()))]);
        pond.checkpoint(&store, 1);
        let twice = store.operator(OperatorSpec::<u64>::new("one", "test")).err().unwrap();
        assert_eq!(twice.kind(), ErrorKind::Misuse);
    }
    {
        let (store, one) = pond.open_with::<u64>("one");
        assert_eq!(store.unopened_operators().len(), 1);
        put(&store, &one, &[("a", Some(2))]);
        pond.checkpoint(&store, 2);
    }
    {
        let (store, two) = pond.open_with::<String>("default");
        assert_eq!(get(&store, &two, "a").as_deref(), Some("x"));
        assert_eq!(two.keys(), 1);
        store.remove_operator("one").unwrap();
        pond.checkpoint(&store, 3);
    }
    let (store, one) = pond.open_with::<u64>("one");
    assert_eq!(one.keys(), 0);
    assert_eq!(get(&store, &one, "a"), None, "a removed operator is empty when it comes back");
}

#[test]
fn shards_and_partitions_are_fixed_at_creation() {
    let mut pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    put(&store, &counts, &[("a", Some(1))]);
    pond.checkpoint(&store, 1);
    drop((store, counts));
    pond.options.partitions = 4;
    let snapshot = pond.newest().snapshot;
    let error = StateStore::open(&pond.live(), snapshot.as_ref(), pond.options.clone()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("8 shards in 3 partitions"), "{error}");
}

#[test]
fn long_keys_and_many_keys_survive() {
    let pond = Pond::small();
    let keys: Vec<String> = (0..20_000).map(|n| format!("{}{n}", "k".repeat(n % 60))).collect();
    let changes: Vec<_> = keys.iter().enumerate().map(|(n, key)| (key.as_str(), Some(n as u64))).collect();
    {
        let (store, counts) = pond.open_with::<u64>("counts");
        put(&store, &counts, &changes);
        pond.checkpoint(&store, 1);
    }
    let (store, counts) = pond.open_with::<u64>("counts");
    let expected: BTreeMap<_, _> = keys.iter().cloned().zip(0..).collect();
    assert_eq!(counts.keys(), expected.len() as u64);
    for n in (0..20_000).step_by(997) {
        assert_eq!(get(&store, &counts, &keys[n]), Some(expected[&keys[n]]));
    }
    assert_eq!(all(&counts), expected);
}
