//! The bytes of a block: records one behind the other, encoded where they are stored and decoded
//! where the batch is computed, so that a replay goes the same way as the first time.
//!
//! Layout (docs/formats.md, "Plans and positions of sources"): version, codec, then for each record its length
//! (four bytes; the highest bit is set in one that was cut because it was too long) and its bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::refusal::{Chunks, OnRefused};
use super::super::{BlockId, FedRecord, RefusedRecord, SourceOutput};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
const HEADER: usize = 2;
/// Marks a record of which only the beginning is there.
const CUT: u32 = 1 << 31;

/// How the records of a source become bytes and come back.
pub(crate) struct Codec<T> {
    id: u8,
    encode: fn(&T, &mut Vec<u8>) -> Result<()>,
    decode: fn(&Payload<'_>, &mut Chunks<'_, T>) -> Result<()>,
    feed: fn(&FedRecord) -> Result<T, String>,
    pub(crate) on_refused: OnRefused,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

/// A block that is to be decoded.
pub(crate) struct Payload<'a> {
    source: &'a str,
    block: BlockId,
    records: &'a [u8],
}

impl<T: Serialize + DeserializeOwned> Codec<T> {
    /// Values of any type, by the codec that state uses too.
    pub(crate) fn values() -> Self {
        Codec {
            id: 1,
            encode: |record, out| Ok(millpond_state::codec::encode(record, out)?),
            decode: |payload, out| {
                payload.each(out, |bytes| millpond_state::codec::decode(bytes).map_err(|error| error.to_string()))
            },
            feed: |fed| {
                let value = fed.value.as_deref().unwrap_or_default();
                serde_json::from_slice(value).or_else(|error| {
                    // A text stands for itself where the type allows it: "a b" for String.
                    let text = serde_json::Value::String(String::from_utf8_lossy(value).into_owned());
                    serde_json::from_value(text).map_err(|_| error.to_string())
                })
            },
            on_refused: OnRefused::Stop,
        }
    }
}

impl Codec<String> {
    /// Lines as they came; what is not UTF-8 is left out and counted.
    pub(crate) fn lines() -> Self {
        Codec {
            id: 2,
            encode: |line, out| {
                out.extend_from_slice(line.as_bytes());
                Ok(())
            },
            decode: |payload, out| payload.each(out, line),
            feed: |fed| line(fed.value.as_deref().unwrap_or_default()),
            on_refused: OnRefused::Skip,
        }
    }
}

fn line(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| format!("not UTF-8: {error}"))
}

impl<T> Codec<T> {
    /// Appends a record to a run of records.
    pub(crate) fn append(&self, record: &T, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let encoded = (self.encode)(record, out).and_then(|()| match u32::try_from(out.len() - start - 4) {
            Ok(length) if length < CUT => Ok(length),
            _ => Err(Error::new(
                ErrorKind::Program,
                format!("a record of {} bytes: the limit is 2 GiB", out.len() - start),
            )),
        });
        match encoded {
            Ok(length) => {
                out[start..start + 4].copy_from_slice(&length.to_le_bytes());
                Ok(())
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Decodes the block of a source into `out`.
    pub(crate) fn decode(
        &self,
        source: &str,
        block: BlockId,
        payload: &[u8],
        out: &mut dyn SourceOutput<T>,
    ) -> Result<u64> {
        match payload.split_at_checked(HEADER) {
            Some((&[VERSION, id], records)) if id == self.id => {
                let mut chunks = Chunks::new(out, self.on_refused);
                (self.decode)(&Payload { source, block, records }, &mut chunks)?;
                chunks.finish()
            }
            Some((&[VERSION, id], _)) => Err(broken(
                source,
                &format!("it was written with codec {id}, the program reads it with codec {}", self.id),
            )),
            Some((&[version, _], _)) => {
                Err(broken(source, &format!("it has version {version}, this program reads version {VERSION}")))
            }
            _ => Err(broken(source, "it is cut")),
        }
    }

    /// Decodes a record that a test feeds.
    pub(crate) fn decode_fed(&self, fed: &FedRecord, chunks: &mut Chunks<'_, T>) -> Result<()> {
        match (self.feed)(fed) {
            Ok(record) => chunks.push(record),
            Err(reason) => chunks.refuse(|| refused("fed by the test".into(), reason, fed.value.as_deref())),
        }
    }

    /// The beginning of a block's payload.
    pub(crate) fn header(&self) -> [u8; HEADER] {
        [VERSION, self.id]
    }
}

/// Appends raw bytes as a record; `cut` if they are only the beginning of it.
pub(crate) fn append_raw(bytes: &[u8], cut: bool, out: &mut Vec<u8>) {
    let length = bytes.len() as u32 | if cut { CUT } else { 0 };
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

impl Payload<'_> {
    fn each<T>(&self, out: &mut Chunks<'_, T>, decode: impl Fn(&[u8]) -> Result<T, String>) -> Result<()> {
        let mut rest = self.records;
        let mut index = 0;
        while !rest.is_empty() {
            let Some((length, behind)) = rest.split_first_chunk::<4>() else {
                return Err(broken(self.source, "it is cut"));
            };
            let length = u32::from_le_bytes(*length);
            let Some((bytes, behind)) = behind.split_at_checked((length & !CUT) as usize) else {
                return Err(broken(self.source, "it is cut"));
            };
            rest = behind;
            let decoded =
                if length & CUT == 0 { decode(bytes) } else { Err("the record is longer than the limit".into()) };
            match decoded {
                Ok(record) => out.push(record)?,
                Err(reason) => {
                    let block = u128::from_be_bytes(self.block.0);
                    let origin = format!("source `{}`, block {block:x}, record {index}", self.source);
                    out.refuse(|| refused(origin, reason, Some(bytes)))?;
                }
            }
            index += 1;
        }
        Ok(())
    }
}

fn refused(origin: String, reason: String, value: Option<&[u8]>) -> RefusedRecord {
    RefusedRecord { origin, reason, key: None, value: value.map(<[u8]>::to_vec), headers: Vec::new() }
}

fn broken(source: &str, why: &str) -> Error {
    Error::new(ErrorKind::Restore, format!("a block of source `{source}` in the log cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Collected;
    use super::*;

    fn payload<T>(codec: Codec<T>, records: &[T]) -> Vec<u8> {
        let mut payload = codec.header().to_vec();
        records.iter().for_each(|record| codec.append(record, &mut payload).unwrap());
        payload
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        // docs/formats.md, "Plans and positions of sources": version, codec, then length and bytes of each record.
        assert_eq!(payload(Codec::lines(), &["ab".to_owned()]), [1, 2, 2, 0, 0, 0, b'a', b'b']);
        assert_eq!(payload(Codec::values(), &[5_u64]), [1, 1, 1, 0, 0, 0, 5]);
        let mut cut = Vec::new();
        append_raw(b"a", true, &mut cut);
        assert_eq!(cut, [1, 0, 0, 0x80, b'a']);
    }

    #[test]
    fn records_come_back_as_stored() {
        let codec = Codec::values();
        let records = vec![(1_u64, "a".to_owned()), (2, String::new())];
        let mut out = Collected::new(false);
        let count = codec.decode("s", BlockId([0; 16]), &payload(codec, &records), &mut out).unwrap();
        assert_eq!((out.records, count), (records, 2));
    }

    #[test]
    fn cut_blocks_and_those_of_another_codec_are_errors() {
        let whole = payload(Codec::values(), &[1_u64, 2]);
        for length in (0..whole.len()).filter(|length| ![2, 7].contains(length)) {
            let decoded =
                Codec::<u64>::values().decode("s", BlockId([0; 16]), &whole[..length], &mut Collected::new(false));
            assert!(decoded.is_err(), "cut to {length}");
        }
        let error = Codec::lines().decode("s", BlockId([0; 16]), &whole, &mut Collected::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Restore);
    }

    #[test]
    fn a_value_that_cannot_be_decoded_stops_and_a_line_that_is_no_utf8_is_counted() {
        let strings = payload(Codec::values(), &["ab".to_owned()]);
        let error =
            Codec::<u8>::values().decode("s", BlockId([0; 16]), &strings, &mut Collected::new(false)).unwrap_err();
        assert!(error.to_string().contains("source `s`, block 0, record 0"), "{error}");

        let mut lines = Codec::lines().header().to_vec();
        append_raw(b"good", false, &mut lines);
        append_raw(b"b\xFFd", false, &mut lines);
        append_raw(b"the beginning of a long one", true, &mut lines);
        let mut out = Collected::new(false);
        assert_eq!(Codec::lines().decode("s", BlockId([0; 16]), &lines, &mut out).unwrap(), 3);
        assert_eq!((out.records, out.skipped), (vec!["good".to_owned()], 2));
    }
}
