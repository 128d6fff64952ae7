//! One short life of a process, lived again and again from the same disk and the same input, with another call failing each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millpond_testkit::chaos::disk::{Disk, Keep, Moment, Traced};
use millpond_testkit::chaos::{Invariants, LIMIT, check_cursors, check_settled};

use super::moment::{Failure, Kind, Phase};
use crate::files::Files;
use crate::points::Point;
use crate::victim::Pipeline;
use crate::{Ended, Finding, Lineage, Result, World, kill_at};

/// So long there is no room while the process bears it.
const NO_ROOM_FOR: Duration = Duration::from_millis(300);
/// The most bytes of a directory after a stop.
const DISK_LIMIT_BYTES: u64 = 16 << 20;

/// What the disk holds when the life begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Nothing: the directory is made.
    Empty,
    /// What a process has left that was killed in the midst of a commit.
    Killed,
}

/// What is lived, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What the process runs.
    pub pipeline: Pipeline,
    /// Where it begins.
    pub begins: Begins,
}

impl Life {
    /// All of them: input in files that is read again, and input that was received and logged whole.
    pub const ALL: [Life; 4] = [
        Life { pipeline: Pipeline::PersistedFiles, begins: Begins::Empty },
        Life { pipeline: Pipeline::PersistedFiles, begins: Begins::Killed },
        Life { pipeline: Pipeline::Spool, begins: Begins::Empty },
        Life { pipeline: Pipeline::Spool, begins: Begins::Killed },
    ];
}

/// A failure at one call of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailingCall {
    /// How.
    pub failure: Failure,
    /// Which call, of those that it can befall, counted from 1.
    pub number: u64,
}

/// What the process has made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has gone on by itself and ended well.
    WentOn,
    /// It has stopped with an error, and the next start has gone on.
    Stopped(String),
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The paths of the calls that failed: one, or more where there was no room any more.
    pub paths: Vec<PathBuf>,
    /// What the first of them is.
    pub kind: Kind,
    /// When it failed.
    pub phase: Phase,
    /// What came of it.
    pub answer: Answer,
}

/// Where a life is lived: world, disk, and the disk as it is at its beginning.
pub struct Stage {
    life: Life,
    world: Files,
    lineage: Lineage,
    disk: Disk,
    then: Moment,
    /// What the giver of a receiver's lines has noted: it is no part of that disk.
    acknowledged: (PathBuf, Option<Vec<u8>>),
}

impl Stage {
    /// Sets it up.
    pub fn new(life: Life, seed: u64) -> Result<Self> {
        let mut world = Files::new(life.pipeline, seed)?;
        let mut lineage = Lineage::new(world.setup()).patience(LIMIT);
        // Few batches: each call of the life is a life of its own.
        lineage.setup_mut().batch_limit_bytes = 1000;
        world.feed()?;
        if life.begins == Begins::Killed {
            kill_at(&mut lineage, &mut world, Point::new("checkpoint-deleted", 1), "")?;
            kill_at(&mut lineage, &mut world, Point::new("after-commit", 3), "")?;
        }
        let mut disk = Disk::under(world.place(), &["pond", "out"])?;
        disk.record(&mut lineage)?;
        let then = disk.moment()?;
        let note = world.place().join("spool.acknowledged");
        let acknowledged = (note.clone(), fs::read(note).ok());
        Ok(Stage { life, world, lineage, disk, then, acknowledged })
    }

    fn place(&self) -> &Path {
        self.world.place()
    }

    /// All that a victim writes.
    fn paths(&self) -> String {
        format!("{}/[po][ou]*", self.place().display())
    }

    /// Everything as it was.
    fn again(&mut self) -> Result<()> {
        self.disk.heal()?;
        self.disk.lose_power_in(&self.then, Keep::Synced)?;
        self.world.forget();
        match &self.acknowledged {
            (note, Some(bytes)) => fs::write(note, bytes)?,
            (note, None) if note.exists() => fs::remove_file(note)?,
            _ => {}
        }
        self.disk.trace(&mut self.lineage)
    }

    /// The calls of this life that can fail, when none does.
    pub fn calls(&mut self) -> Result<Vec<(FailingCall, Kind)>> {
        self.again()?;
        self.lineage.finish(&mut self.world)?;
        self.disk.check()?;
        let traced = self.ours()?;
        let mut calls = Vec::new();
        for failure in Failure::ALL {
            let befalls = traced.iter().filter(|call| failure.befalls(call));
            let numbered = befalls.enumerate().map(|(index, call)| {
                (FailingCall { failure, number: index as u64 + 1 }, Kind::of(self.place(), &call.path))
            });
            calls.extend(numbered);
        }
        Ok(calls)
    }

    fn ours(&self) -> Result<Vec<Traced>> {
        let mut traced = self.disk.traced()?;
        let ours = [self.place().join("pond"), self.place().join("out")];
        traced.retain(|call| call.is_said("ready") || ours.iter().any(|root| call.path.starts_with(root)));
        Ok(traced)
    }

    /// Lives this life with this failure; then, if the process has stopped, lets another one come to the end. `None`: this call was not made
    /// this time.
    pub fn inflict(&mut self, failing: FailingCall) -> Result<Option<Seen>> {
        self.again()?;
        let outcome = self.go(failing);
        outcome.map_err(|found| found.at(format!("{:?}, {failing:?}, seen {:?}", self.life, self.failed())))
    }

    fn go(&mut self, failing: FailingCall) -> Result<Option<Seen>> {
        self.disk.set(&[failing.failure.rule(failing.number, &self.paths())])?;
        let (ended, said, asked_at) = self.live(failing)?;
        self.disk.heal()?;
        self.world.look()?;
        let failed = self.failed();
        match ended {
            Ended::Well => self.world.judge()?,
            Ended::Failed if failed.is_some() => self.lineage.finish(&mut self.world)?,
            ended => return Err(Finding::new(format!("the process {ended}: {said}"))),
        }
        if self.check().is_err() && ended == Ended::Well {
            // What a failure has left behind at the very end goes with the next start.
            self.lineage.finish(&mut self.world)?;
        }
        self.check()?;
        let Some((index, paths, live)) = failed else { return Ok(None) };
        let phase = match live {
            false => Phase::Start,
            true if asked_at.is_some_and(|asked| index >= asked) => Phase::Stop,
            true => Phase::Live,
        };
        let answer = match ended {
            Ended::Well => Answer::WentOn,
            _ => Answer::Stopped(said),
        };
        Ok(Some(Seen { kind: Kind::of(self.place(), &paths[0]), paths, phase, answer }))
    }

    /// The cursors, and that nothing is left over.
    fn check(&self) -> Result<()> {
        let directory = self.lineage.directory();
        let invariants = Invariants { directory, kafka: None, disk_limit_bytes: DISK_LIMIT_BYTES };
        check_cursors(&invariants)?;
        check_settled(&invariants)
    }

    /// Lets a process live to its end: how it ended, its words, and how many calls had been made when it was asked to stop.
    fn live(&mut self, failing: FailingCall) -> Result<(Ended, String, Option<usize>)> {
        let mut process = self.lineage.start("")?;
        let deadline = Instant::now() + LIMIT;
        let (mut asked_at, mut no_room_since) = (None, None);
        let mut room = failing.failure != Failure::NoMoreRoom;
        while Instant::now() < deadline {
            if let Some(ended) = process.ends_within(Duration::from_millis(5))? {
                return Ok((ended, process.said(), asked_at));
            }
            if !room && self.disk.met(0)? >= failing.number {
                let since = *no_room_since.get_or_insert_with(Instant::now);
                if since.elapsed() > NO_ROOM_FOR {
                    self.disk.heal()?;
                    room = true;
                }
            }
            if asked_at.is_none() && process.ready_after().is_some() && self.world.is_complete()? {
                asked_at = Some(self.disk.traced()?.len());
                process.terminate()?;
            }
        }
        Err(Finding::new(format!("it neither went on nor stopped within {LIMIT:?}: {}", process.said())))
    }

    /// Which call has failed first, by its place among all; the paths of all that have; whether the process was live.
    fn failed(&self) -> Option<(usize, Vec<PathBuf>, bool)> {
        let traced = self.disk.traced().ok()?;
        let index = traced.iter().position(|call| call.error != 0)?;
        let live = traced[..index].iter().any(|call| call.is_said("ready"));
        let mut paths: Vec<PathBuf> =
            traced[index..].iter().filter(|call| call.error != 0).map(|call| call.path.clone()).collect();
        paths.dedup();
        Some((index, paths, live))
    }
}
