//! One run: an application, started again and again, and what goes wrong around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_core::log::{LocalBatchLog, LocalBatchLogOptions};
use millpond_core::simulation::{self, Simulator};
use millpond_core::testing::TestHooks;
use millpond_core::{ContextState, ErrorKind, Result, Running, StreamingContext};
use millpond_kafka::simulation::Generation;
use millpond_wal::fs::fault::{Call, EIO, ENOSPC, Effect, FaultFileSystem, Keep};
use tempfile::TempDir;

use super::copies::Home;
use super::kafka::{APPLICATION, KafkaSinks};
use super::log::WatchedLog;
use super::scheduler::{Scheduler, SimulatedClock};
use super::sinks::{Boxed, MemorySinks};
use super::sources::{Givers, Input, InputSource, PushedSource};
use super::{Broken, Outcome, Outside};
use crate::Dice;

/// Partitions of the input.
const PARTITIONS: usize = 2;
/// Different words in the input.
const WORDS: u64 = 6;
/// What ends a run whose faults are healed and which does not get done.
const SETTLE_TURNS: u64 = 20_000;
/// Turns with faults.
const TURNS: u64 = 600;

/// What a seed decides at the beginning.
struct Plan {
    checkpoint_every: u32,
    retained: usize,
    recovery_attempts: u32,
    task_attempts: u32,
    rocksdb: bool,
    kafka: Option<Generation>,
    sinks_fail_once_in: u64,
    disk_fails: bool,
    functions_fail: bool,
    power_fails: bool,
    /// Two run from copies of one directory; then nothing is pushed, since what one of them has acknowledged the other does not have.
    copies: bool,
}

/// The sinks of the pipeline; the last is added after a graceful stop.
pub(super) const SINKS: [&str; 3] = ["copy", "counts", "late"];

pub(super) struct World {
    pub(super) scheduler: Arc<Scheduler>,
    plan: Plan,
    pub(super) directory: TempDir,
    pub(super) home: Home,
    /// After two have run from copies of one directory: the other one.
    pub(super) other: Option<Home>,
    /// The sink `late` is in the program.
    has_late: bool,
    pub(super) input: Input,
    pub(super) givers: Givers,
    pub(super) outside: Box<dyn Outside>,
    /// So many calls of the program's function fail from now on.
    failing: Arc<AtomicU64>,
    pub(super) process: Option<(u32, Running)>,
    healed: bool,
    fed: u64,
    pub(super) outcome: Outcome,
    cursors: BTreeMap<&'static str, u64>,
    /// S, as of so many publications.
    pub(super) snapshot: (u64, Option<u64>),
}

pub(super) fn run(seed: u64, log: bool) -> (Result<Outcome, Broken>, Vec<String>) {
    let scheduler = Scheduler::new(seed, log);
    let outcome = scheduler.within(|| {
        let mut world = World::new(seed, &scheduler).map_err(|error| error.to_string())?;
        let ran = world.live().and_then(|()| world.settle()).and_then(|()| world.judge());
        if let Some((process, _)) = world.process.take() {
            scheduler.kill(process);
        }
        scheduler.bury(None);
        // What broke in the midst of a step comes first: the rest may follow from it.
        scheduler.finding().map_or(ran, Err)?;
        Ok(Outcome { steps: scheduler.steps(), trace: scheduler.trace(), ..world.outcome })
    });
    (outcome.map_err(|what: String| Broken { seed, what }), scheduler.take_log())
}

/// Where directories of runs are quick.
fn quick_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

impl World {
    fn new(seed: u64, scheduler: &Arc<Scheduler>) -> std::io::Result<World> {
        let mut dice = Dice::new(seed.rotate_left(32));
        let plan = Plan {
            checkpoint_every: 1 + dice.below(4) as u32,
            retained: 1 + dice.below(3) as usize,
            recovery_attempts: 1 + dice.below(4) as u32,
            task_attempts: 1 + dice.below(3) as u32,
            rocksdb: dice.below(100) == 0,
            kafka: [None, Some(Generation::V1), Some(Generation::V1), Some(Generation::V2)][dice.below(4) as usize],
            sinks_fail_once_in: [0, 30, 100][dice.below(3) as usize],
            disk_fails: dice.below(3) == 0,
            functions_fail: dice.below(3) == 0,
            power_fails: dice.below(2) == 0,
            copies: dice.below(4) == 0,
        };
        let once_in = plan.sinks_fail_once_in;
        let outside: Box<dyn Outside> = match plan.kafka {
            None => Box::new(MemorySinks::new(scheduler, once_in)),
            Some(generation) => Box::new(KafkaSinks::new(scheduler, generation, once_in, &SINKS)),
        };
        let directory = tempfile::tempdir_in(quick_directory())?;
        Ok(World {
            outside,
            scheduler: Arc::clone(scheduler),
            plan,
            home: Home {
                pond: directory.path().join("pond"),
                disk: FaultFileSystem::new(),
                acknowledged: Arc::default(),
            },
            directory,
            other: None,
            has_late: false,
            input: Input::new(PARTITIONS),
            givers: Givers::default(),
            failing: Arc::default(),
            process: None,
            healed: false,
            fed: 0,
            outcome: Outcome::default(),
            cursors: BTreeMap::new(),
            snapshot: (0, None),
        })
    }

    /// Turns in which anything can happen.
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..TURNS {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), String> {
        if self.process.is_none() {
            self.start()?;
        }
        let scheduler = Arc::clone(&self.scheduler);
        match scheduler.below(1000) {
            0..100 => self.feed(),
            100..105 => self.kill(),
            105..112 => self.arm(),
            130..136 => self.ask_to_stop(),
            136..150 if self.plan.disk_fails => self.break_disk(),
            150..160 if self.plan.functions_fail => {
                self.outcome.faults += 1;
                self.failing.store(1 + scheduler.below(4), Ordering::Relaxed);
            }
            160..180 => self.outside.turn(),
            185..188 if self.plan.copies => self.run_a_copy()?,
            // Longer than a transaction may take.
            183..185 => {
                scheduler.note(|| "the machine is held up".into());
                scheduler.pause(Duration::from_secs(5 + scheduler.below(20)));
            }
            180..183 => scheduler.jump(scheduler.below(40_000) as i64 - 10_000),
            _ => self.step()?,
        }
        self.look()
    }

    pub(super) fn set_batches(&mut self, batches: u64) {
        self.outcome.batches = batches;
    }

    /// One step of somebody.
    fn step(&mut self) -> Result<(), String> {
        if !self.scheduler.run_one(None)
            && let Some((process, running)) = &self.process
            && self.scheduler.is_alive(*process)
        {
            return Err(format!("nobody can do anything any more: {running:?}, {:?}", running.state()));
        }
        Ok(())
    }

    /// What has become of the process, and whether the cursors are in order.
    fn look(&mut self) -> Result<(), String> {
        if let Some(finding) = self.scheduler.finding() {
            return Err(finding);
        }
        self.check_cursors()?;
        let Some((process, running)) = &self.process else { return Ok(()) };
        let (process, stopped) = (*process, running.state() == ContextState::Stopped);
        if running.state() == ContextState::Active {
            self.other = None;
        }
        if self.scheduler.is_dead(process) {
            self.outcome.deaths += 1;
            self.process = None;
            self.scheduler.bury(None);
            self.crash_disk();
        } else if stopped {
            let error = running.await_termination().err();
            self.process = None;
            self.scheduler.bury(Some(process));
            let said = error.as_ref().map_or("by itself".into(), |error| self.without_path(error));
            self.scheduler.note(|| format!("process {process} stopped: {said}"));
            // Whoever starts it again is not that quick.
            self.scheduler.pause(Duration::from_millis(self.scheduler.below(2000)));
            if error.is_none() && !self.has_late && self.scheduler.one_in(3) {
                self.scheduler.note(|| "the program gains a sink".into());
                self.has_late = true;
            }
            match error.map(|error| error.kind()) {
                // Of two copies the one goes on that the sinks know.
                Some(ErrorKind::Restore) if self.other.is_some() => {
                    if let Some(other) = self.other.take() {
                        self.scheduler.note(|| "the other copy goes on".into());
                        self.take_home(other);
                    }
                }
                // Fenced twice by transactions that took too long: it cannot be told from another process.
                Some(ErrorKind::Restore) if said.contains("times in a row") && !self.healed => {}
                Some(ErrorKind::Restore | ErrorKind::Configuration) => return Err(format!("refused: {said}")),
                // Asked to, while it was still recovering: nothing was begun, and the next start goes on.
                Some(ErrorKind::Stopped) => {}
                Some(_) if self.healed => return Err(format!("without any fault: {said}")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Of what was not synced a part is lost with the machine's power, nothing with the process.
    fn crash_disk(&mut self) {
        let keep = match self.scheduler.below(4) {
            0 if self.plan.power_fails => Keep::Synced,
            1 | 2 if self.plan.power_fails => Keep::Random(self.scheduler.below(u64::MAX)),
            _ => Keep::Everything,
        };
        self.scheduler.note(|| format!("of the log there is {keep:?}"));
        self.home.disk.crash(keep);
    }

    fn start(&mut self) -> Result<(), String> {
        self.outcome.starts += 1;
        let process = self.outcome.starts as u32;
        self.scheduler.begin_process(process);
        self.scheduler.note(|| format!("process {process} starts"));
        if !self.healed && self.scheduler.one_in(4) {
            // Also in the midst of its recovery.
            self.scheduler.dies_after(process, 1 + self.scheduler.below(40));
        }
        match self.open(&self.home) {
            Ok(running) => {
                self.process = Some((process, running));
                Ok(())
            }
            Err(error) => Err(format!("cannot open: {error}")),
        }
    }

    pub(super) fn open(&self, home: &Home) -> Result<Running> {
        let options = LocalBatchLogOptions {
            segment_bytes: 16 << 10,
            preallocate_bytes: 4 << 10,
            max_payload_bytes: 4 << 10,
            ..LocalBatchLogOptions::default()
        };
        let pond = home.pond.clone();
        let log = WatchedLog {
            log: LocalBatchLog::on(Arc::new(home.disk.clone()), Path::new("/log"), options),
            scheduler: Arc::clone(&self.scheduler),
            acknowledged: Arc::clone(&home.acknowledged),
            snapshot_ms: Box::new(move || snapshot_ms(&pond).unwrap_or_default()),
        };
        let hooks = TestHooks { log: Some(Arc::new(log)), ..TestHooks::default() };
        let builder = StreamingContext::builder(APPLICATION)
            .directory(&home.pond)
            .batch_interval(Duration::from_secs(1))
            .checkpoint_interval(self.plan.checkpoint_every * Duration::from_secs(1))
            .retained_checkpoints(self.plan.retained)
            .recovery_attempts(self.plan.recovery_attempts)
            .task_attempts(self.plan.task_attempts)
            .partitions(2)
            .clock(Arc::new(SimulatedClock::new(&self.scheduler)))
            .test_hooks(hooks);
        let simulator: Arc<dyn Simulator> = self.scheduler.clone();
        let context = simulation::simulate(builder, simulator, !self.plan.rocksdb).open(|graph| {
            let failing = self.failing.clone();
            let input = graph.source("input", InputSource::new(&self.input));
            let pushed = graph.source("pushed", PushedSource::new(&self.givers, &self.scheduler));
            let all = input.union(pushed).map(move |record| {
                if failing.load(Ordering::Relaxed) > 0 {
                    failing.fetch_sub(1, Ordering::Relaxed);
                    // As a panic, without the noise.
                    std::panic::resume_unwind(Box::new("the simulation wants this function to panic".to_owned()));
                }
                record
            });
            if self.has_late {
                all.clone().sink_text("late", Boxed(self.outside.sink("late")));
            }
            all.clone().sink_text("copy", Boxed(self.outside.sink("copy")));
            all.map(|record: String| (word(&record).to_owned(), 1_u64))
                .update_touched_by_key("totals", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
                .sink_json("counts", Boxed(self.outside.sink("counts")));
            Ok(())
        })?;
        simulation::begin(context)
    }

    pub(super) fn feed(&mut self) {
        for _ in 0..self.scheduler.below(6) {
            let (number, word) = (self.fed, self.scheduler.below(WORDS));
            self.fed += 1;
            if !self.plan.copies && self.scheduler.one_in(3) {
                self.givers.push(format!("pushed-{number} w{word}"));
            } else {
                let partition = self.scheduler.below(PARTITIONS as u64) as usize;
                self.input.push(partition, format!("{partition}-{number} w{word}"));
            }
        }
    }

    fn kill(&mut self) {
        if let Some((process, _)) = &self.process {
            self.scheduler.kill(*process);
        }
    }

    fn arm(&mut self) {
        if let Some((process, _)) = &self.process {
            self.scheduler.dies_after(*process, 1 + self.scheduler.below(60));
        }
    }

    fn ask_to_stop(&mut self) {
        if let Some((process, running)) = &self.process {
            self.scheduler.note(|| format!("process {process} is asked to stop"));
            simulation::begin_graceful_stop(running);
        }
    }

    fn break_disk(&mut self) {
        self.outcome.faults += 1;
        let nth = 1 + self.scheduler.below(6);
        let (call, effect) = match self.scheduler.below(6) {
            0 => (Call::Write, Effect::Fail(EIO)),
            1 => (Call::Write, Effect::Torn(1 + self.scheduler.below(600) as usize, EIO)),
            2 => (Call::SyncData, Effect::Fail(EIO)),
            3 => (Call::Write, Effect::Fail(ENOSPC)),
            4 => (Call::Create, Effect::Fail(ENOSPC)),
            _ => (Call::SyncDirectory, Effect::Fail(EIO)),
        };
        self.scheduler.note(|| format!("{call:?} number {nth} from now on: {effect:?}"));
        self.home.disk.fail(call, nth, effect);
    }

    /// An error without the directory's random name, so that the same seed says the same.
    pub(super) fn without_path(&self, error: &millpond_core::Error) -> String {
        error.to_string().replace(&*self.directory.path().to_string_lossy(), "")
    }

    /// S <= C <= P, for every sink, as disk, sinks and log say.
    fn check_cursors(&mut self) -> Result<(), String> {
        let planned = self.home.planned_ms();
        let published = self.scheduler.published();
        if self.snapshot.0 != published {
            self.snapshot = (published, snapshot_ms(&self.home.pond));
        }
        let snapshot = self.snapshot.1;
        let Some(snapshot) = snapshot else { return Ok(()) };
        for sink in SINKS {
            let Some(committed) = self.outside.cursor(sink).map(|cursor| cursor.batch.as_ms()) else { continue };
            if snapshot > committed {
                return Err(format!("S > C: checkpoint {snapshot} ms, sink `{sink}` has committed {committed} ms"));
            }
            if committed > planned.max(snapshot) && self.other.is_none() {
                return Err(format!("C > P: sink `{sink}` has committed {committed} ms, the log ends at {planned} ms"));
            }
            let before = self.cursors.insert(sink, committed).unwrap_or_default();
            if committed < before {
                return Err(format!("the cursor of sink `{sink}` went back from {before} ms to {committed} ms"));
            }
        }
        Ok(())
    }

    /// Heals all faults, and lets everything come out.
    fn settle(&mut self) -> Result<(), String> {
        self.scheduler.note(|| "all faults are healed".into());
        self.failing.store(0, Ordering::Relaxed);
        self.kill();
        self.look()?;
        self.home.disk.heal();
        self.outside.heal();
        self.healed = true;
        let mut asked = false;
        for turn in 0..SETTLE_TURNS {
            if self.process.is_none() {
                if asked {
                    return Ok(());
                }
                self.start()?;
            }
            if !asked && turn % 16 == 0 && self.is_complete() {
                self.ask_to_stop();
                asked = true;
            }
            self.step()?;
            self.look()?;
        }
        Err(format!("after {SETTLE_TURNS} turns without any fault not everything has come out: {:?}", self.process))
    }
}

/// The batch of the newest checkpoint: S.
pub(super) fn snapshot_ms(pond: &Path) -> Option<u64> {
    let batch = |name: String| name.strip_suffix(".manifest")?.parse::<u64>().ok();
    let entries = std::fs::read_dir(pond.join("checkpoints/manifests")).ok()?;
    entries.filter_map(|entry| batch(entry.ok()?.file_name().into_string().ok()?)).max()
}

/// The word that a record is counted under.
pub(super) fn word(record: &str) -> &str {
    record.split(' ').next_back().unwrap_or_default()
}
