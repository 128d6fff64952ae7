//! From an opened context to its driver: what the start finds in log and checkpoint, and the threads that will do the work.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::actor::Worker;
use super::committer::{Committer, NamedSink};
use super::context::StreamingContext;
use super::directory;
use super::driver::{Driver, Message, SinkInfo, TellsOfDeath};
use super::machine::{Machine, Schedule};
use super::note::Note;
use super::plans::LogState;
use super::status::ContextState;
use super::totals::Totals;
use super::workers::Computer;
use crate::error::Result;
use crate::exec::{Accumulator, Executor, Pool};
use crate::log::{Budget, Unplanned};
use crate::rdd::{PERSIST_MEMORY_BYTES, Storage};
use crate::sink::Shared;
use crate::stream::GraphParts;

impl StreamingContext {
    /// The driver of a context that is ready to go live; if there is none the status says why.
    pub(super) fn recover(self, inbox: Receiver<Message>, outbox: Sender<Message>) -> Option<Driver> {
        let (status, listeners) = (self.status.clone(), self.bus.clone());
        self.into_driver(inbox, outbox).unwrap_or_else(|error| {
            listeners.close();
            status.update(|shown| {
                shown.state = ContextState::Stopped;
                shown.failure = Some((error.kind(), error.to_string()));
            });
            None
        })
    }

    /// Recovers; `None` if that was not possible and the status says why.
    fn into_driver(self, inbox: Receiver<Message>, outbox: Sender<Message>) -> Result<Option<Driver>> {
        let StreamingContext { runtime, settings, parts, directory, manifest, log, clock, status, bus, observer } =
            self;
        let budget = Budget::new(settings.waiting_limit_bytes);
        let since = runtime.now();
        let name = settings.application.clone();

        // 1. The state at S was found when the directory was opened; it is linked below, once the sinks are known.
        fail::fail_point!("recovery-checkpoint-found");
        // 2. The log, to its valid end: P.
        let mut state = LogState::default();
        log.recover(&mut |at, entry| {
            state.read(at, entry, manifest.batch);
            Ok(())
        })?;
        fail::fail_point!("recovery-log-read");
        let LogState { plans, runs, introduced, unplanned, .. } = state;
        super::rules::check_plans(&directory.name(), &manifest, plans.iter())?;
        let mut runs_known = manifest.runs.clone();
        runs_known.extend(runs);

        // 3. The sinks: each says what it has committed, first without disturbing anybody.
        let mut run = [0; 16];
        runtime.random(&mut run)?;
        let GraphParts {
            sources,
            operators,
            sinks,
            outputs,
            upkeep,
            windows,
            accumulators,
            fingerprint,
            needs_every_batch,
            // The settings have it already.
            checkpoint_interval: _,
        } = parts;
        let accumulators: Arc<[Accumulator]> = accumulators.into();
        let totals = Totals::new(accumulators.clone(), &manifest.accumulators);
        super::rules::check_interval(&windows, manifest.interval_ms, settings.interval_ms())?;
        let infos: Vec<SinkInfo> = sinks
            .iter()
            .map(|entry| {
                let kept = manifest.sink(&entry.name);
                SinkInfo {
                    name: entry.name.clone(),
                    description: entry.sink.describe(),
                    guarantee: entry.sink.guarantee(),
                    cursor: None,
                    introduced: kept.is_some_and(|kept| kept.introduced)
                        || introduced.iter().any(|name| **name == *entry.name),
                    chain: kept.map_or(0, |kept| kept.digest),
                }
            })
            .collect();
        let named =
            sinks.into_iter().map(|entry| NamedSink { name: entry.name, sink: entry.sink, begun: None }).collect();
        let report = outbox.clone();
        let mourner = TellsOfDeath { thread: "commits", driver: outbox.clone() };
        let report = move |outcome| {
            let _ = &mourner;
            drop(report.send(Message::Outcome(outcome)));
        };
        let committer = Committer::start(&runtime, named, &name, report)?;
        let mut executor = Executor::new(Pool::new(settings.threads(), &name)?, settings.task_attempts);
        executor.has_accumulators = !accumulators.is_empty();
        executor.speculation = settings.speculation;
        let executor = Arc::new(executor);
        let computer = Computer {
            outputs,
            upkeep,
            executor,
            zero: manifest.zero,
            partitions: directory.partitions(),
            shards: directory::SHARDS,
            every_batch: needs_every_batch,
            bus: bus.clone(),
            clock: clock.clone(),
            accumulators: accumulators.clone(),
            storage: Arc::new(Storage::new(directory.spill_path(), PERSIST_MEMORY_BYTES)),
        };
        let report = outbox.clone();
        let mourner = TellsOfDeath { thread: "computes", driver: outbox.clone() };
        let computer = Worker::start(&runtime, format!("{name}-batches"), move |job| {
            let _ = &mourner;
            if let Some((incarnation, computed)) = computer.run(job) {
                let _ = report.send(Message::Computed(incarnation, computed));
            }
            true
        })?;
        let (report, snapshots) = (outbox.clone(), directory.snapshots.clone());
        let mourner = TellsOfDeath { thread: "writes checkpoints", driver: outbox.clone() };
        let writer = Worker::start(&runtime, format!("{name}-checkpoints"), move |job| {
            let _ = &mourner;
            if let Some((incarnation, written)) = super::workers::write(job, &snapshots) {
                let _ = report.send(Message::Written(incarnation, written));
            }
            true
        })?;

        let schedule = Schedule {
            zero: manifest.zero,
            interval_ms: settings.interval_ms(),
            checkpoint_interval_ms: settings.checkpoint_interval_ms(),
            max_attempts: settings.task_attempts,
            max_recoveries: settings.recovery_attempts,
        };
        let planned = plans.planned();
        let plans_chain = plans.iter().last().map_or(manifest.plans, |plan| plan.chain);
        let positions = sources
            .iter()
            .map(|source| {
                let of_source = |plan: &crate::log::BatchPlan| {
                    plan.sources
                        .iter()
                        .find(|planned| *planned.source == **source.name())
                        .map(|planned| planned.plan.positions.clone())
                };
                let newest = plans.iter().filter_map(of_source).last();
                newest.or_else(|| manifest.positions_of(source.name()).cloned())
            })
            .collect();
        let mut driver = Driver {
            runtime,
            machine: Machine::new(schedule, manifest.batch, manifest.batch, planned.iter().copied()),
            fingerprint,
            run,
            runs: runs_known,
            log,
            clock,
            clock_offset_ms: 0,
            shared: Arc::new(Shared::default()),
            budget,
            unplanned: Arc::new(Unplanned::default()),
            sources,
            positions,
            operators,
            sinks: infos,
            plans,
            plans_chain,
            every_batch: needs_every_batch,
            store: None,
            stored_bytes: 0,
            incarnation: 0,
            frozen: None,
            counts: Vec::new(),
            committer,
            computer,
            writer,
            inbox,
            outbox,
            status,
            failure: None,
            computing_since: since,
            writing_since: since,
            stop_deadline: None,
            settings,
            directory,
            manifest,
            note: Note::default(),
            observer,
            bus,
            totals,
            stop_failure: None,
        };
        let outcome = driver.recover_from_outside(schedule, unplanned);
        let took = driver.runtime.now() - since;
        driver.status.update(|shown| shown.progress.recovery_ms = took.as_millis() as u64);
        match outcome {
            Ok(()) => Ok(Some(driver)),
            Err(error) => {
                // Everything is closed, nothing was harmed.
                driver.finish(Some(error));
                Ok(None)
            }
        }
    }
}
