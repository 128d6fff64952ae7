//! The manifest of a snapshot, and the engine's section of it.

use millpond_state::{Manifest as StateManifest, OperatorRecord, Schema, SnapshotFile};

use crate::check::{comes_back, sealed, stable, watched};
use crate::engine::manifest::{Manifest, SinkState, SourceState};
use crate::fields::Fields;
use crate::stream::Fingerprint;

pub(super) fn state(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    let encode = |manifest: &StateManifest| manifest.encode().expect("far below its limits");
    match which % 3 {
        0 => stable(bytes, StateManifest::decode, encode),
        1 => {
            // Length and checksum as they should be: what is wrong is inside.
            let mut bytes = bytes.to_vec();
            let length = (bytes.len() as u64).to_le_bytes();
            if let Some(place) = bytes.get_mut(12..20) {
                place.copy_from_slice(&length);
            }
            let bytes = sealed(&bytes);
            if let Some(manifest) = watched(&bytes, StateManifest::decode) {
                let _ = manifest.bytes();
                manifest.files.iter().for_each(|file| {
                    assert!(!file.name.contains(['/', '\0']) && !file.name.starts_with('.'), "{:?}", file.name);
                });
                comes_back(&manifest, StateManifest::decode, encode);
            }
        }
        _ => {
            let mut fields = Fields(bytes);
            let manifest = StateManifest {
                batch: fields.u64(),
                shards: fields.u32() as u16,
                partitions: fields.u32(),
                operators: fields.list(operator),
                files: fields.list(file),
                meta: fields.bytes(),
            };
            comes_back(&manifest, StateManifest::decode, encode);
        }
    }
}

fn operator(fields: &mut Fields<'_>) -> OperatorRecord {
    OperatorRecord {
        name: fields.text(),
        kind: fields.text(),
        schema: Schema { version: fields.u32(), shape: fields.text() },
        keys: fields.u64(),
        table_bytes: fields.u64(),
    }
}

fn file(fields: &mut Fields<'_>) -> SnapshotFile {
    let number = fields.u64();
    SnapshotFile {
        name: format!("{number:06}-{:x}-{:08x}.sst", fields.u64(), fields.u32()),
        live_name: format!("{number:06}.sst"),
        bytes: fields.u64(),
        checksum: fields.u32(),
    }
}

pub(super) fn engine(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    if which.is_multiple_of(2) {
        return stable(bytes, Manifest::decode, Manifest::encode);
    }
    let mut fields = Fields(bytes);
    let manifest = Manifest {
        application: fields.text(),
        deployment: fields.fixed(),
        batch: fields.time(),
        zero: fields.time(),
        interval_ms: fields.u64(),
        fingerprint: Fingerprint(fields.list(|fields| (fields.text(), fields.text())).into_iter().collect()),
        plans: fields.u64(),
        log: fields.block(),
        runs: fields.list(Fields::fixed),
        sinks: fields.list(|fields| SinkState {
            name: fields.text(),
            digest: fields.u64(),
            introduced: fields.u8() & 1 == 1,
            remembered: fields.bytes(),
        }),
        sources: fields.list(|fields| SourceState {
            name: fields.text(),
            positions: fields.option(|fields| fields.list(Fields::position)),
        }),
        accumulators: fields.list(|fields| (fields.text(), fields.u64() as i64)).into_iter().collect(),
    };
    comes_back(&manifest, Manifest::decode, Manifest::encode);
}
