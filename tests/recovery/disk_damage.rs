//! One flipped bit, a cut, a missing file, of every kind that there is in a directory: the outcome is the one that was written down; never a
//! panic, a hang, a wrong result, or an empty start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_fault_injection::damage::{Damage, KINDS, NOT_READ_BACK, Outcome, files_below, flip};
use millpond_fault_injection::files::Files;
use millpond_fault_injection::points::Point;
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Dice, Ended, Finding, Lineage, World, kill_at};
use millpond_testkit::chaos::disk::{Disk, Keep, Moment};

const LIMIT: Duration = Duration::from_secs(60);

/// A directory with two checkpoints and batches to replay, whose process was killed in the midst of a commit, and more input than it
/// has taken; and the disk as it was then.
struct Killed {
    world: Files,
    lineage: Lineage,
    disk: Disk,
    then: Moment,
}

impl Killed {
    fn new(seed: u64) -> Self {
        let mut world = Files::new(Pipeline::Files, seed).unwrap();
        let mut lineage = Lineage::new(world.setup());
        let mut disk = Disk::under(world.place(), &["pond", "out"]).unwrap();
        kill_at(&mut lineage, &mut world, Point { name: "checkpoint-deleted", hit: 1 }, "").unwrap();
        for (name, hit) in [("after-commit", 9), ("recovery-run-logged", 1)] {
            kill_at(&mut lineage, &mut world, Point { name, hit }, "").unwrap();
        }
        disk.record(&mut lineage).unwrap();
        Disk::detach(&mut lineage);
        world.feed().unwrap();
        let then = disk.moment().unwrap();
        Killed { world, lineage, disk, then }
    }

    /// Everything as it was.
    fn again(&mut self) {
        self.disk.lose_power_in(&self.then, Keep::Synced).unwrap();
        self.world.forget();
    }

    /// Lets a process run until all output is there, or until it has stopped with an error: its words.
    fn run(&mut self) -> Result<(), Stopped> {
        let other = |what: Finding| Stopped::Otherwise(what.to_string());
        let mut process = self.lineage.start("").map_err(other)?;
        let complete = process.wait_while_alive(LIMIT, "all output", || self.world.is_complete());
        if complete.is_ok() {
            drop(process);
            return self.lineage.finish(&mut self.world).map_err(other);
        }
        match process.ends_within(Duration::from_secs(1)).map_err(other)? {
            Some(Ended::Failed) => Err(Stopped::WithError(process.said())),
            _ => Err(Stopped::Otherwise(complete.unwrap_err().to_string())),
        }
    }
}

#[derive(Debug)]
enum Stopped {
    WithError(String),
    Otherwise(String),
}

#[test]
fn one_flipped_bit_a_cut_or_a_missing_file_of_each_kind_has_the_outcome_that_was_written_down() {
    let mut killed = Killed::new(301);
    let place = killed.world.place().to_owned();
    let mut wrong = Vec::new();
    for kind in KINDS {
        for (damage, expected) in Damage::ALL.into_iter().zip(kind.outcomes) {
            killed.again();
            let file = kind.find(&place).unwrap_or_else(|| panic!("there is no {kind:?}"));
            kind.damage(&file, damage).unwrap();
            let in_older = oldest_manifest_names(&place, &file);
            let outcome = killed.run();
            let outcome_is = |text: &str| matches!(&outcome, Err(Stopped::WithError(said)) if said.contains(text));
            let well = match expected {
                Outcome::GoesOn => outcome.is_ok(),
                Outcome::OlderTakesOver(text) if !in_older => {
                    outcome.is_ok() || outcome_is(text) && killed.run().is_ok()
                }
                Outcome::Refused(text) | Outcome::OlderTakesOver(text) => {
                    outcome_is(text) && is_refused(killed.run(), text)
                }
            };
            if !well {
                let name = file.strip_prefix(&place).unwrap().display().to_string();
                wrong.push(format!("{name} {:?} {damage:?}: expected {expected:?}, seen {outcome:?}", kind.at));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_log_that_has_lost_its_beginning_is_refused_and_no_batch_is_left_out_of_a_replay() {
    let mut world = Files::new(Pipeline::Files, 303).unwrap();
    let mut lineage = Lineage::new(world.setup());
    kill_at(&mut lineage, &mut world, Point { name: "checkpoint-deleted", hit: 1 }, "").unwrap();
    // Three more segments with plans, all of them to be replayed.
    lineage.setup_mut().checkpoint_every = 1_000_000;
    for _ in 0..3 {
        kill_at(&mut lineage, &mut world, Point { name: "plan-synced", hit: 6 }, "").unwrap();
    }
    let mut segments = files_below(world.place(), &["pond/log"]).unwrap();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    let (newest, older) = segments.split_last().unwrap();
    assert!(older.len() >= 3, "{segments:?}");
    for (number, segment) in older.iter().enumerate() {
        // The oldest ones, one more each time: the log itself sees no gap.
        let aside = world.place().join(format!("aside-{number}"));
        std::fs::rename(segment, &aside).unwrap();
        if number == 0 {
            // That of the first process, killed as its checkpoint was out: often all of its plans are in that.
            continue;
        }
        let mut process = lineage.start("").unwrap();
        assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
        assert!(process.said().contains("does not go on from the checkpoint"), "{}", process.said());
        world.look().unwrap();
    }
    for (number, segment) in older.iter().enumerate() {
        std::fs::rename(world.place().join(format!("aside-{number}")), segment).unwrap();
    }
    assert!(newest.exists());
    lineage.finish(&mut world).unwrap();
}

fn is_refused(outcome: Result<(), Stopped>, text: &str) -> bool {
    matches!(outcome, Err(Stopped::WithError(said)) if said.contains(text))
}

/// Whether the oldest checkpoint that is kept has this file too.
fn oldest_manifest_names(place: &Path, file: &Path) -> bool {
    let manifests = files_below(place, &["pond/checkpoints/manifests"]).unwrap();
    let (Some(oldest), Some(name)) = (manifests.first(), file.file_name()) else { return false };
    let (bytes, name) = (std::fs::read(oldest).unwrap(), name.as_encoded_bytes());
    bytes.windows(name.len()).any(|window| window == name)
}

#[test]
fn every_kind_of_file_that_there_is_in_a_directory_stands_in_the_table() {
    let killed = Killed::new(302);
    let place = killed.world.place();
    let fits = |file: &Path, pattern: &&str| {
        let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
        let name = file.strip_prefix(place).unwrap().to_string_lossy().into_owned();
        let rest = name.strip_prefix(before);
        // The second `*` of a pattern stands at its end.
        rest.is_some_and(|rest| after.trim_end_matches('*').split('*').all(|part| rest.contains(part)))
    };
    let is_known = |file: &PathBuf| {
        KINDS.iter().any(|kind| kind.fits(place, file)) || NOT_READ_BACK.iter().any(|pattern| fits(file, pattern))
    };
    let mut unknown = files_below(place, &["pond", "out"]).unwrap();
    unknown.retain(|file| !is_known(file));
    assert!(unknown.is_empty(), "nobody has said what comes of damage to {unknown:#?}");
}

#[test]
fn one_random_bit_flipped_in_a_random_file_is_a_right_output_or_an_error_that_names_the_file() {
    let seed = crate::seed();
    let mut dice = Dice::new(seed);
    let mut killed = Killed::new(seed);
    let place = killed.world.place().to_owned();
    let (mut went_on, mut stopped) = (0, 0);
    for _ in 0..25 {
        killed.again();
        let mut files = files_below(&place, &["pond/log", "pond/checkpoints", "out/_millpond"]).unwrap();
        // Output on its way to readers is nothing that is read back.
        files.retain(|file| !file.to_string_lossy().contains("/part-") && file.metadata().unwrap().len() > 0);
        let file = files[dice.below(files.len() as u64) as usize].clone();
        let bit = dice.below(8 * file.metadata().unwrap().len());
        flip(&file, bit).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let at = format!("bit {bit} of {}", file.strip_prefix(&place).unwrap().display());
        match killed.run() {
            Ok(()) => went_on += 1,
            // The second start may know a way around.
            Err(Stopped::WithError(said)) => {
                let stem = name.split(['-', '.']).next().unwrap_or(&name);
                assert!(said.contains(stem) || said.contains("checkpoint"), "{at}: {said}");
                stopped += 1;
                match killed.run() {
                    Ok(()) | Err(Stopped::WithError(_)) => {}
                    Err(Stopped::Otherwise(found)) => panic!("{at}, second start: {found}"),
                }
            }
            Err(Stopped::Otherwise(found)) => panic!("{at}: {found}"),
        }
    }
    println!("{went_on} went on, {stopped} stopped with an error");
}
