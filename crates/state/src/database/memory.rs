//! A database in memory, for simulations, which open and close one hundreds of times a second: a map a column family. Linking
//! writes all of it into one file, opening reads that file.

use super::Found;
use crate::codec;
use crate::error::{Error, Result};
use crate::files;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The file that it links to: by its name a part of a snapshot that is never taken for one known already.
const FILE: &str = "MANIFEST-memory";

type Family = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) struct MemoryDatabase {
    families: Mutex<BTreeMap<String, Family>>,
}

impl MemoryDatabase {
    /// Opens (or makes) what `link` has left in `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join(FILE);
        let families = match file.is_file() {
            true => codec::decode(&std::fs::read(&file).map_err(|error| Error::io("read", &file, error))?)?,
            false => BTreeMap::new(),
        };
        Ok(MemoryDatabase { families: Mutex::new(families) })
    }

    fn with<R>(&self, operator: &str, work: impl FnOnce(&mut Family) -> R) -> Result<R> {
        let mut families = crate::store::lock(&self.families);
        let family = families.get_mut(operator);
        family.map(work).ok_or_else(|| Error::misuse(format!("operator `{operator}` has no column family")))
    }

    pub(crate) fn create_operator(&self, operator: &str) {
        crate::store::lock(&self.families).entry(operator.to_owned()).or_default();
    }

    pub(crate) fn drop_operator(&self, operator: &str) {
        crate::store::lock(&self.families).remove(operator);
    }

    pub(crate) fn get_sorted(&self, operator: &str, keys: &[Vec<u8>], found: Found<'_>) -> Result<()> {
        let values: Vec<Option<Vec<u8>>> =
            self.with(operator, |family| keys.iter().map(|key| family.get(key).cloned()).collect())?;
        values.iter().enumerate().try_for_each(|(position, value)| found(position, value.as_deref()))
    }

    /// The rows in [from, to).
    pub(crate) fn rows(&self, operator: &str, from: &[u8], to: Option<Vec<u8>>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Included(from.to_vec()), to);
        self.with(operator, |family| family.range(range).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    pub(crate) fn change<'r>(
        &self,
        operator: &str,
        rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<()> {
        self.with(operator, |family| {
            for (key, value) in rows {
                match value {
                    Some(value) => family.insert(key.to_vec(), value.to_vec()),
                    None => family.remove(key),
                };
            }
        })
    }

    /// Takes files of rows in.
    pub(crate) fn ingest(&self, operator: &str, files: Vec<PathBuf>) -> Result<()> {
        for file in files {
            let bytes = std::fs::read(&file).map_err(|error| Error::io("read", &file, error))?;
            let rows: Rows = codec::decode(&bytes)?;
            self.change(operator, rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))?;
            files::remove_file(&file)?;
        }
        Ok(())
    }

    pub(crate) fn link(&self, to: &Path) -> Result<()> {
        files::make_directory(to)?;
        write(&to.join(FILE), &*crate::store::lock(&self.families))
    }
}

type Rows = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Rows beside the database.
pub(crate) struct MemoryTableFile {
    pub(crate) path: PathBuf,
    pub(crate) rows: Rows,
}

impl MemoryTableFile {
    pub(crate) fn finish(self) -> Result<Option<PathBuf>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        write(&self.path, &self.rows)?;
        Ok(Some(self.path))
    }
}

fn write(path: &Path, what: &impl serde::Serialize) -> Result<()> {
    let mut bytes = Vec::new();
    codec::encode(what, &mut bytes)?;
    std::fs::write(path, bytes).map_err(|error| Error::io("write", path, error))
}
