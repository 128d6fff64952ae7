//! The program that is killed: one of a few pipelines, told by its environment which.

mod pipelines;
mod receivers;
mod spool;

use std::path::PathBuf;
use std::time::Duration;

use millpond::StreamingContext;
use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;

/// The variable that makes a victim of a program: a [`Setup`] as JSON.
pub const VICTIM: &str = "MILLPOND_VICTIM";

/// What a victim is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// What it runs.
    pub pipeline: Pipeline,
    /// The application's id; also its transactional id unless that is given.
    pub application: String,
    /// The application's directory.
    pub directory: PathBuf,
    /// Where its input is: a directory of files, a spool file, a topic.
    pub input: String,
    /// Where its output goes: a directory, a topic.
    pub output: String,
    /// Where the output of a second sink goes, where the pipeline has one.
    pub second_output: String,
    /// The broker's address, where the pipeline needs one.
    pub brokers: String,
    /// How long it waits for a broker.
    pub wait_for_broker_ms: u64,
    /// The batch interval.
    pub batch_ms: u64,
    /// Batches from one checkpoint to the next.
    pub checkpoint_every: u64,
    /// The transactional id, if it is not the application's id.
    pub transactional_id: Option<String>,
    /// Begin at the end of partitions that have no position yet, not at their beginning.
    pub from_latest: bool,
    /// The most bytes of input files a batch.
    pub batch_limit_bytes: u64,
    /// The most records of a Kafka partition a batch; `None` for no limit.
    pub partition_limit_records: Option<u64>,
    /// Threads that compute.
    pub threads: usize,
    /// Partitions of a shuffle.
    pub partitions: usize,
    /// What happens when the word `poison` comes.
    pub poison: Poison,
    /// In place of all this, make a savepoint of the application, there.
    pub savepoint_to: Option<PathBuf>,
    /// What [`Pipeline::KafkaWindow`] and [`Pipeline::KafkaRandom`] do.
    pub recipe: Recipe,
    /// After which the broker ends a transaction that nobody ends; `None` for the default of a minute.
    pub transaction_timeout_ms: Option<u64>,
    /// Bytes of decoded state kept in memory; `None` for the default.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes of received records that wait for a batch; `None` for the default.
    pub waiting_limit_bytes: Option<u64>,
}

/// What a program does with a word that it cannot bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Poison {
    /// It counts it as any other.
    None,
    /// The function panics.
    Panic,
    /// The process aborts, as native code does.
    Abort,
    /// The function calls itself until the stack is full.
    StackOverflow,
}

/// What a victim runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pipeline {
    /// Word count from files to files: a source that replays, no broker.
    Files,
    /// Word count from a reliable receiver to files: blocks are logged whole.
    Spool,
    /// As [`Files`](Pipeline::Files), with the counts of each batch persisted on disk.
    PersistedFiles,
    /// Word count from files to two file sinks.
    TwoFileSinks,
    /// Sums of floating-point numbers by key from files to files: the order of additions shows.
    FloatSums,
    /// Word count from Kafka to Kafka.
    KafkaCount,
    /// A copy from Kafka to Kafka with a running number per key in state.
    KafkaCopy,
    /// Word count from Kafka to Kafka, blocks logged by content.
    KafkaContent,
    /// Word count from Kafka to Kafka and to files.
    KafkaAndFiles,
    /// A sum over a window with an inverse function, from Kafka to Kafka, each line with its batch beside it.
    KafkaWindow,
    /// A pipeline made of a seed, from Kafka to Kafka, each line with its batch beside it.
    KafkaRandom,
    /// Word count of what a reliable receiver gets over TCP and of what is pushed into a channel, to files.
    Receivers,
}

impl Setup {
    /// Short batches, a checkpoint every third, nothing else chosen.
    pub fn new(pipeline: Pipeline, application: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Setup {
            pipeline,
            application: application.into(),
            directory: directory.into(),
            input: String::new(),
            output: String::new(),
            second_output: String::new(),
            brokers: String::new(),
            wait_for_broker_ms: 60_000,
            batch_ms: 20,
            checkpoint_every: 3,
            transactional_id: None,
            from_latest: false,
            batch_limit_bytes: 400,
            partition_limit_records: None,
            threads: 2,
            partitions: 2,
            poison: Poison::None,
            savepoint_to: None,
            recipe: Recipe::window(),
            transaction_timeout_ms: None,
            memory_limit_bytes: None,
            waiting_limit_bytes: None,
        }
    }

    /// Where the lines for the channel come from: the input of the pipeline with two is both addresses.
    pub(crate) fn second_input(&self) -> &str {
        self.input.split_once(' ').map_or("", |(_, second)| second)
    }

    /// As a victim's environment has it.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers")
    }
}

/// Runs the victim and ends the process, if this process was started as one; else does nothing. To be called first of all.
///
/// It says `ready` to stderr when it is live, stops gracefully at SIGTERM with status 0, and ends with an error in words and
/// status 1.
pub fn run_if_asked() {
    let Ok(setup) = std::env::var(VICTIM) else { return };
    let outcome = serde_json::from_str(&setup)
        .map_err(|error| millpond::Error::new(millpond::ErrorKind::Configuration, format!("{VICTIM}: {error}")))
        .and_then(|setup| run(&setup));
    match outcome {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("Error: {error}");
            std::process::exit(1);
        }
    }
}

fn run(setup: &Setup) -> millpond::Result<()> {
    millpond::failpoints::arm_from_env()?;
    if let Some(target) = &setup.savepoint_to {
        return millpond::inspect::savepoint(&setup.directory, target).map(|_| ());
    }
    let mut builder = StreamingContext::builder(&setup.application)
        .directory(&setup.directory)
        .batch_interval(Duration::from_millis(setup.batch_ms))
        .checkpoint_interval(Duration::from_millis(setup.batch_ms * setup.checkpoint_every))
        .threads(setup.threads)
        .partitions(setup.partitions)
        .retained_checkpoints(2)
        .log_segment_bytes(64 << 10);
    if let Some(bytes) = setup.memory_limit_bytes {
        builder = builder.memory_limit_bytes(bytes);
    }
    if let Some(bytes) = setup.waiting_limit_bytes {
        builder = builder.waiting_limit_bytes(bytes);
    }
    let (context, pusher) = builder.open_with(|graph| pipelines::describe(setup, graph))?;
    context.run_until_signal_with(|_| {
        eprintln!("ready");
        if let Some(pusher) = pusher {
            receivers::push(setup.second_input().to_owned(), pusher);
        }
    })
}
