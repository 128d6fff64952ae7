//! The rows a keyed operator keeps beside its state, in a column family of their own: that it has begun, and which keys
//! time out when.
//!
//! A key with a timeout has one entry: its bytes, in the bucket of the deadline it had when it was scheduled. Only buckets
//! whose deadlines have passed are looked at, and each of their keys looked up: one that was used meanwhile is entered again
//! at its new deadline. So a key costs one entry, and one look for each timeout that passes, however many keys there are,
//! and a restart has nothing to load. A bucket is a run of chunks; a row's key carries a salt that brings it into the
//! partition of its keys.

use std::collections::BTreeMap;

use super::time_rows::RowKey;
pub(crate) use super::time_rows::{Begun, Chunk, Row, keys};
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::RddEnv;
use millpond_state::{Operator, PartitionGuard, Slot, codec};

/// A chunk that has so many bytes is full: what one more entry may have to copy.
const CHUNK_BYTES: usize = 4096;

/// Bucket heads read at once.
const HEADS: usize = 4096;

/// Keys to be entered: by bucket the earliest deadline and the keys, each with its length.
#[derive(Default)]
pub(crate) struct Entries(BTreeMap<u64, (u64, Vec<u8>)>);

impl Entries {
    pub(crate) fn add(&mut self, bucket: u64, deadline_ms: u64, key: &[u8]) {
        let (earliest, keys) = self.0.entry(bucket).or_insert((deadline_ms, Vec::new()));
        *earliest = deadline_ms.min(*earliest);
        // A key is at most as long as the codec allows, 64 MiB.
        keys.extend_from_slice(&(key.len() as u32).to_le_bytes());
        keys.extend_from_slice(key);
    }
}

/// The rows of one partition, held by its task.
pub(crate) struct Times {
    rows: PartitionGuard<Row>,
    partition: usize,
    partitions: usize,
    shards: u16,
    begun: Slot,
}

impl Times {
    /// Locks a partition's rows; gives what the operator has noted there, `None` before its first batch.
    pub(crate) fn of(operator: &Operator<Row>, partition: usize, env: &RddEnv) -> Result<(Times, Option<Begun>)> {
        let mut rows = operator.partition(partition);
        let (shards, partitions) = (env.shards, env.partitions);
        let (hash, key) = row_key(&RowKey::Begun, partition, partitions, shards)?;
        let begun = rows.slot(hash, &key);
        rows.load_misses()?;
        let noted = match rows.get(begun) {
            Some(Row::Begun(noted)) => Some(noted.clone()),
            Some(Row::Chunk(_)) => return Err(damaged(operator.name())),
            None => None,
        };
        Ok((Times { rows, partition, partitions, shards, begun }, noted))
    }

    /// The lock, for the task's effects.
    pub(crate) fn into_rows(self) -> PartitionGuard<Row> {
        self.rows
    }

    pub(crate) fn note(&mut self, begun: Begun) {
        self.rows.put(self.begun, Some(Row::Begun(begun)));
    }

    fn slot(&mut self, generation: u32, bucket: u64, chunk: u32) -> Result<Slot> {
        let key = RowKey::Chunk { generation, bucket, chunk };
        let (hash, key) = row_key(&key, self.partition, self.partitions, self.shards)?;
        Ok(self.rows.slot(hash, &key))
    }

    fn chunk(&self, slot: Slot) -> Option<&Chunk> {
        match self.rows.get(slot) {
            Some(Row::Chunk(chunk)) => Some(chunk),
            _ => None,
        }
    }

    /// Takes out the buckets that hold a deadline before `now_ms`, in order, each with its keys.
    pub(crate) fn take_due(&mut self, begun: &Begun, now_ms: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let Begun { timeout_ms: Some(timeout_ms), bucket_ms, generation, checked_ms } = *begun else {
            return Ok(Vec::new());
        };
        let first = checked_ms.saturating_sub(1) / bucket_ms;
        // No key has been used after the batch that was checked last.
        let last = (now_ms.saturating_sub(1)).min(checked_ms.saturating_add(timeout_ms)) / bucket_ms;
        let mut due = Vec::new();
        let mut buckets = first..=last;
        loop {
            let some: Vec<(u64, Slot)> = buckets
                .by_ref()
                .take(HEADS)
                .map(|bucket| Ok((bucket, self.slot(generation, bucket, 0)?)))
                .collect::<Result<_>>()?;
            if some.is_empty() {
                return Ok(due);
            }
            self.rows.load_misses()?;
            for (bucket, head) in some {
                let Some(chunk) = self.chunk(head).filter(|chunk| chunk.earliest_ms < now_ms) else { continue };
                let mut slots = vec![head];
                for number in 1..=chunk.more {
                    slots.push(self.slot(generation, bucket, number)?);
                }
                self.rows.load_misses()?;
                let mut keys = Vec::new();
                for slot in slots {
                    match self.rows.take(slot) {
                        Some(Row::Chunk(chunk)) => keys.extend(chunk.keys),
                        _ => return Err(damaged("times")),
                    }
                }
                due.push((bucket, keys));
            }
        }
    }

    /// Enters keys into their buckets.
    pub(crate) fn enter(&mut self, generation: u32, entries: Entries) -> Result<()> {
        if entries.0.is_empty() {
            return Ok(());
        }
        let buckets = entries.0.keys().copied();
        let heads = buckets.map(|bucket| self.slot(generation, bucket, 0)).collect::<Result<Vec<_>>>()?;
        self.rows.load_misses()?;
        let mut places = Vec::with_capacity(heads.len());
        for (head, (bucket, (earliest_ms, keys))) in heads.into_iter().zip(entries.0) {
            let more = self.chunk(head).map_or(0, |chunk| chunk.more);
            let tail = if more == 0 { head } else { self.slot(generation, bucket, more)? };
            places.push((bucket, head, more, tail, earliest_ms, keys));
        }
        self.rows.load_misses()?;
        for (bucket, head, more, tail, earliest_ms, keys) in places {
            self.enter_bucket(generation, bucket, (head, more, tail), earliest_ms, &keys)?;
        }
        Ok(())
    }

    fn enter_bucket(
        &mut self,
        generation: u32,
        bucket: u64,
        (head, before, tail): (Slot, u32, Slot),
        earliest_ms: u64,
        entries: &[u8],
    ) -> Result<()> {
        let (mut more, mut slot) = (before, tail);
        let mut chunk = self.take_chunk(slot).unwrap_or(Chunk { earliest_ms, ..Chunk::default() });
        for key in keys(entries) {
            if chunk.keys.len() >= CHUNK_BYTES {
                self.rows.put(slot, Some(Row::Chunk(std::mem::take(&mut chunk))));
                more += 1;
                slot = self.slot(generation, bucket, more)?;
                // There is none of that number: nothing was left after the last one.
                self.rows.load_misses()?;
            }
            chunk.keys.extend_from_slice(&(key.len() as u32).to_le_bytes());
            chunk.keys.extend_from_slice(key);
        }
        self.rows.put(slot, Some(Row::Chunk(chunk)));
        let stale = self.chunk(head).is_none_or(|first| first.more != more || first.earliest_ms > earliest_ms);
        if stale && let Some(mut first) = self.take_chunk(head) {
            first.more = more;
            first.earliest_ms = first.earliest_ms.min(earliest_ms);
            self.rows.put(head, Some(Row::Chunk(first)));
        }
        Ok(())
    }

    fn take_chunk(&mut self, slot: Slot) -> Option<Chunk> {
        match self.rows.take(slot) {
            Some(Row::Chunk(chunk)) => Some(chunk),
            _ => None,
        }
    }

    /// Removes every bucket but those of one generation: of a timeout that holds no more.
    pub(crate) fn forget_others(&mut self, generation: u32) -> Result<()> {
        self.rows.visit_all(|row| {
            let (key, _): (RowKey, u32) = codec::decode(row.key())?;
            if matches!(key, RowKey::Chunk { generation: of, .. } if of != generation) {
                row.put(None);
            }
            Ok(())
        })
    }
}

/// The hash and the encoding of a row's key, with the first salt that brings it into the partition.
fn row_key(key: &RowKey, partition: usize, partitions: usize, shards: u16) -> Result<(u64, Vec<u8>)> {
    let mut encoded = Vec::with_capacity(24);
    // As many tries as there are partitions, on average; every partition has its shards.
    for salt in 0..u32::MAX {
        encoded.clear();
        codec::encode(&(key, salt), &mut encoded)?;
        let hash = codec::key_hash(&encoded);
        if codec::partition_of(hash, shards, partitions) == partition {
            return Ok((hash, encoded));
        }
    }
    Err(Error::new(ErrorKind::Restart, format!("no key was found that lies in partition {partition} of {partitions}")))
}

fn damaged(operator: &str) -> Error {
    Error::new(ErrorKind::Restore, format!("`{operator}` holds a row that does not belong to its key"))
}

#[cfg(test)]
mod tests {
    use millpond_state::{OperatorSpec, StateStore, StoreOptions};

    use serde::Serialize;

    use super::*;

    fn encoded(value: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(value, &mut bytes).expect("it is encoded");
        bytes
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let begun = Begun { timeout_ms: Some(3000), bucket_ms: 1000, generation: 2, checked_ms: 7 };
        assert_eq!(encoded(&Row::Begun(begun)), [0, 1, 251, 184, 11, 251, 232, 3, 2, 7]);
        assert_eq!(encoded(&Row::Begun(Begun::default())), [0, 0, 0, 0, 0]);
        let chunk = Chunk { more: 1, earliest_ms: 4000, keys: vec![1, 0, 0, 0, 9] };
        assert_eq!(encoded(&Row::Chunk(chunk)), [1, 1, 251, 160, 15, 5, 1, 0, 0, 0, 9]);
        assert_eq!(encoded(&(RowKey::Begun, 5_u32)), [0, 5]);
        assert_eq!(encoded(&(RowKey::Chunk { generation: 1, bucket: 2, chunk: 3 }, 4_u32)), [1, 1, 2, 3, 4]);
    }

    #[test]
    fn rows_lie_in_the_partition_they_are_for() {
        for partitions in [1, 16, 256] {
            for partition in 0..partitions {
                let (hash, key) = row_key(&RowKey::Begun, partition, partitions, 256).expect("there is a salt");
                assert_eq!(codec::partition_of(hash, 256, partitions), partition);
                assert_eq!(codec::key_hash(&key), hash);
            }
        }
    }

    /// Rows of one partition, in a store of their own.
    struct Bench {
        operator: Operator<Row>,
        _store: StateStore,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let options = StoreOptions { shards: 256, partitions: 4, ..StoreOptions::default() };
            let store = StateStore::open(&directory.path().join("live"), None, options).expect("it opens");
            let operator = store.operator(OperatorSpec::new("x/times", "times")).expect("it opens");
            Bench { operator, _store: store, _directory: directory }
        }

        fn task<R>(&self, work: impl FnOnce(&mut Times) -> R) -> R {
            let mut rows = self.operator.partition(2);
            let (hash, key) = row_key(&RowKey::Begun, 2, 4, 256).expect("there is a salt");
            let begun = rows.slot(hash, &key);
            rows.load_misses().expect("they are read");
            let mut times = Times { rows, partition: 2, partitions: 4, shards: 256, begun };
            let made = work(&mut times);
            times.into_rows().commit_task().expect("it ends");
            made
        }
    }

    #[test]
    fn a_bucket_of_many_chunks_comes_out_whole_and_once() {
        let bench = Bench::new();
        let begun = |checked_ms| Begun { timeout_ms: Some(5000), bucket_ms: 1000, generation: 0, checked_ms };
        let mut expected = Vec::new();
        // Entered in several batches, and so many that the last chunk overflows at times.
        for round in 0..5_u32 {
            let mut entries = Entries::default();
            for n in 0..700 + 300 * round {
                let key = format!("key {round} {n}").into_bytes();
                entries.add(7, 7200 - u64::from(round) * 10, &key);
                expected.push(key);
            }
            bench.task(|times| times.enter(0, entries)).expect("they are entered");
        }
        let due =
            |checked_ms, now_ms| bench.task(|times| times.take_due(&begun(checked_ms), now_ms)).expect("it looks");
        assert!(due(3000, 7000).is_empty());
        assert!(due(7000, 7160).is_empty(), "the earliest deadline is not before this batch");
        let found = due(7100, 7161);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 7);
        assert!(keys(&found[0].1).eq(expected.iter().map(Vec::as_slice)));
        assert!(due(7000, 9000).is_empty(), "taken out");
        assert_eq!(bench.operator.keys(), 0);
        // A wide gap looks at every bucket that can hold something, and at no more.
        let mut entries = Entries::default();
        entries.add(12, 12_999, b"late");
        bench.task(|times| times.enter(0, entries)).expect("they are entered");
        let found = due(8000, 1 << 50);
        assert_eq!(found.iter().map(|(bucket, _)| *bucket).collect::<Vec<_>>(), [12]);
    }
}
