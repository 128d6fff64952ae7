//! State larger than memory: the limit holds, the results are right.

mod common;

use common::*;
use millpond_state::{ErrorKind, Operator, Result, StateStore, StoreOptions, codec, on_this_thread};
use std::collections::BTreeMap;

const PARTITIONS: usize = 16;

/// What the engine does after a batch, by the crate's protocol; returns the most memory taken meanwhile.
fn end_batch(pond: &Pond, store: &StateStore, batch: u64, checkpoint: bool) -> u64 {
    let mut most = store.memory_bytes();
    let over = store.over_limit();
    if over || checkpoint {
        let frozen = store.freeze(batch, &on_this_thread).unwrap();
        most = most.max(store.memory_bytes());
        store.write_behind(frozen).unwrap();
        if checkpoint {
            store.checkpoint(batch, &*pond.snapshots, Vec::new()).unwrap();
        }
        store.evict();
        assert!(!store.over_limit(), "after eviction there is room");
    }
    most
}

fn limited(limit_bytes: u64) -> Pond {
    Pond::new(StoreOptions {
        memory_limit_bytes: limit_bytes,
        shards: 64,
        partitions: PARTITIONS,
        retained_snapshots: 2,
        ..Default::default()
    })
}

/// Adds one to each key's number, with lookups of those keys only.
fn touch(store: &StateStore, sums: &Operator<(u64, String)>, keys: impl Iterator<Item = u64>) -> u64 {
    let mut by_partition: Vec<Vec<(u64, Vec<u8>)>> = vec![Vec::new(); PARTITIONS];
    for n in keys {
        let key = encode_key(&n.to_string());
        let hash = codec::key_hash(&key);
        by_partition[codec::partition_of(hash, 64, PARTITIONS)].push((hash, key));
    }
    let mut most = 0;
    for (index, keys) in by_partition.iter().enumerate() {
        let mut partition = sums.partition(index);
        let slots: Vec<_> = keys.iter().map(|(hash, key)| partition.slot(*hash, key)).collect();
        partition.load_misses().unwrap();
        for slot in slots {
            let value = partition.get_mut(slot).get_or_insert_with(|| (0, "some text of about 30 bytes".into()));
            value.0 += 1;
        }
        most = most.max(store.memory_bytes());
        partition.commit_task().unwrap();
    }
    most
}

/// Visits all keys and adds one to each whose number `pick` accepts, and removes those of `remove`.
fn visit(
    store: &StateStore,
    sums: &Operator<(u64, String)>,
    pick: impl Fn(u64) -> bool,
    remove: impl Fn(u64) -> bool,
) -> (u64, u64) {
    let (mut visited, mut most) = (0, 0);
    for index in 0..PARTITIONS {
        let mut partition = sums.partition(index);
        partition
            .visit_all(|visit| -> Result<()> {
                if visit.get().is_none() {
                    return Ok(());
                }
                visited += 1;
                most = most.max(store.memory_bytes());
                let n: u64 = decode_key(visit.key()).parse().unwrap();
                if remove(n) {
                    visit.put(None);
                } else {
                    let mut value = visit.take().unwrap();
                    value.0 += u64::from(pick(n));
                    visit.put(Some(value));
                }
                Ok(())
            })
            .unwrap();
        partition.commit_task().unwrap();
    }
    (visited, most)
}

#[test]
fn a_cache_of_a_twentieth_of_the_state_stays_within_its_limit_with_all_keys_visited_too() {
    const KEYS: u64 = 60_000;
    // What all of it takes in memory, found out first.
    let whole = {
        let pond = limited(1 << 40);
        let (store, sums) = pond.open_with::<(u64, String)>("sums");
        touch(&store, &sums, 0..KEYS);
        end_batch(&pond, &store, 1, true);
        store.memory_bytes()
    };
    let limit = whole / 20;
    let pond = limited(limit);
    let (store, sums) = pond.open_with::<(u64, String)>("sums");
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    let mut most = 0;
    let mut batch = 0;
    let mut end = |store: &StateStore, checkpoint: bool| {
        batch += 1;
        end_batch(&pond, store, batch, checkpoint)
    };
    // Batches that each touch some hundred keys.
    for first in (0..KEYS).step_by(500) {
        most = most.max(touch(&store, &sums, first..first + 500));
        most = most.max(end(&store, first % 5000 == 0));
    }
    expected.extend((0..KEYS).map(|n| (n, 1)));
    assert_eq!(sums.keys(), KEYS);
    // All keys visited: nothing changes, some change, all change, some go.
    type Picks = (fn(u64) -> bool, fn(u64) -> bool);
    let picks: [Picks; 5] = [
        (|_| false, |_| false),
        (|n| n % 7 == 0, |_| false),
        (|_| true, |_| false),
        (|n| n % 2 == 0, |n| n % 3 == 0),
        (|_| true, |n| n % 5 == 0),
    ];
    for (pick, remove) in picks {
        // Some keys are looked up before, as those with news are.
        most = most.max(touch(&store, &sums, (0..KEYS).step_by(301)));
        for n in (0..KEYS).step_by(301) {
            *expected.entry(n).or_insert(0) += 1;
        }
        most = most.max(end(&store, false));
        let (visited, most_then) = visit(&store, &sums, pick, remove);
        most = most.max(most_then);
        assert_eq!(visited, expected.len() as u64, "every key once");
        expected.retain(|n, _| !remove(*n));
        for (n, value) in &mut expected {
            *value += u64::from(pick(*n));
        }
        assert_eq!(sums.keys(), expected.len() as u64);
        let x = end(&store, true);
        most = most.max(x);
    }
    assert!(most <= limit, "limit {limit}, most {most}");
    drop((store, sums));
    let (_store, sums) = pond.open_with::<(u64, String)>("sums");
    let found: BTreeMap<u64, u64> =
        all(&sums).into_iter().map(|(key, value)| (key.parse().unwrap(), value.0)).collect();
    assert!(found == expected, "{} keys found, {} expected", found.len(), expected.len());
}

#[test]
fn h8_a_batch_whose_changes_exceed_the_limit_waits_beside_the_database_until_it_has_committed() {
    const KEYS: u64 = 20_000;
    let pond = limited(200 << 10);
    let (store, sums) = pond.open_with::<(u64, String)>("sums");
    touch(&store, &sums, 0..100);
    end_batch(&pond, &store, 1, true);
    // Far more than 200 KiB of changes in one batch.
    touch(&store, &sums, 0..KEYS);
    assert!(store.over_limit());
    assert!(store.memory_bytes() < 600 << 10, "{}", store.memory_bytes());
    assert_eq!(sums.keys(), KEYS);
    let spilled = std::fs::read_dir(pond.live().join("spill")).unwrap().count();
    assert!(spilled > 0, "changes have been written beside the database");
    // Until it is written behind, what is not in memory cannot be known.
    let refused = (0..PARTITIONS).filter(|index| {
        let mut partition = sums.partition(*index);
        partition.visit_all(|_| -> Result<()> { Ok(()) }).is_err_and(|error| error.kind() == ErrorKind::Misuse)
    });
    assert!(refused.count() > 0);
    // A crash now: the batch has never been.
    drop((store, sums));
    let (store, sums) = pond.open_with::<(u64, String)>("sums");
    assert_eq!(all(&sums).len(), 100);
    touch(&store, &sums, 0..KEYS);
    end_batch(&pond, &store, 2, true);
    let found = all(&sums);
    assert_eq!(found.len(), KEYS as usize);
    assert!(found.values().filter(|value| value.0 == 2).count() == 100);
    assert_eq!(std::fs::read_dir(pond.live().join("spill")).unwrap().count(), 0, "moved into the database");
}

#[test]
fn held_changes_stay_in_memory_and_can_be_visited_again_before_they_are_written() {
    const KEYS: u64 = 20_000;
    let pond = limited(200 << 10);
    let (store, sums) = pond.open_with::<(u64, String)>("sums");
    touch(&store, &sums, 0..KEYS);
    end_batch(&pond, &store, 1, true);
    // Far more than 200 KiB of changes, three times in one batch.
    store.hold_changes(true);
    for _ in 0..3 {
        let (visited, _) = visit(&store, &sums, |_| true, |_| false);
        assert_eq!(visited, KEYS);
    }
    assert!(store.over_limit());
    store.hold_changes(false);
    end_batch(&pond, &store, 2, true);
    assert!(store.memory_bytes() <= 200 << 10, "{}", store.memory_bytes());
    let found = all(&sums);
    assert_eq!(found.len(), KEYS as usize);
    assert!(found.values().all(|value| value.0 == 4));
}

#[test]
fn h8_changes_of_streamed_keys_are_gone_if_the_task_is_rolled_back() {
    const KEYS: u64 = 20_000;
    let pond = limited(200 << 10);
    {
        let (store, sums) = pond.open_with::<(u64, String)>("sums");
        touch(&store, &sums, 0..KEYS);
        end_batch(&pond, &store, 1, true);
    }
    let (store, sums) = pond.open_with::<(u64, String)>("sums");
    for index in 0..PARTITIONS {
        let mut partition = sums.partition(index);
        let mut visited = 0;
        let outcome = partition.visit_all(|visit| {
            visited += 1;
            visit.put(if visited % 2 == 0 { None } else { Some((99, String::new())) });
            if visited == 1000 { Err(Stop) } else { Ok(()) }
        });
        assert!(outcome.is_err(), "a partition has more than 1000 keys");
        partition.rollback_task();
    }
    assert_eq!(std::fs::read_dir(pond.live().join("spill")).unwrap().count(), 0);
    assert_eq!(sums.keys(), KEYS);
    // The same tasks run again at once: nothing holds them up.
    let (visited, _) = visit(&store, &sums, |_| true, |_| false);
    assert_eq!(visited, KEYS);
    end_batch(&pond, &store, 2, true);
    assert!(all(&sums).values().all(|value| value.0 == 2));
}

#[derive(Debug)]
struct Stop;

impl From<millpond_state::Error> for Stop {
    fn from(error: millpond_state::Error) -> Self {
        panic!("{error}")
    }
}

#[test]
fn values_that_grow_are_counted() {
    let pond = limited(1 << 30);
    let (store, lists) = pond.open_with::<Vec<u64>>("lists");
    put(&store, &lists, &[("a", Some(vec![1]))]);
    let before = store.memory_bytes();
    put(&store, &lists, &[("a", Some((0..10_000).collect()))]);
    let grown = store.memory_bytes() - before;
    assert!((79_900..100_000).contains(&grown), "{grown}");
    put(&store, &lists, &[("a", None)]);
    assert!(store.memory_bytes() < before + 10_000);
    drop(lists);
}
