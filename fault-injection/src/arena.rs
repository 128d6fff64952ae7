//! Everything around a victim: its world, and which failpoints it comes to.

use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::{Chaos, Fault, Needs};

use crate::echoed::Echoed;
use crate::files::Files;
use crate::kafka::Kafka;
use crate::points::{self, Point};
use crate::recipe::Keyed;
use crate::victim::{Pipeline, Setup};
use crate::{Result, World};

/// Transactions that nobody ends are ended by the broker after this, so that nobody has to wait a minute for it. Longer than any batch
/// takes on a busy machine.
pub const TRANSACTION_TIMEOUT_MS: u64 = 10_000;

/// The pipelines that `make chaos` goes through, by the names that it takes.
pub const VICTIMS: &[(&str, Pipeline)] = &[
    ("kafka-word-count", Pipeline::KafkaCount),
    ("kafka-copy", Pipeline::KafkaCopy),
    ("kafka-window", Pipeline::KafkaWindow),
    ("kafka-random", Pipeline::KafkaRandom),
    ("kafka-and-files", Pipeline::KafkaAndFiles),
    ("kafka-by-content", Pipeline::KafkaContent),
    ("receivers-to-files", Pipeline::Receivers),
    ("spool-to-files", Pipeline::Spool),
    ("files-to-files", Pipeline::Files),
    ("files-to-two-files", Pipeline::TwoFileSinks),
];

/// A world that can be given much at once.
trait Feeds: World {
    /// Gives about so many lines at once; does nothing where that would take long.
    fn feed_many(&mut self, _lines: usize) -> Result<()> {
        Ok(())
    }
}

impl Feeds for Files {}

impl Feeds for Echoed {}

impl Feeds for Kafka<'_> {
    fn feed_many(&mut self, lines: usize) -> Result<()> {
        self.feed_records(lines)
    }
}

/// A pipeline with its world, for one lineage.
pub struct Arena<'b> {
    setup: Setup,
    world: Box<dyn Feeds + 'b>,
    broker: Option<&'b KafkaBroker>,
}

impl<'b> Arena<'b> {
    /// A new world for a pipeline; one that needs a broker gets topics there.
    pub fn new(pipeline: Pipeline, broker: Option<&'b KafkaBroker>, seed: u64) -> Result<Self> {
        let missing = || crate::Finding::new(format!("{pipeline:?} needs a Kafka broker"));
        let (setup, world): (Setup, Box<dyn Feeds + 'b>) = match pipeline {
            Pipeline::KafkaWindow | Pipeline::KafkaRandom => {
                let world = Echoed::new(broker.ok_or_else(missing)?, pipeline, seed)?;
                (world.setup(), Box::new(world))
            }
            _ if needs_broker(pipeline) => {
                let world = Kafka::new(broker.ok_or_else(missing)?, pipeline, seed)?;
                (world.setup(), Box::new(world))
            }
            _ => {
                let world = Files::new(pipeline, seed)?;
                (world.setup(), Box::new(world))
            }
        };
        let setup = Setup { transaction_timeout_ms: Some(TRANSACTION_TIMEOUT_MS), ..setup };
        let broker = broker.filter(|_| needs_broker(pipeline));
        Ok(Arena { setup, world, broker })
    }

    /// As [`new`](Arena::new), with so many lines there before the first start, each with a word of its own: state to recover.
    pub fn loaded(pipeline: Pipeline, broker: Option<&'b KafkaBroker>, seed: u64, lines: usize) -> Result<Self> {
        let mut arena = Arena::new(pipeline, broker, seed)?;
        arena.world.feed_many(lines)?;
        Ok(arena)
    }

    /// What the victim is told.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// As [`setup`](Arena::setup), to be changed before the run.
    pub fn setup_mut(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// The world.
    pub fn world(&mut self) -> &mut dyn World {
        &mut *self.world
    }

    /// A run with no faults in it yet.
    pub fn chaos(&mut self) -> Chaos<'_> {
        let chaos = Chaos::new(&self.setup)
            .application(&self.setup.application, &self.setup.directory)
            .points(points_of(&self.setup), points::RECOVERY);
        let chaos = match self.broker {
            Some(broker) => chaos.kafka(broker),
            None => chaos,
        };
        chaos.world(&mut *self.world)
    }
}

/// Whether a pipeline reads from Kafka and writes to it.
pub fn needs_broker(pipeline: Pipeline) -> bool {
    match pipeline {
        Pipeline::Files
        | Pipeline::PersistedFiles
        | Pipeline::Spool
        | Pipeline::TwoFileSinks
        | Pipeline::FloatSums
        | Pipeline::Receivers => false,
        Pipeline::KafkaCount
        | Pipeline::KafkaCopy
        | Pipeline::KafkaContent
        | Pipeline::KafkaAndFiles
        | Pipeline::KafkaWindow
        | Pipeline::KafkaRandom => true,
    }
}

/// Whether a fault is possible with a pipeline.
pub fn is_possible(fault: &Fault, pipeline: Pipeline) -> bool {
    let kafka = needs_broker(pipeline);
    match (fault.name(), fault.needs()) {
        // With a sink in files as well the successor of a zombie is refused: the zombie holds the lock of the output directory.
        ("zombie", _) => kafka && pipeline != Pipeline::KafkaAndFiles,
        // Input files bear the times of the real clock, and brokers refuse records from the future.
        ("clock-jumps", _) => matches!(pipeline, Pipeline::Spool | Pipeline::Receivers),
        (_, Needs::Process) => true,
        (_, Needs::Kafka | Needs::Broker | Needs::Proxy) => kafka,
    }
}

/// The failpoints that a pipeline comes to in every few batches.
pub fn points_of(setup: &Setup) -> Vec<Point> {
    let pipeline = setup.pipeline;
    let mut points = [points::ENGINE, points::SINK].concat();
    if pipeline == Pipeline::KafkaRandom && setup.recipe.keyed == Keyed::SumOfBatch {
        // It has no state.
        points.retain(|point| !point.name.starts_with("state-"));
    }
    if needs_broker(pipeline) {
        points.extend(points::KAFKA_SINK);
    }
    if !needs_broker(pipeline) || pipeline == Pipeline::KafkaAndFiles {
        points.extend(points::FILE_SINK);
    }
    if matches!(pipeline, Pipeline::Spool | Pipeline::Receivers) {
        points.extend(points::RECEIVER);
    }
    points
}
