//! One directory of an application, and the processes that run in it one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{LIMIT, said_in};
use super::tally::Tally;
use super::{Ended, Finding, Launch, Process, Result, World};

/// The processes of one application.
#[derive(Debug)]
pub struct Lineage {
    launch: Launch,
    name: String,
    directory: PathBuf,
    log: PathBuf,
    starts: u32,
    patience: Duration,
    tally: Tally,
}

impl Lineage {
    /// Nothing started yet. `directory` is the application's own; the processes' words go to a file beside it.
    pub fn new(launch: impl Into<Launch>, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let log = directory.with_extension("stderr");
        let (launch, name) = (launch.into(), name.into());
        Lineage { launch, name, directory, log, starts: 0, patience: LIMIT, tally: Tally::default() }
    }

    /// Starts a process with failpoints armed, `""` for none: see [`millpond::failpoints`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&mut self, failpoints: &str) -> Result<Process> {
        self.starts += 1;
        Process::start(&self.launch, failpoints, &self.log)
    }

    /// Waits so long in [`finish`](Lineage::finish) for a live process, and so long for its output: less for a program that is
    /// broken on purpose, more where a transaction has to time out first. Default 2 minutes.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many have been started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// What the application is called.
    pub fn application(&self) -> &str {
        &self.name
    }

    /// The application's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How the next process is started.
    pub fn launch_mut(&mut self) -> &mut Launch {
        &mut self.launch
    }

    /// How the next process is started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// What the last process said to stderr.
    pub fn log(&self) -> String {
        said_in(&self.log)
    }

    /// What has been done to it so far, and how long its recoveries took.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// As [`tally`](Lineage::tally), for faults of one's own to add to.
    pub fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Notes how long a process took to be live, if it was.
    pub fn note_recovery(&mut self, process: &Process) {
        if let (Some(after), true) = (process.ready_after(), self.starts > 1) {
            let state_bytes = bytes_in(&self.directory.join("checkpoints"));
            self.tally.recoveries.push((state_bytes, after));
        }
    }

    /// Lets a last process read all input, stops it gracefully, and judges what readers saw: in any case, as an output that
    /// does not come is judged best by what is missing in it.
    ///
    /// # Errors
    /// What was found.
    pub fn finish(&mut self, world: &mut dyn World) -> Result<()> {
        let mut process = self.start("")?;
        process.wait_ready(self.patience)?;
        self.note_recovery(&process);
        let complete = process.wait_while_alive(self.patience, "all output", || world.is_complete());
        process.terminate()?;
        let ended = process.wait(LIMIT)?;
        if ended != Ended::Well {
            return Err(Finding::new(format!("asked to stop, the process {ended}: {}", process.said())));
        }
        world.look()?;
        let judged = world.judge().and(complete);
        judged.map_err(|finding| finding.at(format!("after {} starts of {}", self.starts(), self.application())))
    }
}

/// The bytes of all files below a folder; files that go meanwhile count nothing.
pub(super) fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}
