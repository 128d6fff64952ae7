//! The sweep of the disk: in a short life of a process each call that writes, makes, renames, syncs or reads a file fails once, in a life
//! of its own. What must come of it is written down in [`expected`]; at the end readers have seen everything exactly once.
//!
//! A first life without faults writes down its calls. Threads take turns as they like, so the call with the same number may be about
//! another file the next time: it is counted where it was met.

mod expected;
mod life;
mod moment;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

pub use self::expected::{Expected, expected};
pub use self::life::{Answer, Begins, FailingCall, Life, Seen, Stage};
pub use self::moment::{Failure, Kind, Phase};
use crate::{Dice, Finding, Result};

/// A failure in a life.
pub type Case = (Life, FailingCall, Kind);

/// What came of many failures.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By failure, kind of file and phase: how often a process went on, and how often it stopped.
    pub answers: BTreeMap<(Failure, Kind, Phase), (u64, u64)>,
    /// Calls that were not made when their turn had come.
    pub missed: u64,
    /// What was not as expected.
    pub findings: Vec<String>,
}

impl Tally {
    /// Failures that were met.
    pub fn met(&self) -> u64 {
        self.answers.values().map(|(on, stopped)| on + stopped).sum()
    }

    /// Failures that stopped the process.
    pub fn stopped(&self) -> u64 {
        self.answers.values().map(|(_, stopped)| stopped).sum()
    }

    fn add(&mut self, failing: FailingCall, outcome: Result<Option<Seen>>) {
        let seen = match outcome {
            Ok(Some(seen)) => seen,
            Ok(None) => return self.missed += 1,
            Err(found) => return self.findings.push(found.to_string()),
        };
        let counts = self.answers.entry((failing.failure, seen.kind, seen.phase)).or_default();
        match seen.answer {
            Answer::WentOn => counts.0 += 1,
            Answer::Stopped(_) => counts.1 += 1,
        }
        if let Err(found) = expected::check(failing.failure, &seen) {
            self.findings.push(found.to_string());
        }
    }

    /// As a table in Markdown: a line for each kind of file, a column for each failure, `went on / stopped`.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| |");
        Failure::ALL.iter().for_each(|failure| _ = write!(text, " {failure} |"));
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(Failure::ALL.len()));
        let mut kinds: Vec<Kind> = self.answers.keys().map(|(_, kind, _)| *kind).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            _ = write!(text, "\n| {kind} |");
            for failure in Failure::ALL {
                let of = |(key, _): &(&(Failure, Kind, Phase), &(u64, u64))| (key.0, key.1) == (failure, kind);
                let all = self.answers.iter().filter(of).fold((0, 0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1));
                match all {
                    (0, 0) => text.push_str(" |"),
                    (on, stopped) => _ = write!(text, " {on} / {stopped} |"),
                }
            }
        }
        text
    }
}

/// All cases of these lives, found by living each once without a failure.
pub fn cases(seed: u64) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for life in Life::ALL {
        let calls = Stage::new(life, seed)?.calls().map_err(|found| found.at(format!("{life:?}, undisturbed")))?;
        all.extend(calls.into_iter().map(|(failing, kind)| (life, failing, kind)));
    }
    Ok(all)
}

/// Cases drawn evenly over failures and kinds of files, not over calls, of which the log has most; without end.
pub fn drawn(cases: &[Case], seed: u64) -> impl Iterator<Item = Case> {
    let mut groups: BTreeMap<(Failure, Kind), Vec<Case>> = BTreeMap::new();
    for case in cases {
        groups.entry((case.1.failure, case.2)).or_default().push(*case);
    }
    let (groups, mut dice): (Vec<Vec<Case>>, _) = (groups.into_values().collect(), Dice::new(seed));
    let mut turn = 0;
    std::iter::from_fn(move || {
        let group = groups.get(turn % groups.len().max(1))?;
        turn += 1;
        Some(*dice.one_of(group))
    })
}

/// Inflicts cases one after the other until there are none left, by so many workers, each with stages of its own.
pub fn inflict(
    cases: impl Iterator<Item = Case> + Send,
    workers: usize,
    seed: u64,
    progress: impl Fn(&Tally) + Sync,
) -> Result<Tally> {
    let (cases, tally) = (Mutex::new(cases), Mutex::new(Tally::default()));
    let work = || -> Result<()> {
        let mut stages: Vec<(Life, Stage)> = Vec::new();
        loop {
            let next = cases.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((life, failing, _)) = next else { return Ok(()) };
            let place = match stages.iter().position(|(known, _)| *known == life) {
                Some(place) => place,
                None => {
                    stages.push((life, Stage::new(life, seed)?));
                    stages.len() - 1
                }
            };
            let outcome = stages[place].1.inflict(failing);
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add(failing, outcome);
            progress(&tally);
        }
    };
    let outcomes: Vec<Result<()>> = std::thread::scope(|threads| {
        let all: Vec<_> = (0..workers).map(|_| threads.spawn(work)).collect();
        let panicked = |_| Err(Finding::new("a worker panicked"));
        all.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
    });
    outcomes.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}
