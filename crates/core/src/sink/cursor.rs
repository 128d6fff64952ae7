//! The cursor: what a sink commits with every batch, and what recovery believes.

use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

const MAGIC: [u8; 4] = *b"MPCU";
const VERSION: u8 = 1;
const LENGTH: usize = 4 + 1 + 16 + 16 + 8 + 8 + 8 + 8 + 4;

/// Count and sum of hashes of the records a batch gave to a sink: does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The sum, wrapping, of the hashes of the records.
    pub sum: u64,
    /// How many records.
    pub count: u64,
}

impl Digest {
    pub(crate) fn add(&mut self, hash: u64) {
        self.sum = self.sum.wrapping_add(hash);
        self.count += 1;
    }

    /// The digest of both together.
    pub fn merge(&mut self, other: Digest) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }

    /// The next link of a chain over batches.
    pub fn chain(self, previous: u64, batch: BatchTime) -> u64 {
        let mut bytes = [0; 32];
        for (part, value) in bytes.chunks_exact_mut(8).zip([previous, batch.as_ms(), self.sum, self.count]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

/// What a sink commits in the same transaction as the batch's output.
///
/// [`encode`](Cursor::encode) gives 73 bytes (docs/formats.md); sinks that keep cursors as bytes use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The random id the directory got when it was created: a cursor of another deployment is refused.
    pub deployment: [u8; 16],
    /// The random id of the start that committed it: a run that our log does not know is a newer incarnation.
    pub run: [u8; 16],
    /// The batch.
    pub batch: BatchTime,
    /// The hash of all plans up to this batch.
    pub plans: u64,
    /// The chained digest of this sink's output up to this batch.
    pub digest: u64,
    /// How many records this batch gave to this sink: a torn batch can be told by it.
    pub records: u64,
}

impl Cursor {
    /// The cursor as bytes, with magic, version and checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.deployment);
        out.extend_from_slice(&self.run);
        for value in [self.batch.as_ms(), self.plans, self.digest, self.records] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what [`encode`](Cursor::encode) wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Restore`]: bytes that are no cursor, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Cursor> {
        let broken = |what: String| Error::new(ErrorKind::Restore, format!("not a cursor of Millpond: {what}"));
        if bytes.len() < 5 || bytes[..4] != MAGIC {
            return Err(broken(format!("{} bytes without its magic", bytes.len())));
        }
        if bytes[4] != VERSION {
            return Err(broken(format!("version {}, this program reads version {VERSION}", bytes[4])));
        }
        if bytes.len() != LENGTH {
            return Err(broken(format!("{} bytes instead of {LENGTH}", bytes.len())));
        }
        let (body, checksum) = bytes.split_at(LENGTH - 4);
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(broken("its checksum does not fit".into()));
        }
        let id = |at: usize| <[u8; 16]>::try_from(&body[at..at + 16]).map_err(|_| broken("too short".into()));
        let number = |at: usize| {
            Ok::<_, Error>(u64::from_le_bytes(body[at..at + 8].try_into().map_err(|_| broken("too short".into()))?))
        };
        Ok(Cursor {
            deployment: id(5)?,
            run: id(21)?,
            batch: BatchTime::from_ms(number(37)?),
            plans: number(45)?,
            digest: number(53)?,
            records: number(61)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor { deployment: [1; 16], run: [2; 16], batch: BatchTime::from_ms(3), plans: 4, digest: 5, records: 6 }
    }

    #[test]
    fn a_cursor_comes_back_as_written() {
        assert_eq!(Cursor::decode(&cursor().encode()).ok(), Some(cursor()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = cursor().encode();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Cursor::decode(&broken).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Cursor::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
