//! A disk and a clock that fail on command, under real processes.
//!
//! A small library (`preload/`, in C) is loaded before the victim and stands between it and libc. It makes calls fail, short or
//! slow by [`Rule`]s that can be changed while the process lives, moves its clock, and keeps a journal of every change and every sync of
//! the disk. From the journal [`Disk::lose_power`] makes the disk that a power failure would have left.
//!
//! ```no_run
//! # use millpond_fault_injection::{Lineage, files::Files, victim::Pipeline};
//! # use millpond_fault_injection::disk::{Disk, Keep, Rule};
//! # fn main() -> millpond_fault_injection::Result<()> {
//! let mut world = Files::new(Pipeline::Files, 1)?;
//! let mut lineage = Lineage::new(world.setup());
//! let mut disk = Disk::under(world.place(), &["pond", "out"])?;
//! disk.attach(&mut lineage);
//! disk.set(&[Rule::full("*/pond/log/*").from(3)])?;
//! # Ok(())
//! # }
//! ```

mod control;
mod crash;
pub mod damage;
pub mod faults;
mod journal;
mod model;
mod power;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use millpond_testkit::chaos;
use tempfile::TempDir;

use self::control::Control;
pub use self::control::{Call, EIO, ENOSPC, Effect, Rule};
pub use self::crash::{Keep, Loss};
use self::model::Model;
pub use self::power::{keep_by_lot, lose_power_after, lose_power_at};
use crate::{Finding, Result};

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
    /// The disk as the journal found it, where there is one.
    before: Option<Model>,
    _own: TempDir,
}

impl Disk {
    /// The disk below `place`, an absolute path. `roots` are the entries of it that the processes make and write: what a power
    /// failure takes from; the rest belongs to the world around them.
    pub fn under(place: &Path, roots: &[&str]) -> Result<Self> {
        if !Path::new(LIBRARY).exists() {
            return Err(Finding::new(format!("there is no preloaded disk on this system: {LIBRARY}")));
        }
        let own = tempfile::tempdir()?;
        let journal = own.path().join("journal");
        fs::write(&journal, "")?;
        Ok(Disk {
            place: place.canonicalize()?,
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            control: Control::create(own.path().join("control"))?,
            rules: Vec::new(),
            journal,
            before: None,
            _own: own,
        })
    }

    /// From now on the processes of this lineage have this disk.
    pub fn attach(&self, lineage: &mut chaos::Lineage) {
        let launch = lineage.launch_mut();
        launch.set_env("LD_PRELOAD", LIBRARY);
        launch.set_env("MILLPOND_DISK", self.control.path());
        launch.set_env("MILLPOND_DISK_UNDER", &self.place);
        if self.before.is_some() {
            launch.set_env("MILLPOND_DISK_JOURNAL", &self.journal);
        }
    }

    /// From now on the processes of this lineage have the real disk and clock again.
    pub fn detach(lineage: &mut chaos::Lineage) {
        for name in ["LD_PRELOAD", "MILLPOND_DISK", "MILLPOND_DISK_UNDER", "MILLPOND_DISK_JOURNAL"] {
            lineage.launch_mut().remove_env(name);
        }
    }

    /// These faults and no others, at once, also in a process that lives.
    pub fn set(&mut self, rules: &[Rule]) -> Result<()> {
        self.rules = rules.to_vec();
        self.control.set(rules, None)
    }

    /// No faults any more.
    pub fn heal(&mut self) -> Result<()> {
        self.set(&[])
    }

    /// Beside the rules: the next process is killed with SIGKILL when it has made so many changes of the disk; `None`: no more.
    pub fn cut_after(&self, changes: Option<u64>) -> Result<()> {
        self.control.set(&self.rules, changes)
    }

    /// How many calls have met a rule since it was set, by its place among the rules.
    pub fn met(&self, rule: usize) -> Result<u64> {
        self.control.met(rule)
    }

    /// How many changes of the disk the newest process has made.
    pub fn changes(&self) -> Result<u64> {
        self.control.operations()
    }

    /// The processes' clock on the wall stands so many seconds from the real one; the monotonic clock is as it is.
    pub fn shift_clock(&self, seconds: i64) -> Result<()> {
        self.control.set_clock_offset_ns(seconds.saturating_mul(1_000_000_000))
    }

    /// Begins a journal of what is changed, with the disk as it is, all of it durable. Nobody may be running. Then the processes of the
    /// lineage may be killed from the inside only (failpoints, [`cut_after`](Disk::cut_after)) unless power is lost with them.
    pub fn record(&mut self, lineage: &mut chaos::Lineage) -> Result<()> {
        OpenOptions::new().write(true).truncate(true).open(&self.journal)?;
        self.before = Some(Model::of(&self.place, &self.roots)?);
        self.attach(lineage);
        Ok(())
    }

    fn now(&self) -> Result<Model> {
        let before = self.before.as_ref().ok_or_else(|| Finding::new("there is no journal: call `record`"))?;
        let (mut model, bytes) = (before.clone(), fs::read(&self.journal)?);
        journal::read(&bytes)?.iter().try_for_each(|record| model.follow(record))?;
        Ok(model)
    }

    /// The directories that were made since the journal began, each with the number of changes up to then.
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
    pub fn check(&self) -> Result<()> {
        self.now()?.check()
    }

    /// A power failure: makes the disk what is left of it, and begins a new journal there. Nobody may be running.
    pub fn lose_power(&mut self, keep: Keep) -> Result<Loss> {
        let moment = self.moment()?;
        self.lose_power_in(&moment, keep)
    }

    /// The moment of a power failure, to which the disk can be brought again and again.
    pub fn moment(&self) -> Result<Moment> {
        self.now().map(Moment)
    }

    /// As [`lose_power`](Disk::lose_power), in a moment that has passed.
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
