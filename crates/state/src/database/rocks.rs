//! The only module that knows RocksDB: opening, sorted reads, scans, table files, hard links. Its WAL
//! is off, for the truth is the engine's log; flushes are atomic over all column families.

use crate::error::{Error, ErrorKind, Result};
use crate::options::StoreOptions;
use crate::rows::Rows;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBWithThreadMode, IngestExternalFileOptions, MultiThreaded,
    Options, ReadOptions, SstFileWriter, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Db = DBWithThreadMode<MultiThreaded>;

/// The name of an operator's column family. The prefix keeps it apart from RocksDB's own `default`.
fn family_name(operator: &str) -> String {
    format!("operator:{operator}")
}

impl Error {
    /// A failure inside RocksDB; its type stays inside the crate, its text does not.
    pub(crate) fn database(doing: &str, what: &Path, source: rocksdb::Error) -> Self {
        let kind = match source.kind() {
            rocksdb::ErrorKind::Corruption => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        };
        let text = source.into_string();
        Error::new(kind, format!("cannot {doing} in {}: {text}", what.display()))
    }
}

pub(crate) struct RocksDatabase {
    db: Db,
    path: PathBuf,
    family_options: Options,
    writes: WriteOptions,
}

impl RocksDatabase {
    /// Opens (or makes) the database in `path`, which holds the column families of `operators`.
    pub(crate) fn open(path: &Path, operators: &[String], options: &StoreOptions) -> Result<Self> {
        let family_options = family_options(options);
        let mut db_options = family_options.clone();
        db_options.create_if_missing(true);
        db_options.set_atomic_flush(true);
        db_options.increase_parallelism(options.background_threads.max(2) as i32);
        db_options.set_max_background_jobs(options.background_threads.max(2) as i32);
        // Written out bit by bit: a burst of dirty pages would hold up the log's fdatasync.
        db_options.set_bytes_per_sync(1 << 20);
        db_options.set_max_manifest_file_size(1 << 20);
        db_options.set_keep_log_file_num(2);
        db_options.set_log_level(rocksdb::LogLevel::Warn);
        db_options.set_stats_dump_period_sec(0);
        // Otherwise opening reads the properties of every table file.
        db_options.set_skip_stats_update_on_db_open(true);
        db_options.set_max_open_files(options.open_files_limit);
        let families = std::iter::once("default".to_string())
            .chain(operators.iter().map(|operator| family_name(operator)))
            .map(|name| ColumnFamilyDescriptor::new(name, family_options.clone()));
        let db = Db::open_cf_descriptors(&db_options, path, families)
            .map_err(|error| Error::database("open the database", path, error))?;
        let mut writes = WriteOptions::default();
        writes.disable_wal(true);
        Ok(RocksDatabase { db, path: path.to_owned(), family_options, writes })
    }

    fn family(&self, operator: &str) -> Result<std::sync::Arc<rocksdb::BoundColumnFamily<'_>>> {
        self.db.cf_handle(&family_name(operator)).ok_or_else(|| {
            Error::misuse(format!("operator `{operator}` has no column family in {}", self.path.display()))
        })
    }

    fn error(&self, doing: &str, error: rocksdb::Error) -> Error {
        Error::database(doing, &self.path, error)
    }

    pub(crate) fn create_operator(&self, operator: &str) -> Result<()> {
        self.db
            .create_cf(family_name(operator), &self.family_options)
            .map_err(|error| self.error(&format!("create the column family of `{operator}`"), error))
    }

    pub(crate) fn drop_operator(&self, operator: &str) -> Result<()> {
        self.db
            .drop_cf(&family_name(operator))
            .map_err(|error| self.error(&format!("drop the column family of `{operator}`"), error))
    }

    /// Reads the stored values of `keys`, which are sorted; `found` gets position and value, None for a
    /// key that is not there.
    pub(crate) fn get_sorted(
        &self,
        operator: &str,
        keys: &[Vec<u8>],
        mut found: impl FnMut(usize, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        /// Keys a call: the values of one call are pinned together.
        const CHUNK: usize = 4096;
        let family = self.family(operator)?;
        for (chunk, keys) in keys.chunks(CHUNK).enumerate() {
            let values = self.db.batched_multi_get_cf(&family, keys, true);
            for (position, value) in values.into_iter().enumerate() {
                let value = value.map_err(|error| self.error(&format!("read keys of `{operator}`"), error))?;
                found(chunk * CHUNK + position, value.as_deref())?;
            }
        }
        Ok(())
    }

    /// Goes through the keys in [from, to) in order (`to` None: to the end) until `each` says false.
    pub(crate) fn scan<E: From<Error>>(
        &self,
        operator: &str,
        from: &[u8],
        to: Option<Vec<u8>>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let family = self.family(operator)?;
        let mut options = ReadOptions::default();
        // A scan would wash the blocks of point reads out of the cache.
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.db.raw_iterator_cf_opt(&family, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !each(key, value)? {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.error(&format!("scan the keys of `{operator}`"), error))?;
        Ok(())
    }

    /// A writer of a table file beside the database.
    pub(crate) fn table_file(&self, path: PathBuf) -> RocksTableFile<'_> {
        RocksTableFile { writer: None, options: &self.family_options, path, rows: 0 }
    }

    /// Takes table files into an operator's column family by moving them, all at once. They win over
    /// what is there; no key may be in two of them.
    pub(crate) fn ingest(&self, operator: &str, files: Vec<PathBuf>) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let family = self.family(operator)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db
            .ingest_external_file_cf_opts(&family, &options, files)
            .map_err(|error| self.error(&format!("ingest table files of `{operator}`"), error))
    }

    /// Writes small changes of several operators in one atomic batch.
    pub(crate) fn write<'r>(&self, changes: impl Iterator<Item = (&'r str, &'r Rows)>) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (operator, rows) in changes {
            let family = self.family(operator)?;
            for (key, value) in rows.iter() {
                match value {
                    Some(value) => batch.put_cf(&family, key, value),
                    None => batch.delete_cf(&family, key),
                }
            }
        }
        self.db.write_opt(batch, &self.writes).map_err(|error| self.error("write changes", error))
    }

    /// Flushes and hard-links the present state into the new directory `to`.
    pub(crate) fn link(&self, to: &Path) -> Result<()> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(to))
            .map_err(|error| self.error("link a checkpoint", error))
    }

    /// Bytes of table files by operator.
    pub(crate) fn table_bytes(&self) -> Result<BTreeMap<String, u64>> {
        let mut bytes = BTreeMap::new();
        for file in self.db.live_files().map_err(|error| self.error("list table files", error))? {
            if let Some(operator) = file.column_family_name.strip_prefix("operator:") {
                *bytes.entry(operator.to_string()).or_default() += file.size as u64;
            }
        }
        Ok(bytes)
    }

    /// Waits until no compaction is due: for measuring.
    pub(crate) fn settle(&self) -> Result<()> {
        self.db
            .wait_for_compact(&rocksdb::WaitForCompactOptions::default())
            .map_err(|error| self.error("wait for compaction", error))
    }
}

impl Drop for RocksDatabase {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
    }
}

fn family_options(options: &StoreOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes as usize));
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    // Indexes and filters stay in memory beside the cache: in a cache too small for them each lookup would
    // read a filter anew, which was measured at five times the time.
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_compression_type(rocksdb::DBCompressionType::Lz4);
    family.set_write_buffer_size(options.write_buffer_bytes as usize);
    // Each checkpoint brings a run of keys from all over the key space. Merging runs of like size leaves
    // the large ones alone, where levels would rewrite everything for every few checkpoints.
    family.set_compaction_style(rocksdb::DBCompactionStyle::Universal);
    family.set_level_zero_file_num_compaction_trigger(8);
    family.set_level_zero_slowdown_writes_trigger(40);
    family.set_level_zero_stop_writes_trigger(64);
    family
}

/// A sorted table file being written. The file is made with its first row.
pub(crate) struct RocksTableFile<'a> {
    writer: Option<SstFileWriter<'a>>,
    options: &'a Options,
    path: PathBuf,
    rows: u64,
}

impl RocksTableFile<'_> {
    /// Adds a row; keys must ascend. None removes the key.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        if self.writer.is_none() {
            let writer = SstFileWriter::create(self.options);
            writer.open(&self.path).map_err(|error| Error::database("create a table file", &self.path, error))?;
            self.writer = Some(writer);
        }
        let writer = self.writer.as_mut().expect("made above");
        self.rows += 1;
        match value {
            Some(value) => writer.put(key, value),
            None => writer.delete(key),
        }
        .map_err(|error| Error::database("write a table file", &self.path, error))
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, SstFileWriter::file_size)
    }

    /// Ends the file, synced; None if it got no row.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>> {
        match &mut self.writer {
            None => Ok(None),
            Some(writer) => {
                writer.finish().map_err(|error| Error::database("finish a table file", &self.path, error))?;
                Ok(Some(self.path))
            }
        }
    }
}
