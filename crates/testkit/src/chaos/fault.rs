//! What a fault is: a name, what must come of it, and the hand that inflicts it.

use std::fmt;
use std::sync::Arc;

use super::{Dice, Ended, Finding, Lineage, Point, Process, Proxy, Result, World};
use crate::broker::KafkaBroker;

/// What is expected of the program under a fault; written down before it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It goes on by itself, or the next start does: nobody has to do anything.
    Recovers,
    /// It stops with an error that has this text, and the next start recovers when the cause is gone.
    Stops(&'static str),
    /// A start is refused with an error that has this text; who runs already is not harmed.
    Refuses(&'static str),
}

/// What a fault needs to be possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// A process.
    Process,
    /// A program that reads from Kafka and writes to it.
    Kafka,
    /// A broker of its own, which may be killed.
    Broker,
    /// Such a broker [with a proxy](crate::broker::KafkaBrokerBuilder::with_proxy) that the program connects to.
    Proxy,
}

/// What has come of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A process was killed from outside, or has gone on by itself.
    WentOn,
    /// A process stopped by itself, with these words.
    Stopped(String),
    /// A start was refused, with these words.
    Refused(String),
}

type Inflict = dyn Fn(&mut Scene<'_>) -> Result<Seen> + Send + Sync;

/// A fault.
#[derive(Clone)]
pub struct Fault {
    name: String,
    what: String,
    expected: Expected,
    needs: Needs,
    inflict: Arc<Inflict>,
}

impl Fault {
    /// A fault of one's own. `inflict` starts processes of the [`Scene`], does to them what it wants, leaves none behind that was told to
    /// live, and says what it has [`Seen`]; the next fault, and the end of the run, start new ones.
    ///
    /// ```
    /// use millpond_testkit::chaos::{Expected, Fault, Needs, Seen};
    /// let fault = Fault::new("killed-when-ready", "SIGKILL as soon as it is live", Expected::Recovers, Needs::Process, |scene| {
    ///     scene.world.feed()?;
    ///     let mut process = scene.lineage.start("")?;
    ///     process.wait_ready(scene.limit)?;
    ///     process.kill()?;
    ///     Ok(Seen::WentOn)
    /// });
    /// assert_eq!(fault.name(), "killed-when-ready");
    /// ```
    pub fn new(
        name: impl Into<String>,
        what: impl Into<String>,
        expected: Expected,
        needs: Needs,
        inflict: impl Fn(&mut Scene<'_>) -> Result<Seen> + Send + Sync + 'static,
    ) -> Self {
        Fault { name: name.into(), what: what.into(), expected, needs, inflict: Arc::new(inflict) }
    }

    /// What it is called, in lower case with hyphens.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is done, in a few words.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What must come of it.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// What it needs.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Inflicts it, compares what has come of it with what was expected, and looks at what readers see.
    ///
    /// # Errors
    /// What was found.
    pub fn inflict(&self, scene: &mut Scene<'_>) -> Result<()> {
        let at = |finding: Finding| finding.at(format!("fault {}", self.name));
        let seen = (self.inflict)(scene).map_err(at)?;
        if let Some(proxy) = scene.broker.and_then(KafkaBroker::proxy) {
            proxy.calm();
        }
        let as_expected = match (self.expected, &seen) {
            (Expected::Recovers, Seen::WentOn) => true,
            (Expected::Stops(text), Seen::Stopped(said)) | (Expected::Refuses(text), Seen::Refused(said)) => {
                said.contains(text)
            }
            _ => false,
        };
        if !as_expected {
            return Err(at(Finding::new(format!("expected {:?}, seen {seen:?}", self.expected))));
        }
        scene.world.look().map_err(at)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({}, {:?})", self.name, self.expected)
    }
}

/// Where a fault happens.
pub struct Scene<'a> {
    /// The application, with nobody running in its directory.
    pub lineage: &'a mut Lineage,
    /// Who gives input and reads output.
    pub world: &'a mut dyn World,
    /// The broker, where there is one.
    pub broker: Option<&'a KafkaBroker>,
    /// The application's transactional id; empty without Kafka.
    pub transactional_id: &'a str,
    /// All that is random.
    pub dice: &'a mut Dice,
    /// The failpoints that this program comes to in every few batches.
    pub points: &'a [Point],
    /// Those that a recovery comes to.
    pub recovery_points: &'a [Point],
    /// The longest that anything may take.
    pub limit: std::time::Duration,
}

impl<'a> Scene<'a> {
    /// The broker.
    ///
    /// # Errors
    /// There is none.
    pub fn broker(&self) -> Result<&'a KafkaBroker> {
        self.broker.ok_or_else(|| Finding::new("this fault needs a Kafka broker"))
    }

    /// The proxy before the broker.
    ///
    /// # Errors
    /// There is none.
    pub fn proxy(&self) -> Result<&'a Proxy> {
        self.broker()?.proxy().ok_or_else(|| Finding::new("this fault needs a broker with a proxy before it"))
    }

    /// Waits until all input so far has come out of this process.
    ///
    /// # Errors
    /// It ends, or not all comes within the limit.
    pub fn wait_complete(&mut self, process: &mut Process) -> Result<()> {
        process.wait_while_alive(self.limit, "all output", || self.world.is_complete())
    }

    /// Waits until the process has stopped by itself with an error in words.
    ///
    /// # Errors
    /// It does not within the limit, or ends in another way.
    pub fn wait_stopped(&mut self, process: &mut Process) -> Result<String> {
        match process.wait(self.limit)? {
            Ended::Failed => Ok(process.said()),
            ended => Err(Finding::new(format!("the process {ended}: {}", process.said()))),
        }
    }

    /// Waits until the broker knows of no open transaction of the application.
    ///
    /// # Errors
    /// It does at the limit.
    pub fn wait_no_transaction(&self) -> Result<()> {
        let broker = self.broker()?;
        super::wait_until(self.limit, "the end of the open transaction", || {
            let open = broker.open_transactions()?;
            Ok(open.iter().all(|open| open.transactional_id != self.transactional_id).then_some(()))
        })
    }
}
