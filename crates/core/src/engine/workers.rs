//! The two threads beside the driver that do long work: one computes and freezes, one writes state and checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use millpond_state::{Frozen, LocalSnapshotStore, SnapshotInfo, StateStore};

use super::BatchTimes;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::exec::{Accumulator, Executor, accumulator};
use crate::listen::{Bus, Event, OutputOperationInfo};
use crate::rdd::{RddEnv, Storage};
use crate::sink::Digest;
use crate::stream::{BatchOutputs, BatchRun, Input, Output, OutputTarget};
use crate::time::BatchTime;

/// What the computing thread is told.
pub(crate) enum Compute {
    Batch {
        /// Told back, so that what a lost incarnation reports is not taken for news.
        incarnation: u64,
        store: StateStore,
        times: BatchTimes,
        inputs: Vec<Input>,
        /// The inputs of a batch without any.
        empty: Vec<Input>,
        targets: Vec<Arc<OutputTarget>>,
        /// Whether and how listeners hear of its output operations.
        told: Option<Told>,
    },
    Freeze {
        incarnation: u64,
        store: StateStore,
        batch: BatchTime,
    },
    /// Answered when all before it is done and its state is let go.
    Barrier(Sender<()>),
}

/// What listeners are told of a batch's output operations, and when.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// What the driver adds to the clock.
    pub(crate) clock_offset_ms: u64,
}

/// What the computing thread reports.
pub(crate) enum Computed {
    Batch {
        batch: BatchTime,
        digests: Vec<Digest>,
        /// What it has added, by accumulator.
        added: Vec<i64>,
        over_limit: bool,
    },
    Frozen {
        batch: BatchTime,
        frozen: Frozen,
    },
    Failed {
        batch: BatchTime,
        attempts: u32,
        error: Error,
    },
}

/// What the computing thread needs of the graph and of the settings.
pub(crate) struct Computer {
    pub(crate) outputs: Vec<Box<dyn Output>>,
    /// What windows do after them.
    pub(crate) upkeep: Vec<Box<dyn Output>>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) zero: BatchTime,
    pub(crate) partitions: usize,
    pub(crate) shards: u16,
    pub(crate) every_batch: bool,
    pub(crate) bus: Arc<Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) accumulators: Arc<[Accumulator]>,
    pub(crate) storage: Arc<Storage>,
}

impl Computer {
    pub(crate) fn run(&self, job: Compute) -> Option<(u64, Computed)> {
        Some(match job {
            Compute::Barrier(done) => {
                let _ = done.send(());
                return None;
            }
            Compute::Batch { incarnation, store, times, inputs, empty, targets, told } => {
                let span = tracing::info_span!("batch", time = %times.last);
                let _entered = span.enter();
                let outputs = BatchOutputs { targets };
                self.accumulators.iter().for_each(Accumulator::begin_batch);
                // Each time of a stretch visits what the one before changed. It was planned as one because that fitted; by now the limit may
                // be a smaller one.
                store.hold_changes(self.is_several(times));
                let outcome = self.compute(times, inputs, empty, &outputs, told);
                let report = match outcome {
                    Ok(()) => Computed::Batch {
                        batch: times.last,
                        digests: outputs.targets.iter().map(|target| target.digest()).collect(),
                        added: self.accumulators.iter().map(Accumulator::added).collect(),
                        over_limit: store.over_limit(),
                    },
                    Err(error) => {
                        // A function that failed outside of any task, in for_each_rdd, was tried once.
                        let attempts = self.executor.failed_attempts.swap(0, Ordering::Relaxed).max(1);
                        Computed::Failed { batch: times.last, attempts, error }
                    }
                };
                (incarnation, report)
            }
            Compute::Freeze { incarnation, store, batch } => {
                let threads = self.executor.pool.threads();
                let frozen = store.freeze(batch.as_ms(), &|count, work| on_threads(threads, count, work));
                let report = match frozen {
                    Ok(frozen) => Computed::Frozen { batch, frozen },
                    Err(error) => Computed::Failed { batch, attempts: self.executor.max_attempts, error: error.into() },
                };
                (incarnation, report)
            }
        })
    }

    fn compute(
        &self,
        times: BatchTimes,
        inputs: Vec<Input>,
        empty: Vec<Input>,
        outputs: &BatchOutputs,
        told: Option<Told>,
    ) -> Result<()> {
        // Of a stretch listeners hear once, under its last time.
        let told = told.map(|told| (told, times.last));
        let several = self.is_several(times);
        self.compute_one(times.first, inputs, outputs, told.filter(|_| !several))?;
        let mut time = times.first;
        while several && time < times.last {
            time = BatchTime::from_ms(time.as_ms() + times.interval_ms);
            self.compute_one(time, empty.clone(), outputs, told.filter(|_| time == times.last))?;
        }
        Ok(())
    }

    /// Whether each time of a stretch is computed.
    fn is_several(&self, times: BatchTimes) -> bool {
        self.every_batch && times.first < times.last
    }

    fn compute_one(
        &self,
        batch: BatchTime,
        inputs: Vec<Input>,
        outputs: &BatchOutputs,
        told: Option<(Told, BatchTime)>,
    ) -> Result<()> {
        let env = RddEnv {
            executor: self.executor.clone(),
            batch,
            zero: self.zero,
            partitions: self.partitions,
            shards: self.shards,
            data_set: false,
            storage: self.storage.clone(),
        };
        let run = BatchRun::new(Arc::new(env), inputs);
        self.outputs.iter().enumerate().try_for_each(|(number, output)| {
            let span = tracing::info_span!("output", name = output.name());
            let _entered = span.enter();
            let operation = told.map(|(told, batch)| {
                let operation = OutputOperationInfo::started(batch, number, output.name(), self.now_ms(told));
                self.bus.send(Event::OperationStarted(operation.clone()));
                (told, operation)
            });
            // What a function adds outside of tasks, in for_each_rdd.
            let (outcome, added) = accumulator::stage(|| output.run(&run, outputs));
            let outcome = outcome.map_err(|error| error.context(format!("output `{}`", output.name())));
            added.keep();
            if let Some((told, mut operation)) = operation {
                operation.end_ms = Some(self.now_ms(told));
                operation.failure = outcome.as_ref().err().map(Error::to_string);
                self.bus.send(Event::OperationCompleted(operation));
            }
            outcome
        })?;
        self.upkeep.iter().try_for_each(|window| {
            window.run(&run, outputs).map_err(|error| error.context(format!("window `{}`", window.name())))
        })
    }

    fn now_ms(&self, told: Told) -> u64 {
        self.clock.now_ms() + told.clock_offset_ms
    }
}

/// Runs a function for `0..count` on so many threads of its own: for borrowed work, which the pool cannot take.
fn on_threads(threads: usize, count: usize, work: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let draw = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            work(index);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // With a machine that has no more threads it takes longer.
            if std::thread::Builder::new().spawn_scoped(scope, draw).is_err() {
                break;
            }
        }
        draw();
    });
}

/// What the writing thread is told.
pub(crate) enum WriteJob {
    Write(Write),
    /// Answered when all before it is done and its state is let go.
    Barrier(Sender<()>),
}

/// Bring frozen state to the disk, and publish a checkpoint if there is a manifest.
pub(crate) struct Write {
    pub(crate) incarnation: u64,
    pub(crate) store: StateStore,
    pub(crate) batch: BatchTime,
    pub(crate) frozen: Frozen,
    /// The engine's section of the manifest.
    pub(crate) manifest: Option<Vec<u8>>,
}

/// What the writing thread reports.
pub(crate) struct Written {
    pub(crate) batch: BatchTime,
    pub(crate) outcome: Result<Option<SnapshotInfo>>,
}

pub(crate) fn write(job: WriteJob, snapshots: &LocalSnapshotStore) -> Option<(u64, Written)> {
    let Write { incarnation, store, batch, frozen, manifest } = match job {
        WriteJob::Write(write) => write,
        WriteJob::Barrier(done) => {
            let _ = done.send(());
            return None;
        }
    };
    let span = tracing::info_span!("checkpoint", %batch, published = manifest.is_some());
    let _entered = span.enter();
    let outcome = store.write_behind(frozen).and_then(|()| {
        store.evict();
        manifest.map(|manifest| store.checkpoint(batch.as_ms(), snapshots, manifest)).transpose()
    });
    Some((incarnation, Written { batch, outcome: outcome.map_err(Error::from) }))
}
