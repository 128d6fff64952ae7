//! A run: one application, one fault after the other, and the judgement at its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::topics::{Make, Oracle, Topics};
use super::{
    Dice, Fault, Finding, Invariants, LIMIT, Launch, Lineage, Point, Report, Result, Scene, World, check_cursors,
    check_settled,
};
use crate::broker::KafkaBroker;
use crate::oracle::Violations;
use crate::{Outgoing, Record};

type Progress<'a> = Box<dyn FnMut(&str, &Report) + 'a>;

/// A pipeline under test, and what is to happen to it.
///
/// ```no_run
/// use std::process::Command;
/// use millpond_testkit::broker::KafkaBroker;
/// use millpond_testkit::chaos::{Chaos, faults};
/// use millpond_testkit::{Outgoing, Record, oracle};
///
/// let broker = KafkaBroker::builder().with_proxy().start()?;
/// broker.create_topic("visits", 2, &[])?;
/// broker.create_topic("counts", 2, &[])?;
/// let mut service = Command::new("target/debug/visits");
/// service.args(["--brokers", &broker.proxied_servers(), "--directory", "/tmp/chaos/visits"]);
/// Chaos::new(service)
///     .application("visits", "/tmp/chaos/visits")
///     .kafka(&broker)
///     .topics("visits", "counts")
///     .input(|n| Outgoing::value(format!("page{}", n % 20)))
///     .faults(faults::of_processes())
///     .faults(faults::of_kafka())
///     .oracle(|input, output| oracle::running_counts(input.iter().map(Record::value_text), output))
///     .run()
///     .assert_clean();
/// # Ok::<(), millpond_testkit::Error>(())
/// ```
#[must_use]
pub struct Chaos<'a> {
    launch: Launch,
    name: String,
    directory: PathBuf,
    transactional_id: Option<String>,
    broker: Option<&'a KafkaBroker>,
    topics: Option<(String, String)>,
    make: Option<Make<'a>>,
    oracle: Option<Oracle<'a>>,
    world: Option<&'a mut dyn World>,
    faults: Vec<Fault>,
    at_random: Option<u64>,
    stop_after: Duration,
    points: Vec<Point>,
    recovery_points: Vec<Point>,
    seed: u64,
    patience: Duration,
    disk_limit_bytes: u64,
    progress: Progress<'a>,
}

impl<'a> Chaos<'a> {
    /// A program that is started by this command, again and again. What it has to do is said at the [module](super).
    pub fn new(command: impl Into<Launch>) -> Self {
        Chaos {
            launch: command.into(),
            name: "application".into(),
            directory: PathBuf::from("application"),
            transactional_id: None,
            broker: None,
            topics: None,
            make: None,
            oracle: None,
            world: None,
            faults: Vec::new(),
            at_random: None,
            stop_after: Duration::MAX,
            points: DEFAULT_POINTS.to_vec(),
            recovery_points: DEFAULT_RECOVERY_POINTS.to_vec(),
            seed: Dice::seed_of_now(),
            patience: LIMIT,
            disk_limit_bytes: 1 << 30,
            progress: Box::new(|_, _| ()),
        }
    }

    /// The application's name and its directory, as the command has them: the directory is where the cursors are checked, and what a
    /// second instance gets another of. Default: `application`, in the working directory.
    pub fn application(mut self, name: impl Into<String>, directory: impl AsRef<Path>) -> Self {
        (self.name, self.directory) = (name.into(), directory.as_ref().to_owned());
        self
    }

    /// The transactional id, if it is not the application's name.
    pub fn transactional_id(mut self, id: impl Into<String>) -> Self {
        self.transactional_id = Some(id.into());
        self
    }

    /// The broker that the program uses: faults may kill it unless it is the shared one. For faults of the network it must have
    /// [a proxy](crate::broker::KafkaBrokerBuilder::with_proxy), and the program connect to
    /// [`proxied_servers`](KafkaBroker::proxied_servers).
    pub fn kafka(mut self, broker: &'a KafkaBroker) -> Self {
        self.broker = Some(broker);
        self
    }

    /// The topic that the program reads, and the one that it writes.
    pub fn topics(mut self, input: impl Into<String>, output: impl Into<String>) -> Self {
        self.topics = Some((input.into(), output.into()));
        self
    }

    /// Makes the input: the record of each number from 0 on.
    pub fn input(mut self, make: impl FnMut(u64) -> Outgoing + 'a) -> Self {
        self.make = Some(Box::new(make));
        self
    }

    /// Says how an output differs from what all input demands: given is what a `read_committed` reader sees of both topics. It is also asked
    /// while the program works, to know when all is there: what is on its way is missing then. [`oracle`](crate::oracle) has some.
    pub fn oracle(mut self, oracle: impl Fn(&[Record], &[Record]) -> Violations + 'a) -> Self {
        self.oracle = Some(Box::new(oracle));
        self
    }

    /// A world of one's own in place of [`topics`](Chaos::topics), [`input`](Chaos::input) and [`oracle`](Chaos::oracle).
    pub fn world(mut self, world: &'a mut dyn World) -> Self {
        self.world = Some(world);
        self
    }

    /// Adds faults: [`faults::of_processes`](super::faults::of_processes), [`faults::of_kafka`](super::faults::of_kafka), or
    /// [of one's own](Fault::new).
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// So many faults, drawn from those given by the seed. Default: each once, in the order given.
    pub fn at_random(mut self, count: u64) -> Self {
        self.at_random = Some(count);
        self
    }

    /// No more faults after this time; what was begun is judged. Default: no limit.
    pub fn stop_after(mut self, time: Duration) -> Self {
        self.stop_after = time;
        self
    }

    /// The failpoints that the program comes to in every few batches, and those of its recovery, with the hits at which it is killed.
    /// Default: those that every pipeline comes to.
    pub fn points(mut self, points: impl Into<Vec<Point>>, recovery: impl Into<Vec<Point>>) -> Self {
        (self.points, self.recovery_points) = (points.into(), recovery.into());
        self
    }

    /// The seed of all that is random here; the machine's own timing is in no seed. Default: another one each time; the report has it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The longest that a start, an output, or a stop may take. Default: 2 minutes.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The most bytes that the directory may have after a graceful stop. Default: 1 GiB.
    pub fn disk_limit_bytes(mut self, bytes: u64) -> Self {
        self.disk_limit_bytes = bytes;
        self
    }

    /// Called before each fault, with its name and the report so far.
    pub fn progress(mut self, progress: impl FnMut(&str, &Report) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Inflicts one fault after the other, checks the three cursors after each, lets a last process come to its end, and judges. The first
    /// finding ends the run; it stands in the report.
    pub fn run(mut self) -> Report {
        let began = Instant::now();
        let mut report = Report::new(self.seed);
        let name = self.name.clone();
        let outcome = self.go(&mut report, began);
        report.took(began.elapsed());
        if let Err(finding) = outcome {
            report.add_finding(&name, self.seed, &finding);
        }
        report
    }

    fn go(&mut self, report: &mut Report, began: Instant) -> Result<()> {
        let mut own;
        let world: &mut dyn World = match (self.world.take(), self.broker, &self.topics) {
            (Some(world), ..) => world,
            (None, Some(broker), Some((input, output))) => {
                let missing = |what: &str| Finding::new(format!("the run needs {what}"));
                let make = self.make.take().ok_or_else(|| missing("Chaos::input"))?;
                let oracle = self.oracle.take().ok_or_else(|| missing("Chaos::oracle"))?;
                own = Topics::new(broker, input, output, make, oracle)?;
                &mut own
            }
            _ => return Err(Finding::new("the run needs Chaos::world, or Chaos::kafka and Chaos::topics")),
        };
        let mut lineage = Lineage::new(&self.launch, &self.name, &self.directory).patience(self.patience);
        let outcome = self.inflict_all(&mut lineage, world, report, began);
        let outcome = outcome.and_then(|()| {
            lineage.finish(world)?;
            self.invariants(check_cursors)?;
            self.invariants(check_settled)
        });
        report.add_lineage(&self.name, &lineage, world.judged());
        outcome
    }

    fn invariants(&self, check: fn(&Invariants<'_>) -> Result<()>) -> Result<()> {
        let cursor_topic = format!("{}.millpond-cursor", self.name);
        let transactional_id = self.transactional_id.as_ref().unwrap_or(&self.name);
        check(&Invariants {
            directory: &self.directory,
            kafka: self.broker.map(|broker| (broker, &*cursor_topic, &**transactional_id)),
            disk_limit_bytes: self.disk_limit_bytes,
        })
    }

    fn inflict_all(
        &mut self,
        lineage: &mut Lineage,
        world: &mut dyn World,
        report: &mut Report,
        began: Instant,
    ) -> Result<()> {
        let mut dice = Dice::new(self.seed);
        let count = self.at_random.unwrap_or(self.faults.len() as u64);
        if self.faults.is_empty() && count > 0 {
            return Err(Finding::new("the run needs faults"));
        }
        let transactional_id = self.transactional_id.clone().unwrap_or_else(|| self.name.clone());
        for n in 0..count {
            if began.elapsed() >= self.stop_after {
                break;
            }
            let fault = match self.at_random {
                Some(_) => dice.one_of(&self.faults).clone(),
                None => self.faults[n as usize].clone(),
            };
            (self.progress)(fault.name(), report);
            let mut scene = Scene {
                lineage,
                world,
                broker: self.broker,
                transactional_id: &transactional_id,
                dice: &mut dice,
                points: &self.points,
                recovery_points: &self.recovery_points,
                limit: self.patience,
            };
            fault.inflict(&mut scene)?;
            *report.faults.entry(fault.name().to_owned()).or_default() += 1;
            self.invariants(check_cursors).map_err(|finding| finding.at(format!("after fault {}", fault.name())))?;
        }
        Ok(())
    }
}

/// What every pipeline comes to.
const DEFAULT_POINTS: &[Point] = &[
    Point::new("plan-appended", 2),
    Point::new("plan-synced", 2),
    Point::new("log-appended", 4),
    Point::new("log-synced", 4),
    Point::new("task-done", 3),
    Point::new("output-written", 2),
    Point::new("before-commit", 2),
    Point::new("after-commit", 2),
    Point::new("state-applied", 2),
];

const DEFAULT_RECOVERY_POINTS: &[Point] = &[
    Point::new("recovery-checkpoint-found", 1),
    Point::new("recovery-log-read", 1),
    Point::new("recovery-run-logged", 1),
    Point::new("sink-fenced", 1),
    Point::new("recovery-sinks-fenced", 1),
    Point::new("recovery-state-opened", 1),
];
