//! A bucket of records on their way through a shuffle: pieces of a fixed size, so that it grows without copying and its
//! memory is of a size that is used again.

/// Records of a piece.
const PIECE: usize = 1024;

/// What a bucket holds at first, if anything.
const FIRST: usize = 16;

/// Records in order.
pub(crate) struct Bucket<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

impl<T> Bucket<T> {
    pub(crate) fn new() -> Self {
        Bucket { full: Vec::new(), last: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, record: T) {
        if self.last.len() == self.last.capacity() {
            self.make_room();
        }
        self.last.push(record);
    }

    #[cold]
    fn make_room(&mut self) {
        match self.last.len() {
            0 => self.last.reserve_exact(FIRST),
            length if length < PIECE => self.last.reserve_exact(length.min(PIECE - length)),
            _ => self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(PIECE))),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.last.len()
    }

    /// The records, in order, piece by piece.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[T]> {
        self.full.iter().chain(std::iter::once(&self.last)).map(Vec::as_slice)
    }

    /// As [`pieces`](Bucket::pieces); the memory of each is given back as soon as it has been read.
    pub(crate) fn into_pieces(self) -> Pieces<T> {
        self.full.into_iter().chain(std::iter::once(self.last))
    }
}

type Pieces<T> = std::iter::Chain<std::vec::IntoIter<Vec<T>>, std::iter::Once<Vec<T>>>;

impl<T> IntoIterator for Bucket<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<Pieces<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_pieces().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_in_order_whatever_their_number() {
        for count in [0, 1, 16, 17, 1023, 1024, 1025, 5000] {
            let mut bucket = Bucket::new();
            (0..count).for_each(|n| bucket.push(n));
            assert_eq!(bucket.len(), count);
            assert!(bucket.pieces().flatten().copied().eq(0..count));
            assert!(bucket.into_iter().eq(0..count), "{count}");
        }
    }
}
