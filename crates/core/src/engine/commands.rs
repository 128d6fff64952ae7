//! What the driver does for each command of the machine, and what it makes of the reports.

use std::sync::Arc;
use std::time::Duration;

use millpond_state::StateStore;

use super::BatchTimes;
use super::committer::Order;
use super::driver::{Driver, SinkInfo};
use super::machine::{Command, Event, Planned};
use super::manifest::{Manifest, SinkState, SourceState};
use super::meters;
use super::rules::Stored;
use super::workers::{Compute, Computed, Told, Write, WriteJob, Written};
use crate::controls;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BatchPlan, LogEntry, SourcePlan};
use crate::plan::{BlockId, PlanRequest};
use crate::sink::{Cursor, SourcePositions};
use crate::stream::{AnySource, OutputTarget};
use crate::time::BatchTime;

/// How long a plan waits for room on a full disk before the context stops.
const FULL_DISK_WAIT: Duration = Duration::from_secs(300);
/// How often it tries meanwhile.
const FULL_DISK_RETRY: Duration = Duration::from_millis(200);
/// Of what is left of a graceful stop's limit, what a source may use.
const SHARE_OF_SOURCES: f64 = 0.75;
/// Decoded state has at most about so many times the bytes of its files: small values, well compressed.
const DECODED_TO_STORED: u64 = 16;
/// Durations kept for who measures.
const KEPT_DURATIONS: usize = 1 << 20;

impl Driver {
    pub(super) fn carry_out(&mut self, command: Command) -> Vec<Event> {
        let outcome = match command {
            Command::Plan { time, until } => self.plan(time, until).map(|event| vec![event]),
            Command::Compute { batch } => self.compute(batch).map(|()| Vec::new()),
            Command::Commit { batch } => Ok(self.commit(batch).into_iter().collect()),
            Command::Freeze { batch } => self.store().map(|store| {
                self.observer.freezing(batch);
                self.computer.send(Compute::Freeze { incarnation: self.incarnation, store, batch });
                Vec::new()
            }),
            Command::Write { batch, checkpoint } => self.write(batch, checkpoint).map(|()| Vec::new()),
            Command::StopReceiving => {
                self.stop_receiving();
                Ok(vec![self.waiting()])
            }
            // In a graceful stop the sources are asked again.
            Command::Recover => self.recover_inside().map(|recovered| vec![recovered, self.waiting()]),
            Command::Finish { .. } => Ok(Vec::new()),
        };
        outcome.unwrap_or_else(|error| vec![self.failed(None, 0, error)])
    }

    fn store(&self) -> Result<StateStore> {
        self.store.clone().ok_or_else(|| Error::new(ErrorKind::Restart, "the state is not open"))
    }

    fn plan(&mut self, time: BatchTime, until: BatchTime) -> Result<Event> {
        let interval = self.settings.batch_interval;
        let mut sources = Vec::with_capacity(self.sources.len());
        for (number, source) in self.sources.iter_mut().enumerate() {
            let request = PlanRequest { time, interval, max_records: self.observer.max_records(number) };
            let plan = source.plan(&request).map_err(|error| {
                // Others have given records to this plan that no plan holds now: only a restart hands them out again.
                let kind = if error.kind() == ErrorKind::Retry { ErrorKind::Restart } else { error.kind() };
                Error::new(kind, format!("source `{}`, batch {time}: {error}", source.name()))
            })?;
            sources.push(SourcePlan { source: source.name().to_string(), plan });
        }
        let records: u64 = sources.iter().map(|source| source.plan.records).sum();
        let last = if records == 0 && self.may_stretch() { until } else { time };
        let mut plan = BatchPlan { first: time, last, sources, chain: 0 };
        plan.chain = plan.chain_from(self.plans_chain);
        let entry = LogEntry::Plan(plan);
        fail::fail_point!("plan-appended");
        let at = if controls::broken("break-plan-not-logged") {
            // The batch is computed and committed without a durable plan.
            self.log.end()
        } else if controls::broken("break-state-before-plan") {
            // And here with one that becomes durable when its output is long committed.
            let (log, entry) = (self.log.clone(), entry.clone());
            std::thread::spawn(move || {
                std::thread::sleep(5 * FULL_DISK_RETRY);
                log.append(&entry)
            });
            self.log.end()
        } else {
            self.append_when_there_is_room(&entry)?
        };
        fail::fail_point!("plan-synced");
        let LogEntry::Plan(plan) = entry else { unreachable!("made a plan above") };
        self.plans_chain = plan.chain;
        for (source, positions) in plan.sources.iter().zip(&mut self.positions) {
            source.plan.blocks.iter().for_each(|block| self.unplanned.remove(*block));
            *positions = Some(source.plan.positions.clone());
        }
        let now_ms = self.now_ms();
        self.observer.submitted(&plan, now_ms);
        self.plans.push(plan, at);
        let waiting = self.stop_deadline.is_some() && self.sources.iter().any(|source| source.has_waiting());
        self.status.update(|shown| {
            shown.ready = true;
            shown.progress.records += records;
        });
        Ok(Event::Planned { plan: Planned { first: time, last, records }, waiting })
    }

    /// Whether batches without input may be computed together. Where operators visit each of them, none of the state that they
    /// change can leave memory before all have committed; so where it may not fit, each is planned by itself.
    fn may_stretch(&self) -> bool {
        let in_memory = self.store.as_ref().map_or(0, StateStore::memory_bytes);
        let decoded = self.stored_bytes.saturating_mul(DECODED_TO_STORED).max(in_memory.saturating_mul(2));
        !self.every_batch || decoded <= self.settings.memory_limit_bytes
    }

    /// A full disk is waited for, within a limit: nothing has been lost, and appends work again when there is room (H20).
    fn append_when_there_is_room(&self, entry: &LogEntry) -> Result<BlockId> {
        let since = self.runtime.now();
        let mut said = false;
        loop {
            match self.log.append(entry) {
                Err(error) if error.kind() == ErrorKind::Retry && self.runtime.now() - since < FULL_DISK_WAIT => {
                    if !said {
                        said = true;
                        tracing::error!(%error, "the log cannot be written; batches wait until it can");
                    }
                    // Nothing else can go on meanwhile: without a plan there is no next batch.
                    self.runtime.sleep(FULL_DISK_RETRY);
                }
                outcome => return outcome,
            }
        }
    }

    fn compute(&mut self, batch: BatchTime) -> Result<()> {
        let plan = self
            .plans
            .get(batch)
            .ok_or_else(|| Error::new(ErrorKind::Restart, format!("batch {batch} has no plan")))?;
        let times = BatchTimes { first: plan.first, last: plan.last, interval_ms: self.settings.interval_ms() };
        let mut inputs = Vec::with_capacity(self.sources.len());
        let mut empty = Vec::with_capacity(self.sources.len());
        for source in &mut self.sources {
            // A source that the program has gained since has no part in an older plan.
            let of_source =
                plan.sources.iter().find(|planned| *planned.source == **source.name()).map(|planned| &planned.plan);
            let input = source.read(of_source);
            inputs.push(input.map_err(|error| error.context(format!("source `{}`, batch {batch}", source.name())))?);
            empty.push(source.read(None)?);
        }
        let positions: Arc<[SourcePositions]> = self.positions_after(batch).into();
        let targets = (0..self.sinks.len()).map(|sink| self.target(sink, batch, &positions)).collect();
        self.computing_since = self.runtime.now();
        let (incarnation, store, now_ms) = (self.incarnation, self.store()?, self.now_ms());
        let clock_offset_ms = self.clock_offset_ms;
        let told = self.observer.started(batch, now_ms).then_some(Told { clock_offset_ms });
        self.computer.send(Compute::Batch { incarnation, store, times, inputs, empty, targets, told });
        Ok(())
    }

    /// Whether a sink has yet to commit a batch.
    fn is_to_commit(&self, sink: usize, batch: BatchTime) -> bool {
        self.sinks[sink].cursor.as_ref().is_none_or(|cursor| cursor.batch < batch)
    }

    fn target(&self, sink: usize, batch: BatchTime, positions: &Arc<[SourcePositions]>) -> Arc<OutputTarget> {
        if !self.is_to_commit(sink, batch) {
            return OutputTarget::new(None);
        }
        let (orders, incarnation, positions) = (self.committer.sender(), self.incarnation, positions.clone());
        OutputTarget::new(Some(Box::new(move |records| {
            let Some(orders) = &orders else { return };
            let _ = orders.send(Order::Write { incarnation, batch, sink, records, positions: positions.clone() });
        })))
    }

    pub(super) fn computed(&mut self, report: Computed) -> Option<Event> {
        match report {
            Computed::Batch { batch, digests, added, over_limit } => {
                let took = self.runtime.now() - self.computing_since;
                self.status.update(|shown| keep(&mut shown.batch_us, took));
                self.counts = digests.iter().map(|digest| digest.count).collect();
                for (sink, digest) in self.sinks.iter_mut().zip(&digests) {
                    sink.chain = digest.chain(sink.chain, batch);
                }
                if let Err(error) = self.check_digests(batch) {
                    return Some(self.failed(None, 0, error));
                }
                let added = self.totals.computed(batch, &added, self.machine.committed);
                self.observer.computed(batch, added);
                Some(Event::Computed { batch, over_limit })
            }
            Computed::Frozen { batch, frozen } => {
                let now_ms = self.now_ms();
                self.observer.frozen(batch, now_ms);
                let manifest = self.manifest_of(batch);
                self.frozen = Some((frozen, manifest));
                Some(Event::Frozen { batch })
            }
            Computed::Failed { batch, attempts, error } => {
                let to_blame = matches!(error.kind(), ErrorKind::Program | ErrorKind::Configuration);
                Some(self.failed(to_blame.then_some(batch), attempts, error))
            }
        }
    }

    /// Where a replay meets what a sink has committed, both must have come from the same output.
    fn check_digests(&mut self, batch: BatchTime) -> Result<()> {
        let directory = self.directory.name();
        let stored = Stored { directory: &directory, manifest: &self.manifest, plans: &[], runs: &[] };
        for sink in &mut self.sinks {
            let Some(cursor) = sink.cursor.as_ref().filter(|cursor| cursor.batch == batch) else { continue };
            if self.settings.accept_changed_program {
                // The operator knows: the chain goes on from what is committed.
                sink.chain = cursor.digest;
            } else {
                stored.check_digest(&sink.name, cursor, sink.chain)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: BatchTime) -> Option<Event> {
        let plans = self.plans.get(batch).map_or(self.plans_chain, |plan| plan.chain);
        let cursor = |(index, sink): (usize, &SinkInfo)| {
            let cursor = Cursor {
                deployment: self.manifest.deployment,
                run: self.run,
                batch,
                plans,
                digest: sink.chain,
                records: self.counts.get(index).copied().unwrap_or_default(),
            };
            (index, cursor)
        };
        let cursors: Vec<_> =
            self.sinks.iter().enumerate().filter(|(index, _)| self.is_to_commit(*index, batch)).map(cursor).collect();
        if cursors.is_empty() {
            return Some(self.committed(batch));
        }
        let positions = self.positions_after(batch).into();
        self.committer.order(Order::Commit { incarnation: self.incarnation, batch, cursors, positions });
        None
    }

    /// Every source's positions after a batch.
    fn positions_after(&self, batch: BatchTime) -> Vec<SourcePositions> {
        let plan = self.plans.get(batch);
        let positions = |source: &dyn AnySource| {
            let planned = plan.and_then(|plan| plan.sources.iter().find(|planned| *planned.source == **source.name()));
            planned
                .map(|planned| planned.plan.positions.clone())
                .or_else(|| self.manifest.positions_of(source.name()).cloned())
                .unwrap_or_default()
        };
        let one = |source: &dyn AnySource| SourcePositions {
            source: source.name().to_string(),
            kind: source.kind(),
            positions: positions(source),
        };
        self.sources.iter().map(|source| one(&**source)).collect()
    }

    pub(super) fn committed(&mut self, batch: BatchTime) -> Event {
        self.note.committed(batch);
        self.totals.committed(batch);
        let now_ms = self.now_ms();
        self.observer.committed(batch, now_ms);
        self.sources.iter_mut().for_each(|source| source.release(batch));
        self.status.update(|shown| shown.progress.batches += 1);
        fail::fail_point!("state-applied");
        Event::Committed { batch }
    }

    /// The manifest of a checkpoint of `batch`, the last one computed.
    fn manifest_of(&self, batch: BatchTime) -> Manifest {
        let plans = self.plans.get(batch).map_or(self.manifest.plans, |plan| plan.chain);
        let remembered = self.committer.remembered();
        let sinks = self.sinks.iter().zip(remembered.into_iter().chain(std::iter::repeat(Vec::new())));
        let needed = [self.plans.needed_after(batch), self.unplanned.oldest()].into_iter().flatten().min();
        Manifest {
            application: self.manifest.application.clone(),
            deployment: self.manifest.deployment,
            batch,
            zero: self.manifest.zero,
            interval_ms: self.settings.interval_ms(),
            fingerprint: self.fingerprint.clone(),
            plans,
            log: needed.unwrap_or_else(|| self.log.end()),
            runs: self.runs.clone(),
            sinks: sinks
                .map(|(sink, remembered)| SinkState {
                    name: sink.name.to_string(),
                    digest: sink.chain,
                    introduced: sink.introduced,
                    remembered,
                })
                .collect(),
            sources: self
                .positions_after(batch)
                .into_iter()
                .map(|source| SourceState {
                    name: source.source,
                    positions: (!source.positions.is_empty()).then_some(source.positions),
                })
                .collect(),
            accumulators: self.totals.for_checkpoint(),
        }
    }

    fn write(&mut self, batch: BatchTime, checkpoint: bool) -> Result<()> {
        let (frozen, manifest) = self
            .frozen
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Restart, format!("nothing is frozen of batch {batch}")))?;
        self.writing_since = self.runtime.now();
        let manifest = checkpoint.then(|| manifest.encode());
        let (incarnation, store) = (self.incarnation, self.store()?);
        self.writer.send(WriteJob::Write(Write { incarnation, store, batch, frozen, manifest }));
        Ok(())
    }

    pub(super) fn written(&mut self, written: Written) -> Event {
        let batch = written.batch;
        match written.outcome {
            Err(error) => self.failed(None, 0, error.context(format!("checkpoint of batch {batch}"))),
            Ok(None) => Event::Written { batch, checkpoint: false },
            Ok(Some(_)) => {
                let took = self.runtime.now() - self.writing_since;
                self.status.update(|shown| keep(&mut shown.checkpoint_us, took));
                meters::checkpointed(took);
                if let Err(error) = self.checkpointed(batch) {
                    // The checkpoint stands; only space was not given back.
                    tracing::warn!(%error, "the log could not be cleaned after a checkpoint");
                }
                Event::Written { batch, checkpoint: true }
            }
        }
    }

    /// A checkpoint may have been published whose end nobody has heard of, because a failure came first: it counts.
    pub(super) fn adopt_newest_checkpoint(&mut self) -> Result<()> {
        use millpond_state::SnapshotStore;
        let newest = self.directory.snapshots.batches()?.last().map(|batch| BatchTime::from_ms(*batch));
        match newest.filter(|newest| *newest > self.manifest.batch) {
            Some(newest) => self.checkpointed(newest),
            None => Ok(()),
        }
    }

    /// A checkpoint of `batch` is published: what no retained checkpoint needs goes.
    fn checkpointed(&mut self, batch: BatchTime) -> Result<()> {
        use millpond_state::SnapshotStore;
        let newest = self.directory.snapshots.manifest(batch.as_ms())?;
        let newest = millpond_state::Manifest::decode(&newest)?;
        self.stored_bytes = newest.bytes();
        self.manifest = Manifest::decode(&newest.meta)?;
        self.plans.forget(batch);
        let oldest = self.directory.snapshots.batches()?.first().copied().unwrap_or(batch.as_ms());
        let oldest = self.directory.snapshots.manifest(oldest)?;
        let mut needed = Manifest::decode(&millpond_state::Manifest::decode(&oldest)?.meta)?.log;
        if controls::broken("break-log-cleaned-early") {
            // What comes after the newest checkpoint, and not even the first batch of that.
            let next = self.plans.iter().next().map(|plan| plan.last);
            needed = next.and_then(|next| self.plans.needed_after(next)).unwrap_or_else(|| self.log.end());
        }
        self.log.release(needed)
    }

    /// One source after the other, within what is left of the stop's limit. One that does not stop holds up the others no longer than
    /// that, and the stop ends with its error.
    fn stop_receiving(&mut self) {
        for (number, source) in self.sources.iter_mut().enumerate() {
            self.status.update(|shown| shown.waits_for = format!("source `{}` to stop receiving", source.name()));
            let left = self.stop_deadline.map(|deadline| deadline.saturating_duration_since(self.runtime.now()));
            let left = left.unwrap_or_else(|| self.settings.graceful_stop_timeout());
            // The rest is for the last batches and the checkpoint.
            if let Err(error) = source.stop_receiving(left.mul_f64(SHARE_OF_SOURCES)) {
                let error = error.context(format!("source `{}`", source.name()));
                tracing::error!(%error, "a source did not stop as it should; what it handed over is processed");
                self.stop_failure.get_or_insert(error);
            }
            self.observer.source(number).stopped();
        }
        self.status.update(|shown| shown.waits_for = "the last batches".into());
    }

    /// Whether some source still holds records that no plan has.
    pub(super) fn waiting(&self) -> Event {
        Event::Waiting(self.sources.iter().any(|source| source.has_waiting()))
    }
}

fn keep(durations: &mut Vec<u64>, took: Duration) {
    if durations.len() < KEPT_DURATIONS {
        durations.push(took.as_micros() as u64);
    }
}
