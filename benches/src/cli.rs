//! The command line: a workload, its options, and what to compare with.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::pipeline::{Kind, Pipeline};
use crate::report::{self, Report};
use crate::{
    Failure, batchwise, checkpoint, kafka_latency, kafka_throughput, keyed_count, recover, resident, timeouts, wal,
    window,
};

/// Measures Millpond. One JSON object on a line for each run.
#[derive(Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    workload: Workload,
    /// Prints, after each run, the ratio of its figures to those of an earlier run of the same workload: a file of its output.
    #[arg(long, global = true, value_name = "PREVIOUS.json")]
    against: Option<PathBuf>,
    /// Where the data of the runs goes: the disk that is measured. A directory is made in it and removed again.
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    within: PathBuf,
    /// How often to run; each run prints its own line.
    #[arg(long, global = true, default_value_t = 1)]
    runs: u32,
}

#[derive(Subcommand)]
enum Workload {
    /// Counts records per key in process, touched keys only, with a durable checkpoint each second; and a plain loop beside it.
    KeyedCount(keyed_count::Options),
    /// The time of a small batch over much resident state.
    Resident(resident::Options),
    /// The time of a batch in which a few of many keys time out.
    Timeouts(timeouts::Options),
    /// Checkpoints of much state of which little has changed.
    Checkpoint(checkpoint::Options),
    /// map, filter and flat_map over records of 100 bytes.
    Stateless(batchwise::Options),
    /// The words of lines of text, counted batch by batch.
    WordCount(batchwise::Options),
    /// Two streams joined batch by batch.
    Join(batchwise::Options),
    /// Appends to the log, beside a bare loop of write and fdatasync.
    Wal(wal::Options),
    /// Counts per key from Kafka to Kafka, exactly once.
    KafkaCount(kafka_throughput::Options),
    /// Values to upper case from Kafka to Kafka, exactly once.
    KafkaPass(kafka_throughput::Options),
    /// The age of a record when a reader sees its count.
    KafkaLatency(kafka_latency::Options),
    /// From `kill -9` to new output.
    Recover(recover::Options),
    /// Sums of each key over a sliding window, all put out at each batch; with and without an inverse function.
    Window(window::Options),
    /// What the Kafka workloads run in a process of its own.
    #[command(hide = true)]
    Pipeline(Pipeline),
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let previous = self.against.as_deref().map(report::read).transpose()?;
        for _ in 0..self.runs {
            let directory = tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(&self.within)?;
            let report: Report = match &self.workload {
                Workload::KeyedCount(options) => keyed_count::run(options, directory.path())?,
                Workload::Resident(options) => resident::run(options, directory.path())?,
                Workload::Timeouts(options) => timeouts::run(options, directory.path())?,
                Workload::Checkpoint(options) => checkpoint::run(options, directory.path())?,
                Workload::Stateless(options) => batchwise::stateless(options, directory.path())?,
                Workload::WordCount(options) => batchwise::word_count(options, directory.path())?,
                Workload::Join(options) => batchwise::join(options, directory.path())?,
                Workload::Wal(options) => wal::run(options, directory.path())?,
                Workload::KafkaCount(options) => kafka_throughput::run(Kind::Count, options, directory.path())?,
                Workload::KafkaPass(options) => kafka_throughput::run(Kind::Pass, options, directory.path())?,
                Workload::KafkaLatency(options) => kafka_latency::run(options, directory.path())?,
                Workload::Window(options) => window::run(options, directory.path())?,
                Workload::Recover(options) => recover::run(options, directory.path())?,
                Workload::Pipeline(pipeline) => return pipeline.run(),
            };
            println!("{}", report.line());
            if let Some(previous) = &previous {
                println!("{}", report.against(previous)?);
            }
        }
        Ok(())
    }
}
