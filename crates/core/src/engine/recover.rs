//! Recovery: one algorithm at every start, whatever the process died of, and again inside the process after a
//! failure that was not retried in place (design.md section 2; hard case H10).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::committer::Order;
use super::directory;
use super::driver::{Driver, Message, SinkInfo};
use super::machine::{Event, Machine, Schedule};
use super::manifest::Manifest;
use super::meters;
use super::note::{Note, Noted};
use super::rules::Stored;
use super::workers::{Compute, WriteJob};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BlockLog, LogEntry};
use crate::sink::{Cursor, Guarantee, SinkStart};
use crate::source::{SourceEvents, SourceStart};
use crate::time::BatchTime;

impl Driver {
    /// The rest of a start, with everything at hand: sinks, state, sources.
    pub(super) fn recover_from_outside(
        &mut self,
        schedule: Schedule,
        unplanned: Vec<(crate::source::BlockId, String)>,
    ) -> Result<()> {
        let starts = self.sink_starts();
        let peeked = self.without_taken_over(self.cursors(false, &starts)?);
        self.check_peeked(&peeked)?;
        // From here on a copy of this directory can tell that we have run (H2).
        self.log.append(&LogEntry::Run(self.run))?;
        self.runs.push(self.run);
        fail::fail_point!("recovery-run-logged");
        let fenced = self.without_taken_over(self.cursors(true, &starts)?);
        self.check_cursors(&fenced)?;
        fail::fail_point!("recovery-sinks-fenced");

        let snapshot = self.manifest.batch;
        let committed = self.take_cursors(fenced);
        let accepted = self.settings.accept_changed_program;
        let changed = self.stored(|stored, fingerprint| stored.check_fingerprint(fingerprint, committed, accepted))?;
        self.open_state()?;
        fail::fail_point!("recovery-state-opened");
        if changed {
            self.check_removed(committed)?;
            // H12: the new program has its checkpoint before its first batch runs.
            let manifest = self.manifest_for_new_program();
            let store = self.store.as_ref().ok_or_else(|| Error::new(ErrorKind::Restart, "the state is not open"))?;
            directory::publish(store, &*self.directory.snapshots, &manifest)?;
            self.manifest = manifest;
        }
        self.introduce_sinks(snapshot)?;
        self.check_missed_batches()?;
        let sinks = self.sinks.iter().map(|sink| (sink.name.to_string(), sink.description.clone())).collect();
        self.note = Note::create(self.directory.path(), &Noted { run: self.run, committed, sinks });
        self.start_sources(unplanned)?;
        self.machine = Machine::new(schedule, snapshot, committed, self.plans.planned());
        self.verify_in_background();
        tracing::info!(
            directory = %self.directory.name(), snapshot = %snapshot, %committed, planned = %self.machine.planned, "recovered"
        );
        Ok(())
    }

    /// The same inside of the process: drop memory, open S, ask the sinks. Sources and log have not failed and stay as
    /// they are; the plans since S are in memory as they are in the log.
    pub(crate) fn recover_inside(&mut self) -> Result<Event> {
        tracing::warn!("recovering from the newest checkpoint");
        self.incarnation += 1;
        self.committer.ask(|done| Order::Abort { done })?;
        let (done, computing_has_ended) = crossbeam_channel::bounded(1);
        self.computer.send(Compute::Barrier(done));
        let (done, writing_has_ended) = crossbeam_channel::bounded(1);
        self.writer.send(WriteJob::Barrier(done));
        for ended in [computing_has_ended, writing_has_ended] {
            self.runtime
                .receive(&ended)
                .map_err(|_| Error::new(ErrorKind::Restart, "a thread of the context has died"))?;
        }
        // What they have reported is of the state that is given up, and may hold it open.
        let waiting: Vec<Message> = self.inbox.try_iter().collect();
        let of_the_past =
            |message: &Message| matches!(message, Message::Computed(..) | Message::Written(..) | Message::Outcome(_));
        waiting.into_iter().filter(|message| !of_the_past(message)).for_each(|message| drop(self.outbox.send(message)));
        self.frozen = None;
        self.operators.iter().for_each(|operator| operator.close());
        self.store = None;
        // What the old incarnation wrote between the first abort and the end of its last task goes too.
        self.committer.ask(|done| Order::Abort { done })?;
        self.adopt_newest_checkpoint()?;

        let starts = self.sink_starts();
        let peeked = self.cursors(false, &starts)?;
        self.check_peeked(&peeked)?;
        let fenced = self.cursors(true, &starts)?;
        self.check_cursors(&fenced)?;
        self.open_state()?;
        self.totals.recover(&self.manifest.accumulators);
        for sink in &mut self.sinks {
            sink.chain = self.manifest.sink(&sink.name).map_or(0, |kept| kept.digest);
        }
        let committed = self.take_cursors(fenced);
        self.status.update(|shown| shown.progress.recoveries += 1);
        meters::recovered();
        self.observer.recovered(committed, self.now_ms());
        Ok(Event::Recovered { snapshot: self.manifest.batch, committed })
    }

    fn sink_starts(&self) -> Vec<SinkStart> {
        let start = |sink: &SinkInfo| SinkStart {
            name: sink.name.to_string(),
            application: self.settings.application.clone(),
            deployment: self.manifest.deployment,
            run: self.run,
            remembered: self.manifest.sink(&sink.name).map(|kept| kept.remembered.clone()).unwrap_or_default(),
            shared: self.shared.clone(),
        };
        self.sinks.iter().map(start).collect()
    }

    fn cursors(&self, fence: bool, starts: &[SinkStart]) -> Result<Vec<Option<Cursor>>> {
        let starts = starts.to_vec();
        self.committer.ask(|answer| Order::Cursors { fence, starts, answer })?
    }

    /// The cursors without those of another deployment in sinks that this one, begun from a savepoint, may take over (H25).
    fn without_taken_over(&self, cursors: Vec<Option<Cursor>>) -> Vec<Option<Cursor>> {
        let may_take = |sink: &SinkInfo| {
            let named = self.settings.taken_over.iter().any(|name| **name == *sink.name);
            named && self.settings.savepoint.is_some() && !sink.introduced
        };
        let own = |(sink, cursor): (&SinkInfo, Option<Cursor>)| {
            cursor.filter(|cursor| cursor.deployment == self.manifest.deployment || !may_take(sink))
        };
        self.sinks.iter().zip(cursors).map(own).collect()
    }

    fn stored<R>(&self, judge: impl FnOnce(&Stored<'_>, &crate::stream::Fingerprint) -> R) -> R {
        let (directory, plans) = (self.directory.name(), self.plans.iter().cloned().collect::<Vec<_>>());
        let stored = Stored { directory: &directory, manifest: &self.manifest, plans: &plans, runs: &self.runs };
        judge(&stored, &self.fingerprint)
    }

    fn check_peeked(&self, cursors: &[Option<Cursor>]) -> Result<()> {
        self.stored(|stored, _| {
            let mut kept = self.sinks.iter().zip(cursors).filter(|(sink, _)| keeps_cursors(sink));
            kept.try_for_each(|(sink, cursor)| stored.check_peeked(&sink.name, cursor.as_ref()))
        })
    }

    fn check_cursors(&self, cursors: &[Option<Cursor>]) -> Result<()> {
        self.stored(|stored, _| {
            self.sinks.iter().zip(cursors).filter(|(sink, _)| keeps_cursors(sink)).try_for_each(|(sink, cursor)| {
                match cursor {
                    Some(cursor) => stored.check_cursor(&sink.name, cursor),
                    None => stored.check_no_cursor(&sink.name, sink.introduced),
                }
            })
        })
    }

    /// Notes the cursors; the smallest is C. A sink without one, new or at-least-once, stands at S.
    fn take_cursors(&mut self, cursors: Vec<Option<Cursor>>) -> BatchTime {
        for (sink, cursor) in self.sinks.iter_mut().zip(cursors) {
            sink.cursor = cursor.filter(|_| keeps_cursors(sink));
        }
        let snapshot = self.manifest.batch;
        let at = |sink: &SinkInfo| sink.cursor.as_ref().map_or(snapshot, |cursor| cursor.batch);
        // Without any sink nothing says what was committed: everything after S runs again, at least once.
        self.sinks.iter().map(at).min().unwrap_or(snapshot)
    }

    fn open_state(&mut self) -> Result<()> {
        let (store, manifest, snapshot) = self.directory.open_state()?;
        self.stored_bytes = snapshot.manifest().bytes();
        if manifest.batch != self.manifest.batch {
            return Err(Error::new(
                ErrorKind::Restart,
                format!(
                    "the newest checkpoint in {} is of batch {}, not of {}",
                    self.directory.name(),
                    manifest.batch,
                    self.manifest.batch
                ),
            ));
        }
        self.operators.iter().try_for_each(|operator| operator.open(&store))?;
        self.store = Some(store);
        Ok(())
    }

    /// State and sinks that the checkpoint knows and the program does not: only with the operator's word.
    fn check_removed(&self, committed: BatchTime) -> Result<()> {
        // A window keeps its panes beside its keys, under `name/panes`.
        let of = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let allowed = |name: &str| self.settings.removed.iter().any(|removed| *removed == of(name));
        let refuse = |what: String| {
            Err(Error::configuration(format!(
                "{what}. Put it back, or say that it was removed on purpose: .removed(name) on the builder"
            )))
        };
        let Some(store) = &self.store else { return Ok(()) };
        for operator in store.unopened_operators() {
            if !allowed(&operator.name) {
                return refuse(format!(
                    "operator `{}` keeps {} keys in {}, but is not in the program any more",
                    of(&operator.name),
                    operator.keys,
                    self.directory.name()
                ));
            }
            store.remove_operator(&operator.name)?;
        }
        let removed = self.manifest.sinks.iter().find(|kept| self.sinks.iter().all(|sink| *sink.name != *kept.name));
        match removed {
            Some(sink) if committed > self.manifest.batch && !allowed(&sink.name) => refuse(format!(
                "sink `{}` is not in the program any more, and may not have committed up to {committed}",
                sink.name
            )),
            _ => Ok(()),
        }
    }

    /// The manifest of S with the new program's fingerprint and sinks.
    fn manifest_for_new_program(&self) -> Manifest {
        use super::manifest::SinkState;
        let sinks = self.sinks.iter().map(|sink| SinkState {
            name: sink.name.to_string(),
            digest: sink.chain,
            introduced: sink.introduced,
            remembered: self.manifest.sink(&sink.name).map(|kept| kept.remembered.clone()).unwrap_or_default(),
        });
        Manifest {
            fingerprint: self.fingerprint.clone(),
            interval_ms: self.settings.interval_ms(),
            runs: self.runs.clone(),
            sinks: sinks.collect(),
            ..self.manifest.clone()
        }
    }

    /// A sink that has never committed begins with a cursor at S and no output; then a log entry says so (H3).
    fn introduce_sinks(&mut self, snapshot: BatchTime) -> Result<()> {
        let new: Vec<usize> = (0..self.sinks.len())
            .filter(|&index| keeps_cursors(&self.sinks[index]) && self.sinks[index].cursor.is_none())
            .collect();
        if !new.is_empty() {
            let cursor = |&index: &usize| {
                let cursor = Cursor {
                    deployment: self.manifest.deployment,
                    run: self.run,
                    batch: snapshot,
                    plans: self.manifest.plans,
                    digest: self.sinks[index].chain,
                    records: 0,
                };
                (index, cursor)
            };
            let cursors: Vec<_> = new.iter().map(cursor).collect();
            let order = Order::Commit {
                incarnation: self.incarnation,
                batch: snapshot,
                cursors: cursors.clone(),
                positions: Arc::new([]),
            };
            self.committer.order(order);
            loop {
                match self.runtime.receive(&self.inbox) {
                    Ok(Message::Outcome(outcome)) => break outcome.result?,
                    Ok(Message::StopNow | Message::StopGracefully) => {
                        return Err(Error::new(ErrorKind::Stopped, "stopped while recovering"));
                    }
                    Ok(_) => {}
                    Err(_) => return Err(Error::new(ErrorKind::Restart, "the thread that commits has died")),
                }
            }
            for (index, cursor) in cursors {
                self.sinks[index].cursor = Some(cursor);
            }
        }
        for sink in self.sinks.iter_mut().filter(|sink| keeps_cursors(sink) && !sink.introduced) {
            self.log.append(&LogEntry::SinkIntroduced(sink.name.to_string()))?;
            sink.introduced = true;
        }
        Ok(())
    }

    /// H18: more missed batches than the limit want the operator's word, where each of them will be computed.
    fn check_missed_batches(&self) -> Result<()> {
        let planned = self.plans.iter().last().map_or(self.manifest.batch, |plan| plan.last);
        let missed = self.clock.now_ms().saturating_sub(planned.as_ms()) / self.settings.interval_ms();
        if missed <= self.settings.max_missed_batches || !self.every_batch {
            return Ok(());
        }
        Err(Error::configuration(format!(
            "{missed} batches were missed since {planned}, more than the limit of {}, and the pipeline computes each of them. Raise \
             max_missed_batches, or start with a longer batch interval",
            self.settings.max_missed_batches
        )))
    }

    fn start_sources(&mut self, unplanned: Vec<(crate::source::BlockId, String)>) -> Result<()> {
        let mut by_source: BTreeMap<String, Vec<crate::source::BlockId>> = BTreeMap::new();
        for (block, source) in unplanned {
            self.unplanned.add(block);
            by_source.entry(source).or_default().push(block);
        }
        for (number, (source, positions)) in self.sources.iter_mut().zip(&self.positions).enumerate() {
            let (outbox, name) = (self.outbox.clone(), source.name().clone());
            let watch = self.observer.source(number).clone();
            let report = move |event| {
                if let Some(error) = watch.reports(event) {
                    let _ = outbox.send(Message::SourceFailed { source: name.clone(), error });
                }
            };
            let start = SourceStart {
                name: source.name().to_string(),
                application: self.settings.application.clone(),
                positions: positions.clone(),
                unplanned: by_source.remove(&**source.name()).unwrap_or_default(),
                blocks: BlockLog::tracked(self.log.clone(), source.name(), self.budget.clone(), self.unplanned.clone()),
                first_start: self.manifest.zero,
                batch_interval: self.settings.batch_interval,
                clock: self.clock.clone(),
                events: SourceEvents::new(report),
            };
            source.start(start).map_err(|error| error.context(format!("source `{}`", source.name())))?;
            self.observer.source(number).started();
        }
        // Blocks of a source that is not in the program any more hold the log no longer.
        by_source.into_values().flatten().for_each(|block| self.unplanned.remove(block));
        Ok(())
    }

    /// Reads every checksum of the checkpoint beside the batches; damage marks it bad, so that the next start does not use
    /// it (H22).
    fn verify_in_background(&self) {
        if !self.settings.verify_in_background {
            return;
        }
        let snapshots = self.directory.snapshots.clone();
        let (batch, status, name) = (self.manifest.batch, self.status.clone(), self.directory.name());
        let verify = move || {
            let snapshot = millpond_state::Snapshot::open(snapshots, batch.as_ms());
            let go_on = || status.read().state != super::status::ContextState::Stopped;
            match snapshot.and_then(|snapshot| snapshot.verify(&go_on)) {
                Ok(verified) => {
                    tracing::debug!(batch = %batch, bytes = verified.bytes, whole = verified.whole, "the checkpoint was verified")
                }
                Err(error) => {
                    tracing::error!(directory = name, batch = %batch, %error, "the checkpoint this process started from is damaged")
                }
            }
        };
        let spawned = std::thread::Builder::new().name("verify".into()).spawn(verify);
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to verify the checkpoint with");
        }
    }
}

/// At-least-once sinks have no cursor to go by.
fn keeps_cursors(sink: &SinkInfo) -> bool {
    sink.guarantee != Guarantee::AtLeastOnce
}
