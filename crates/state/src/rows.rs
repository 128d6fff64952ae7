//! Changes as they go to the database: rows of {full key, stored value or removal}, and how both are
//! laid out (docs/formats-state.md): key = {shard u16 BE, encoded key}, value = {codec u8, schema
//! version as LEB128, payload}.

use crate::codec::{self, CODEC_BINCODE_2};
use crate::error::{Error, Result};
use serde::Serialize;

/// Bytes of the shard before each key.
pub(crate) const SHARD_BYTES: usize = 2;

const REMOVED: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Row {
    offset: usize,
    key_bytes: u32,
    /// `REMOVED` for a removal.
    value_bytes: u32,
}

/// Changes of one partition, encoded; in the order of the database after [`Rows::sort`].
#[derive(Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

impl Rows {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Rows { bytes: Vec::with_capacity(rows * 24), rows: Vec::with_capacity(rows) }
    }

    /// Adds a row; `value` None is a removal.
    pub(crate) fn push<V: Serialize>(
        &mut self,
        shard: u16,
        key: &[u8],
        value: Option<&V>,
        schema_version: u32,
    ) -> Result<()> {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&shard.to_be_bytes());
        self.bytes.extend_from_slice(key);
        let key_bytes = u32::try_from(self.bytes.len() - offset)
            .ok()
            .filter(|bytes| *bytes as usize <= codec::VALUE_LIMIT_BYTES)
            .ok_or_else(|| {
                Error::new(
                    crate::ErrorKind::Codec,
                    format!("a key takes {} bytes, more than the limit of {}", key.len(), codec::VALUE_LIMIT_BYTES),
                )
            })?;
        let value_bytes = match value {
            None => REMOVED,
            Some(value) => {
                let start = self.bytes.len();
                encode_stored(value, schema_version, &mut self.bytes)?;
                (self.bytes.len() - start) as u32
            }
        };
        self.rows.push(Row { offset, key_bytes, value_bytes });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory taken.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Row>()
    }

    /// The first row's stored value, a sample for the round-trip check.
    pub(crate) fn first_value(&self) -> Option<&[u8]> {
        (0..self.rows.len()).find_map(|row| self.value(&self.rows[row]))
    }

    /// Puts the rows into the order of their keys, which must differ.
    pub(crate) fn sort(&mut self) {
        // Most keys differ within their first bytes: those stand beside the row while sorting.
        let bytes = &self.bytes;
        let full = |row: &Row| &bytes[row.offset..row.offset + row.key_bytes as usize];
        let mut order: Vec<(u128, Row)> = self
            .rows
            .iter()
            .map(|row| {
                let mut prefix = [0; 16];
                let key = full(row);
                let length = key.len().min(16);
                prefix[..length].copy_from_slice(&key[..length]);
                (u128::from_be_bytes(prefix), *row)
            })
            .collect();
        order.sort_unstable_by(|(one, one_row), (two, two_row)| {
            one.cmp(two).then_with(|| full(one_row).cmp(full(two_row)))
        });
        self.rows.clear();
        self.rows.extend(order.into_iter().map(|(_, row)| row));
    }

    fn value(&self, row: &Row) -> Option<&[u8]> {
        let start = row.offset + row.key_bytes as usize;
        (row.value_bytes != REMOVED).then(|| &self.bytes[start..start + row.value_bytes as usize])
    }

    /// Full key and stored value (None: removal) of each row.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.rows.iter().map(|row| (&self.bytes[row.offset..row.offset + row.key_bytes as usize], self.value(row)))
    }
}

/// Appends a stored value.
pub(crate) fn encode_stored<V: Serialize>(value: &V, schema_version: u32, out: &mut Vec<u8>) -> Result<()> {
    out.push(CODEC_BINCODE_2);
    let mut rest = schema_version;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    codec::encode(value, out)
}

/// Takes a stored value apart into schema version and payload.
pub(crate) fn split_stored(stored: &[u8]) -> Result<(u32, &[u8])> {
    let cut = || Error::corrupt("a stored value ends inside its header");
    let (&codec, mut rest) = stored.split_first().ok_or_else(cut)?;
    if codec != CODEC_BINCODE_2 {
        return Err(Error::new(
            crate::ErrorKind::Mismatch,
            format!("a stored value was written with codec {codec}, which this version does not know"),
        ));
    }
    let mut version: u32 = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or_else(cut)?;
        rest = after;
        version |= u32::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok((version, rest));
        }
    }
    Err(Error::corrupt("a stored value has a schema version of more than five bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_come_apart() {
        for version in [0, 1, 127, 128, 300, u32::MAX] {
            let mut stored = Vec::new();
            encode_stored(&7_u8, version, &mut stored).unwrap();
            assert_eq!(split_stored(&stored).unwrap(), (version, &[7_u8][..]));
        }
        assert!(split_stored(&[]).is_err());
        assert!(split_stored(&[1]).is_err());
        assert!(split_stored(&[2, 1, 0]).unwrap_err().to_string().contains("codec 2"));
        assert!(split_stored(&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }

    #[test]
    fn rows_sort_by_shard_and_key() {
        let mut rows = Rows::default();
        let keys: [&[u8]; 6] =
            [b"b", b"a", b"", b"same-first-sixteen-bytes-2", b"same-first-sixteen-bytes-1", b"same-first-sixt"];
        for shard in [256_u16, 1] {
            for key in keys {
                rows.push(shard, key, (key != b"a").then_some(&shard), 1).unwrap();
            }
        }
        rows.sort();
        let sorted: Vec<_> = rows.iter().map(|(key, value)| (key.to_vec(), value.is_some())).collect();
        let mut expected = sorted.clone();
        expected.sort();
        assert_eq!(sorted, expected);
        assert_eq!(sorted.len(), 12);
        assert_eq!(sorted[0].0, [0, 1]);
        assert_eq!(sorted.iter().filter(|(_, stays)| !stays).count(), 2);
    }
}
