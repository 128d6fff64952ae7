//! A table that folds the values of each key of a partition; keys are told apart by their encoded bytes.

use millpond_state::codec;
use millpond_state::{KeyBytes, KeyIndex};

use crate::controls::seeded;

/// Records folded at once: what they touch stays in the first cache.
const BLOCK: usize = 128;

/// One folded value a key, in the order in which keys came.
pub(crate) struct CombineTable<K, C> {
    index: KeyIndex,
    entries: Vec<Entry<C>>,
    /// By entry. Apart from it: a look-up needs the bytes and what is folded, which so share a line of the cache.
    keys: Vec<K>,
}

struct Entry<C> {
    bytes: KeyBytes,
    /// `None` only while its fold runs.
    combined: Option<C>,
}

impl<K, C> CombineTable<K, C> {
    pub(crate) fn new() -> Self {
        CombineTable { index: KeyIndex::default(), entries: Vec::new(), keys: Vec::new() }
    }

    /// Folds a value into its key's entry. `key` is called for a new key only.
    pub(crate) fn fold(
        &mut self,
        hash: u64,
        bytes: KeyBytes,
        key: impl FnOnce() -> K,
        fold: impl FnOnce(Option<C>) -> C,
    ) {
        match self.index.find(hash as u32, |at| self.entries[at as usize].bytes == bytes) {
            Some(at) => self.entries[at as usize].fold(fold),
            None => self.insert(hash, bytes, key(), fold(None)),
        }
    }

    fn insert(&mut self, hash: u64, bytes: KeyBytes, key: K, combined: C) {
        self.index.insert(hash as u32, self.entries.len() as u32);
        self.entries.push(Entry { bytes, combined: Some(combined) });
        self.keys.push(key);
    }

    /// Folds records, in order: `create` from the first value of a key, `add` for each further one.
    pub(crate) fn fold_all<V>(
        &mut self,
        records: impl Iterator<Item = (K, V)>,
        create: &impl Fn(V) -> C,
        add: &impl Fn(C, V) -> C,
    ) -> millpond_state::Result<()>
    where
        K: serde::Serialize,
    {
        let tables = std::slice::from_mut(self);
        let mut block = Block::new();
        for record in records {
            block.add(record, |_| 0)?;
            block.fold_if_full(tables, create, add);
        }
        block.fold(tables, create, add);
        Ok(())
    }

    /// Folds the entries of a table that comes after this one.
    pub(crate) fn merge(&mut self, other: CombineTable<K, C>, merge: &impl Fn(C, C) -> C) {
        if self.entries.is_empty() {
            *self = other;
            return;
        }
        let mut block = Block::new();
        for (Entry { bytes, combined }, key) in other.entries.into_iter().zip(other.keys) {
            if let Some(combined) = combined {
                block.push(bytes, (key, combined));
                block.fold_if_full(std::slice::from_mut(self), &|new| new, merge);
            }
        }
        block.fold(std::slice::from_mut(self), &|new| new, merge);
    }

    /// Keys and folded values, in the order in which keys came.
    pub(crate) fn into_records(self) -> impl Iterator<Item = (K, C)> {
        self.keys.into_iter().zip(self.entries).filter_map(|(key, entry)| Some((key, entry.combined?)))
    }
}

impl<C> Entry<C> {
    #[inline]
    fn fold(&mut self, fold: impl FnOnce(Option<C>) -> C) {
        let combined = self.combined.take();
        self.combined = Some(fold(combined));
    }
}

/// Records that are folded together, into one table or several.
///
/// A look-up waits for memory two times, for the index and for the entry. Of many at once, all reads of the indexes come first, then all
/// of the entries: they overlap instead of waiting for each other.
pub(crate) struct Block<K, V> {
    /// By record; what is beyond the records is of blocks before.
    keys: Vec<Lookup>,
    records: Vec<(K, V)>,
}

#[derive(Default)]
struct Lookup {
    bytes: KeyBytes,
    hash: u64,
    found: Option<u32>,
    table: u16,
}

impl<K, V> Block<K, V> {
    pub(crate) fn new() -> Self {
        Block { keys: Vec::new(), records: Vec::with_capacity(BLOCK) }
    }

    /// Adds a record for the table that `table_of` names for the hash of its key.
    #[inline]
    pub(crate) fn add(&mut self, record: (K, V), table_of: impl FnOnce(u64) -> u16) -> millpond_state::Result<()>
    where
        K: serde::Serialize,
    {
        let lookup = self.next();
        lookup.bytes.set(&record.0)?;
        lookup.hash = seeded(codec::key_hash(lookup.bytes.as_bytes()));
        lookup.table = table_of(lookup.hash);
        self.records.push(record);
        Ok(())
    }

    /// Adds a record whose key is encoded already, for the first table.
    fn push(&mut self, bytes: KeyBytes, record: (K, V)) {
        let hash = seeded(codec::key_hash(bytes.as_bytes()));
        *self.next() = Lookup { bytes, hash, found: None, table: 0 };
        self.records.push(record);
    }

    #[inline]
    fn next(&mut self) -> &mut Lookup {
        let next = self.records.len();
        if next == self.keys.len() {
            self.keys.push(Lookup::default());
        }
        &mut self.keys[next]
    }

    #[inline]
    pub(crate) fn fold_if_full<C>(
        &mut self,
        tables: &mut [CombineTable<K, C>],
        create: &impl Fn(V) -> C,
        add: &impl Fn(C, V) -> C,
    ) {
        if self.records.len() >= BLOCK {
            self.fold(tables, create, add);
        }
    }

    /// Folds the records into the tables, in order: `create` from the first value of a key, `add` for each further one.
    pub(crate) fn fold<C>(
        &mut self,
        tables: &mut [CombineTable<K, C>],
        create: &impl Fn(V) -> C,
        add: &impl Fn(C, V) -> C,
    ) {
        let keys = &mut self.keys[..self.records.len()];
        let mut touched = 0;
        for lookup in &*keys {
            touched ^= tables[usize::from(lookup.table)].index.touch(lookup.hash as u32);
        }
        std::hint::black_box(touched);
        for lookup in &mut *keys {
            // Most are what is looked for: tags are 32 bits.
            lookup.found = tables[usize::from(lookup.table)].index.find(lookup.hash as u32, |_| true);
        }
        for lookup in &mut *keys {
            let entries = &tables[usize::from(lookup.table)].entries;
            lookup.found = lookup.found.filter(|at| entries[*at as usize].bytes == lookup.bytes);
        }
        for (lookup, (key, value)) in keys.iter_mut().zip(self.records.drain(..)) {
            let table = &mut tables[usize::from(lookup.table)];
            let fold = |combined| match combined {
                Some(combined) => add(combined, value),
                None => create(value),
            };
            match lookup.found {
                Some(at) => table.entries[at as usize].fold(fold),
                // New, or of the same tag as another, or new with a record of this block.
                None => table.fold(lookup.hash, std::mem::take(&mut lookup.bytes), || key, fold),
            }
        }
    }
}

/// A key's encoding and the hash of it.
#[inline]
pub(crate) fn encoded<K: serde::Serialize>(key: &K) -> millpond_state::Result<(u64, KeyBytes)> {
    let bytes = KeyBytes::encode(key)?;
    Ok((seeded(codec::key_hash(bytes.as_bytes())), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn table_of(keys: impl Iterator<Item = (u64, u64)>) -> Vec<CombineTable<u64, Vec<u64>>> {
        let mut tables = vec![CombineTable::new(), CombineTable::new()];
        let mut block = Block::new();
        for record in keys {
            block.add(record, |hash| (hash % 2) as u16).unwrap();
            block.fold_if_full(&mut tables, &create, &add);
        }
        block.fold(&mut tables, &create, &add);
        tables
    }

    fn create(n: u64) -> Vec<u64> {
        vec![n]
    }

    fn add(mut all: Vec<u64>, n: u64) -> Vec<u64> {
        all.push(n);
        all
    }

    #[test]
    fn blocks_fold_as_one_record_after_the_other_does() {
        for (count, keys) in [(0, 1), (1, 1), (127, 3), (128, 200), (129, 1), (5000, 700)] {
            let records = || (0..count).map(|n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys, n));
            // By key: its values, and by table the keys in the order in which they came.
            let mut values: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut order = [Vec::new(), Vec::new()];
            for (key, n) in records() {
                let all = values.entry(key).or_default();
                if all.is_empty() {
                    order[(encoded(&key).unwrap().0 % 2) as usize].push(key);
                }
                all.push(n);
            }
            // Once more after itself: each key's values follow those before.
            let (once, again) = (table_of(records()), table_of(records()));
            for ((mut table, again), order) in once.into_iter().zip(again).zip(order) {
                table.merge(again, &|mut a: Vec<u64>, b| {
                    a.extend(b);
                    a
                });
                let found: Vec<(u64, Vec<u64>)> = table.into_records().collect();
                let wanted = order.iter().map(|key| (*key, values[key].repeat(2)));
                assert!(found.into_iter().eq(wanted), "{count} records of {keys} keys");
            }
        }
    }

    #[test]
    fn keys_of_one_tag_are_told_apart() {
        let mut table = CombineTable::new();
        let mut block = Block::new();
        for n in 0..1000_u64 {
            block.add((n % 10, 1_u64), |_| 0).unwrap();
            block.keys[block.records.len() - 1].hash = 7;
            block.fold_if_full(std::slice::from_mut(&mut table), &|one| one, &|a, b| a + b);
        }
        block.fold(std::slice::from_mut(&mut table), &|one| one, &|a, b| a + b);
        let found: Vec<(u64, u64)> = table.into_records().collect();
        assert!(found.into_iter().eq((0..10).map(|key| (key, 100))));
    }
}
