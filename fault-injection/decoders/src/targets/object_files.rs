//! Saved and spilled partitions.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::check;
use crate::check::{stable, within};
use crate::error::Result;
use crate::fields::Fields;
use crate::rdd::save::chunks::{ObjectWriter, Put, read_header, read_values};

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

type Value = (u64, String);

/// Part, parts, and all values.
type File<T> = (u32, u32, Vec<T>);

pub(super) fn run(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    let bytes = match which % 4 {
        0 => bytes.to_vec(),
        1 => repaired(bytes),
        // Numbers claim no room: whatever a damaged length says, memory is what the bytes are.
        2 => return stable(&repaired(bytes), read::<u64>, write),
        _ => {
            let mut fields = Fields(bytes);
            let made =
                (u32::from(fields.u8()), u32::from(fields.u8()), fields.list(|fields| (fields.u64(), fields.text())));
            let written = write(&made);
            assert_eq!(read::<Value>(&written).expect("just written"), made);
            return;
        }
    };
    // A value's text may be given the room it claims, as in the target `codec`.
    let limit = millpond_state::codec::VALUE_LIMIT_BYTES + (8 << 20) + check::FACTOR * bytes.len();
    if let Some(file) = within(limit, &bytes, read::<Value>) {
        assert_eq!(read::<Value>(&write(&file)).expect("just written"), file);
    }
}

fn read<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<File<T>> {
    let path = Path::new("part-00000");
    let (part, of) = read_header(path, &mut bytes)?;
    let mut values = Vec::new();
    let records = read_values(path, &mut bytes, &mut |chunk: Vec<T>| {
        values.extend(chunk);
        Ok(())
    })?;
    assert_eq!(records, values.len() as u64);
    Ok((part, of, values))
}

fn write<T: Serialize + DeserializeOwned>((part, of, values): &File<T>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ObjectWriter::begin(&mut out, *part as usize, *of as usize).expect("memory");
    writer.write(values).expect("memory");
    writer.finish().expect("memory");
    out
}

/// With checksums as they should be, of the header and of every chunk that is there.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some((header, mut rest)) = bytes.split_at_mut_checked(24) else { return bytes };
    let checksum = crc32fast::hash(&header[..20]).to_le_bytes();
    header[20..].copy_from_slice(&checksum);
    while let Some((header, behind)) = rest.split_at_mut_checked(12) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some((payload, behind)) = behind.split_at_mut_checked(length) else { break };
        let checksum = crc32fast::hash(&[&header[..8], payload].concat()).to_le_bytes();
        header[8..].copy_from_slice(&checksum);
        rest = behind;
    }
    bytes
}
