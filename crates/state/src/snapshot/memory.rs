//! Snapshots in memory: for tests, and the second implementation that keeps the trait honest.

use super::SnapshotStore;
use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps snapshots in memory; they are gone with the last clone.
#[derive(Debug, Default, Clone)]
pub struct MemorySnapshotStore {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    files: BTreeMap<String, Arc<[u8]>>,
    manifests: BTreeMap<u64, Vec<u8>>,
    bad: BTreeMap<String, String>,
}

impl MemorySnapshotStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> Result<Arc<[u8]>> {
        self.content()
            .files
            .get(name)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Io, format!("there is no snapshot file {name} in memory")))
    }
}

impl SnapshotStore for MemorySnapshotStore {
    fn put(&self, name: &str, from: &Path) -> Result<()> {
        let bytes = std::fs::read(from).map_err(|error| Error::io("read", from, error))?;
        let mut content = self.content();
        content.files.insert(name.to_string(), bytes.into());
        content.bad.remove(name);
        Ok(())
    }

    fn fetch(&self, name: &str, to: &Path, _may_link: bool) -> Result<()> {
        std::fs::write(to, self.file(name)?).map_err(|error| Error::io("write", to, error))
    }

    fn read(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.file(name)?)))
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.content().files.get(name).map(|bytes| bytes.len() as u64))
    }

    fn files(&self) -> Result<Vec<String>> {
        Ok(self.content().files.keys().cloned().collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        let mut content = self.content();
        content.files.remove(name);
        content.bad.remove(name);
        Ok(())
    }

    fn publish(&self, batch: u64, manifest: &[u8]) -> Result<()> {
        self.content().manifests.insert(batch, manifest.to_vec());
        Ok(())
    }

    fn batches(&self) -> Result<Vec<u64>> {
        Ok(self.content().manifests.keys().copied().collect())
    }

    fn manifest(&self, batch: u64) -> Result<Vec<u8>> {
        self.content()
            .manifests
            .get(&batch)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Io, format!("there is no snapshot of batch {batch} in memory")))
    }

    fn withdraw(&self, batch: u64) -> Result<()> {
        self.content().manifests.remove(&batch);
        Ok(())
    }

    fn mark_bad(&self, name: &str, reason: &str) -> Result<()> {
        self.content().bad.insert(name.to_string(), reason.to_string());
        Ok(())
    }

    fn bad(&self) -> Result<Vec<(String, String)>> {
        Ok(self.content().bad.iter().map(|(name, why)| (name.clone(), why.clone())).collect())
    }
}
