//! The directory of an application: its parts, its lock, its creation (hard case H27), its checkpoints.
//!
//! ```text
//! LOCK           who holds it: pid, since when
//! log/           the log of batches
//! checkpoints/   immutable files and manifests
//! live/          the state database; thrown away and linked anew at every start
//! spill/         persisted `Rdd`s that memory did not hold; thrown away at every start
//! note           what is committed, for people: a cache that nothing depends on
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_state::{LocalSnapshotStore, Snapshot, SnapshotStore, StateStore, StoreOptions};
use millpond_wal::DirectoryLock;

use super::actor::Runtime;
use super::manifest::Manifest;
use super::note;
use super::rules;
use super::savepoint;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::sink::disk::{delete, sync_above};
use crate::source::BlockId;
use crate::stream::Fingerprint;
use crate::time::BatchTime;

/// Shards of the state: what it can be spread over later. Fixed, since no setting would make it better.
pub(crate) const SHARDS: u16 = 256;

/// Partitions of a shuffle where the settings name none: enough for the cores of a large machine, few enough for small batches.
const PARTITIONS: usize = 16;

const PARTS: [&str; 4] = ["log", "checkpoints", "live", "spill"];

/// An open directory, locked.
pub(crate) struct Directory {
    path: PathBuf,
    pub(crate) snapshots: Arc<LocalSnapshotStore>,
    /// Checkpoints that did not verify and were passed over: said loudly.
    pub(crate) rejected: Vec<String>,
    options: StoreOptions,
    _lock: DirectoryLock,
}

impl Directory {
    /// Locks the directory and finds the newest checkpoint; a new directory gets its first one, empty, at zero time.
    ///
    /// # Errors
    /// What else holds it, what else lies in it, what it cannot be used for. Nothing is changed in a directory that is not ours.
    pub(crate) fn open(settings: &Settings, runtime: &Runtime, zero: BatchTime) -> Result<(Directory, Manifest)> {
        let path = settings.directory.clone().ok_or_else(|| {
            Error::configuration(
                "no directory set: the log and the checkpoints need one. Call .directory(path) on the builder",
            )
        })?;
        look_for_strangers(&path)?;
        let lock = DirectoryLock::acquire(&path)?;
        // What a process left that was killed.
        delete(&path.join("spill"))?;
        let snapshots = Arc::new(LocalSnapshotStore::open(&path.join("checkpoints"))?);
        let options = StoreOptions {
            memory_limit_bytes: settings.memory_limit_bytes,
            shards: SHARDS,
            partitions: settings.partitions.unwrap_or(PARTITIONS),
            retained_snapshots: settings.retained_checkpoints,
            database_in_memory: settings.database_in_memory,
            ..StoreOptions::default()
        };
        let mut directory = Directory { path, snapshots, rejected: Vec::new(), options, _lock: lock };
        let manifest = match directory.newest()? {
            Some(snapshot) => {
                let what = format!("{} was created with", directory.name());
                directory.options.partitions = partitions_of(&snapshot, settings, &what)?;
                Manifest::decode(snapshot.meta())?
            }
            None => {
                directory.check_no_log()?;
                // Before anything outside depends on it, the directory itself must last.
                sync_above(&directory.path)?;
                match &settings.savepoint {
                    Some(savepoint) => directory.create_from(savepoint, settings, runtime)?,
                    None => directory.create(settings, runtime, zero)?,
                }
            }
        };
        rules::check_manifest(&directory.name(), &manifest, &settings.application, settings.interval_ms())?;
        Ok((directory, manifest))
    }

    /// How messages name it.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn spill_path(&self) -> PathBuf {
        self.path.join("spill")
    }

    pub(crate) fn partitions(&self) -> usize {
        self.options.partitions
    }

    /// The newest checkpoint that can be used.
    fn newest(&mut self) -> Result<Option<Snapshot>> {
        let newest = Snapshot::newest(self.snapshots.clone()).map_err(|error| self.without_checkpoint(error))?;
        self.rejected = newest
            .rejected
            .iter()
            .map(|rejected| {
                let batch = BatchTime::from_ms(rejected.batch);
                format!(
                    "checkpoint {batch} in {} cannot be used: {}; falling back to an older one",
                    self.name(),
                    rejected.reason
                )
            })
            .collect();
        for rejected in &self.rejected {
            tracing::error!("{rejected}");
        }
        Ok(newest.snapshot)
    }

    /// No checkpoint can be used: where, and what to do.
    fn without_checkpoint(&self, error: millpond_state::Error) -> Error {
        let error = Error::from(error);
        let what = match error.kind() {
            ErrorKind::Restore => ". Restore the directory, or start with a new one and a new application id",
            _ => "",
        };
        Error::new(error.kind(), format!("{}: {}{what}", self.name(), error.message()))
    }

    /// Opens the state of the newest checkpoint in the live directory.
    pub(crate) fn open_state(&mut self) -> Result<(StateStore, Manifest, Snapshot)> {
        let snapshot = self
            .newest()?
            .ok_or_else(|| Error::new(ErrorKind::Restore, format!("{} has no checkpoint any more", self.name())))?;
        let manifest = Manifest::decode(snapshot.meta())?;
        let store = StateStore::open(&self.path.join("live"), Some(&snapshot), self.options.clone());
        let store = store.map_err(|error| self.does_not_open(&snapshot, error))?;
        Ok((store, manifest, snapshot))
    }

    /// The database of a checkpoint does not open. If one of its files is damaged it is marked bad here, as the check in the background
    /// never comes to it: else every start would fail on the same checkpoint, though an older one may be sound (H22).
    fn does_not_open(&self, snapshot: &Snapshot, error: millpond_state::Error) -> Error {
        if error.kind() != millpond_state::ErrorKind::Corrupt {
            return error.into();
        }
        match snapshot.verify(&|| true) {
            Err(damage) if damage.kind() == millpond_state::ErrorKind::Corrupt => {
                Error::new(ErrorKind::Restart, format!("{}: {damage} ({error})", self.name()))
            }
            _ => error.into(),
        }
    }

    /// A first checkpoint, empty, at zero time: from now on the directory has an identity. A process killed before
    /// its rename leaves a directory that the next start takes for new.
    fn create(&mut self, settings: &Settings, runtime: &Runtime, zero: BatchTime) -> Result<Manifest> {
        let manifest = Manifest {
            application: settings.application.clone(),
            deployment: deployment(runtime)?,
            batch: zero,
            zero,
            interval_ms: settings.interval_ms(),
            fingerprint: Fingerprint::default(),
            plans: 0,
            log: BlockId([0; 16]),
            runs: Vec::new(),
            sinks: Vec::new(),
            sources: Vec::new(),
            accumulators: Default::default(),
        };
        let store = StateStore::open(&self.path.join("live"), None, self.options.clone())?;
        publish(&store, &*self.snapshots, &manifest)?;
        Ok(manifest)
    }

    /// A first checkpoint that is a copy of a savepoint's: a new deployment with the old one's state and positions (hard case H25).
    fn create_from(&mut self, savepoint: &Path, settings: &Settings, runtime: &Runtime) -> Result<Manifest> {
        let snapshot = savepoint::open(savepoint)?;
        let what = format!("the savepoint in {} has", savepoint.display());
        self.options.partitions = partitions_of(&snapshot, settings, &what)?;
        let manifest = Manifest {
            application: settings.application.clone(),
            deployment: deployment(runtime)?,
            log: BlockId([0; 16]),
            runs: Vec::new(),
            // To this deployment all sinks are new.
            sinks: Vec::new(),
            ..Manifest::decode(snapshot.meta())?
        };
        snapshot.copy_to(&*self.snapshots, &self.path.join("live"), manifest.encode())?;
        Ok(manifest)
    }

    /// A log without a checkpoint is no new directory.
    fn check_no_log(&self) -> Result<()> {
        let log = self.log_path();
        if log.is_dir() && std::fs::read_dir(&log).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::new(
                ErrorKind::Restore,
                format!(
                    "{} holds a log but no checkpoint: its checkpoints were deleted. Restore them, or choose an empty directory",
                    self.name()
                ),
            ));
        }
        Ok(())
    }
}

/// The number of partitions, which was fixed at creation (H13). `what`: the beginning of the error if the settings say another.
fn partitions_of(snapshot: &Snapshot, settings: &Settings, what: &str) -> Result<usize> {
    let partitions = snapshot.manifest().partitions as usize;
    match settings.partitions {
        Some(wanted) if wanted != partitions => Err(Error::configuration(format!(
            "{what} {partitions} partitions, the settings say {wanted}: the number is fixed at creation"
        ))),
        _ => Ok(partitions),
    }
}

/// The id of a new directory.
fn deployment(runtime: &Runtime) -> Result<[u8; 16]> {
    let mut id = [0; 16];
    runtime.random(&mut id)?;
    Ok(id)
}

/// Publishes a checkpoint of a store in which nothing has changed.
pub(crate) fn publish(store: &StateStore, snapshots: &dyn SnapshotStore, manifest: &Manifest) -> Result<()> {
    let batch = manifest.batch.as_ms();
    let frozen = store.freeze(batch, &millpond_state::on_this_thread)?;
    store.write_behind(frozen)?;
    store.checkpoint(batch, snapshots, manifest.encode())?;
    Ok(())
}

/// Refuses a directory that holds something else than ours, before anything is changed in it (case I1).
fn look_for_strangers(path: &Path) -> Result<()> {
    let cannot = |error: std::io::Error| {
        Error::configuration(format!("cannot use {} as the directory of an application", path.display()))
            .with_source(error)
    };
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(error)),
    };
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        if name == savepoint::MARKER {
            return Err(Error::configuration(format!(
                "{} is a savepoint: give the application a directory of its own and start it with from_savepoint(path)",
                path.display()
            )));
        }
        let files = ["LOCK", note::NAME, note::NEW];
        let ours = files.iter().chain(&PARTS).any(|part| name == *part);
        if !ours {
            return Err(Error::configuration(format!(
                "{} is not the directory of an application: it holds `{}`. Choose an empty one, or one that does not exist yet",
                path.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}
