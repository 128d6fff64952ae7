//! Programs broken on purpose: a suite that cannot fail proves nothing. Each rule of the protocol that is listed here is broken at run
//! time (the feature `negative-controls` of the crates), and must be found out by kills and faults that find nothing in the program as
//! it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use millpond::failpoints::CONTROLS_VARIABLE;
use millpond_state::{LocalSnapshotStore, Manifest, SnapshotStore};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::disk::{Disk, Keep, lose_power_at};
use millpond_testkit::chaos::{self, Fault, Process, Proxy, Request, Scene, faults};

use crate::files::Files;
use crate::kafka::Kafka;
use crate::points::{self, Point};
use crate::victim::Pipeline;
use crate::{Dice, Ended, Finding, Lineage, Result, World, kill_at};

/// So often a broken program is given the chance not to be found out.
pub const RUNS: u64 = 5;
/// How long output that does not come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so long the broker ends a transaction that nobody ends.
const TRANSACTION_TIMEOUT_MS: u64 = 4000;
/// The first transactions of a process have no output: they are of cursors, of positions, and of what came before the first answer to a fetch.
const BUSY_SINCE: u64 = 8;

/// A rule, what happens to a program that breaks it, and what has to be there for that.
#[derive(Clone, Copy)]
pub struct Rule {
    /// The name in [`millpond::failpoints::NAMES`].
    pub name: &'static str,
    /// What is done to the program.
    pub scenario: Scenario,
}

/// What is done to a program, broken or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// SIGKILL when output is committed.
    AfterCommits,
    /// SIGKILL in the midst of checkpoints, commits being slow; each manifest on the disk is whole.
    Checkpoints,
    /// SIGKILL when the log has been cleaned, and the newest manifest is damaged.
    Cleaning,
    /// Sums of floating-point numbers are replayed.
    FloatSums,
    /// SIGKILL of a receiver whose giver forgets what it was told is durable.
    Receiver,
    /// Power lost: what was not synced is gone.
    PowerLost,
    /// SIGKILL with a Kafka transaction open.
    OpenTransactions,
    /// A commit comes late, when a later transaction is open; through a proxy.
    LateCommit,
    /// A commit's answer is lost, and the broker is away for longer than the transaction may take; through a proxy.
    LostAnswer,
    /// The process is frozen for longer than the transaction may take.
    Frozen,
}

/// All rules that are broken, each with what finds it out.
pub const RULES: &[Rule] = &[
    Rule { name: "break-plan-not-logged", scenario: Scenario::AfterCommits },
    Rule { name: "break-state-before-plan", scenario: Scenario::AfterCommits },
    Rule { name: "break-checkpoint-before-commit", scenario: Scenario::Checkpoints },
    Rule { name: "break-manifest-before-files", scenario: Scenario::Checkpoints },
    Rule { name: "break-hash-seeded", scenario: Scenario::Checkpoints },
    Rule { name: "break-log-cleaned-early", scenario: Scenario::Cleaning },
    Rule { name: "break-map-order", scenario: Scenario::FloatSums },
    Rule { name: "break-acknowledged-before-sync", scenario: Scenario::Receiver },
    Rule { name: "break-log-skip-sync", scenario: Scenario::PowerLost },
    Rule { name: "break-directory-not-synced", scenario: Scenario::PowerLost },
    Rule { name: "break-cursor-outside-transaction", scenario: Scenario::OpenTransactions },
    Rule { name: "break-fence-skipped", scenario: Scenario::OpenTransactions },
    Rule { name: "break-producer-not-renewed", scenario: Scenario::LateCommit },
    Rule { name: "break-commit-code-trusted", scenario: Scenario::LostAnswer },
    Rule { name: "break-expired-ignored", scenario: Scenario::Frozen },
];

impl Scenario {
    /// Whether it needs a Kafka broker [with a proxy](millpond_testkit::broker::KafkaBrokerBuilder::with_proxy).
    pub fn needs_broker(self) -> bool {
        matches!(self, Scenario::OpenTransactions | Scenario::LateCommit | Scenario::LostAnswer | Scenario::Frozen)
    }

    /// Runs it once on a new application in which a rule is broken, `""` for none.
    ///
    /// # Errors
    /// What was found.
    pub fn run(self, rule: &str, broker: Option<&KafkaBroker>, seed: u64) -> Result<()> {
        match self {
            Scenario::AfterCommits => after_commits(rule, seed),
            Scenario::Checkpoints => checkpoints(rule, seed),
            Scenario::Cleaning => cleaning(rule, seed),
            Scenario::FloatSums => float_sums(rule, seed),
            Scenario::Receiver => receiver(rule, seed),
            Scenario::PowerLost => power_lost(rule, seed),
            Scenario::OpenTransactions | Scenario::LateCommit | Scenario::LostAnswer | Scenario::Frozen => {
                let broker = broker.ok_or_else(|| Finding::new(format!("{self:?} needs a Kafka broker")))?;
                self.on_kafka(rule, broker, seed)
            }
        }
    }

    fn on_kafka(self, rule: &str, broker: &KafkaBroker, seed: u64) -> Result<()> {
        let proxy = broker.proxy().ok_or_else(|| Finding::new("the broker has no proxy before it"))?;
        proxy.calm();
        let mut world = Kafka::new(broker, Pipeline::KafkaCount, seed)?;
        let mut setup = world.setup();
        setup.brokers = proxy.address().to_string();
        match self {
            // A start that waits for somebody else's transaction gives up before that has timed out.
            Scenario::OpenTransactions => setup.wait_for_broker_ms = 15_000,
            Scenario::LateCommit => {}
            _ => setup.transaction_timeout_ms = Some(TRANSACTION_TIMEOUT_MS),
        }
        let mut lineage = broken(Lineage::new(setup), rule);
        match self {
            Scenario::OpenTransactions => {
                for _ in 0..3 {
                    kill_at(&mut lineage, &mut world, Point::new("before-commit", 3), "")?;
                }
            }
            Scenario::LateCommit => late_commit(&mut lineage, &mut world, proxy)?,
            Scenario::Frozen => {
                inflict("frozen-past-the-transaction-timeout", &mut lineage, &mut world, broker, seed)?;
            }
            _ => lost_answer(&mut lineage, &mut world, proxy)?,
        }
        lineage.finish(&mut world)
    }
}

/// Breaks a rule again and again until it is found out.
pub fn catch(rule: Rule, broker: Option<&KafkaBroker>, seed: u64) -> chaos::Control {
    let name = rule.name.to_owned();
    for run in 1..=RUNS {
        if let Err(found) = rule.scenario.run(rule.name, broker, seed.wrapping_add(run)) {
            return chaos::Control { name, caught: true, runs: run, found: found.to_string() };
        }
    }
    chaos::Control { name, caught: false, runs: RUNS, found: String::new() }
}

/// A lineage whose processes break a rule, and are not waited for long.
fn broken(mut lineage: Lineage, rule: &str) -> Lineage {
    lineage.launch_mut().set_env(CONTROLS_VARIABLE, rule);
    lineage.patience(PATIENCE)
}

fn files(pipeline: Pipeline, rule: &str, seed: u64) -> Result<(Files, Lineage)> {
    let world = Files::new(pipeline, seed)?;
    let lineage = broken(Lineage::new(world.setup()), rule);
    Ok((world, lineage))
}

fn after_commits(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::Files, rule, seed)?;
    for _ in 0..2 {
        kill_at(&mut lineage, &mut world, Point::new("after-commit", 3), "")?;
    }
    lineage.finish(&mut world)
}

fn checkpoints(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::Files, rule, seed)?;
    for _ in 0..4 {
        // Commits are slow, so that there is time for a checkpoint before one.
        kill_at(&mut lineage, &mut world, Point::new("manifest-renamed", 2), "before-commit=sleep(60)")?;
        manifests_are_whole(lineage.directory())?;
    }
    lineage.finish(&mut world)
}

/// Every file that a manifest names is there, in its size.
fn manifests_are_whole(directory: &Path) -> Result<()> {
    let checkpoints = directory.join("checkpoints");
    let store = LocalSnapshotStore::open_read_only(&checkpoints)?;
    for batch in store.batches()? {
        for file in Manifest::decode(&store.manifest(batch)?)?.files {
            let bytes = fs::metadata(checkpoints.join("files").join(&file.name)).map(|found| found.len()).ok();
            if bytes != Some(file.bytes) {
                let what = format!(
                    "the manifest of batch {batch} names {} of {} bytes; there are {bytes:?}",
                    file.name, file.bytes
                );
                return Err(Finding::new(what));
            }
        }
    }
    Ok(())
}

fn cleaning(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::Files, rule, seed)?;
    // A few batches behind the newest checkpoint of this life are committed.
    kill_at(&mut lineage, &mut world, Point::new("after-commit", 8), "")?;
    kill_at(&mut lineage, &mut world, Point::new("log-segment-deleted", 1), "")?;
    // What comes after the older checkpoint must still be in the log.
    let manifests = lineage.directory().join("checkpoints/manifests");
    let mut names: Vec<_> = fs::read_dir(&manifests)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.retain(|path| path.extension().is_some_and(|ending| ending == "manifest"));
    names.sort();
    if let Some(newest) = names.last() {
        fs::write(newest, "")?;
    }
    lineage.finish(&mut world)
}

fn float_sums(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::FloatSums, rule, seed)?;
    // Batches of many partitions, all of them replayed.
    lineage.setup_mut().batch_limit_bytes = 2000;
    lineage.setup_mut().checkpoint_every = 1_000_000;
    for _ in 0..4 {
        // A digest that does not meet ends the process with an error.
        kill_at(&mut lineage, &mut world, Point::new("after-commit", 3), "")?;
    }
    Ok(())
}

fn receiver(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::Spool, rule, seed)?;
    for hit in [5, 7, 6] {
        kill_at(&mut lineage, &mut world, Point::new("plan-synced", hit), "")?;
    }
    lineage.finish(&mut world)
}

fn power_lost(rule: &str, seed: u64) -> Result<()> {
    let (mut world, mut lineage) = files(Pipeline::Files, rule, seed)?;
    let mut disk = Disk::under(world.place(), &["pond", "out", "second"])?;
    disk.record(&mut lineage)?;
    for (name, hit) in [("manifest-renamed", 4), ("after-commit", 3), ("files-renamed", 4), ("state-applied", 5)] {
        lose_power_at(&mut disk, &mut lineage, &mut world, Point::new(name, hit), Keep::Synced)?;
    }
    lineage.finish(&mut world)
}

/// Inflicts one of the faults of every suite.
fn inflict(name: &str, lineage: &mut Lineage, world: &mut dyn World, broker: &KafkaBroker, seed: u64) -> Result<()> {
    let fault: Option<Fault> = faults::of_kafka().into_iter().find(|fault| fault.name() == name);
    let fault = fault.ok_or_else(|| Finding::new(format!("there is no fault {name}")))?;
    let transactional_id = lineage.application().to_owned();
    let points = [points::ENGINE, points::SINK, points::KAFKA_SINK].concat();
    fault.inflict(&mut Scene {
        lineage,
        world,
        broker: Some(broker),
        transactional_id: &transactional_id,
        dice: &mut Dice::new(seed),
        points: &points,
        recovery_points: points::RECOVERY,
        limit: 2 * PATIENCE,
    })
}

/// A commit is held up on its way and asked for again; it arrives when a later transaction is open, with its output at the broker and its
/// cursor not, and then the process is killed.
fn late_commit(lineage: &mut Lineage, world: &mut dyn World, proxy: &Proxy) -> Result<()> {
    // Of the cursors that a sink begins with.
    proxy.keep_back(Request::EndTransaction);
    let mut process = busy(lineage, world, &format!("output-written=stop@{BUSY_SINCE}"))?;
    process.wait_frozen(chaos::LIMIT)?;
    proxy.deliver()?;
    process.kill()?;
    lineage.setup_mut().partition_limit_records = None;
    Ok(())
}

/// A process that is live, and has input for each of its next batches: one that is empty shows nowhere when it is committed twice.
fn busy(lineage: &mut Lineage, world: &mut dyn World, failpoints: &str) -> Result<Process> {
    lineage.setup_mut().partition_limit_records = Some(1);
    world.feed()?;
    let mut process = lineage.start(failpoints)?;
    process.wait_ready(chaos::LIMIT)?;
    Ok(process)
}

/// The broker commits, its answer is lost, and nobody reaches it until the process has given up on the commit.
fn lost_answer(lineage: &mut Lineage, world: &mut dyn World, proxy: &Proxy) -> Result<()> {
    let before = proxy.passed(Request::EndTransaction);
    let mut process = busy(lineage, world, "")?;
    let commits = || Ok(proxy.passed(Request::EndTransaction) >= before + BUSY_SINCE);
    process.wait_while_alive(chaos::LIMIT, "commits", commits)?;
    proxy.lose_answer_and_refuse(Request::EndTransaction);
    process.wait_while_alive(chaos::LIMIT, "a commit", || Ok(proxy.has_caught()))?;
    // Time itself is the fault.
    let ended = process.ends_within(Duration::from_millis(TRANSACTION_TIMEOUT_MS + 2000))?;
    proxy.refuse(false);
    proxy.calm();
    if let Some(ended) = ended {
        return Err(Finding::new(format!("the process {ended}: {}", process.said())));
    }
    world.feed()?;
    let complete = process.wait_while_alive(2 * PATIENCE, "all output", || world.is_complete());
    process.terminate()?;
    match process.wait(chaos::LIMIT)? {
        Ended::Well => complete,
        ended => Err(Finding::new(format!("asked to stop, the process {ended}: {}", process.said()))),
    }
}
