//! The protocol of a context as one state machine: events in, commands out.
//!
//! Planning, the three cursors, the checkpoint schedule, recovery and stopping are decided here and
//! nowhere else. Threads, clock, disk and broker stand outside: they carry commands out and report
//! events. Nothing in this file waits, reads a clock or touches a file, so it can be read in one
//! place and simulated.
//!
//! ```text
//!   Tick ----> Plan ----> Planned ----> Compute ----> Computed ----> Commit ----> Committed
//!                                          ^              |                           |
//!                                          |              v                           v
//!                                          +---------- (Freeze ----> Frozen) ----> (Write ----> Written)
//!   Failed --> Recover --> Recovered
//! ```
//!
//! Rules kept here:
//! - a batch is computed after its plan is durable, and while at most one batch before it waits for its commit (H10);
//! - state is frozen between two batches, written only once its batch has committed, and nothing is frozen again
//!   before it has been written (H8);
//! - any failure that was not retried in place goes back to the newest checkpoint (H10).

use std::collections::VecDeque;

use crate::time::BatchTime;

/// Plans that may wait to be computed before the clock makes more. One is being computed, one waits for it; with two more a hiccup
/// does not yet blur which batch a record belongs to.
const MAX_PLANS_AHEAD: usize = 4;

/// Fixed at start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) zero: BatchTime,
    pub(crate) interval_ms: u64,
    /// A multiple of the interval.
    pub(crate) checkpoint_interval_ms: u64,
    /// How often a batch is tried, in place or by recovery, before it has failed for good.
    pub(crate) max_attempts: u32,
    /// Recoveries in a row without a commit before the context gives up.
    pub(crate) max_recoveries: u32,
}

/// A planned batch, or stretch of batches, by its last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) first: BatchTime,
    pub(crate) last: BatchTime,
    pub(crate) records: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The clock shows this time.
    Tick(u64),
    /// A plan is durable. `waiting`: some source holds records that no plan has.
    Planned { plan: Planned, waiting: bool },
    /// A batch has been computed and its output handed over.
    Computed { batch: BatchTime, over_limit: bool },
    /// What is dirty after `batch` has been frozen.
    Frozen { batch: BatchTime },
    /// Every sink has committed the batch.
    Committed { batch: BatchTime },
    /// Frozen state has reached the disk; with a checkpoint, if one was asked for.
    Written { batch: BatchTime, checkpoint: bool },
    /// Something failed that was not retried in place.
    Failed(Failure),
    /// The state is that of the newest checkpoint again, and the sinks have said what they committed.
    Recovered { snapshot: BatchTime, committed: BatchTime },
    /// Process everything received, then stop.
    StopGracefully,
    /// After `StopReceiving`: whether some source still holds records that no plan has.
    Waiting(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The batch, where one batch is to blame (a function of the program); `None` for disk, broker and the like.
    pub(crate) batch: Option<BatchTime>,
    /// How often it was tried in place.
    pub(crate) attempts: u32,
    /// Trying again cannot help.
    pub(crate) hopeless: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Ask every source for `time`; if none has records, the plan covers all times up to `until`.
    Plan {
        time: BatchTime,
        until: BatchTime,
    },
    Compute {
        batch: BatchTime,
    },
    Commit {
        batch: BatchTime,
    },
    Freeze {
        batch: BatchTime,
    },
    Write {
        batch: BatchTime,
        checkpoint: bool,
    },
    /// Sources stop receiving and hand over what they hold.
    StopReceiving,
    /// Drop memory, open the newest checkpoint, ask the sinks.
    Recover,
    /// The end. `failed`: because of the last failure.
    Finish {
        failed: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// A graceful stop: until nothing is left to plan or to commit.
    Draining {
        drained: bool,
    },
    /// Between `Recover` and `Recovered`.
    Recovering {
        draining: bool,
    },
    /// A batch has failed for good: a checkpoint at C, then the end.
    Closing,
    /// Between `Recover` and `Recovered` on the way there.
    RecoveringToClose,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frozen {
    batch: BatchTime,
    checkpoint: bool,
    writing: bool,
}

pub(crate) struct Machine {
    schedule: Schedule,
    phase: Phase,
    /// The three cursors, and how far the state in memory has come.
    pub(crate) snapshot: BatchTime,
    pub(crate) committed: BatchTime,
    pub(crate) planned: BatchTime,
    computed: BatchTime,
    /// Plans after the snapshot, oldest first.
    plans: VecDeque<Planned>,
    computing: Option<BatchTime>,
    /// Batches computed and not committed.
    uncommitted: VecDeque<BatchTime>,
    freezing: bool,
    frozen: Option<Frozen>,
    over_limit: bool,
    now_ms: u64,
    /// Attempts at the batch after C.
    attempts: u32,
    recoveries: u32,
}

impl Machine {
    /// The machine after recovery has read the directory: state at `snapshot`, sinks at `committed`, and the plans since.
    pub(crate) fn new(
        schedule: Schedule,
        snapshot: BatchTime,
        committed: BatchTime,
        plans: impl IntoIterator<Item = Planned>,
    ) -> Self {
        let plans: VecDeque<Planned> = plans.into_iter().collect();
        Machine {
            schedule,
            phase: Phase::Live,
            snapshot,
            committed,
            planned: plans.back().map_or(snapshot, |plan| plan.last),
            computed: snapshot,
            plans,
            computing: None,
            uncommitted: VecDeque::new(),
            freezing: false,
            frozen: None,
            over_limit: false,
            now_ms: 0,
            attempts: 0,
            recoveries: 0,
        }
    }

    /// When the next batch is due, in ms; `None` if none will be planned by the clock.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        (self.phase == Phase::Live && !self.has_fallen_behind()).then(|| self.next_time().as_ms())
    }

    /// Computing does not keep up with the clock. Then planning waits for it: what comes meanwhile goes to the next batch, and
    /// the times in between become one stretch, instead of ever more small batches each with a commit of its own.
    fn has_fallen_behind(&self) -> bool {
        self.plans.iter().rev().take_while(|plan| plan.last > self.computed).count() >= MAX_PLANS_AHEAD
    }

    /// Batches planned and not committed.
    pub(crate) fn waiting_batches(&self) -> usize {
        self.plans.iter().filter(|plan| plan.last > self.committed).count()
    }

    fn next_time(&self) -> BatchTime {
        BatchTime::from_ms(self.planned.as_ms() + self.schedule.interval_ms)
    }

    /// Takes an event in and says what is to be done, in order.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Tick(now_ms) => {
                self.now_ms = self.now_ms.max(now_ms);
                self.plan_what_is_due(&mut commands);
            }
            Event::Planned { plan, waiting } => {
                self.planned = plan.last;
                self.plans.push_back(plan);
                match self.phase {
                    Phase::Draining { .. } => self.drain(waiting, &mut commands),
                    _ => self.plan_what_is_due(&mut commands),
                }
            }
            Event::Computed { batch, over_limit } => {
                self.computing = None;
                self.computed = batch;
                self.over_limit = over_limit;
                if batch > self.committed {
                    self.uncommitted.push_back(batch);
                    commands.push(Command::Commit { batch });
                }
                // Planning may have waited for this.
                self.plan_what_is_due(&mut commands);
            }
            Event::Frozen { batch } => {
                self.freezing = false;
                debug_assert_eq!(self.frozen.map(|frozen| frozen.batch), Some(batch));
            }
            Event::Committed { batch } => {
                self.committed = batch;
                self.uncommitted.retain(|&uncommitted| uncommitted > batch);
                self.attempts = 0;
                self.recoveries = 0;
            }
            Event::Written { batch, checkpoint } => {
                self.frozen = None;
                // What later batches left is frozen next.
                self.over_limit &= batch != self.computed;
                if checkpoint {
                    self.snapshot = batch;
                    self.plans.retain(|plan| plan.last > batch);
                }
            }
            Event::Failed(failure) => self.failed(failure, &mut commands),
            Event::Recovered { snapshot, committed } => self.recovered(snapshot, committed),
            Event::StopGracefully => match self.phase {
                Phase::Live => {
                    self.phase = Phase::Draining { drained: false };
                    commands.push(Command::StopReceiving);
                }
                Phase::Recovering { .. } => self.phase = Phase::Recovering { draining: true },
                _ => {}
            },
            Event::Waiting(waiting) => self.drain(waiting, &mut commands),
        }
        self.advance(&mut commands);
        commands
    }

    fn plan_what_is_due(&self, commands: &mut Vec<Command>) {
        let time = self.next_time();
        if self.phase == Phase::Live && time.as_ms() <= self.now_ms && !self.has_fallen_behind() {
            let behind = (self.now_ms - time.as_ms()) / self.schedule.interval_ms;
            let until = BatchTime::from_ms(time.as_ms() + behind * self.schedule.interval_ms);
            commands.push(Command::Plan { time, until });
        }
    }

    /// In a graceful stop: one plan after the other, without waiting for the clock, until nothing waits.
    fn drain(&mut self, waiting: bool, commands: &mut Vec<Command>) {
        if !matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        if waiting {
            let time = self.next_time();
            commands.push(Command::Plan { time, until: time });
        } else if self.phase == (Phase::Draining { drained: false }) {
            self.phase = Phase::Draining { drained: true };
        }
    }

    /// What can go on now does.
    fn advance(&mut self, commands: &mut Vec<Command>) {
        if matches!(self.phase, Phase::Recovering { .. } | Phase::RecoveringToClose | Phase::Finished) {
            return;
        }
        if self.computing.is_none()
            && !self.freezing
            && self.frozen.is_none()
            && let Some(frozen) = self.freeze_now()
        {
            self.frozen = Some(frozen);
            self.freezing = true;
            commands.push(Command::Freeze { batch: frozen.batch });
        }
        if let Some(frozen) = &mut self.frozen
            && !self.freezing
            && !frozen.writing
            && (frozen.batch <= self.committed || crate::controls::broken("break-checkpoint-before-commit"))
        {
            frozen.writing = true;
            commands.push(Command::Write { batch: frozen.batch, checkpoint: frozen.checkpoint });
        }
        if let Some(batch) = self.compute_now() {
            self.computing = Some(batch);
            commands.push(Command::Compute { batch });
        }
        if self.is_at_its_end() {
            let failed = self.phase == Phase::Closing;
            self.phase = Phase::Finished;
            commands.push(Command::Finish { failed });
        }
    }

    /// The next batch to compute, if one may be computed now.
    fn compute_now(&self) -> Option<BatchTime> {
        let hold = self.over_limit && self.frozen.is_some();
        if self.computing.is_some() || self.freezing || hold || self.uncommitted.len() > 1 {
            return None;
        }
        let next = self.plans.iter().find(|plan| plan.last > self.computed)?.last;
        // On the way to the end only what is committed is computed again.
        (self.phase != Phase::Closing || next <= self.committed).then_some(next)
    }

    /// What to freeze now, between two batches.
    fn freeze_now(&self) -> Option<Frozen> {
        let batch = self.computed;
        if batch == self.snapshot {
            return None;
        }
        let due = batch.as_ms().saturating_sub(self.schedule.zero.as_ms()) / self.schedule.checkpoint_interval_ms
            > self.snapshot.as_ms().saturating_sub(self.schedule.zero.as_ms()) / self.schedule.checkpoint_interval_ms;
        let last = self.compute_now().is_none() && self.nothing_left();
        let checkpoint = due || last;
        (checkpoint || self.over_limit).then_some(Frozen { batch, checkpoint, writing: false })
    }

    /// In the course of ending: every batch that will be computed has been computed and committed.
    fn nothing_left(&self) -> bool {
        let computed_all = match self.phase {
            Phase::Draining { drained: true } => self.computed == self.planned,
            Phase::Closing => self.computed == self.committed,
            _ => false,
        };
        computed_all && self.computing.is_none() && self.uncommitted.is_empty()
    }

    fn is_at_its_end(&self) -> bool {
        self.nothing_left() && self.frozen.is_none() && self.snapshot == self.computed
    }

    fn failed(&mut self, failure: Failure, commands: &mut Vec<Command>) {
        match self.phase {
            Phase::Finished => return,
            // What was to help the end has failed too.
            Phase::Closing | Phase::RecoveringToClose => {
                self.phase = Phase::Finished;
                return commands.push(Command::Finish { failed: true });
            }
            _ => {}
        }
        self.attempts += failure.attempts;
        self.recoveries += 1;
        let for_good = failure.hopeless
            || failure.batch.is_some() && self.attempts >= self.schedule.max_attempts
            || self.recoveries > self.schedule.max_recoveries;
        let draining = matches!(self.phase, Phase::Draining { .. } | Phase::Recovering { draining: true });
        let to_blame = failure.batch.is_some();
        self.phase = match (for_good, to_blame) {
            (false, _) => Phase::Recovering { draining },
            // The program is wrong, disk and broker are not: leave a checkpoint at C, so that the corrected program has
            // nothing to replay.
            (true, true) => Phase::RecoveringToClose,
            (true, false) => {
                self.phase = Phase::Finished;
                return commands.push(Command::Finish { failed: true });
            }
        };
        commands.push(Command::Recover);
    }

    fn recovered(&mut self, snapshot: BatchTime, committed: BatchTime) {
        self.phase = match self.phase {
            Phase::RecoveringToClose => Phase::Closing,
            Phase::Recovering { draining: true } => Phase::Draining { drained: false },
            _ => Phase::Live,
        };
        self.snapshot = snapshot;
        self.committed = committed;
        self.computed = snapshot;
        self.computing = None;
        self.uncommitted.clear();
        self.freezing = false;
        self.frozen = None;
        self.over_limit = false;
    }
}

#[cfg(test)]
mod tests;
