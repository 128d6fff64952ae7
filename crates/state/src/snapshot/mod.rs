//! Snapshots: immutable files and a manifest that names them. Publishing the manifest is the commit.
//!
//! [`SnapshotStore`] says where they are kept; [`LocalSnapshotStore`] keeps them in a directory,
//! [`MemorySnapshotStore`] in memory. Finding the newest usable one, checking it, and deleting what no
//! manifest names any more are here, above the trait, and so the same for all.

mod copy;
mod local;
mod manifest;
mod memory;
mod retain;

pub use local::LocalSnapshotStore;
pub use manifest::{Manifest, OperatorRecord, SnapshotFile};
pub use memory::MemorySnapshotStore;
pub(crate) use retain::Retention;
pub use retain::collect_garbage;

use crate::error::{Error, ErrorKind, Result};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Where snapshots are kept: files that never change once put, and one manifest a batch.
///
/// File names are given by the caller, unique for their content. An implementation need not be called
/// from several threads at once for changes; reading beside a change is allowed.
/// [`conformance`](crate::conformance) tests an implementation.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Takes the file at `from` in as `name`, replacing one of that name and its bad mark; at any moment, crash or
    /// failure, there is the one or the other. It may link the file instead
    /// of copying it: the caller never changes it afterwards. Durable at the next `publish`.
    fn put(&self, name: &str, from: &Path) -> Result<()>;

    /// Brings the file `name` to the new path `to`; by a link where that can be had and `may_link` says
    /// that nobody will write to it.
    fn fetch(&self, name: &str, to: &Path, may_link: bool) -> Result<()>;

    /// Opens a file to be read from its beginning.
    fn read(&self, name: &str) -> Result<Box<dyn Read + Send>>;

    /// The size of a file in bytes, None if there is no such file.
    fn size(&self, name: &str) -> Result<Option<u64>>;

    /// The names of all files.
    fn files(&self) -> Result<Vec<String>>;

    /// Deletes a file and its bad mark; no error if it is gone already.
    fn delete(&self, name: &str) -> Result<()>;

    /// Publishes the manifest of a batch, replacing one of that batch. Afterwards it and all files put
    /// before are durable; a failure or crash leaves either the new manifest or what was there before.
    fn publish(&self, batch: u64, manifest: &[u8]) -> Result<()>;

    /// The batches that have a manifest, ascending.
    fn batches(&self) -> Result<Vec<u64>>;

    /// The manifest of a batch, as published.
    fn manifest(&self, batch: u64) -> Result<Vec<u8>>;

    /// Deletes the manifest of a batch, durably; no error if it is gone already. Its files stay.
    fn withdraw(&self, batch: u64) -> Result<()>;

    /// Notes durably that a file is not what was put, and why: no snapshot that names it is used again.
    fn mark_bad(&self, name: &str, reason: &str) -> Result<()>;

    /// The files marked bad, with reasons.
    fn bad(&self) -> Result<Vec<(String, String)>>;
}

/// A published snapshot whose manifest is sound and whose files are all there, in their sizes.
#[derive(Clone)]
pub struct Snapshot {
    store: Arc<dyn SnapshotStore>,
    manifest: Arc<Manifest>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("batch", &self.manifest.batch).finish_non_exhaustive()
    }
}

/// The newest usable snapshot, and newer ones that could not be used.
#[derive(Debug)]
pub struct Newest {
    /// None if nothing has ever been published.
    pub snapshot: Option<Snapshot>,
    /// Newer snapshots that were passed over, newest first: to be reported loudly.
    pub rejected: Vec<Rejected>,
}

/// A snapshot that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its batch.
    pub batch: u64,
    /// What is wrong with which file.
    pub reason: String,
}

/// What [`Snapshot::verify`] has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// False if `go_on` stopped it before the end.
    pub whole: bool,
}

impl Snapshot {
    /// Finds the newest snapshot that can be used: manifest sound, no file marked bad, all files there
    /// in the right size. Of the files only the few small ones that say which tables there are are read: with a bit of those changed the
    /// database would not open, or be another.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if there are snapshots but none can be used, [`Mismatch`](ErrorKind::Mismatch)
    /// if the newest was written by a newer version, and failures to read.
    pub fn newest(store: Arc<dyn SnapshotStore>) -> Result<Newest> {
        let mut rejected = Vec::new();
        for batch in store.batches()?.into_iter().rev() {
            match Snapshot::open(store.clone(), batch) {
                Ok(snapshot) => return Ok(Newest { snapshot: Some(snapshot), rejected }),
                // A process that is using the store has put a newer one in its place meanwhile.
                Err(_) if !store.batches()?.contains(&batch) => return Snapshot::newest(store),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(batch, %error, "snapshot cannot be used");
                    rejected.push(Rejected { batch, reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(newest) = rejected.first() {
            return Err(Error::corrupt(format!(
                "none of the {} snapshots can be used; the newest, of batch {}: {}",
                rejected.len(),
                newest.batch,
                newest.reason
            )));
        }
        Ok(Newest { snapshot: None, rejected })
    }

    /// Opens the snapshot of one batch, with the checks of [`newest`](Self::newest).
    pub fn open(store: Arc<dyn SnapshotStore>, batch: u64) -> Result<Snapshot> {
        let manifest = check(&*store, batch)?;
        for file in manifest.files.iter().filter(|file| !file.is_table()) {
            if let Some((_, reason)) = read_checksum(&*store, file, &|| true)?.filter(|(sound, _)| !sound) {
                return Err(Error::corrupt(format!(
                    "snapshot of batch {batch}: file {} is damaged: {reason}",
                    file.name
                )));
            }
        }
        Ok(Snapshot { store, manifest: Arc::new(manifest) })
    }

    /// The batch after which this is the state.
    pub fn batch(&self) -> u64 {
        self.manifest.batch
    }

    /// All that the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The section that was given to the checkpoint, as it was.
    pub fn meta(&self) -> &[u8] {
        &self.manifest.meta
    }

    /// Reads every file and compares checksums, as long as `go_on` says so. It is asked before every MiB and may
    /// take its time, to leave the disk to others. A file that
    /// is not what was put is marked bad, so that no snapshot that names it is used again.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) naming the file.
    pub fn verify(&self, go_on: &dyn Fn() -> bool) -> Result<Verified> {
        let mut verified = Verified { files: 0, bytes: 0, whole: false };
        for file in &self.manifest.files {
            let Some((sound, reason)) = read_checksum(&*self.store, file, go_on)? else { return Ok(verified) };
            if !sound {
                self.store.mark_bad(&file.name, &reason)?;
                return Err(Error::corrupt(format!(
                    "snapshot of batch {}: file {} is damaged: {reason}. It has been marked bad; a restart will use an older snapshot without it",
                    self.manifest.batch, file.name
                )));
            }
            verified.files += 1;
            verified.bytes += file.bytes;
        }
        verified.whole = true;
        Ok(verified)
    }

    /// Brings all files into the empty directory `directory`, under the names the database knows.
    pub(crate) fn restore(&self, directory: &Path) -> Result<()> {
        for file in &self.manifest.files {
            self.store.fetch(&file.name, &directory.join(&file.live_name), file.is_table())?;
        }
        Ok(())
    }
}

/// Reads a manifest and compares the sizes of all its files.
pub(crate) fn check(store: &dyn SnapshotStore, batch: u64) -> Result<Manifest> {
    let place = format!("snapshot of batch {batch}");
    let manifest = Manifest::decode(&store.manifest(batch)?).map_err(|error| error.context(&place))?;
    if manifest.batch != batch {
        return Err(Error::corrupt(format!("{place}: its manifest is of batch {}", manifest.batch)));
    }
    let bad = store.bad()?;
    for file in &manifest.files {
        if let Some((name, reason)) = bad.iter().find(|(name, _)| *name == file.name) {
            return Err(Error::corrupt(format!("{place}: file {name} is marked bad: {reason}")));
        }
        match store.size(&file.name)? {
            Some(bytes) if bytes == file.bytes => {}
            Some(bytes) => {
                return Err(Error::corrupt(format!(
                    "{place}: file {} has {bytes} bytes instead of {}",
                    file.name, file.bytes
                )));
            }
            None => return Err(Error::corrupt(format!("{place}: file {} is missing", file.name))),
        }
    }
    Ok(manifest)
}

/// Reads a file and says whether it is what was put, and in words what it is; `None` if `go_on` stopped it, which is asked before every MiB.
fn read_checksum(
    store: &dyn SnapshotStore,
    file: &SnapshotFile,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<(bool, String)>> {
    let mut reader = store.read(&file.name)?;
    let mut buffer = vec![0; file.bytes.clamp(1, 1 << 20) as usize];
    let (mut checksum, mut bytes) = (crc32fast::Hasher::new(), 0);
    loop {
        if !go_on() {
            return Ok(None);
        }
        let read =
            reader.read(&mut buffer).map_err(|error| Error::io("read snapshot file", Path::new(&file.name), error))?;
        if read == 0 {
            break;
        }
        checksum.update(&buffer[..read]);
        bytes += read as u64;
    }
    let found = checksum.finalize();
    let reason =
        format!("{bytes} bytes with checksum {found:08x}, written were {} with {:08x}", file.bytes, file.checksum);
    Ok(Some((found == file.checksum && bytes == file.bytes, reason)))
}

/// Size and CRC-32 of a file.
pub(crate) fn checksum_file(path: &Path) -> Result<(u64, u32)> {
    let mut file = std::fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
    let mut checksum = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(|error| Error::io("read", path, error))?;
        if read == 0 {
            return Ok((bytes, checksum.finalize()));
        }
        checksum.update(&buffer[..read]);
        bytes += read as u64;
    }
}
