//! One directory of an application, and the processes that run in it one after the other.

use std::fmt;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::victim::{Setup, VICTIM};
use crate::{Finding, Result};

/// The longest that anything may take before the harness says that it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How often the harness looks whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The processes of one application.
#[derive(Debug)]
pub struct Lineage {
    setup: Setup,
    log: PathBuf,
    starts: u32,
    patience: Duration,
}

impl Lineage {
    /// Nothing started yet. The processes' words go to a file beside the application's directory.
    pub fn new(setup: Setup) -> Self {
        let log = setup.directory.with_extension("stderr");
        Lineage { setup, log, starts: 0, patience: LIMIT }
    }

    /// Starts a process with failpoints armed, `""` for none: see [`millpond::failpoints`].
    pub fn start(&mut self, failpoints: &str) -> Result<Process> {
        self.starts += 1;
        Process::start(&self.setup, failpoints, &self.log)
    }

    /// Waits so long in [`finish`](Lineage::finish) for a live process, and so long for its output: less for a program that is
    /// broken on purpose, more where a transaction has to time out first. Default 60 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn has_patience_for(&self) -> Duration {
        self.patience
    }

    /// How many have been started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// What the application is called.
    pub fn application(&self) -> &str {
        &self.setup.application
    }

    /// What the processes are told.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// As [`setup`](Lineage::setup), to be changed before the next start.
    pub fn setup_mut(&mut self) -> &mut Setup {
        &mut self.setup
    }

    /// What the last process said to stderr.
    pub fn log(&self) -> String {
        said_in(&self.log)
    }
}

/// A victim, alive or dead. Dropped alive it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts this very program again, as a victim: its `main`, or its test named `victim`, has to call
    /// [`victim::run_if_asked`](crate::victim::run_if_asked).
    pub fn start(setup: &Setup, failpoints: &str, log: &Path) -> Result<Process> {
        let program = std::env::current_exe()?;
        let setup = serde_json::to_string(setup).map_err(|error| Finding::new(error.to_string()))?;
        let child = Command::new(program)
            // Read by a test program only, whose own `main` would run every test.
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, setup)
            .env(millpond::failpoints::VARIABLE, failpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .spawn()?;
        Ok(Process { child, log: log.to_owned() })
    }

    /// Kills it with SIGKILL and waits until it is dead, and its locks free; nothing happens if it is dead already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop gracefully (SIGTERM).
    pub fn terminate(&mut self) -> Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(Finding::new("the process cannot be told to stop: it has ended")) }
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<Ended> {
        let status = wait_until(limit, "the end of the process", || Ok(self.child.try_wait()?))
            .map_err(|finding| finding.at(self.said()))?;
        Ok(Ended::of(status))
    }

    /// Waits until it says that it is live. A process that ends before is a finding.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        wait_until(limit, "a live process", || {
            if self.said().lines().any(|line| line == "ready") {
                return Ok(Some(()));
            }
            match self.child.try_wait()? {
                Some(status) => Err(Finding::new(format!("the process {}: {}", Ended::of(status), self.said()))),
                None => Ok(None),
            }
        })
    }

    /// Waits until `condition` holds; if the process ends before, that is a finding.
    pub fn wait_while_alive(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait_until(limit, what, || {
            if condition()? {
                return Ok(Some(()));
            }
            match self.child.try_wait()? {
                Some(status) => Err(Finding::new(format!("the process {}: {}", Ended::of(status), self.said()))),
                None => Ok(None),
            }
        })
        .map_err(|finding| finding.at(self.said()))
    }

    /// What it has said to stderr.
    pub fn said(&self) -> String {
        said_in(&self.log)
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words in a file, whatever else is among them.
fn said_in(log: &Path) -> String {
    std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By SIGKILL.
    Killed,
    /// By itself, in good order.
    Well,
    /// By itself, with an error; its words tell.
    Failed,
    /// Otherwise: a panic, an abort.
    Otherwise(ExitStatus),
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(signal_hook::consts::SIGKILL), _) => Ended::Killed,
            (_, Some(0)) => Ended::Well,
            (_, Some(1)) => Ended::Failed,
            _ => Ended::Otherwise(status),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Killed => f.write_str("was killed"),
            Ended::Well => f.write_str("ended by itself, in good order"),
            Ended::Failed => f.write_str("stopped with an error"),
            Ended::Otherwise(status) => write!(f, "ended in disorder ({status})"),
        }
    }
}

/// Waits for something, looking again and again.
pub(crate) fn wait_until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Finding::new(format!("waited {limit:?} for {what}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
