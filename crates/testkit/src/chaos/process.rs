//! A process that is started, stopped, killed, and waited for; every wait has a limit.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{Finding, Launch, Result};

/// The longest that anything may take before it is said to hang. Machines that run tests are busy.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How often it is looked whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A process under test, alive or dead. Dropped alive it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    started: Instant,
    ready_after: Option<Duration>,
}

impl Process {
    /// Starts a process with failpoints armed, `""` for none (see [`millpond::failpoints`]); its stderr goes to a new file.
    ///
    /// # Errors
    /// The program cannot be started, the file not be made.
    pub fn start(launch: impl Into<Launch>, failpoints: &str, log: &Path) -> Result<Process> {
        let launch = launch.into().env(millpond::failpoints::VARIABLE, failpoints);
        let child = launch.spawn(log).map_err(|finding| finding.at(format!("starting {launch:?}")))?;
        Ok(Process { child, log: log.to_owned(), started: Instant::now(), ready_after: None })
    }

    /// Kills it with SIGKILL and waits until it is dead, and its locks free; nothing happens if it is dead already.
    ///
    /// # Errors
    /// None that could come of a live child.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop gracefully (SIGTERM).
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Freezes it (SIGSTOP): it keeps its connections and locks, and does nothing.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.wait_frozen(LIMIT)
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Lets it have so many bytes of address space more than it has now, and no more.
    ///
    /// # Errors
    /// It has ended.
    pub fn limit_address_space(&mut self, more_bytes: u64) -> Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let size =
            status.lines().find_map(|line| line.strip_prefix("VmSize:")?.split_whitespace().next()?.parse().ok());
        let kib: u64 = size.ok_or_else(|| Finding::new(format!("the process has no size: {}", self.said())))?;
        self.set_address_space(Some(kib * 1024 + more_bytes))
    }

    /// Lets it have as much address space as before the [limit](Process::limit_address_space); nothing happens if it has ended.
    ///
    /// # Errors
    /// None that could come of an own child.
    pub fn lift_address_space(&mut self) -> Result<()> {
        match self.ends_within(Duration::ZERO)? {
            Some(_) => Ok(()),
            None => self.set_address_space(getrlimit(Resource::As).current),
        }
    }

    /// Only the soft limit is set: whoever set it may lift it.
    fn set_address_space(&mut self, bytes: Option<u64>) -> Result<()> {
        let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::As).maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::As, limit).map_err(std::io::Error::from)?;
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // Once a process has been waited for, its id may be another's.
        match self.child.try_wait()? {
            Some(status) => Err(Finding::new(format!("the process {}: {}", Ended::of(status), self.said()))),
            None => Ok(kill_process(Pid::from_child(&self.child), signal).map_err(std::io::Error::from)?),
        }
    }

    /// Waits until it is frozen: by [`freeze`](Process::freeze), or by a failpoint that was armed with `stop`.
    ///
    /// # Errors
    /// It ends before, or not within the limit.
    pub fn wait_frozen(&mut self, limit: Duration) -> Result<()> {
        let stat = format!("/proc/{}/stat", self.id());
        self.wait_while_alive(limit, "a frozen process", || {
            // The state stands behind the name, which is in brackets and may hold anything.
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            Ok(text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
        })
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It lives on at the limit; its words are in the error.
    pub fn wait(&mut self, limit: Duration) -> Result<Ended> {
        match self.ends_within(limit)? {
            Some(ended) => Ok(ended),
            None => Err(Finding::new(format!("waited {limit:?} for the end of the process")).at(self.said())),
        }
    }

    /// How it ended, if it does within the limit.
    ///
    /// # Errors
    /// None that could come of an own child.
    pub fn ends_within(&mut self, limit: Duration) -> Result<Option<Ended>> {
        let deadline = Instant::now() + limit;
        loop {
            self.note_readiness();
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Ended::of(status)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until it says that it is live, by a line `ready` on stderr. A process that ends before is a finding.
    ///
    /// # Errors
    /// It ends, or is not ready within the limit.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        wait_until(limit, "a live process", || {
            self.note_readiness();
            if self.ready_after.is_some() {
                return Ok(Some(()));
            }
            match self.child.try_wait()? {
                Some(status) => Err(Finding::new(format!("the process {}: {}", Ended::of(status), self.said()))),
                None => Ok(None),
            }
        })
        .map_err(|finding| finding.at(self.said()))
    }

    fn note_readiness(&mut self) {
        if self.ready_after.is_none() && self.said().lines().any(|line| line == "ready") {
            self.ready_after = Some(self.started.elapsed());
        }
    }

    /// How long after its start it said that it is live, as far as anybody was looking.
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Waits until `condition` holds; if the process ends before, that is a finding.
    ///
    /// # Errors
    /// Those of the condition, the end of the process, or the limit.
    pub fn wait_while_alive(
        &mut self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        wait_until(limit, what, || {
            self.note_readiness();
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
pub(super) fn said_in(log: &Path) -> String {
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
            (Some(signal), _) if signal == Signal::KILL.as_raw() => Ended::Killed,
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
///
/// # Errors
/// What `look` says, or that it has not come within the limit.
pub fn wait_until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
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
