//! The command line: a workload, its options, and what to compare with.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::report::{self, Report};
use crate::{Failure, checkpoint, keyed_count, resident, wal};

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
    /// Checkpoints of much state of which little has changed.
    Checkpoint(checkpoint::Options),
    /// Appends to the log, beside a bare loop of write and fdatasync.
    Wal(wal::Options),
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let previous = self.against.as_deref().map(report::read).transpose()?;
        for _ in 0..self.runs {
            let directory = tempfile::Builder::new().prefix("millpond-bench-").tempdir_in(&self.within)?;
            let report: Report = match &self.workload {
                Workload::KeyedCount(options) => keyed_count::run(options, directory.path())?,
                Workload::Resident(options) => resident::run(options, directory.path())?,
                Workload::Checkpoint(options) => checkpoint::run(options, directory.path())?,
                Workload::Wal(options) => wal::run(options, directory.path())?,
            };
            println!("{}", report.line());
            if let Some(previous) = &previous {
                println!("{}", report.against(previous)?);
            }
        }
        Ok(())
    }
}
