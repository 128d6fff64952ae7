//! The cursor of a file sink: one small file, replaced whole. Its rename is the commit (H23).
//!
//! Layout (docs/formats.md): magic `MPFS`, version, cursor with its length, name of the staged
//! directory with its length (empty if the batch had no output), CRC-32 of all before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::disk::{failed, rename, sync_directory, sync_file};
use crate::bytes::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::Cursor;

const MAGIC: [u8; 4] = *b"MPFS";
const VERSION: u8 = 1;
const NAME: &str = "cursor";
const NEW: &str = "cursor.new";

/// What is committed with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) cursor: Cursor,
    /// The directory that the batch's output was staged under, and gets its final place under.
    pub(crate) staged: Option<String>,
}

impl Committed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.fixed(&MAGIC);
        out.u8(VERSION);
        out.bytes(&self.cursor.encode());
        out.text(self.staged.as_deref().unwrap_or_default());
        let checksum = crc32fast::hash(out.as_bytes());
        out.u32(checksum);
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("the cursor of a file sink", bytes);
        if reader.fixed()? != MAGIC {
            return Err(reader.broken("its magic is missing"));
        }
        match reader.u8()? {
            VERSION => {}
            other => return Err(reader.broken(&format!("version {other}, this program reads version {VERSION}"))),
        }
        let cursor = reader.bytes()?;
        let staged = reader.text()?;
        let checksum = reader.u32()?;
        reader.end()?;
        if crc32fast::hash(&bytes[..bytes.len() - 4]) != checksum {
            return Err(reader.broken("its checksum does not fit"));
        }
        Ok(Committed { cursor: Cursor::decode(cursor)?, staged: Some(staged).filter(|name| !name.is_empty()) })
    }
}

/// Reads the cursor; `None` if there is none.
pub(super) fn read(directory: &Path) -> Result<Option<Committed>> {
    let path = directory.join(NAME);
    match fs::read(&path) {
        Ok(bytes) => Committed::decode(&bytes).map(Some).map_err(|error| {
            Error::new(
                ErrorKind::Restore,
                format!("cannot tell what was committed: {} is no cursor of a file sink", path.display()),
            )
            .with_source(error)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path, error)),
    }
}

/// Makes what [`read`] gives last: an earlier process may have died between rename and sync.
pub(super) fn sync(directory: &Path) -> Result<()> {
    let path = directory.join(NAME);
    match File::open(&path) {
        Ok(file) => sync_file(&file, &path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("open", &path, error)),
    }
    sync_directory(directory)
}

/// Writes a cursor aside, lasting.
pub(super) fn stage(directory: &Path, committed: &Committed) -> Result<()> {
    let path = directory.join(NEW);
    let written = |file: &mut File| file.write_all(&committed.encode());
    let mut file = File::create(&path).map_err(|error| failed("create", &path, error))?;
    written(&mut file).map_err(|error| failed("write to", &path, error))?;
    sync_file(&file, &path)
}

/// Puts the staged cursor in place, lasting.
pub(super) fn commit(directory: &Path) -> Result<()> {
    rename(&directory.join(NEW), &directory.join(NAME))?;
    sync_directory(directory)
}

/// Forgets a staged cursor.
pub(super) fn unstage(directory: &Path) -> Result<()> {
    super::disk::delete(&directory.join(NEW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::BatchTime;

    #[test]
    fn a_cursor_comes_back_as_written_and_every_flip_and_cut_is_noticed() {
        let cursor =
            Cursor { deployment: [1; 16], run: [2; 16], batch: BatchTime::from_ms(3), plans: 4, digest: 5, records: 6 };
        for staged in [None, Some("batch-0000000001000".to_owned())] {
            let committed = Committed { cursor: cursor.clone(), staged };
            let bytes = committed.encode();
            assert_eq!(Committed::decode(&bytes).ok(), Some(committed));
            for bit in 0..bytes.len() * 8 {
                let mut broken = bytes.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                assert!(Committed::decode(&broken).is_err(), "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert!(Committed::decode(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
    }
}
