//! The decoded table of one partition: a dense slab of entries and a hash index into it. Knows
//! nothing of the database; what the flags mean is kept in order by `partition`.

use crate::codec;
use crate::index::KeyIndex;
use crate::key::KeyBytes;

/// The place holds an entry.
pub(crate) const OCCUPIED: u8 = 1;
/// The key has been asked for, its value has not been read from the database yet.
pub(crate) const UNLOADED: u8 = 2;
/// Changed since the last freeze.
pub(crate) const DIRTY: u8 = 4;
/// The database, or a freeze on its way there, may hold this key.
pub(crate) const STORED: u8 = 8;
/// Changed in the task that is running; the undo log knows what was before.
pub(crate) const CHANGED: u8 = 16;
/// Used since the last eviction.
pub(crate) const REFERENCED: u8 = 32;

/// A key and its decoded value: 48 bytes where the value is a `u64`.
pub(crate) struct Entry<V> {
    pub(crate) key: KeyBytes,
    pub(crate) value: Option<V>,
    /// Estimate of what the value keeps on the heap.
    pub(crate) heap_bytes: u32,
    pub(crate) shard: u16,
    pub(crate) flags: u8,
}

pub(crate) struct Table<V> {
    pub(crate) entries: Vec<Entry<V>>,
    index: KeyIndex,
    free: Vec<u32>,
    key_heap_bytes: usize,
    /// Sum of the entries' `heap_bytes`; kept by whoever changes them.
    pub(crate) value_heap_bytes: usize,
}

impl<V> Table<V> {
    pub(crate) fn new() -> Self {
        Table {
            entries: Vec::new(),
            index: KeyIndex::default(),
            free: Vec::new(),
            key_heap_bytes: 0,
            value_heap_bytes: 0,
        }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash as u32, |entry| self.entries[entry as usize].key.as_bytes() == key)
    }

    /// As `find`, for many keys at once: gives `found` their entries, in order. All reads of the index come
    /// first, then all of the entries, so that they overlap instead of waiting for each other.
    pub(crate) fn find_all(&self, keys: &[(u64, KeyBytes)], found: &mut Vec<Option<u32>>) {
        let mut touched = 0;
        for (hash, _) in keys {
            touched ^= self.index.touch(*hash as u32);
        }
        std::hint::black_box(touched);
        found.clear();
        // Most candidates are what is looked for: tags are 32 bits.
        found.extend(keys.iter().map(|(hash, _)| self.index.find(*hash as u32, |_| true)));
        let mut touched = 0;
        for candidate in found.iter().flatten() {
            touched ^= self.entries[*candidate as usize].flags;
        }
        std::hint::black_box(touched);
        for ((hash, key), candidate) in keys.iter().zip(found) {
            if candidate.is_some_and(|candidate| self.entries[candidate as usize].key != *key) {
                *candidate = self.index.find(*hash as u32, |entry| self.entries[entry as usize].key == *key);
            }
        }
    }

    /// Adds a key that is not there yet.
    ///
    /// # Panics
    /// With 2^32 - 1 keys in one partition, which takes 200 GB.
    pub(crate) fn insert(&mut self, hash: u64, key: KeyBytes, shard: u16, flags: u8) -> u32 {
        let entry = Entry { key, value: None, heap_bytes: 0, shard, flags: flags | OCCUPIED };
        self.key_heap_bytes += entry.key.heap_bytes();
        let position = match self.free.pop() {
            Some(position) => {
                self.entries[position as usize] = entry;
                position
            }
            None => {
                let length = self.entries.len();
                if length == self.entries.capacity() {
                    // Doubling would reserve up to half of the memory limit for nothing.
                    self.entries.reserve_exact(if length < 4096 { length.max(16) } else { length / 4 });
                }
                self.entries.push(entry);
                u32::try_from(length).ok().filter(|n| *n < u32::MAX).expect("fewer than 2^32 - 1 keys in a partition")
            }
        };
        self.index.insert(hash as u32, position);
        position
    }

    /// Forgets an entry; its place is used again.
    pub(crate) fn remove(&mut self, position: u32) {
        let entry = &mut self.entries[position as usize];
        debug_assert!(entry.flags & OCCUPIED != 0);
        let tag = codec::key_hash(entry.key.as_bytes()) as u32;
        self.key_heap_bytes -= entry.key.heap_bytes();
        self.value_heap_bytes -= entry.heap_bytes as usize;
        *entry = Entry { key: KeyBytes::new(&[]), value: None, heap_bytes: 0, shard: 0, flags: 0 };
        self.index.remove(tag, position);
        self.free.push(position);
    }

    /// Keeps the entries that `keep` accepts, packs them and gives the rest of the memory back. All
    /// positions change: the caller must hold none.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut Entry<V>) -> bool) {
        let mut kept = 0;
        for entry in &mut self.entries {
            if entry.flags & OCCUPIED != 0 {
                if keep(entry) {
                    kept += 1;
                } else {
                    entry.flags = 0;
                }
            }
        }
        // In place, so that an eviction never needs the memory it is to set free.
        self.entries.retain(|entry| entry.flags & OCCUPIED != 0);
        self.entries.shrink_to(kept + kept / 16);
        self.free = Vec::new();
        // The old one goes before the new one is made.
        self.index = KeyIndex::default();
        self.index = KeyIndex::with_room_for(kept);
        self.key_heap_bytes = 0;
        self.value_heap_bytes = 0;
        for (position, entry) in self.entries.iter().enumerate() {
            self.key_heap_bytes += entry.key.heap_bytes();
            self.value_heap_bytes += entry.heap_bytes as usize;
            let tag = codec::key_hash(entry.key.as_bytes()) as u32;
            self.index.insert(tag, position as u32);
        }
    }

    /// Entries in the table, those without a value included.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes allocated, the heap of keys and values included.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<V>>()
            + self.index.bytes()
            + self.free.capacity() * size_of::<u32>()
            + self.key_heap_bytes
            + self.value_heap_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Vec<u8> {
        format!("key-{n}-{}", "x".repeat(n as usize % 40)).into_bytes()
    }

    #[test]
    fn keys_are_found_after_growth_removal_and_packing() {
        let mut table: Table<u32> = Table::new();
        for n in 0..10_000 {
            let key = key(n);
            let hash = codec::key_hash(&key);
            assert_eq!(table.find(hash, &key), None);
            let position = table.insert(hash, KeyBytes::new(&key), 3, 0);
            table.entries[position as usize].value = Some(n);
        }
        for n in (0..10_000).step_by(3) {
            let position = table.find(codec::key_hash(&key(n)), &key(n)).unwrap();
            table.remove(position);
        }
        let before = table.bytes();
        table.retain(|entry| entry.value.is_some_and(|n| n % 2 == 0));
        assert!(table.bytes() < before * 2 / 3);
        for n in 0..10_000 {
            let found = table.find(codec::key_hash(&key(n)), &key(n));
            let value = found.map(|position| table.entries[position as usize].value.unwrap());
            assert_eq!(value, (n % 3 != 0 && n % 2 == 0).then_some(n), "key {n}");
        }
        assert_eq!(table.len(), (0..10_000).filter(|n| n % 3 != 0 && n % 2 == 0).count());
    }

    #[test]
    fn two_keys_of_one_hash_stay_apart() {
        let mut table: Table<u32> = Table::new();
        let one = table.insert(7, KeyBytes::new(b"one"), 0, 0);
        let two = table.insert(7, KeyBytes::new(b"two"), 0, 0);
        assert_eq!(table.find(7, b"one"), Some(one));
        assert_eq!(table.find(7, b"two"), Some(two));
        assert_eq!(table.find(7, b"three"), None);
        let keys = [b"two".as_slice(), b"three", b"one"].map(|key| (7, KeyBytes::new(key)));
        let mut found = vec![Some(9)];
        table.find_all(&keys, &mut found);
        assert_eq!(found, [Some(two), None, Some(one)]);
    }

    #[test]
    fn an_entry_of_a_counter_takes_48_bytes() {
        assert_eq!(size_of::<Entry<u64>>(), 48);
    }
}
