//! A table that folds the values of each key of a partition; keys are told apart by their encoded bytes.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

/// One folded value a key, in the order in which keys came.
pub(crate) struct CombineTable<K, C> {
    index: HashTable<u32>,
    entries: Vec<Entry<K, C>>,
    /// The encoded keys, one after the other.
    keys: Vec<u8>,
}

struct Entry<K, C> {
    hash: u64,
    key_end: usize,
    key_length: u32,
    key: K,
    /// `None` only while its fold runs.
    combined: Option<C>,
}

impl<K, C> Entry<K, C> {
    fn bytes<'a>(&self, keys: &'a [u8]) -> &'a [u8] {
        &keys[self.key_end - self.key_length as usize..self.key_end]
    }
}

impl<K, C> CombineTable<K, C> {
    pub(crate) fn new() -> Self {
        CombineTable { index: HashTable::new(), entries: Vec::new(), keys: Vec::new() }
    }

    /// Folds a value into its key's entry.
    pub(crate) fn fold(&mut self, hash: u64, encoded: &[u8], key: K, fold: impl FnOnce(Option<C>) -> C) {
        let CombineTable { index, entries, keys } = self;
        let same = |&at: &u32| {
            let entry = &entries[at as usize];
            entry.hash == hash && entry.bytes(keys) == encoded
        };
        match index.entry(hash, same, |&at| entries[at as usize].hash) {
            Slot::Occupied(found) => {
                let entry = &mut entries[*found.get() as usize];
                let combined = entry.combined.take();
                entry.combined = Some(fold(combined));
            }
            Slot::Vacant(vacant) => {
                vacant.insert(entries.len() as u32);
                keys.extend_from_slice(encoded);
                let combined = Some(fold(None));
                entries.push(Entry { hash, key_end: keys.len(), key_length: encoded.len() as u32, key, combined });
            }
        }
    }

    /// Folds the entries of a table that comes after this one.
    pub(crate) fn merge(&mut self, other: CombineTable<K, C>, merge: &impl Fn(C, C) -> C) {
        if self.entries.is_empty() {
            *self = other;
            return;
        }
        for entry in other.entries {
            let end = entry.key_end;
            let encoded = &other.keys[end - entry.key_length as usize..end];
            if let Some(new) = entry.combined {
                self.fold(entry.hash, encoded, entry.key, |old| match old {
                    Some(old) => merge(old, new),
                    None => new,
                });
            }
        }
    }

    /// Keys and folded values, in the order in which keys came.
    pub(crate) fn into_records(self) -> impl Iterator<Item = (K, C)> {
        self.entries.into_iter().filter_map(|entry| Some((entry.key, entry.combined?)))
    }
}
