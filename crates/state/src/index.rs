//! The hash index of a table: open addressing with linear probing over links of eight bytes. Most look-ups touch one cache
//! line of it, and the line of a key that will be looked up soon can be fetched ahead of the others'
//! ([`KeyIndex::touch`]).

/// No entry: the place is free.
const FREE: u32 = u32::MAX;

/// The smallest number of places.
const LEAST_PLACES: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Link {
    entry: u32,
    /// The low half of the key's hash (its top bits are the same all over a partition).
    tag: u32,
}

/// Positions of entries by the low half of their keys' hashes. Knows no keys: its caller compares them.
#[derive(Debug, Default)]
pub struct KeyIndex {
    /// A power of two of places, at most three quarters of them taken; none at all at first.
    links: Vec<Link>,
    taken: usize,
}

impl KeyIndex {
    /// An index with room for so many entries.
    pub(crate) fn with_room_for(entries: usize) -> Self {
        let mut index = KeyIndex::default();
        index.grow(entries);
        index
    }

    /// Reads the place where a search for `tag` begins, so that the search finds it in cache. Independent reads of many
    /// tags overlap, where searches one after the other wait for each.
    #[inline]
    pub fn touch(&self, tag: u32) -> u32 {
        self.links.get(self.home(tag)).map_or(0, |link| link.tag)
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.links.len().wrapping_sub(1)
    }

    /// The entry of this tag that `is_it` accepts.
    #[inline]
    pub fn find(&self, tag: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = self.home(tag);
        loop {
            // Ends at a free place, of which there are always some; with no places at all, at once.
            let link = self.links.get(place)?;
            if link.entry == FREE {
                return None;
            }
            if link.tag == tag && is_it(link.entry) {
                return Some(link.entry);
            }
            place = (place + 1) & (self.links.len() - 1);
        }
    }

    /// Adds an entry that is not there yet.
    pub fn insert(&mut self, tag: u32, entry: u32) {
        debug_assert_ne!(entry, FREE);
        self.grow(self.taken + 1);
        self.taken += 1;
        self.put(Link { entry, tag });
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, tag: u32, entry: u32) {
        let mask = self.links.len().wrapping_sub(1);
        let mut hole = self.home(tag);
        loop {
            match self.links.get(hole) {
                Some(link) if link.entry == entry => break,
                Some(link) if link.entry != FREE => hole = (hole + 1) & mask,
                _ => return,
            }
        }
        self.taken -= 1;
        // Links behind the hole that would no longer be found from their home move up into it.
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let link = self.links[place];
            if link.entry == FREE {
                break;
            }
            let from_home = place.wrapping_sub(self.home(link.tag)) & mask;
            if from_home >= (place.wrapping_sub(hole) & mask) {
                self.links[hole] = link;
                hole = place;
            }
        }
        self.links[hole].entry = FREE;
    }

    fn put(&mut self, link: Link) {
        let mask = self.links.len() - 1;
        let mut place = self.home(link.tag);
        while self.links[place].entry != FREE {
            place = (place + 1) & mask;
        }
        self.links[place] = link;
    }

    /// Makes room for so many entries in all.
    fn grow(&mut self, entries: usize) {
        let needed = entries + entries / 3;
        if needed < self.links.len() || entries == 0 {
            return;
        }
        let places = (needed + 1).next_power_of_two().max(LEAST_PLACES);
        let before = std::mem::replace(&mut self.links, vec![Link { entry: FREE, tag: 0 }; places]);
        before.into_iter().filter(|link| link.entry != FREE).for_each(|link| self.put(link));
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Few distinct tags and homes, so that runs grow long and wrap round the end.
    #[test]
    fn behaves_as_a_map_of_entries_under_random_inserts_and_removals() {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..200 {
            let mut index = KeyIndex::default();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for step in 0..400_u32 {
                if random() % 3 == 0 && !model.is_empty() {
                    let nth = random() as usize % model.len();
                    let (&entry, &tag) = model.iter().nth(nth).unwrap();
                    model.remove(&entry);
                    index.remove(tag, entry);
                } else {
                    let tag = match random() % 3 {
                        0 => u32::MAX - (random() % 4) as u32,
                        1 => (random() % 8) as u32,
                        _ => random() as u32,
                    };
                    model.insert(step, tag);
                    index.insert(tag, step);
                }
                assert_eq!(index.len(), model.len(), "round {round}");
            }
            for step in 0..400 {
                let tag = model.get(&step).copied();
                let found = tag.and_then(|tag| index.find(tag, |entry| entry == step));
                assert_eq!(found.is_some(), tag.is_some(), "round {round}, entry {step}");
            }
            let mut seen = 0;
            assert_eq!(index.find(3, |_| false), None);
            for tag in 0..8 {
                index.find(tag, |_| {
                    seen += 1;
                    false
                });
            }
            assert_eq!(seen, model.values().filter(|tag| **tag < 8).count());
        }
    }

    #[test]
    fn an_empty_index_finds_nothing_and_takes_no_memory() {
        let mut index = KeyIndex::default();
        assert_eq!(index.bytes(), 0);
        assert_eq!(index.touch(7), 0);
        assert_eq!(index.find(7, |_| true), None);
        index.remove(7, 0);
        assert!(KeyIndex::with_room_for(100).bytes() >= 100 * 8);
    }
}
