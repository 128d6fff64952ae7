//! What can fail: which call, how, and what kind of file it is about.

use std::fmt;
use std::path::Path;

use millpond_testkit::chaos::disk::{Call, EIO, ENOSPC, Effect, Rule, Traced};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// There is no room for this call; there is for the next one.
    NoRoom,
    /// There is room for the first bytes of a write, and for all of the next one.
    RoomForSome,
    /// From this call on there is no room anywhere, until the process has ended or has borne it for a while.
    NoMoreRoom,
    /// A write, a cut, a rename or a removal fails with EIO.
    Change,
    /// A sync of a file or a directory fails with EIO.
    Sync,
    /// A file cannot be opened or read: EIO.
    Read,
}

const GROWS: &[Call] = &[Call::Grow, Call::Create, Call::Mkdir, Call::Link];

impl Failure {
    /// All of them.
    pub const ALL: [Failure; 6] =
        [Failure::NoRoom, Failure::RoomForSome, Failure::NoMoreRoom, Failure::Change, Failure::Sync, Failure::Read];

    fn calls(self) -> &'static [Call] {
        match self {
            Failure::NoRoom | Failure::NoMoreRoom => GROWS,
            Failure::RoomForSome => &[Call::Grow],
            Failure::Change => &[Call::Write, Call::Truncate, Call::Rename, Call::Remove],
            Failure::Sync => &[Call::Sync, Call::SyncDirectory],
            Failure::Read => &[Call::Open, Call::Read],
        }
    }

    /// Whether it can befall this call.
    pub(super) fn befalls(self, call: &Traced) -> bool {
        call.is_one_of(self.calls())
    }

    /// What the system says of it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Failure::NoRoom | Failure::RoomForSome | Failure::NoMoreRoom => "No space left on device",
            Failure::Change | Failure::Sync | Failure::Read => "Input/output error",
        }
    }

    /// It befalls the `number`th such call on paths that fit.
    pub(super) fn rule(self, number: u64, paths: &str) -> Rule {
        let effect = match self {
            Failure::NoRoom | Failure::NoMoreRoom => Effect::Fail(ENOSPC),
            Failure::RoomForSome => Effect::Short(7),
            Failure::Change | Failure::Sync | Failure::Read => Effect::Fail(EIO),
        };
        let rule = Rule::new(self.calls(), effect, paths).from(number);
        if self == Failure::NoMoreRoom { rule } else { rule.times(1) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::NoRoom => "no room, once",
            Failure::RoomForSome => "room for 7 bytes, once",
            Failure::NoMoreRoom => "no room any more",
            Failure::Change => "write, rename or removal fails",
            Failure::Sync => "sync fails",
            Failure::Read => "open or read fails",
        })
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A segment of the log.
    Segment,
    /// The log's directory, and what else is in it.
    LogDirectory,
    /// RocksDB's tables.
    Table,
    /// RocksDB's manifests.
    DatabaseManifest,
    /// RocksDB's own log, which stays empty.
    DatabaseLog,
    /// What else is in the directory of the open database.
    Database,
    /// The files of checkpoints, under their own names.
    CheckpointFile,
    /// The manifests of checkpoints.
    Manifest,
    /// The directory of checkpoints and its mark.
    Checkpoints,
    /// Persisted data sets.
    Spill,
    /// The application's directory: its lock, its note.
    Directory,
    /// The cursor of a file sink.
    Cursor,
    /// Its output.
    Output,
}

impl Kind {
    /// Of a file below `place`, which holds `pond` and `out`.
    pub fn of(place: &Path, path: &Path) -> Kind {
        let inner = path.strip_prefix(place).unwrap_or(path).to_string_lossy().into_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let within =
            |folder: &str| inner == folder || inner.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        match () {
            () if within("pond/log") && name.ends_with(".log") => Kind::Segment,
            () if within("pond/log") => Kind::LogDirectory,
            () if within("pond/live") && name.ends_with(".sst") => Kind::Table,
            () if within("pond/live") && name.starts_with("MANIFEST") => Kind::DatabaseManifest,
            () if within("pond/live") && name.ends_with(".log") => Kind::DatabaseLog,
            () if within("pond/live") => Kind::Database,
            () if within("pond/checkpoints/files") => Kind::CheckpointFile,
            () if within("pond/checkpoints/manifests") => Kind::Manifest,
            () if within("pond/checkpoints") => Kind::Checkpoints,
            () if within("pond/spill") => Kind::Spill,
            () if within("out/_millpond") && name.starts_with("cursor") => Kind::Cursor,
            () if within("out") => Kind::Output,
            () => Kind::Directory,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Segment => "log: segments",
            Kind::LogDirectory => "log: directory",
            Kind::Table => "RocksDB: tables",
            Kind::DatabaseManifest => "RocksDB: manifests",
            Kind::DatabaseLog => "RocksDB: its log",
            Kind::Database => "RocksDB: all else",
            Kind::CheckpointFile => "checkpoints: files",
            Kind::Manifest => "checkpoints: manifests",
            Kind::Checkpoints => "checkpoints: mark, directory",
            Kind::Spill => "persisted data sets",
            Kind::Directory => "directory: lock, note",
            Kind::Cursor => "file sink: cursor",
            Kind::Output => "file sink: output",
        })
    }
}

/// When in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before it was live.
    Start,
    /// While it was live.
    Live,
    /// When it had been asked to stop.
    Stop,
}
