//! A random walk of batches, failed tasks, freezes, write-behinds, checkpoints and crashes, beside a
//! model that is a map. After a crash the state must be that of the newest snapshot; otherwise what the
//! ended tasks made of it. Proptest prints the failing walk with its seed.

mod common;

use common::*;
use millpond_state::{Frozen, Operator, OperatorSpec, Result, StateStore, StoreOptions, codec, on_this_thread};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SHARDS: u16 = 8;
const PARTITIONS: usize = 3;
const KEYS: u16 = 400;

type Model = BTreeMap<u16, u64>;

#[derive(Debug, Clone)]
enum Change {
    Add(u16, u64),
    Remove(u16),
    Read(u16),
}

#[derive(Debug, Clone)]
enum Step {
    /// A batch of touched keys; tasks of the partitions in `failing` fail once and are run again.
    Touch {
        changes: Vec<Change>,
        failing: u8,
    },
    /// A batch that visits all keys: adds to those divisible by `add`, removes those by `remove`.
    Visit {
        add: u16,
        remove: u16,
        failing: u8,
    },
    Freeze,
    WriteBehind,
    /// Freezes, writes all behind, publishes.
    Checkpoint,
    Evict,
    Crash,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..KEYS, 1..5_u64).prop_map(|(key, more)| Change::Add(key, more)),
        2 => (0..KEYS).prop_map(Change::Remove),
        1 => (0..KEYS).prop_map(Change::Read),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(change(), 0..200), any::<u8>())
            .prop_map(|(changes, failing)| Step::Touch { changes, failing }),
        2 => (2..9_u16, 2..50_u16, any::<u8>())
            .prop_map(|(add, remove, failing)| Step::Visit { add, remove, failing }),
        3 => Just(Step::Freeze),
        3 => Just(Step::WriteBehind),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Evict),
        2 => Just(Step::Crash),
    ]
}

struct Walk {
    pond: Pond,
    store: Option<(StateStore, Operator<u64>)>,
    frozen: Vec<Frozen>,
    batch: u64,
    model: Model,
    published: Model,
}

fn key_of(n: u16) -> (u64, Vec<u8>) {
    // Some keys on the heap, most in place.
    let key = encode_key(&format!("{n}{}", if n.is_multiple_of(11) { "-long".repeat(6) } else { String::new() }));
    (codec::key_hash(&key), key)
}

fn number_of(key: &[u8]) -> u16 {
    decode_key(key).split('-').next().unwrap().parse().unwrap()
}

impl Walk {
    fn new(limit_bytes: u64) -> Self {
        let pond = Pond::new(StoreOptions {
            memory_limit_bytes: limit_bytes,
            shards: SHARDS,
            partitions: PARTITIONS,
            retained_snapshots: 2,
            block_cache_bytes: 1 << 20,
            write_buffer_bytes: 1 << 20,
            ..Default::default()
        });
        let store = Some(pond.open_with("sums"));
        Walk { pond, store, frozen: Vec::new(), batch: 0, model: Model::new(), published: Model::new() }
    }

    fn open(&self) -> &(StateStore, Operator<u64>) {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Touch { changes, failing } => {
                self.make_room();
                self.touch(changes, *failing);
            }
            Step::Visit { add, remove, failing } => {
                self.make_room();
                self.visit(*add, *remove, *failing);
            }
            Step::Freeze => self.freeze(),
            Step::WriteBehind => self.write_behind(),
            Step::Checkpoint => {
                self.freeze();
                while !self.frozen.is_empty() {
                    self.write_behind();
                }
                self.open().0.checkpoint(self.batch, &*self.pond.snapshots, vec![1]).unwrap();
                self.published = self.model.clone();
            }
            Step::Evict => self.open().0.evict(),
            Step::Crash => {
                self.frozen.clear();
                self.store = None;
                self.store = Some(self.pond.open_with("sums"));
                self.model = self.published.clone();
            }
        }
        assert_eq!(self.open().1.keys(), self.model.len() as u64, "after {step:?}");
    }

    fn freeze(&mut self) {
        if self.frozen.len() == 2 {
            self.write_behind();
        }
        self.batch += 1;
        let frozen = self.open().0.freeze(self.batch, &on_this_thread).unwrap();
        self.frozen.push(frozen);
    }

    fn write_behind(&mut self) {
        if !self.frozen.is_empty() {
            let frozen = self.frozen.remove(0);
            self.open().0.write_behind(frozen).unwrap();
        }
    }

    /// What the protocol says about being over the limit.
    fn make_room(&mut self) {
        if self.open().0.over_limit() {
            self.freeze();
            while !self.frozen.is_empty() {
                self.write_behind();
            }
            self.open().0.evict();
            let left = self.open().0.memory_bytes();
            // An empty table takes some hundred bytes too.
            assert!(!self.open().0.over_limit() || left < 5000, "{left} bytes");
        }
    }

    fn touch(&mut self, changes: &[Change], failing: u8) {
        let sums = &self.store.as_ref().unwrap().1;
        for index in 0..PARTITIONS {
            let mine: Vec<&Change> = changes
                .iter()
                .filter(|change| {
                    let (Change::Add(n, _) | Change::Remove(n) | Change::Read(n)) = change;
                    codec::partition_of(key_of(*n).0, SHARDS, PARTITIONS) == index
                })
                .collect();
            let fails = failing & 1 << index != 0;
            for attempt in if fails { 0..2 } else { 1..2 } {
                let mut partition = sums.partition(index);
                let slots: Vec<_> = mine
                    .iter()
                    .map(|change| {
                        let (Change::Add(n, _) | Change::Remove(n) | Change::Read(n)) = change;
                        let (hash, key) = key_of(*n);
                        partition.slot(hash, &key)
                    })
                    .collect();
                partition.load_misses().unwrap();
                for (change, slot) in mine.iter().zip(slots) {
                    match change {
                        Change::Add(n, more) => {
                            let before = self.model.get(n).copied();
                            if attempt == 1 {
                                assert_eq!(partition.get(slot).copied(), before, "key {n}");
                                self.model.insert(*n, before.unwrap_or(0) + more);
                            }
                            *partition.get_mut(slot).get_or_insert(0) += more;
                        }
                        Change::Remove(n) => {
                            partition.put(slot, None);
                            if attempt == 1 {
                                self.model.remove(n);
                            }
                        }
                        Change::Read(n) => {
                            if attempt == 1 {
                                assert_eq!(partition.get(slot), self.model.get(n), "key {n}");
                            }
                        }
                    }
                }
                if attempt == 1 {
                    partition.commit_task().unwrap();
                } else if failing & 128 != 0 {
                    partition.rollback_task();
                }
            }
        }
    }

    fn visit(&mut self, add: u16, remove: u16, failing: u8) {
        let sums = &self.store.as_ref().unwrap().1;
        let mut seen = Model::new();
        for index in 0..PARTITIONS {
            let fails = failing & 1 << index != 0;
            for attempt in if fails { 0..2 } else { 1..2 } {
                let mut partition = sums.partition(index);
                let mut visited = 0;
                let outcome = partition.visit_all(|visit| -> Result<(), Stop> {
                    let n = number_of(visit.key());
                    let Some(value) = visit.get().copied() else { return Ok(()) };
                    visited += 1;
                    if attempt == 0 && visited > 20 {
                        visit.put(Some(12_345));
                        return Err(Stop(None));
                    }
                    if attempt == 1 {
                        assert_eq!(seen.insert(n, value), None, "key {n} visited twice");
                    }
                    if n.is_multiple_of(remove) {
                        visit.put(None);
                    } else if n.is_multiple_of(add) {
                        visit.put(Some(value + 1));
                    } else if n.is_multiple_of(2) {
                        // Touched and put back as it was.
                        let value = visit.take();
                        visit.put(value);
                    }
                    Ok(())
                });
                if attempt == 1 {
                    outcome.unwrap();
                    partition.commit_task().unwrap();
                }
            }
        }
        assert_eq!(seen, self.model);
        self.model.retain(|n, _| n % remove != 0);
        for (n, value) in &mut self.model {
            *value += u64::from(n % add == 0);
        }
    }

    /// All keys by lookups and by a visit.
    fn check(&mut self) {
        self.make_room();
        let mut found = Model::new();
        let sums = &self.open().1;
        for index in 0..PARTITIONS {
            let mut partition = sums.partition(index);
            partition
                .visit_all(|visit| -> Result<()> {
                    found.extend(visit.get().map(|value| (number_of(visit.key()), *value)));
                    Ok(())
                })
                .unwrap();
            partition.commit_task().unwrap();
        }
        assert_eq!(found, self.model);
        self.make_room();
        let reads: Vec<Change> = (0..KEYS).map(Change::Read).collect();
        self.touch(&reads, 0);
    }
}

/// Why a visit ended: a planned failure, or an error of the store.
#[derive(Debug)]
struct Stop(#[allow(dead_code, reason = "shown by unwrap")] Option<millpond_state::Error>);

impl From<millpond_state::Error> for Stop {
    fn from(error: millpond_state::Error) -> Self {
        Stop(Some(error))
    }
}

fn walk(limit_bytes: u64, steps: &[Step]) {
    let mut walk = Walk::new(limit_bytes);
    for step in steps {
        walk.step(step);
    }
    walk.check();
    walk.step(&Step::Crash);
    walk.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn state_is_what_the_ended_tasks_made_of_the_newest_snapshot(
        limit_bytes in prop_oneof![Just(1_u64 << 30), Just(24_000), Just(4_000)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        walk(limit_bytes, &steps);
    }
}

#[test]
fn an_operator_added_later_starts_empty_and_is_kept() {
    let pond = Pond::small();
    {
        let (store, one) = pond.open_with::<u64>("one");
        put(&store, &one, &[("a", Some(1))]);
        pond.checkpoint(&store, 1);
        let two = store.operator(OperatorSpec::<u64>::new("two", "test")).unwrap();
        put(&store, &two, &[("a", Some(2))]);
        pond.checkpoint(&store, 2);
    }
    let (store, two) = pond.open_with::<u64>("two");
    assert_eq!(get(&store, &two, "a"), Some(2));
}
