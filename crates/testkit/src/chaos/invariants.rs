//! What must hold on disk and on the broker whatever happened: the three cursors, and after a stop nothing that is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use millpond::BatchTime;
use millpond::inspect::inspect;
use millpond::sink::Cursor;
use millpond_state::{LocalSnapshotStore, Manifest, SnapshotStore};

use super::lineage::bytes_in;
use super::{Finding, Result, wait_until};
use crate::broker::KafkaBroker;
use crate::kafka_reader::read_end;

/// How long the markers of a transaction that is committed may take.
const MARKERS_LIMIT: Duration = Duration::from_secs(30);
/// The end of the cursor topic that is read: the newest cursor of each sink lies there.
const CURSOR_OFFSETS: i64 = 200;

/// What is checked, and where.
#[derive(Clone, Copy, Debug)]
pub struct Invariants<'a> {
    /// The application's directory.
    pub directory: &'a Path,
    /// The broker that its Kafka sinks write to, with the name of the cursor topic and the transactional id.
    pub kafka: Option<(&'a KafkaBroker, &'a str, &'a str)>,
    /// The most bytes that the directory may have after a stop.
    pub disk_limit_bytes: u64,
}

/// S <= C <= P, by what disk and broker hold, with nobody at work: the newest checkpoint, every sink's own cursor, the log. Nothing is
/// found in a directory that has no checkpoint yet.
///
/// # Errors
/// What does not fit, or that it could not be read.
pub fn check_cursors(invariants: &Invariants<'_>) -> Result<()> {
    let directory = invariants.directory;
    if !directory.join("checkpoints").join("manifests").read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    let found = match inspect(directory) {
        Ok(found) => found,
        // Its process died while it made the first checkpoint.
        Err(error) if error.to_string().contains("holds no checkpoint") => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.healthy {
        return Err(Finding::new(format!("{}: {}", directory.display(), found.problems.join("; "))));
    }
    let (s, p) = (found.snapshot, found.planned);
    let in_order = |who: &str, c: BatchTime| match s <= c && c <= p {
        true => Ok(()),
        false => Err(Finding::new(format!("{who} has committed {c}, the checkpoint is of {s}, planned is {p}"))),
    };
    in_order("by the files of the directory, the slowest sink", found.committed.batch)?;
    let Some((broker, topic, _)) = invariants.kafka else { return Ok(()) };
    // A commit that was answered is seen by readers when its markers are written: a moment later.
    let behind = |cursors: &BTreeMap<String, BatchTime>| cursors.values().any(|c| *c < s);
    let mut newest = BTreeMap::new();
    let _ = wait_until(MARKERS_LIMIT, "the cursors", || {
        newest = cursors(broker, topic)?;
        Ok((!behind(&newest)).then_some(()))
    });
    newest.into_iter().try_for_each(|(sink, c)| in_order(&format!("sink `{sink}`, by its cursor at the broker,"), c))
}

/// The newest cursor of each sink in a cursor topic.
fn cursors(broker: &KafkaBroker, topic: &str) -> Result<BTreeMap<String, BatchTime>> {
    let records = read_end(broker.bootstrap_servers(), topic, CURSOR_OFFSETS, MARKERS_LIMIT)?.unwrap_or_default();
    let mut newest = BTreeMap::new();
    for record in records {
        let cursor = Cursor::decode(record.value.as_deref().unwrap_or_default())?;
        newest.insert(record.key_text(), cursor.batch);
    }
    Ok(newest)
}

/// After a graceful stop: no transaction of the application is open on the broker, its snapshot store holds no file that no manifest
/// names, and the directory is no larger than it may be.
///
/// # Errors
/// What was left.
pub fn check_settled(invariants: &Invariants<'_>) -> Result<()> {
    if let Some((broker, _, transactional_id)) = invariants.kafka {
        let open = broker.open_transactions()?;
        if let Some(open) = open.iter().find(|open| open.transactional_id == transactional_id) {
            return Err(Finding::new(format!("after a graceful stop a transaction is left open: {open:?}")));
        }
    }
    let checkpoints = invariants.directory.join("checkpoints");
    let store = LocalSnapshotStore::open_read_only(&checkpoints)?;
    let mut named = BTreeSet::new();
    for batch in store.batches()? {
        named.extend(Manifest::decode(&store.manifest(batch)?)?.files.into_iter().map(|file| file.name));
    }
    let mut left = Vec::new();
    for entry in fs::read_dir(checkpoints.join("files"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !named.contains(&name) {
            left.push(name);
        }
    }
    if !left.is_empty() {
        return Err(Finding::new(format!(
            "files that no manifest names are left in {}: {left:?}",
            checkpoints.display()
        )));
    }
    let bytes = bytes_in(invariants.directory);
    match bytes <= invariants.disk_limit_bytes {
        true => Ok(()),
        false => Err(Finding::new(format!(
            "{} has grown to {bytes} bytes; expected are {} at most",
            invariants.directory.display(),
            invariants.disk_limit_bytes
        ))),
    }
}
