//! Every kind of file in the directory of an application and of a file sink, and what must come of it when a bit of one flips, when it is
//! cut short, and when it is gone; written down before it is tried.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Finding, Result};

/// What must come of a damaged file at the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The application goes on, and nothing is lost.
    GoesOn,
    /// The start is refused with an error that has this text, until the file is there as it was.
    Refused(&'static str),
    /// The checkpoint is given up for the one before it: at once, or after a process has stopped with an error that has this text. If
    /// that names the file too, starts are refused with this text.
    OlderTakesOver(&'static str),
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit is another.
    Flipped,
    /// What stands behind the place where a bit would flip is gone, that byte too.
    Cut,
    /// The file is gone.
    Missing,
}

impl Damage {
    /// All of it.
    pub const ALL: [Damage; 3] = [Damage::Flipped, Damage::Cut, Damage::Missing];
}

/// Where in a file a bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At this byte.
    Byte(u64),
    /// In its middle.
    Middle,
    /// In its last byte.
    End,
}

/// Which file, of many of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The last by name.
    Newest,
    /// The one before it.
    Before,
    /// The first by name.
    Oldest,
}

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The folder that it is in, from the place that holds `pond` and `out`.
    pub folder: &'static str,
    /// How its name begins and ends.
    pub name: (&'static str, &'static str),
    /// Which one, of many.
    pub which: Which,
    /// Where the bit flips.
    pub at: At,
    /// What comes of a flipped bit, a cut file, a missing file.
    pub outcomes: [Outcome; 3],
}

use Outcome::{GoesOn, OlderTakesOver, Refused};
use Which::{Before, Newest, Oldest};

const fn kind(
    folder: &'static str,
    name: (&'static str, &'static str),
    which: Which,
    at: At,
    outcomes: [Outcome; 3],
) -> Kind {
    Kind { folder, name, which, at, outcomes }
}

/// The header of a segment of the log; its frames come after it.
const HEADER_BYTES: u64 = 4096;

/// The segment after it misses it; where there is none older, the log cannot know, but the checkpoint does, or the sink.
const GAP: Outcome = Refused("log");
/// The mark of the newest segment names it.
const LOST: Outcome = Refused("the file is missing");

/// All kinds. The directory is one with two checkpoints, whose process was killed in the midst of a commit, and the next one when it had begun
/// a new segment of the log: there are batches to replay.
pub const KINDS: &[Kind] = &[
    // For people, and for locks.
    kind("pond", ("LOCK", ""), Newest, At::Middle, [GoesOn; 3]),
    kind("pond", ("note", ""), Newest, At::Middle, [GoesOn; 3]),
    // The log: what is below the synced mark is missed or seen to be damaged. The newest segment holds one group, of which nothing
    // says yet that it was synced: it may be a torn end.
    kind("pond/log", ("", ".log"), Before, At::Byte(16), [Refused(".log"), Refused(".log"), GAP]),
    kind("pond/log", ("", ".log"), Before, At::Byte(HEADER_BYTES + 40), [Refused(".log"), Refused(".log"), GAP]),
    kind("pond/log", ("", ".log"), Before, At::End, [GoesOn, GoesOn, GAP]),
    kind("pond/log", ("", ".log"), Newest, At::Byte(16), [Refused(".log"), Refused(".log"), LOST]),
    kind("pond/log", ("", ".log"), Newest, At::Byte(HEADER_BYTES + 40), [GoesOn, GoesOn, LOST]),
    kind("pond/log", ("", ".log"), Newest, At::End, [GoesOn, GoesOn, LOST]),
    // The mark of the newest segment is empty; one that is missing is made again.
    kind("pond/log", ("", ".log.newest"), Newest, At::Middle, [GoesOn; 3]),
    // Checkpoints: the newest is given up for the one before it, whose batches the log has.
    kind("pond/checkpoints", ("FORMAT", ""), Newest, At::Middle, [Refused("checkpoints"); 3]),
    kind("pond/checkpoints/manifests", ("", ".manifest"), Newest, At::Middle, [GoesOn; 3]),
    kind("pond/checkpoints/manifests", ("", ".manifest"), Oldest, At::Middle, [GoesOn; 3]),
    kind("pond/checkpoints/files", ("CURRENT-", ".meta"), Newest, At::Middle, [OlderTakesOver("CURRENT"); 3]),
    kind("pond/checkpoints/files", ("MANIFEST-", ".meta"), Newest, At::Middle, [OlderTakesOver("MANIFEST"); 3]),
    kind("pond/checkpoints/files", ("", ".sst"), Newest, At::Middle, [OlderTakesOver(".sst"); 3]),
    // The oldest is in every checkpoint that is kept.
    kind("pond/checkpoints/files", ("", ".sst"), Oldest, At::Middle, [Refused(".sst"); 3]),
    // The open database is thrown away at each start.
    kind("pond/live", ("LIVE", ""), Newest, At::Middle, [GoesOn, GoesOn, Refused("pond/live")]),
    kind("pond/live/db", ("LOG", ""), Newest, At::Middle, [GoesOn; 3]),
    kind("pond/live/db", ("LOCK", ""), Newest, At::Middle, [GoesOn; 3]),
    kind("pond/live/db", ("IDENTITY", ""), Newest, At::Middle, [GoesOn; 3]),
    kind("pond/live/db", ("OPTIONS-", ""), Newest, At::Middle, [GoesOn; 3]),
    kind("pond/live/db", ("", ".log"), Newest, At::Middle, [GoesOn; 3]),
    // What the file sink has committed.
    kind("out/_millpond", ("LOCK", ""), Newest, At::Middle, [GoesOn; 3]),
    kind(
        "out/_millpond",
        ("cursor", ""),
        Newest,
        At::Middle,
        [Refused("_millpond/cursor"), Refused("_millpond/cursor"), Refused("has no cursor")],
    ),
];

/// Files that are others under a second name, or that hold what readers see and nobody reads back.
pub const NOT_READ_BACK: &[&str] =
    &["pond/live/link/*", "pond/live/db/*.sst", "pond/live/db/MANIFEST-*", "pond/live/db/CURRENT", "out/*/part-*"];

impl Kind {
    /// The file of this kind below `place`, if there is one.
    pub fn find(&self, place: &Path) -> Option<PathBuf> {
        let mut found: Vec<PathBuf> =
            fs::read_dir(place.join(self.folder)).ok()?.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.is_file() && self.is_name(path));
        found.sort();
        match self.which {
            Newest => found.pop(),
            Before => found.into_iter().nth_back(1),
            Oldest => found.into_iter().next(),
        }
    }

    /// Whether a file below `place` is of this kind.
    pub fn fits(&self, place: &Path, file: &Path) -> bool {
        file.parent() == Some(&place.join(self.folder)) && self.is_name(file)
    }

    fn is_name(&self, file: &Path) -> bool {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (begins, ends) = self.name;
        match ends {
            "" if !begins.ends_with('-') => name == begins,
            _ => name.starts_with(begins) && name.ends_with(ends),
        }
    }

    /// Does it to a file of this kind.
    pub fn damage(&self, file: &Path, damage: Damage) -> Result<()> {
        let length = fs::metadata(file)?.len();
        let at = match self.at {
            At::Byte(at) => at.min(length.saturating_sub(1)),
            At::Middle => length / 2,
            At::End => length.saturating_sub(1),
        };
        match damage {
            Damage::Missing => Ok(fs::remove_file(file)?),
            Damage::Cut => Ok(OpenOptions::new().write(true).open(file)?.set_len(at)?),
            Damage::Flipped if length == 0 => Ok(()),
            Damage::Flipped => flip(file, at * 8 + 4),
        }
    }
}

/// Flips one bit of a file, in place: all its names see it.
pub fn flip(file: &Path, bit: u64) -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    opened.read_exact_at(&mut byte, bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    Ok(opened.write_all_at(&byte, bit / 8)?)
}

/// All files below some folders of a place, in order.
pub fn files_below(place: &Path, folders: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| place.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| Finding::from(error).at(folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}
