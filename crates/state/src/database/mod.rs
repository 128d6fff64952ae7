//! The database under the store: RocksDB, or for simulations a map in memory. Chosen once for a store, asked once for many rows.

mod memory;
mod rocks;

use crate::error::{Error, Result};
use crate::options::StoreOptions;
use crate::rows::Rows;
use memory::{MemoryDatabase, MemoryTableFile};
use rocks::{RocksDatabase, RocksTableFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What looks at stored values: the position of a key, and its value.
pub(crate) type Found<'a> = &'a mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>;

pub(crate) enum Database {
    Rocks(RocksDatabase),
    Memory(MemoryDatabase),
}

impl Database {
    /// Opens (or makes) the database in `path`, which holds the column families of `operators`.
    pub(crate) fn open(path: &Path, operators: &[String], options: &StoreOptions) -> Result<Self> {
        Ok(match options.database_in_memory {
            false => Database::Rocks(RocksDatabase::open(path, operators, options)?),
            true => Database::Memory(MemoryDatabase::open(path)?),
        })
    }

    pub(crate) fn create_operator(&self, operator: &str) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.create_operator(operator),
            Database::Memory(memory) => {
                memory.create_operator(operator);
                Ok(())
            }
        }
    }

    pub(crate) fn drop_operator(&self, operator: &str) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.drop_operator(operator),
            Database::Memory(memory) => {
                memory.drop_operator(operator);
                Ok(())
            }
        }
    }

    /// Reads the stored values of `keys`, which are sorted; `found` gets position and value, None for a key that is not there.
    pub(crate) fn get_sorted(
        &self,
        operator: &str,
        keys: &[Vec<u8>],
        mut found: impl FnMut(usize, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.get_sorted(operator, keys, found),
            Database::Memory(memory) => memory.get_sorted(operator, keys, &mut found),
        }
    }

    /// Goes through the keys in [from, to) in order (`to` None: to the end) until `each` says false.
    pub(crate) fn scan<E: From<Error>>(
        &self,
        operator: &str,
        from: &[u8],
        to: Option<Vec<u8>>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        match self {
            Database::Rocks(rocks) => rocks.scan(operator, from, to, each),
            Database::Memory(memory) => {
                for (key, value) in memory.rows(operator, from, to)? {
                    if !each(&key, &value)? {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// A writer of a table file beside the database.
    pub(crate) fn table_file(&self, path: PathBuf) -> TableFile<'_> {
        match self {
            Database::Rocks(rocks) => TableFile::Rocks(rocks.table_file(path)),
            Database::Memory(_) => TableFile::Memory(MemoryTableFile { path, rows: Vec::new() }),
        }
    }

    /// Takes table files into an operator's column family by moving them, all at once. They win over what is there; no key may
    /// be in two of them.
    pub(crate) fn ingest(&self, operator: &str, files: Vec<PathBuf>) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.ingest(operator, files),
            Database::Memory(memory) => memory.ingest(operator, files),
        }
    }

    /// Writes small changes of several operators in one atomic batch.
    pub(crate) fn write<'r>(&self, mut changes: impl Iterator<Item = (&'r str, &'r Rows)>) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.write(changes),
            Database::Memory(memory) => changes.try_for_each(|(operator, rows)| memory.change(operator, rows.iter())),
        }
    }

    /// Flushes and hard-links the present state into the new directory `to`.
    pub(crate) fn link(&self, to: &Path) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.link(to),
            Database::Memory(memory) => memory.link(to),
        }
    }

    /// Bytes of table files by operator.
    pub(crate) fn table_bytes(&self) -> Result<BTreeMap<String, u64>> {
        match self {
            Database::Rocks(rocks) => rocks.table_bytes(),
            Database::Memory(_) => Ok(BTreeMap::new()),
        }
    }

    /// Waits until no compaction is due: for measuring.
    pub(crate) fn settle(&self) -> Result<()> {
        match self {
            Database::Rocks(rocks) => rocks.settle(),
            Database::Memory(_) => Ok(()),
        }
    }
}

/// A sorted table file being written. The file is made with its first row.
pub(crate) enum TableFile<'a> {
    Rocks(RocksTableFile<'a>),
    Memory(MemoryTableFile),
}

impl TableFile<'_> {
    /// Adds a row; keys must ascend. None removes the key.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        match self {
            TableFile::Rocks(file) => file.put(key, value),
            TableFile::Memory(file) => {
                file.rows.push((key.to_vec(), value.map(<[u8]>::to_vec)));
                Ok(())
            }
        }
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        match self {
            TableFile::Rocks(file) => file.file_bytes(),
            TableFile::Memory(file) => file.rows.len() as u64,
        }
    }

    /// Ends the file, synced; None if it got no row.
    pub(crate) fn finish(self) -> Result<Option<PathBuf>> {
        match self {
            TableFile::Rocks(file) => file.finish(),
            TableFile::Memory(file) => file.finish(),
        }
    }
}
