//! A sink that keeps nothing, and what is on disk afterwards.

use std::path::Path;

use millpond::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond::{BatchTime, Result};
use millpond_state::{LocalSnapshotStore, OperatorSpec, Snapshot, StateStore, StateValue, StoreOptions};

use crate::Failure;

/// A sink that keeps nothing: output is computed, nothing is written. Also an example of a sink that is not Millpond's own.
pub(crate) struct Discard;

impl Sink for Discard {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
    fn describe(&self) -> String {
        "nowhere".into()
    }
    fn peek(&mut self, _: &SinkStart) -> Result<Option<Cursor>> {
        Ok(None)
    }
    fn fence(&mut self, _: &SinkStart) -> Result<Option<Cursor>> {
        Ok(None)
    }
    fn begin(&mut self, _: BatchTime, _: &[SourcePositions]) -> Result<()> {
        Ok(())
    }
    fn write(&mut self, _: Records) -> Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _: &Cursor) -> Result<()> {
        Ok(())
    }
    fn commit(&mut self) -> Result<()> {
        Ok(())
    }
    fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The newest checkpoint of a context's directory: its bytes, and the keys and the sum of an operator's values.
pub(crate) struct Kept {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
    pub(crate) sum: u64,
}

/// Reads an operator's state back from the newest checkpoint, apart from the engine: what is really there.
pub(crate) fn read_back<V: StateValue>(
    context: &Path,
    spec: OperatorSpec<V>,
    number: impl Fn(&V) -> u64,
) -> Result<Kept, Failure> {
    let snapshots = std::sync::Arc::new(LocalSnapshotStore::open(&context.join("checkpoints"))?);
    let snapshot = Snapshot::newest(snapshots)?.snapshot.ok_or("there is no checkpoint")?;
    let manifest = snapshot.manifest();
    let options = StoreOptions {
        shards: manifest.shards,
        partitions: manifest.partitions as usize,
        memory_limit_bytes: 64 << 20,
        ..StoreOptions::default()
    };
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let store = StateStore::open(&context.join("read-back"), Some(&snapshot), options.clone())?;
    let operator = store.operator(spec)?;
    let (mut keys, mut sum) = (0, 0);
    for partition in 0..options.partitions {
        let mut partition = operator.partition(partition);
        partition.visit_all(|visited| {
            keys += 1;
            sum += visited.get().map_or(0, &number);
            Ok::<_, millpond_state::Error>(())
        })?;
        partition.rollback_task();
    }
    Ok(Kept { bytes, keys, sum })
}

/// So many letters that no compression makes shorter by much, the same for the same key.
pub(crate) fn filler(key: u64, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes);
    for word in 0.. {
        let random = crate::generated::mix(key.wrapping_add(word));
        for place in 0..10 {
            if text.len() == bytes {
                return text;
            }
            text.push(char::from(LETTERS[(random >> (6 * place)) as usize & 63]));
        }
    }
    text
}
