//! Runs the actors of all processes in one thread, in the order that the dice want, under a clock that moves when nobody has
//! anything to do, and now and then beside.
//!
//! A process is a number; each incarnation of an application is one. It dies at a failpoint, at a call to the world outside, or
//! between two steps: then what it was doing is unwound, and none of its actors ever takes a step again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::clock::Clock;
use millpond_core::simulation::{Actor, Simulator};

use crate::Dice;

/// So long lasts the longest hiccup of the machine.
const HICCUP_MS: u64 = 700;
/// A run that takes more steps hangs.
const MAX_STEPS: u64 = 200_000;

thread_local! {
    /// The scheduler of the simulation that this thread runs.
    static CURRENT: RefCell<Option<Arc<Scheduler>>> = const { RefCell::new(None) };
}

/// What unwinds the step of a process that dies.
struct Death;

/// The one thread.
pub struct Scheduler {
    base: Instant,
    /// Virtual time since the base, in µs.
    elapsed_us: AtomicU64,
    /// What the wall clock shows beyond that, in ms.
    wall_offset_ms: AtomicI64,
    /// How often a manifest was renamed.
    published: AtomicU64,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    slots: Vec<Slot>,
    next_slot: u64,
    /// Processes whose steps are under way, each inside of a wait of the one before.
    stack: Vec<u32>,
    /// The process that new actors belong to outside of any step.
    process: u32,
    dead: BTreeSet<u32>,
    /// A process dies when it has come to so many points more.
    dies: Option<(u32, u64)>,
    steps: u64,
    trace: DefaultHasher,
    log: Option<Vec<String>>,
    finding: Option<String>,
}

struct Slot {
    number: u64,
    process: u32,
    name: String,
    /// Out while it takes a step.
    actor: Option<Box<dyn Actor>>,
}

impl Scheduler {
    /// A scheduler whose choices follow from the seed. `log`: notes what happens, to be printed.
    pub fn new(seed: u64, log: bool) -> Arc<Self> {
        let state = State {
            dice: Dice::new(seed),
            slots: Vec::new(),
            next_slot: 0,
            stack: Vec::new(),
            process: 0,
            dead: BTreeSet::new(),
            dies: None,
            steps: 0,
            trace: DefaultHasher::new(),
            log: log.then(Vec::new),
            finding: None,
        };
        let (elapsed_us, wall_offset_ms) = (AtomicU64::new(0), AtomicI64::new(1_000_000));
        let (base, published) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Scheduler { base, elapsed_us, wall_offset_ms, published, state: Mutex::new(state) })
    }

    /// Makes this the simulation that points of this thread belong to, as long as `run` runs.
    pub fn within<R>(self: &Arc<Self>, run: impl FnOnce() -> R) -> R {
        CURRENT.set(Some(Arc::clone(self)));
        let result = run();
        CURRENT.set(None);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next random number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.lock().dice.below(limit)
    }

    /// True once in `times`.
    pub fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Notes what happens: part of the trace that the same seed gives again.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let now = self.elapsed_us.load(Ordering::Relaxed);
        let mut state = self.lock();
        let what = what();
        (now, &what).hash(&mut state.trace);
        let process = state.stack.last().copied();
        if let Some(log) = &mut state.log {
            log.push(format!(
                "{:>9.3} s  {}{what}",
                now as f64 / 1e6,
                process.map_or(String::new(), |p| format!("[{p}] "))
            ));
        }
    }

    /// The hash over everything that has happened.
    pub fn trace(&self) -> u64 {
        self.lock().trace.finish()
    }

    /// What was noted.
    pub fn take_log(&self) -> Vec<String> {
        self.lock().log.take().unwrap_or_default()
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// A panic of the engine, or a promise seen broken in the midst of a step.
    pub fn finding(&self) -> Option<String> {
        self.lock().finding.clone()
    }

    /// Says that a promise was broken; the first word counts.
    pub fn broken(&self, what: String) {
        self.note(|| format!("BROKEN: {what}"));
        self.lock().finding.get_or_insert(what);
    }

    /// From now on, outside of steps, actors belong to this process.
    pub fn begin_process(&self, process: u32) {
        self.lock().process = process;
    }

    /// The process whose step is under way, or the one that was begun last.
    pub fn process(&self) -> u32 {
        let state = self.lock();
        state.stack.last().copied().unwrap_or(state.process)
    }

    /// The process dies when it has come to so many points more.
    pub fn dies_after(&self, process: u32, points: u64) {
        self.lock().dies = Some((process, points));
    }

    /// The process is dead, at once; its actors are dropped when no step is under way.
    pub fn kill(&self, process: u32) {
        self.note(|| format!("process {process} dies"));
        self.lock().dead.insert(process);
    }

    /// Whether it has died.
    pub fn is_dead(&self, process: u32) -> bool {
        self.lock().dead.contains(&process)
    }

    /// Whether the process has an actor left.
    pub fn is_alive(&self, process: u32) -> bool {
        let state = self.lock();
        !state.dead.contains(&process) && state.slots.iter().any(|slot| slot.process == process)
    }

    /// Drops the actors of dead processes, and of one that has ended. To be called between steps.
    pub fn bury(&self, ended: Option<u32>) {
        let mut state = self.lock();
        let dead = state.dead.clone();
        let (gone, left) = std::mem::take(&mut state.slots)
            .into_iter()
            .partition(|slot: &Slot| dead.contains(&slot.process) || ended == Some(slot.process));
        state.slots = left;
        drop(state);
        // Without the lock: what is dropped may ask for the time.
        let gone: Vec<Slot> = gone;
        drop(gone);
    }

    /// A process has come to a point at which it can die. Called from within its steps.
    fn point(&self, name: &str) {
        if name == "manifest-renamed" {
            self.published.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.lock();
        let Some(process) = state.stack.last().copied() else { return };
        if state.dead.contains(&process) {
            drop(state);
            resume_unwind(Box::new(Death));
        }
        let hit = match &mut state.dies {
            Some((dying, points)) if *dying == process => {
                *points = points.saturating_sub(1);
                *points == 0
            }
            _ => false,
        };
        if hit {
            state.dies = None;
            drop(state);
            self.note(|| format!("at {name}"));
            self.kill(process);
            resume_unwind(Box::new(Death));
        }
    }

    /// Counts the checkpoints that were published.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// The present time of the machine's wall clock, in ms.
    pub fn wall_ms(&self) -> u64 {
        let elapsed = (self.elapsed_us.load(Ordering::Relaxed) / 1000) as i64;
        (self.wall_offset_ms.load(Ordering::Relaxed) + elapsed).max(0) as u64
    }

    /// Sets the wall clock forward or back. Running processes do not see it, their next starts do.
    pub fn jump(&self, by_ms: i64) {
        self.note(|| format!("the clock jumps by {by_ms} ms"));
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Nobody does anything for so long: the machine was held up.
    pub fn pause(&self, time: Duration) {
        self.move_to(self.now() + time);
    }

    fn move_to(&self, time: Instant) {
        let us = time.saturating_duration_since(self.base).as_micros() as u64;
        self.elapsed_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Lets some actor take a step, moving the time if it must, but not beyond `until`. False if there was nothing to do.
    pub fn run_one(&self, until: Option<Instant>) -> bool {
        if self.one_in(40) {
            let hiccup = Duration::from_millis(self.below(HICCUP_MS));
            let time = self.now() + hiccup;
            self.move_to(until.map_or(time, |until| until.min(time)));
        }
        let Some(number) = self.choose(until) else { return false };
        let (actor, process) = {
            let mut state = self.lock();
            state.steps += 1;
            if state.steps > MAX_STEPS && state.finding.is_none() {
                state.finding = Some(format!("the run has not ended after {MAX_STEPS} steps"));
            }
            let Some(slot) = state.slots.iter_mut().find(|slot| slot.number == number) else { return false };
            let (actor, process, name) = (slot.actor.take(), slot.process, slot.name.clone());
            (number, &name, self.elapsed_us.load(Ordering::Relaxed)).hash(&mut state.trace);
            state.stack.push(process);
            (actor, process)
        };
        let Some(mut actor) = actor else { return false };
        let outcome = catch_unwind(AssertUnwindSafe(|| actor.step()));
        let mut state = self.lock();
        state.stack.pop();
        let slot = state.slots.iter().position(|slot| slot.number == number);
        match outcome {
            Ok(true) => {
                if let Some(slot) = slot {
                    state.slots[slot].actor = Some(actor);
                }
            }
            Ok(false) => {
                if let Some(slot) = slot {
                    state.slots.remove(slot);
                }
                drop(state);
                drop(actor);
            }
            Err(payload) => {
                drop(state);
                if !payload.is::<Death>() {
                    let text = payload.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    self.broken(format!("the engine panicked: {}", text.unwrap_or_default()));
                }
                self.lock().dead.insert(process);
                drop(catch_unwind(AssertUnwindSafe(|| drop(actor))));
            }
        }
        true
    }

    /// An actor that can take a step now, or after the time was moved.
    fn choose(&self, until: Option<Instant>) -> Option<u64> {
        let ready = |state: &State, now: Instant| -> Vec<u64> {
            let alive = state.slots.iter().filter(|slot| !state.dead.contains(&slot.process));
            let can = |slot: &&Slot| {
                slot.actor.as_ref().is_some_and(|actor| actor.is_ready() || actor.due().is_some_and(|due| due <= now))
            };
            alive.filter(can).map(|slot| slot.number).collect()
        };
        let mut state = self.lock();
        let mut found = ready(&state, self.now());
        if found.is_empty() {
            let alive = state.slots.iter().filter(|slot| !state.dead.contains(&slot.process));
            let due = alive.filter_map(|slot| slot.actor.as_ref()?.due()).min()?;
            if until.is_some_and(|until| until < due) {
                return None;
            }
            self.move_to(due);
            found = ready(&state, self.now());
        }
        if found.is_empty() {
            return None;
        }
        let choice = state.dice.below(found.len() as u64) as usize;
        Some(found[choice])
    }
}

impl Simulator for Scheduler {
    fn add(&self, name: &str, actor: Box<dyn Actor>) {
        let process = self.process();
        let mut state = self.lock();
        let number = state.next_slot;
        state.next_slot += 1;
        state.slots.push(Slot { number, process, name: name.to_owned(), actor: Some(actor) });
    }

    fn wait(&self, ready: &dyn Fn() -> bool, until: Option<Instant>) -> bool {
        let process = self.process();
        loop {
            if self.is_dead(process) && !std::thread::panicking() {
                resume_unwind(Box::new(Death));
            }
            if ready() {
                return true;
            }
            if until.is_some_and(|until| until <= self.now()) {
                return false;
            }
            if !self.run_one(until) {
                let Some(until) = until else { return ready() };
                self.move_to(until);
                return ready();
            }
        }
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_micros(self.elapsed_us.load(Ordering::Relaxed))
    }

    fn random(&self, id: &mut [u8; 16]) {
        let mut state = self.lock();
        id.iter_mut().for_each(|byte| *byte = state.dice.below(256) as u8);
    }
}

/// The clock of one process: read once, then moved by the time that never goes back.
pub(super) struct SimulatedClock {
    scheduler: Arc<Scheduler>,
    started: Instant,
    started_ms: u64,
}

impl SimulatedClock {
    /// Reads the wall clock.
    pub(super) fn new(scheduler: &Arc<Scheduler>) -> Self {
        let (started, started_ms) = (scheduler.now(), scheduler.wall_ms());
        SimulatedClock { scheduler: Arc::clone(scheduler), started, started_ms }
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        self.started_ms + (self.scheduler.now() - self.started).as_millis() as u64
    }

    fn until(&self, time_ms: u64) -> Option<Duration> {
        let now = Duration::from_millis(self.started_ms) + (self.scheduler.now() - self.started);
        Some(Duration::from_millis(time_ms).saturating_sub(now))
    }
}

/// A process of the simulation that this thread runs, if it runs one, has come to a point at which it can die.
pub fn point(name: &str) {
    let current = CURRENT.with_borrow(Clone::clone);
    if let Some(scheduler) = current {
        scheduler.point(name);
    }
}
