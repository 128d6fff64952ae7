//! Where persisted `Rdd`s of a context go when memory does not hold them: a limit, and a directory that is made when it is needed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::sink::disk::{create_directory, delete};

/// Bytes of values that [`StorageLevel::MemoryAndDisk`](super::StorageLevel) keeps in memory, by their estimated encoded size.
pub(crate) const PERSIST_MEMORY_BYTES: u64 = 256 << 20;

#[derive(Debug)]
pub(crate) struct Storage {
    /// Where the directory is made.
    base: PathBuf,
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// Files so far.
    files: AtomicU64,
    directory: Mutex<Option<PathBuf>>,
}

impl Storage {
    pub(crate) fn new(base: PathBuf, limit_bytes: u64) -> Self {
        Storage {
            base,
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            directory: Mutex::default(),
        }
    }

    /// Takes bytes from the limit, if there are so many left.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A file that is not there yet.
    pub(crate) fn new_path(&self) -> Result<PathBuf> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = match &mut *directory {
            Some(directory) => directory,
            none => none.insert(make(&self.base)?),
        };
        Ok(directory.join(format!("{:08}", self.files.fetch_add(1, Ordering::Relaxed))))
    }
}

/// A directory of this context alone.
fn make(base: &Path) -> Result<PathBuf> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|error| Error::new(ErrorKind::Retry, format!("the system gives no random bytes: {error}")))?;
    let directory = base.join(format!("millpond-spill-{:016x}", u64::from_le_bytes(id)));
    create_directory(&directory)?;
    Ok(directory)
}

impl Drop for Storage {
    fn drop(&mut self) {
        let directory = self.directory.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = directory.map(|directory| delete(&directory)) {
            tracing::warn!(%error, "spilled partitions could not be deleted");
        }
    }
}
