//! The local note: how far the sinks have committed and what they are, for people who look at the directory.
//!
//! Only a cache (design.md section 2): recovery asks the sinks and never reads it, it is never synced, it may be old or missing.
//! The file `note`, made at each start; its first part is written over after each commit:
//!
//! ```text
//! 0    "MPNO"   4
//! 4    version  1, and 3 bytes of zero
//! 8    run      16
//! 24   batch    8    the newest batch that every sink has committed, in ms
//! 32   CRC-32   4    of all before
//! 36   sinks         count 4, then for each its name and its description, each with a length of 4
//!      CRC-32   4    of the sinks
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::bytes::{Reader, Writer};
use crate::error::Result;
use crate::time::BatchTime;

/// Its name in the directory.
pub(crate) const NAME: &str = "note";
/// Its name while it is made.
pub(crate) const NEW: &str = "note.new";

const MAGIC: [u8; 4] = *b"MPNO";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 36;

/// Writes the note of a running context. A note that cannot be written is given up: nothing depends on it.
#[derive(Debug, Default)]
pub(crate) struct Note {
    file: Option<File>,
    run: [u8; 16],
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The start that wrote it.
    pub(crate) run: [u8; 16],
    pub(crate) committed: BatchTime,
    /// Names and descriptions.
    pub(crate) sinks: Vec<(String, String)>,
}

impl Note {
    /// Makes the note of a start.
    pub(crate) fn create(directory: &Path, noted: &Noted) -> Note {
        let write = || -> io::Result<File> {
            let new = directory.join(NEW);
            fs::write(&new, noted.encode())?;
            let file = File::options().write(true).open(&new)?;
            fs::rename(&new, directory.join(NAME))?;
            Ok(file)
        };
        match write() {
            Ok(file) => Note { file: Some(file), run: noted.run },
            Err(error) => {
                tracing::debug!(%error, directory = %directory.display(), "no local note of what is committed");
                Note::default()
            }
        }
    }

    /// Every sink has committed a batch.
    pub(crate) fn committed(&mut self, batch: BatchTime) {
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(&head(self.run, batch), 0)
        {
            tracing::debug!(%error, "the local note of what is committed is given up");
            self.file = None;
        }
    }
}

/// Reads the note in a directory, as far as there is one.
pub(crate) fn read(directory: &Path) -> Option<Noted> {
    // A second look: the first may have met the writer halfway.
    (0..3).find_map(|_| Noted::decode(&fs::read(directory.join(NAME)).ok()?).ok())
}

fn head(run: [u8; 16], batch: BatchTime) -> Vec<u8> {
    let mut out = Writer::new();
    out.fixed(&MAGIC);
    out.fixed(&[VERSION, 0, 0, 0]);
    out.fixed(&run);
    out.u64(batch.as_ms());
    let checksum = crc32fast::hash(out.as_bytes());
    out.u32(checksum);
    out.into_bytes()
}

impl Noted {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut sinks = Writer::new();
        sinks.list(&self.sinks, |out, (name, description)| {
            out.text(name);
            out.text(description);
        });
        let checksum = crc32fast::hash(sinks.as_bytes());
        sinks.u32(checksum);
        [head(self.run, self.committed), sinks.into_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Noted> {
        let mut reader = Reader::new("the local note", bytes);
        if reader.fixed()? != MAGIC || reader.fixed()? != [VERSION, 0, 0, 0] {
            return Err(reader.broken("it does not begin as a note of this version"));
        }
        let (run, batch) = (reader.fixed()?, reader.u64()?);
        let head_fits = reader.u32()? == crc32fast::hash(&bytes[..HEAD_BYTES - 4]);
        let sinks = reader.list(|reader| Ok((reader.text()?, reader.text()?)))?;
        let sinks_fit = reader.u32()? == crc32fast::hash(&bytes[HEAD_BYTES..bytes.len() - 4]);
        reader.end()?;
        if !head_fits || !sinks_fit {
            return Err(reader.broken("its checksum does not fit"));
        }
        Ok(Noted { run, committed: BatchTime::from_ms(batch), sinks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(ms: u64) -> Noted {
        Noted {
            run: [3; 16],
            committed: BatchTime::from_ms(ms),
            sinks: vec![("out".into(), "text files in /out".into()), ("b".into(), String::new())],
        }
    }

    #[test]
    fn a_note_tells_of_the_newest_commit() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(read(directory.path()), None);
        let mut note = Note::create(directory.path(), &noted(1000));
        assert_eq!(read(directory.path()), Some(noted(1000)));
        note.committed(BatchTime::from_ms(2000));
        assert_eq!(read(directory.path()), Some(noted(2000)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_note_is_noticed() {
        let bytes = noted(1000).encode();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Noted::decode(&broken).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Noted::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_note_that_cannot_be_written_harms_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let gone = directory.path().join("gone");
        let mut note = Note::create(&gone, &noted(1000));
        note.committed(BatchTime::from_ms(2000));
        assert_eq!(read(&gone), None);
    }
}
