//! Making a snapshot: link the database's files, read the checksums of those that are new, hand them
//! to the snapshot store, publish the manifest, delete what is not to be kept. A file that an earlier
//! snapshot has is neither read nor put again.

use crate::database::Database;
use crate::error::{Error, Result};
use crate::files;
use crate::live::LiveDirectory;
use crate::options::StoreOptions;
use crate::snapshot::{Manifest, OperatorRecord, Retention, Snapshot, SnapshotFile, SnapshotStore, checksum_file};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a checkpoint has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its batch.
    pub batch: u64,
    /// Files in it.
    pub files: usize,
    /// Bytes in it.
    pub bytes: u64,
    /// Files that no earlier snapshot had.
    pub new_files: usize,
    /// Bytes of those, and of the manifest.
    pub new_bytes: u64,
    /// The oldest batch that has a snapshot now: what a log must be kept back to.
    pub oldest_batch: u64,
    /// How long the files took to link, during which nothing is written behind.
    pub link_time: Duration,
    /// How long the whole took.
    pub time: Duration,
}

/// What is known of the files of earlier checkpoints of this open store.
pub(crate) struct Checkpoints {
    /// By name in the database, which gives no name twice while it is open.
    known: HashMap<String, SnapshotFile>,
    retention: Retention,
}

/// Files linked from the database.
pub(crate) struct Linked {
    directory: PathBuf,
    operators: Vec<OperatorRecord>,
    started: Instant,
    link_time: Duration,
}

impl Checkpoints {
    pub(crate) fn new(restored: Option<&Snapshot>) -> Self {
        let files = restored.map(|snapshot| snapshot.manifest().files.as_slice()).unwrap_or_default();
        let tables = files.iter().filter(|file| file.is_table());
        let known = tables.map(|file| (file.live_name.clone(), file.clone())).collect();
        Checkpoints { known, retention: Retention::default() }
    }

    /// Links the database's present files, and completes the operators' records.
    pub(crate) fn link(
        &self,
        database: &Database,
        live: &LiveDirectory,
        keys: &BTreeMap<String, u64>,
        operators: &mut Vec<OperatorRecord>,
    ) -> Result<Linked> {
        let started = Instant::now();
        let directory = live.link();
        files::remove_directory(&directory)?;
        database.link(&directory)?;
        let table_bytes = database.table_bytes()?;
        for operator in operators.iter_mut() {
            operator.keys = keys.get(&operator.name).copied().unwrap_or(0);
            operator.table_bytes = table_bytes.get(&operator.name).copied().unwrap_or(0);
        }
        let link_time = started.elapsed();
        Ok(Linked { directory, operators: std::mem::take(operators), started, link_time })
    }

    pub(crate) fn publish(
        &mut self,
        linked: Linked,
        batch: u64,
        options: StoreOptions,
        snapshots: &dyn SnapshotStore,
        meta: Vec<u8>,
    ) -> Result<SnapshotInfo> {
        fail::fail_point!(crate::failpoints::CHECKPOINT_LINKED);
        let was_tidy = self.retention.files_come();
        let mut named = Vec::new();
        // Files that come after the manifest that names them, as they must never.
        let mut late = Vec::new();
        let (mut new_files, mut new_bytes) = (0, 0);
        let mut tables = HashMap::new();
        for live_name in files::names(&linked.directory)? {
            let is_table = live_name.ends_with(".sst");
            // The rest is logs, and options that are given anew at every start.
            if !is_table && live_name != "CURRENT" && !live_name.starts_with("MANIFEST-") {
                continue;
            }
            let file = match self.known.get(&live_name) {
                Some(known) => known.clone(),
                None => {
                    let path = linked.directory.join(&live_name);
                    let (bytes, checksum) = checksum_file(&path)?;
                    let (stem, ending) = live_name.split_once('.').unwrap_or((&live_name, "meta"));
                    let name = format!("{stem}-{bytes:x}-{checksum:08x}.{ending}");
                    if crate::controls::broken("break-manifest-before-files") {
                        late.push((name.clone(), path));
                    } else {
                        snapshots.put(&name, &path)?;
                    }
                    new_files += 1;
                    new_bytes += bytes;
                    SnapshotFile { name, live_name: live_name.clone(), bytes, checksum }
                }
            };
            if is_table {
                tables.insert(live_name, file.clone());
            }
            named.push(file);
        }
        for (bad, reason) in snapshots.bad()? {
            if named.iter().any(|file| file.name == bad) {
                return Err(Error::corrupt(format!(
                    "batch {batch} is not checkpointed: file {bad} of the state is marked bad ({reason}). \
                     Restart: an older snapshot without it will be used"
                )));
            }
        }
        let manifest = Manifest {
            batch,
            shards: options.shards,
            partitions: options.partitions as u32,
            operators: linked.operators,
            files: named,
            meta,
        };
        let encoded = manifest.encode()?;
        snapshots.publish(batch, &encoded)?;
        late.iter().try_for_each(|(name, path)| snapshots.put(name, path))?;
        // Known only now: of an unpublished snapshot the store may have lost files.
        self.known = tables;
        files::remove_directory(&linked.directory)?;
        self.retention.all_named(was_tidy);
        self.retention.published(&manifest);
        let oldest_batch = self.retention.apply(snapshots, batch, options.retained_snapshots)?;
        Ok(SnapshotInfo {
            batch,
            files: manifest.files.len(),
            bytes: manifest.bytes(),
            new_files,
            new_bytes: new_bytes + encoded.len() as u64,
            oldest_batch,
            link_time: linked.link_time,
            time: linked.started.elapsed(),
        })
    }
}
