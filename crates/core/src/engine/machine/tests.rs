//! The machine, driven by hand and at random against the invariants.

use proptest::prelude::*;

use super::*;

const T: fn(u64) -> BatchTime = BatchTime::from_ms;

fn schedule(checkpoint_every: u64) -> Schedule {
    Schedule {
        zero: T(0),
        interval_ms: 1000,
        checkpoint_interval_ms: checkpoint_every * 1000,
        max_attempts: 4,
        max_recoveries: 3,
    }
}

fn machine(checkpoint_every: u64) -> Machine {
    Machine::new(schedule(checkpoint_every), T(0), T(0), [])
}

fn planned(ms: u64) -> Event {
    Event::Planned { plan: Planned { first: T(ms), last: T(ms), records: 1 }, waiting: false }
}

fn computed(ms: u64) -> Event {
    Event::Computed { batch: T(ms), over_limit: false }
}

fn failure(batch: Option<u64>, attempts: u32) -> Event {
    Event::Failed(Failure { batch: batch.map(T), attempts, hopeless: false })
}

#[test]
fn nothing_is_computed_before_its_plan_is_durable() {
    let mut machine = machine(10);
    assert_eq!(machine.handle(Event::Tick(1000)), [Command::Plan { time: T(1000), until: T(1000) }]);
    assert_eq!(machine.handle(planned(1000)), [Command::Compute { batch: T(1000) }]);
    assert_eq!(machine.handle(computed(1000)), [Command::Commit { batch: T(1000) }]);
}

#[test]
fn a_tick_before_its_time_plans_nothing() {
    let mut machine = machine(10);
    assert_eq!(machine.handle(Event::Tick(999)), []);
    assert_eq!(machine.next_due_ms(), Some(1000));
}

#[test]
fn h18_missed_batches_are_offered_as_one_stretch_and_planned_one_by_one_while_there_is_input() {
    let mut machine = machine(10);
    assert_eq!(machine.handle(Event::Tick(5000)), [Command::Plan { time: T(1000), until: T(5000) }]);
    let commands = machine.handle(planned(1000));
    assert!(commands.contains(&Command::Plan { time: T(2000), until: T(5000) }), "{commands:?}");
    let stretch = Planned { first: T(2000), last: T(5000), records: 0 };
    assert_eq!(machine.handle(Event::Planned { plan: stretch, waiting: false }), []);
    assert_eq!(machine.next_due_ms(), Some(6000));
    // A stretch is one batch to compute and to commit, named by its last time.
    let commands = machine.handle(computed(1000));
    assert!(commands.contains(&Command::Compute { batch: T(5000) }), "{commands:?}");
}

#[test]
fn when_computing_does_not_keep_up_planning_waits_and_the_times_in_between_become_a_stretch() {
    let mut machine = machine(100);
    for ms in [1000, 2000, 3000, 4000] {
        assert_eq!(machine.handle(Event::Tick(ms))[..1], [Command::Plan { time: T(ms), until: T(ms) }]);
        machine.handle(planned(ms));
    }
    assert_eq!(machine.next_due_ms(), None);
    assert_eq!(machine.handle(Event::Tick(9000)), []);
    // What has come since goes to 5000, the rest is a stretch.
    let commands = machine.handle(computed(1000));
    assert!(commands.contains(&Command::Plan { time: T(5000), until: T(9000) }), "{commands:?}");
}

#[test]
fn h10_at_most_one_batch_waits_for_its_commit_while_the_next_is_computed() {
    let mut machine = machine(10);
    for ms in [1000, 2000, 3000] {
        machine.handle(Event::Tick(ms));
        machine.handle(planned(ms));
    }
    assert!(machine.handle(computed(1000)).contains(&Command::Compute { batch: T(2000) }));
    // 1000 is not committed, 2000 is computed: 3000 waits.
    assert_eq!(machine.handle(computed(2000)), [Command::Commit { batch: T(2000) }]);
    assert_eq!(machine.handle(Event::Committed { batch: T(1000) }), [Command::Compute { batch: T(3000) }]);
}

#[test]
fn h8_a_freeze_is_written_after_its_commit_and_before_the_next_freeze() {
    let mut machine = machine(1);
    machine.handle(Event::Tick(2000));
    machine.handle(planned(1000));
    machine.handle(planned(2000));
    assert_eq!(
        machine.handle(computed(1000)),
        [Command::Commit { batch: T(1000) }, Command::Freeze { batch: T(1000) }]
    );
    // The next batch is computed once the state is frozen; nothing is written before the commit.
    assert_eq!(machine.handle(Event::Frozen { batch: T(1000) }), [Command::Compute { batch: T(2000) }]);
    assert_eq!(machine.handle(computed(2000)), [Command::Commit { batch: T(2000) }]);
    assert_eq!(
        machine.handle(Event::Committed { batch: T(1000) }),
        [Command::Write { batch: T(1000), checkpoint: true }]
    );
    assert_eq!(machine.snapshot, T(0));
    assert_eq!(machine.handle(Event::Committed { batch: T(2000) }), []);
    assert_eq!(
        machine.handle(Event::Written { batch: T(1000), checkpoint: true }),
        [Command::Freeze { batch: T(2000) }]
    );
    assert_eq!(machine.snapshot, T(1000));
}

#[test]
fn over_the_memory_limit_batches_wait_until_state_is_written() {
    let mut machine = machine(10);
    machine.handle(Event::Tick(2000));
    machine.handle(planned(1000));
    machine.handle(planned(2000));
    let commands = machine.handle(Event::Computed { batch: T(1000), over_limit: true });
    assert_eq!(commands, [Command::Commit { batch: T(1000) }, Command::Freeze { batch: T(1000) }]);
    assert_eq!(machine.handle(Event::Frozen { batch: T(1000) }), []);
    let write = Command::Write { batch: T(1000), checkpoint: false };
    assert_eq!(machine.handle(Event::Committed { batch: T(1000) }), [write]);
    let written = machine.handle(Event::Written { batch: T(1000), checkpoint: false });
    assert_eq!(written, [Command::Compute { batch: T(2000) }]);
    assert_eq!(machine.snapshot, T(0));
}

#[test]
fn a_graceful_stop_plans_what_waits_commits_it_and_leaves_a_checkpoint() {
    let mut machine = machine(10);
    assert_eq!(machine.handle(Event::StopGracefully), [Command::StopReceiving]);
    assert_eq!(machine.handle(Event::Waiting(true)), [Command::Plan { time: T(1000), until: T(1000) }]);
    machine.handle(planned(1000));
    let commands = machine.handle(computed(1000));
    assert_eq!(commands, [Command::Commit { batch: T(1000) }]);
    assert_eq!(machine.handle(Event::Committed { batch: T(1000) }), [Command::Freeze { batch: T(1000) }]);
    assert_eq!(machine.handle(Event::Frozen { batch: T(1000) }), [Command::Write { batch: T(1000), checkpoint: true }]);
    let end = machine.handle(Event::Written { batch: T(1000), checkpoint: true });
    assert_eq!(end, [Command::Finish { failed: false }]);
    assert_eq!((machine.snapshot, machine.committed, machine.planned), (T(1000), T(1000), T(1000)));
}

#[test]
fn a_graceful_stop_with_nothing_to_do_ends_at_once() {
    let mut machine = machine(10);
    machine.handle(Event::StopGracefully);
    assert_eq!(machine.handle(Event::Waiting(false)), [Command::Finish { failed: false }]);
}

#[test]
fn h10_a_failure_goes_back_to_the_checkpoint_and_replays_without_committing_twice() {
    let mut machine = machine(10);
    machine.handle(Event::Tick(2000));
    machine.handle(planned(1000));
    machine.handle(planned(2000));
    machine.handle(computed(1000));
    machine.handle(Event::Committed { batch: T(1000) });
    assert_eq!(machine.handle(failure(None, 0)), [Command::Recover]);
    let commands = machine.handle(Event::Recovered { snapshot: T(0), committed: T(1000) });
    assert_eq!(commands, [Command::Compute { batch: T(1000) }]);
    assert_eq!(machine.handle(computed(1000)), [Command::Compute { batch: T(2000) }]);
    assert_eq!(machine.handle(computed(2000)), [Command::Commit { batch: T(2000) }]);
}

#[test]
fn a_batch_that_fails_for_good_leaves_a_checkpoint_at_c_and_ends() {
    let mut machine = machine(10);
    machine.handle(Event::Tick(2000));
    machine.handle(planned(1000));
    machine.handle(planned(2000));
    machine.handle(computed(1000));
    machine.handle(Event::Committed { batch: T(1000) });
    // Tried four times in place: enough.
    assert_eq!(machine.handle(failure(Some(2000), 4)), [Command::Recover]);
    assert_eq!(
        machine.handle(Event::Recovered { snapshot: T(0), committed: T(1000) }),
        [Command::Compute { batch: T(1000) }]
    );
    // The failed batch is not computed again.
    assert_eq!(machine.handle(computed(1000)), [Command::Freeze { batch: T(1000) }]);
    machine.handle(Event::Frozen { batch: T(1000) });
    let end = machine.handle(Event::Written { batch: T(1000), checkpoint: true });
    assert_eq!(end, [Command::Finish { failed: true }]);
    assert_eq!(machine.snapshot, machine.committed);
}

#[test]
fn recoveries_in_a_row_without_a_commit_end_the_context() {
    let mut machine = machine(10);
    for _ in 0..3 {
        assert_eq!(machine.handle(failure(None, 0)), [Command::Recover]);
        machine.handle(Event::Recovered { snapshot: T(0), committed: T(0) });
    }
    assert_eq!(machine.handle(failure(None, 0)), [Command::Finish { failed: true }]);
}

#[test]
fn a_clock_that_is_set_back_does_not_plan_a_batch_twice() {
    let mut machine =
        Machine::new(schedule(10), T(2000), T(2000), [Planned { first: T(3000), last: T(3000), records: 0 }]);
    assert_eq!(machine.next_due_ms(), Some(4000));
    let commands = machine.handle(Event::Tick(2500));
    assert_eq!(commands, [Command::Compute { batch: T(3000) }]);
}

/// What stands outside of the machine, in the simplest form: commands are carried out in an order that chance decides.
struct World {
    machine: Machine,
    now_ms: u64,
    to_do: Vec<Command>,
    /// Durable.
    log: Vec<Planned>,
    committed: BatchTime,
    snapshot: BatchTime,
    computed: BatchTime,
    over_limit: bool,
}

impl World {
    fn new() -> Self {
        World {
            machine: machine(3),
            now_ms: 0,
            to_do: Vec::new(),
            log: Vec::new(),
            committed: T(0),
            snapshot: T(0),
            computed: T(0),
            over_limit: false,
        }
    }

    fn tell(&mut self, event: Event) {
        let commands = self.machine.handle(event);
        for command in commands {
            match command {
                // What the driver does at once.
                Command::Plan { time, until } => {
                    let records = u64::from(time.as_ms() % 3000 != 0);
                    let last = if records == 0 { until } else { time };
                    let plan = Planned { first: time, last, records };
                    assert!(self.log.last().is_none_or(|before| before.last < plan.first), "planned twice");
                    self.log.push(plan);
                    self.tell(Event::Planned { plan, waiting: false });
                }
                Command::StopReceiving => self.tell(Event::Waiting(false)),
                Command::Recover => {
                    self.to_do.clear();
                    self.computed = self.snapshot;
                    self.tell(Event::Recovered { snapshot: self.snapshot, committed: self.committed });
                }
                later => self.to_do.push(later),
            }
        }
    }

    /// Carries out the command that chance chose; commits keep their order, as the committer does.
    fn carry_out(&mut self, choice: usize) {
        if self.to_do.is_empty() {
            return;
        }
        let mut index = choice % self.to_do.len();
        if matches!(self.to_do[index], Command::Commit { .. }) {
            index = self.to_do.iter().position(|command| matches!(command, Command::Commit { .. })).unwrap_or(index);
        }
        match self.to_do.remove(index) {
            Command::Compute { batch } => {
                assert!(self.log.iter().any(|plan| plan.last == batch), "computed {batch} without a plan");
                let next = self.log.iter().find(|plan| plan.last > self.computed).map(|plan| plan.last);
                assert_eq!(next, Some(batch), "computed out of order");
                self.computed = batch;
                self.tell(Event::Computed { batch, over_limit: self.over_limit });
            }
            Command::Commit { batch } => {
                assert!(batch > self.committed, "committed {batch} twice");
                self.committed = batch;
                self.tell(Event::Committed { batch });
            }
            Command::Freeze { batch } => {
                assert_eq!(batch, self.computed, "frozen in the middle of a batch");
                self.tell(Event::Frozen { batch });
            }
            Command::Write { batch, checkpoint } => {
                assert!(batch <= self.committed, "wrote {batch} before its commit");
                if checkpoint {
                    self.snapshot = batch;
                }
                self.tell(Event::Written { batch, checkpoint });
            }
            Command::Finish { .. } => {}
            other => unreachable!("done at once: {other:?}"),
        }
        let planned = self.log.last().map_or(T(0), |plan| plan.last);
        assert!(self.snapshot <= self.committed && self.committed <= planned, "S <= C <= P");
    }

    /// A crash: memory goes, what is durable stays.
    fn crash(&mut self) {
        self.to_do.clear();
        self.computed = self.snapshot;
        let plans = self.log.iter().copied().filter(|plan| plan.last > self.snapshot).collect::<Vec<_>>();
        self.machine = Machine::new(schedule(3), self.snapshot, self.committed, plans);
        self.tell(Event::Tick(self.now_ms));
    }
}

proptest! {
    #[test]
    fn whatever_fails_and_in_whatever_order_cursors_hold_and_every_batch_is_committed_once(
        steps in proptest::collection::vec((0..20_u8, any::<usize>()), 1..300)
    ) {
        let mut world = World::new();
        for (kind, choice) in steps {
            match kind {
                0..=4 => {
                    world.now_ms += 500 * (1 + choice as u64 % 8);
                    world.tell(Event::Tick(world.now_ms));
                }
                5 => world.crash(),
                6 => world.tell(failure(None, 0)),
                7 => world.over_limit = choice % 2 == 0,
                _ => world.carry_out(choice),
            }
            if world.to_do.contains(&Command::Finish { failed: true }) {
                world.crash();
            }
        }
        // Left alone it ends well: everything planned is committed, and a graceful stop leaves S = C = P.
        world.over_limit = false;
        world.crash();
        world.tell(Event::StopGracefully);
        for _ in 0..2000 {
            if world.to_do.contains(&Command::Finish { failed: false }) {
                break;
            }
            prop_assert!(!world.to_do.is_empty(), "stuck");
            world.carry_out(0);
        }
        let planned = world.log.last().map_or(T(0), |plan| plan.last);
        prop_assert_eq!((world.snapshot, world.committed), (planned, planned));
    }
}
