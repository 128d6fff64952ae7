//! A disk and a clock that fail on command, under real processes.
//!
//! A small library (`preload/`, in C) is loaded before the victim and stands between it and libc. It makes calls fail, short or
//! slow by [`Rule`]s that can be changed while the process lives, moves its clock, and keeps a journal of every change and every sync of
//! the disk. From the journal [`Disk::lose_power`] makes the disk that a power failure would have left.
//!
//! [`faults::of_disk`](super::faults::of_disk) has the usual ones. One of one's own:
//!
//! ```
//! use millpond_testkit::chaos::disk::{Disk, Rule};
//! use millpond_testkit::chaos::{Expected, Fault, Needs, Seen};
//!
//! let what = "no room for the log until somebody makes some";
//! let fault = Fault::new("no-room", what, Expected::Recovers, Needs::Process, |scene| {
//!     Disk::in_scene(scene, &[], |disk, scene| {
//!         disk.set(&[Rule::full("*/log/*").from(3)])?;
//!         scene.world.feed()?;
//!         let mut process = scene.lineage.start("")?;
//!         process.wait_while_alive(scene.limit, "a full disk", || Ok(disk.met(0)? > 3))?;
//!         disk.heal()?;
//!         scene.wait_complete(&mut process)?;
//!         process.kill()?;
//!         Ok(Seen::WentOn)
//!     })
//! });
//! assert_eq!(fault.name(), "no-room");
//! ```
//!
//! It works on Linux with glibc, and for programs that reach the system through libc. The crate `rustix`, which Millpond's log uses, goes
//! past it by default; this feature of the testkit makes it go through libc, in all that one `cargo test` builds. A program that was built
//! otherwise is found out by [`Disk::check`], and by [`Disk::met`], which stays at zero.

mod control;
mod crash;
mod journal;
mod model;
mod power;
mod trace;
pub(super) mod trouble;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::control::Control;
pub use self::control::{Call, EIO, ENOSPC, Effect, Rule};
pub use self::crash::{Keep, Loss};
use self::journal::divide;
use self::model::Model;
pub use self::power::{keep_by_lot, lose_power_after, lose_power_at};
pub use self::trace::Traced;
use crate::chaos::{Finding, Lineage, Result, Scene};

/// The library, where it was built.
const LIBRARY: &str = env!("MILLPOND_DISK_LIBRARY");

/// The part of the disk below one directory, as the processes of one lineage have it.
#[derive(Debug)]
pub struct Disk {
    place: PathBuf,
    roots: Vec<String>,
    control: Control,
    rules: Vec<Rule>,
    journal: PathBuf,
    trace: PathBuf,
    /// The disk as the journal found it, where there is one.
    before: Option<Model>,
    _own: TempDir,
}

impl Disk {
    /// The disk below `place`, an absolute path. `roots` are the entries of it that the processes make and write: what a power
    /// failure takes from; the rest belongs to the world around them.
    ///
    /// # Errors
    /// This system has no such disk; `place` is not there, or not written as the system knows it (a symbolic link, a relative path): then
    /// the calls of the processes would not be known by their paths.
    pub fn under(place: &Path, roots: &[&str]) -> Result<Self> {
        if !Path::new(LIBRARY).exists() {
            return Err(Finding::new(format!("there is no preloaded disk on this system: {LIBRARY}")));
        }
        let known = place.canonicalize().map_err(|error| Finding::from(error).at(place.display()))?;
        if known != place {
            let (place, known) = (place.display(), known.display());
            return Err(Finding::new(format!("{place} is {known}: give that path, to the processes too")));
        }
        let own = tempfile::tempdir()?;
        let journal = own.path().join("journal");
        let trace = own.path().join("trace");
        fs::write(&journal, "")?;
        Ok(Disk {
            place: known,
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            control: Control::create(own.path().join("control"))?,
            rules: Vec::new(),
            journal,
            trace,
            before: None,
            _own: own,
        })
    }

    /// A disk under the application of a [`Scene`] for the time of one fault. `beside` are the entries beside its directory that it writes
    /// to as well: outputs of file sinks.
    ///
    /// # Errors
    /// Those of [`under`](Disk::under) and of the fault.
    pub fn in_scene<T>(
        scene: &mut Scene<'_>,
        beside: &[&str],
        fault: impl FnOnce(&mut Disk, &mut Scene<'_>) -> Result<T>,
    ) -> Result<T> {
        let directory = scene.lineage.directory().to_owned();
        let (place, name) = divide(&directory)?;
        let mut disk = Disk::under(&place, &[&[&*name], beside].concat())?;
        disk.attach(scene.lineage);
        let outcome = fault(&mut disk, scene);
        Disk::detach(scene.lineage);
        outcome
    }

    /// From now on the processes of this lineage have this disk.
    pub fn attach(&self, lineage: &mut Lineage) {
        let launch = lineage.launch_mut();
        launch.set_env("LD_PRELOAD", LIBRARY);
        launch.set_env("MILLPOND_DISK", self.control.path());
        launch.set_env("MILLPOND_DISK_UNDER", &self.place);
        if self.trace.exists() {
            launch.set_env("MILLPOND_DISK_TRACE", &self.trace);
        }
        if self.before.is_some() {
            launch.set_env("MILLPOND_DISK_JOURNAL", &self.journal);
        }
    }

    /// From now on the processes of this lineage have the real disk and clock again.
    pub fn detach(lineage: &mut Lineage) {
        for name in
            ["LD_PRELOAD", "MILLPOND_DISK", "MILLPOND_DISK_UNDER", "MILLPOND_DISK_JOURNAL", "MILLPOND_DISK_TRACE"]
        {
            lineage.launch_mut().remove_env(name);
        }
    }

    /// These faults and no others, at once, also in a process that lives.
    ///
    /// # Errors
    /// More than 32 rules, or a pattern with a space in it.
    pub fn set(&mut self, rules: &[Rule]) -> Result<()> {
        self.rules = rules.to_vec();
        self.control.set(rules, None)
    }

    /// No faults any more.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub fn heal(&mut self) -> Result<()> {
        self.set(&[])
    }

    /// Beside the rules: the next process is killed with SIGKILL when it has made so many changes of the disk; `None`: no more.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub fn cut_after(&self, changes: Option<u64>) -> Result<()> {
        self.control.set(&self.rules, changes)
    }

    /// How many calls have met a rule since it was set, by its place among the rules.
    ///
    /// # Errors
    /// The control file cannot be read.
    pub fn met(&self, rule: usize) -> Result<u64> {
        self.control.met(rule)
    }

    /// How many changes of the disk the newest process has made.
    ///
    /// # Errors
    /// The control file cannot be read.
    pub fn changes(&self) -> Result<u64> {
        self.control.operations()
    }

    /// The processes' clock on the wall stands so many seconds from the real one; the monotonic clock is as it is.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub fn shift_clock(&self, seconds: i64) -> Result<()> {
        self.control.set_clock_offset_ns(seconds.saturating_mul(1_000_000_000))
    }

    /// Begins a journal of what is changed, with the disk as it is, all of it durable. Nobody may be running. Then the processes of the
    /// lineage may be killed from the inside only (failpoints, [`cut_after`](Disk::cut_after)) unless power is lost with them.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn record(&mut self, lineage: &mut Lineage) -> Result<()> {
        OpenOptions::new().write(true).truncate(true).open(&self.journal)?;
        self.before = Some(Model::of(&self.place, &self.roots)?);
        self.attach(lineage);
        Ok(())
    }

    /// From now on the calls of the lineage's processes are written down; what was written down before is forgotten. It costs a system call a
    /// call.
    ///
    /// # Errors
    /// The file for it cannot be written.
    pub fn trace(&mut self, lineage: &mut Lineage) -> Result<()> {
        fs::write(&self.trace, "")?;
        self.attach(lineage);
        Ok(())
    }

    /// The calls since [`trace`](Disk::trace), in the order in which rules were asked about them.
    ///
    /// # Errors
    /// There is no trace.
    pub fn traced(&self) -> Result<Vec<Traced>> {
        trace::read(&self.trace)
    }

    fn now(&self) -> Result<Model> {
        let before = self.before.as_ref().ok_or_else(|| Finding::new("there is no journal: call `record`"))?;
        let (mut model, bytes) = (before.clone(), fs::read(&self.journal)?);
        journal::read(&bytes)?.iter().try_for_each(|record| model.follow(record))?;
        Ok(model)
    }

    /// The directories that were made since the journal began, each with the number of changes up to then.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn directories_made(&self) -> Result<Vec<(u64, PathBuf)>> {
        let bytes = fs::read(&self.journal)?;
        let (mut changes, mut made) = (0, Vec::new());
        for record in journal::read(&bytes)?.iter().filter(|record| record.is_change()) {
            changes += 1;
            if let journal::Record::Directory { path, .. } = record {
                made.push((changes, path.to_path_buf()));
            }
        }
        Ok(made)
    }

    /// Compares the journal with the disk as it is: nothing may have been changed past it. Nobody may be running.
    ///
    /// # Errors
    /// What differs, or there is no journal.
    pub fn check(&self) -> Result<()> {
        self.now()?.check()
    }

    /// A power failure: makes the disk what is left of it, and begins a new journal there. Nobody may be running.
    ///
    /// # Errors
    /// The disk cannot be changed, or there is no journal.
    pub fn lose_power(&mut self, keep: Keep) -> Result<Loss> {
        let moment = self.moment()?;
        self.lose_power_in(&moment, keep)
    }

    /// The moment of a power failure, to which the disk can be brought again and again.
    ///
    /// # Errors
    /// There is no journal, or it makes no sense.
    pub fn moment(&self) -> Result<Moment> {
        self.now().map(Moment)
    }

    /// As [`lose_power`](Disk::lose_power), in a moment that has passed.
    ///
    /// # Errors
    /// The disk cannot be changed.
    pub fn lose_power_in(&mut self, moment: &Moment, keep: Keep) -> Result<Loss> {
        let loss = moment.0.crash(keep).map_err(|found| found.at(format!("a power failure, {keep:?}")))?;
        OpenOptions::new().write(true).truncate(true).open(&self.journal)?;
        self.before = Some(Model::of(&self.place, &self.roots)?);
        Ok(loss)
    }
}

/// See [`Disk::moment`].
#[derive(Debug)]
pub struct Moment(Model);
