//! The engine's section of a checkpoint's manifest, and its bytes (docs/formats.md, "The engine's section").

use std::collections::BTreeMap;

use crate::bytes::{Reader, Writer};
use crate::error::Result;
use crate::log::{read_position, write_position};
use crate::source::{BlockId, PartitionPosition};
use crate::stream::Fingerprint;
use crate::time::BatchTime;

/// Version 1 had no accumulators.
const VERSION: u32 = 2;
/// Runs that are remembered: as many starts in a row may die before their first commit.
const MAX_RUNS: usize = 1000;

/// What a restart needs beside the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) application: String,
    /// The random id the directory got when it was created.
    pub(crate) deployment: [u8; 16],
    /// The batch after which the state was taken: S.
    pub(crate) batch: BatchTime,
    pub(crate) zero: BatchTime,
    pub(crate) interval_ms: u64,
    pub(crate) fingerprint: Fingerprint,
    /// The hash over all plans up to S.
    pub(crate) plans: u64,
    /// Nothing in the log before this is needed to recover from here.
    pub(crate) log: BlockId,
    /// The runs of this directory so far, oldest first.
    pub(crate) runs: Vec<[u8; 16]>,
    pub(crate) sinks: Vec<SinkState>,
    /// Every source's position after S.
    pub(crate) sources: Vec<SourceState>,
    /// The accumulators' values after S, by name; also of those that the program no longer has.
    pub(crate) accumulators: BTreeMap<String, i64>,
}

/// What is kept of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkState {
    pub(crate) name: String,
    /// The chained digest of its output up to S.
    pub(crate) digest: u64,
    /// Its first cursor is committed: from now on a missing one is refused.
    pub(crate) introduced: bool,
    /// The sink's own words.
    pub(crate) remembered: Vec<u8>,
}

/// What is kept of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceState {
    pub(crate) name: String,
    /// `None` before its first plan.
    pub(crate) positions: Option<Vec<PartitionPosition>>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u32(VERSION);
        out.text(&self.application);
        out.fixed(&self.deployment);
        out.u64(self.batch.as_ms());
        out.u64(self.zero.as_ms());
        out.u64(self.interval_ms);
        out.list(&self.fingerprint.0.iter().collect::<Vec<_>>(), |out, (name, what)| {
            out.text(name);
            out.text(what);
        });
        out.u64(self.plans);
        out.fixed(&self.log.0);
        let forgotten = self.runs.len().saturating_sub(MAX_RUNS);
        out.list(&self.runs[forgotten..], |out, run| out.fixed(run));
        out.list(&self.sinks, |out, sink| {
            out.text(&sink.name);
            out.u64(sink.digest);
            out.u8(u8::from(sink.introduced));
            out.bytes(&sink.remembered);
        });
        out.list(&self.sources, |out, source| {
            out.text(&source.name);
            out.u8(u8::from(source.positions.is_some()));
            out.list(source.positions.as_deref().unwrap_or_default(), write_position);
        });
        out.list(&self.accumulators.iter().collect::<Vec<_>>(), |out, (name, value)| {
            out.text(name);
            out.u64(**value as u64);
        });
        out.into_bytes()
    }

    /// Reads what [`encode`](Manifest::encode) wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest> {
        let mut bytes = Reader::new("the engine's section of a manifest", bytes);
        let version = bytes.u32()?;
        if !(1..=VERSION).contains(&version) {
            return Err(bytes.broken(&format!(
                "it has format version {version}, this program reads version {VERSION}: was the directory written by a newer Millpond?"
            )));
        }
        let manifest = Manifest {
            application: bytes.text()?,
            deployment: bytes.fixed()?,
            batch: BatchTime::from_ms(bytes.u64()?),
            zero: BatchTime::from_ms(bytes.u64()?),
            interval_ms: bytes.u64()?,
            fingerprint: Fingerprint(bytes.list(|bytes| Ok((bytes.text()?, bytes.text()?)))?.into_iter().collect()),
            plans: bytes.u64()?,
            log: BlockId(bytes.fixed()?),
            runs: bytes.list(Reader::fixed)?,
            sinks: bytes.list(|bytes| {
                Ok(SinkState {
                    name: bytes.text()?,
                    digest: bytes.u64()?,
                    introduced: bytes.u8()? != 0,
                    remembered: bytes.bytes()?.to_vec(),
                })
            })?,
            sources: bytes.list(|bytes| {
                let name = bytes.text()?;
                let has_positions = bytes.u8()? != 0;
                let positions = bytes.list(read_position)?;
                Ok(SourceState { name, positions: has_positions.then_some(positions) })
            })?,
            accumulators: match version {
                1 => BTreeMap::new(),
                _ => bytes.list(|bytes| Ok((bytes.text()?, bytes.u64()? as i64)))?.into_iter().collect(),
            },
        };
        bytes.end()?;
        Ok(manifest)
    }

    /// Positions of every source that has any, as a sink gets them.
    pub(crate) fn positions_of(&self, name: &str) -> Option<&Vec<PartitionPosition>> {
        self.sources.iter().find(|source| source.name == name)?.positions.as_ref()
    }

    pub(crate) fn sink(&self, name: &str) -> Option<&SinkState> {
        self.sinks.iter().find(|sink| sink.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            application: "app".into(),
            deployment: [1; 16],
            batch: BatchTime::from_ms(3000),
            zero: BatchTime::from_ms(1000),
            interval_ms: 500,
            fingerprint: Fingerprint([("a".into(), "kafka source".into())].into()),
            plans: 7,
            log: BlockId([9; 16]),
            runs: vec![[4; 16], [5; 16]],
            sinks: vec![SinkState { name: "out".into(), digest: 3, introduced: true, remembered: vec![1, 2] }],
            sources: vec![
                SourceState {
                    name: "a".into(),
                    positions: Some(vec![PartitionPosition { partition: "t/0".into(), position: vec![1] }]),
                },
                SourceState { name: "b".into(), positions: None },
            ],
            accumulators: [("blank".into(), -3)].into(),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_written() {
        assert_eq!(Manifest::decode(&manifest().encode()).ok(), Some(manifest()));
    }

    #[test]
    fn a_manifest_of_version_1_has_no_accumulators() {
        let wanted = Manifest { accumulators: BTreeMap::new(), ..manifest() };
        let mut bytes = wanted.encode();
        bytes[0] = 1;
        bytes.truncate(bytes.len() - 4);
        assert_eq!(Manifest::decode(&bytes).ok(), Some(wanted));
    }

    #[test]
    fn cut_and_newer_manifests_are_errors() {
        let bytes = manifest().encode();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut newer = bytes;
        newer[0] = 3;
        let message = Manifest::decode(&newer).expect_err("newer").to_string();
        assert!(message.contains("newer Millpond"), "{message}");
    }
}
