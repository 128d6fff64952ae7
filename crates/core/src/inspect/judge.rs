//! What the parts of a directory say together: the three cursors, and what does not fit. The rules are those of recovery.

use std::path::Path;

use millpond_state::OperatorRecord;

use super::checkpoints::Checkpoints;
use super::log::FoundLog;
use super::positions::{self, hex};
use super::report::{Committed, CommittedFrom, InspectedOperator, InspectedSink, InspectedSource, Inspection, Process};
use crate::engine::manifest::Manifest;
use crate::engine::note::Noted;
use crate::engine::rules::Stored;
use crate::error::Result;
use crate::log::BatchPlan;
use crate::sink::{Cursor, committed_in, directory_of};
use crate::source::PartitionPosition;

/// By sink of the manifest: what its own cursor says, if it can be read from here.
pub(super) type Cursors = Vec<Option<Result<Option<Cursor>>>>;

/// Reads the cursors of the sinks that keep them in files.
pub(super) fn sink_cursors(manifest: &Manifest) -> Cursors {
    let read = |remembered: &[u8]| directory_of(remembered).map(|directory| committed_in(&directory));
    manifest.sinks.iter().map(|sink| read(&sink.remembered)).collect()
}

/// Puts it all together.
pub(super) fn inspection(
    directory: &Path,
    process: Option<Process>,
    checkpoints: Checkpoints,
    noted: Option<Noted>,
    cursors: Cursors,
    log: FoundLog,
) -> Inspection {
    let Checkpoints { all, newest: manifest, operators, mut problems } = checkpoints;
    problems.extend(log.problems);
    let plans: Vec<BatchPlan> = log.state.plans.iter().cloned().collect();
    let runs = [&manifest.runs[..], &log.state.runs].concat();
    let stored =
        Stored { directory: &directory.display().to_string(), manifest: &manifest, plans: &plans, runs: &runs };
    // What the log lost to damage is in doubt: the cursors would be blamed for it.
    if log.report.corruption.is_none() {
        problems.extend(manifest.sinks.iter().zip(&cursors).filter_map(|(sink, cursor)| {
            let checked = match cursor.as_ref()? {
                Ok(Some(cursor)) => stored.check_cursor(&sink.name, cursor),
                Ok(None) => stored.check_no_cursor(&sink.name, sink.introduced),
                Err(error) => return Some(format!("sink `{}`: {error}", sink.name)),
            };
            checked.err().map(|error| error.to_string())
        }));
    }
    let noted = noted.filter(|noted| runs.contains(&noted.run));
    Inspection {
        directory: directory.to_owned(),
        application: manifest.application.clone(),
        deployment: hex(&manifest.deployment),
        healthy: problems.is_empty(),
        problems,
        process,
        zero: manifest.zero,
        batch_interval_ms: manifest.interval_ms,
        snapshot: manifest.batch,
        committed: committed(&manifest, noted.as_ref(), &cursors),
        planned: stored.planned(),
        batches_to_replay: plans.len() as u64,
        records_to_replay: plans.iter().map(BatchPlan::records).sum(),
        log: log.report,
        checkpoints: all,
        operators: inspected(&operators),
        sinks: sinks(&manifest, noted.as_ref(), &cursors),
        sources: sources(&manifest, &plans),
    }
}

/// The operators of the program, each with all it keeps: what is named `operator/...` belongs to it.
fn inspected(operators: &[OperatorRecord]) -> Vec<InspectedOperator> {
    let owner = |operator: &OperatorRecord| operator.name.split('/').next().unwrap_or_default().to_owned();
    let mut shown: Vec<InspectedOperator> = Vec::new();
    // In the order of their names: an owner comes before what belongs to it, if it has a family of its own.
    for operator in operators {
        let name = owner(operator);
        match shown.iter_mut().find(|one| one.name == name) {
            Some(one) => one.table_bytes += operator.table_bytes,
            None => shown.push(InspectedOperator {
                name,
                kind: operator.kind.clone(),
                keys: operator.keys,
                table_bytes: operator.table_bytes,
                schema_version: operator.schema.version,
                schema: operator.schema.shape.clone(),
            }),
        }
    }
    shown
}

/// C: what the sinks say, if all can be read from here; else the note; else S.
fn committed(manifest: &Manifest, noted: Option<&Noted>, cursors: &Cursors) -> Committed {
    let says = |cursor: &Option<Result<Option<Cursor>>>| match cursor {
        Some(Ok(Some(cursor))) if cursor.deployment == manifest.deployment => Some(cursor.batch),
        _ => None,
    };
    let all: Option<Vec<_>> = cursors.iter().map(says).collect();
    if let Some(oldest) = all.and_then(|all| all.into_iter().min()) {
        return Committed { batch: oldest, from: CommittedFrom::Sinks };
    }
    match noted {
        // After a loss of power the note may be older than the checkpoint.
        Some(noted) if noted.committed >= manifest.batch => {
            Committed { batch: noted.committed, from: CommittedFrom::LocalNote }
        }
        _ => Committed { batch: manifest.batch, from: CommittedFrom::Checkpoint },
    }
}

fn sinks(manifest: &Manifest, noted: Option<&Noted>, cursors: &Cursors) -> Vec<InspectedSink> {
    let described = |name: &str| {
        let sinks = noted.map(|noted| noted.sinks.as_slice()).unwrap_or_default();
        sinks.iter().find(|(noted, _)| noted == name).map(|(_, description)| description.clone()).unwrap_or_default()
    };
    let of_manifest = manifest.sinks.iter().zip(cursors).map(|(sink, cursor)| InspectedSink {
        name: sink.name.clone(),
        description: described(&sink.name),
        committed: match cursor {
            Some(Ok(Some(cursor))) => Some(cursor.batch),
            _ => None,
        },
        remembered: sink.remembered.clone(),
    });
    // Before its first checkpoint a sink is known by the note alone.
    let new = noted.into_iter().flat_map(|noted| &noted.sinks).filter(|(name, _)| manifest.sink(name).is_none());
    let new = new.map(|(name, description)| InspectedSink {
        name: name.clone(),
        description: description.clone(),
        committed: None,
        remembered: Vec::new(),
    });
    of_manifest.chain(new).collect()
}

fn sources(manifest: &Manifest, plans: &[BatchPlan]) -> Vec<InspectedSource> {
    let newest = plans.last();
    let planned = |name: &str| {
        let of_source = newest?.sources.iter().find(|source| source.source == name)?;
        Some(of_source.plan.positions.as_slice())
    };
    let mut names: Vec<&str> = manifest.sources.iter().map(|source| source.name.as_str()).collect();
    for source in newest.into_iter().flat_map(|plan| &plan.sources) {
        if !names.contains(&source.source.as_str()) {
            names.push(&source.source);
        }
    }
    let source = |name: &str| {
        let description = manifest.fingerprint.0.get(name).cloned().unwrap_or_default();
        let at_snapshot: &[PartitionPosition] = manifest.positions_of(name).map_or(&[], Vec::as_slice);
        let at_planned = planned(name).unwrap_or(at_snapshot);
        InspectedSource {
            name: name.to_owned(),
            at_snapshot: positions::read(&description, at_snapshot),
            at_planned: positions::read(&description, at_planned),
            description,
        }
    };
    names.into_iter().map(source).collect()
}
