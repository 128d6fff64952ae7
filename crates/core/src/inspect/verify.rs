//! Reads everything that has a checksum.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use millpond_state::{ErrorKind as StateKind, SnapshotFile, SnapshotStore};
use millpond_wal::Frame;
use millpond_wal::fs::DiskFileSystem;

use super::place::Place;
use crate::engine::manifest::Manifest;
use crate::error::{Error, ErrorKind, Result};
use crate::log::LogEntry;
use crate::time::BatchTime;

/// What [`verify`] has read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Checkpoints whose manifests were read.
    pub checkpoints: u64,
    /// Their files, each counted once.
    pub files: u64,
    /// Bytes of those.
    pub file_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of those.
    pub entry_bytes: u64,
    /// What is damaged, a sentence each, with the path.
    pub damage: Vec<String>,
}

/// Reads the log and the files of all checkpoints and compares every checksum. Nothing is changed: no file is marked bad.
///
/// Of the newest segment of a log a damaged last entry cannot be told from one that was being written when the process died:
/// it is what no start would have relied on.
///
/// # Errors
/// As [`inspect`](super::inspect); damage is no error, it stands in [`Verification::damage`].
pub fn verify(directory: &Path) -> Result<Verification> {
    let place = Place::find(directory)?;
    let mut verified = Verification::default();
    verified.checkpoints(&place)?;
    verified.log(&place)?;
    Ok(verified)
}

impl Verification {
    fn checkpoints(&mut self, place: &Place) -> Result<()> {
        let store = &*place.snapshots;
        let mut seen = BTreeSet::new();
        for batch in store.batches()? {
            let named = format!("checkpoint {} in {}", BatchTime::from_ms(batch), place.name());
            // What a process at work has deleted meanwhile is not missing.
            let is_gone = || Ok::<_, Error>(!store.batches()?.contains(&batch));
            let manifest = match read_manifest(store, batch) {
                Ok(manifest) => manifest,
                Err(_) if is_gone()? => continue,
                Err(error) if error.kind() == ErrorKind::Restore => {
                    self.damage.push(format!("{named}: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.checkpoints += 1;
            for file in manifest.files {
                if seen.contains(&file.name) {
                    continue;
                }
                match read_file(store, &file) {
                    Ok(()) => {
                        self.files += 1;
                        self.file_bytes += file.bytes;
                    }
                    Err(_) if is_gone()? => break,
                    Err(what) => self.damage.push(format!("{named}: file checkpoints/files/{} {what}", file.name)),
                }
                seen.insert(file.name);
            }
        }
        Ok(())
    }

    fn log(&mut self, place: &Place) -> Result<()> {
        let path = place.log();
        if !path.is_dir() {
            return Ok(());
        }
        let damage = &mut self.damage;
        let mut visit = |frame: Frame<'_>| {
            if let Err(error) = LogEntry::decode(frame.kind, frame.payload) {
                damage.push(format!("the log in {} at {}: {error}", path.display(), frame.position));
            }
            Ok(())
        };
        let scanned = millpond_wal::scan(&DiskFileSystem, &path, &mut visit)?;
        self.damage.extend(scanned.corruption.map(|corruption| corruption.to_string()));
        self.segments = scanned.segments.len() as u64;
        self.entries = scanned.frames;
        self.entry_bytes = scanned.payload_bytes;
        Ok(())
    }
}

/// The manifest of a checkpoint, the engine's section in it read too.
fn read_manifest(store: &dyn SnapshotStore, batch: u64) -> Result<millpond_state::Manifest> {
    let manifest = millpond_state::Manifest::decode(&store.manifest(batch)?)?;
    if manifest.batch != batch {
        let of = BatchTime::from_ms(manifest.batch);
        return Err(Error::new(ErrorKind::Restore, format!("its manifest is of batch {of}")));
    }
    Manifest::decode(&manifest.meta)?;
    Ok(manifest)
}

/// Compares a file with what its manifest says of it; says what is wrong with it.
fn read_file(store: &dyn SnapshotStore, file: &SnapshotFile) -> Result<(), String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    match store.size(&file.name) {
        Ok(Some(_)) => {}
        Ok(None) => return Err("is missing".into()),
        Err(error) => return Err(cannot(&error)),
    }
    let mut reader = store.read(&file.name).map_err(|error| match error.kind() {
        StateKind::Io => cannot(&error),
        _ => error.to_string(),
    })?;
    let (mut checksum, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).map_err(|error| cannot(&error))? {
            0 => break,
            read => {
                checksum.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    let found = checksum.finalize();
    if bytes != file.bytes {
        return Err(format!("has {bytes} bytes, written were {}", file.bytes));
    }
    if found != file.checksum {
        return Err(format!(
            "is damaged: its {bytes} bytes have checksum {found:08x}, written were {:08x}",
            file.checksum
        ));
    }
    Ok(())
}
