//! Whether a directory is that of an application, and who holds it.

use std::fs;
use std::io::{ErrorKind as IoKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_state::LocalSnapshotStore;

use super::report::Process;
use crate::error::{Error, ErrorKind, Result};

/// The parts of a directory.
pub(super) struct Place {
    directory: PathBuf,
    pub(super) snapshots: Arc<LocalSnapshotStore>,
}

impl Place {
    /// Finds them; an error that says what the directory is instead.
    pub(super) fn find(directory: &Path) -> Result<Place> {
        let shown = directory.display();
        let cannot = |error| Error::configuration(format!("cannot look at {shown}")).with_source(error);
        match fs::metadata(directory) {
            Err(error) if error.kind() == IoKind::NotFound => {
                return Err(Error::configuration(format!("there is no directory {shown}")));
            }
            Err(error) => return Err(cannot(error)),
            Ok(found) if !found.is_dir() => {
                return Err(Error::configuration(format!("{shown} is a file, not the directory of an application")));
            }
            Ok(_) => {}
        }
        // Reading it here makes a missing right an error of this directory, not of a part of it.
        fs::read_dir(directory).map_err(cannot)?;
        let (checkpoints, log) = (directory.join("checkpoints"), directory.join("log"));
        if !checkpoints.is_dir() {
            return Err(match log.is_dir() {
                true => Error::new(
                    ErrorKind::Restore,
                    format!("{shown} holds a log but no checkpoints: they were deleted or moved. Restore them"),
                ),
                false => Error::configuration(format!(
                    "{shown} is not the directory of an application: it holds no `checkpoints`. Give the path that the program \
                     gives to .directory(path)"
                )),
            });
        }
        let snapshots = LocalSnapshotStore::open_read_only(&checkpoints).map_err(|error| match error.kind() {
            millpond_state::ErrorKind::Foreign => Error::configuration(format!(
                "{shown} is not the directory of an application: its `checkpoints` are none of Millpond's"
            )),
            _ => Error::from(error),
        })?;
        Ok(Place { directory: directory.to_owned(), snapshots: Arc::new(snapshots) })
    }

    /// How messages name it.
    pub(super) fn name(&self) -> String {
        self.directory.display().to_string()
    }

    /// Where the log is; it need not be there yet.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Who holds the directory, or held it last.
    pub(super) fn process(&self) -> Option<Process> {
        let path = self.directory.join("LOCK");
        let mut note = String::new();
        let file = fs::File::open(path).ok()?;
        let inode = file.metadata().ok()?.ino();
        file.take(256).read_to_string(&mut note).ok()?;
        let field = |name: &str| note.lines().find_map(|line| line.strip_prefix(name));
        let (pid, since) = (field("pid ")?.parse().ok()?, field("since ")?.to_owned());
        Some(Process { pid, since, running: holds_lock(pid, inode) })
    }
}

/// Whether the process holds the lock on the file, without trying to take it: that would keep a starting process out.
fn holds_lock(pid: u32, inode: u64) -> bool {
    match fs::read_to_string("/proc/locks") {
        Ok(locks) => locks.lines().any(|line| is_lock(line, pid, inode)),
        // Not to be had in some containers: a process of this id is the next best sign.
        Err(_) => Path::new("/proc").join(pid.to_string()).exists(),
    }
}

/// Whether a line as `1: FLOCK  ADVISORY  WRITE 4711 fe:00:613 0 EOF` is that lock.
fn is_lock(line: &str, pid: u32, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", holder, file, ..] = fields[..] else { return false };
    holder.parse() == Ok(pid) && file.rsplit(':').next().and_then(|last| last.parse().ok()) == Some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_seen_and_one_given_back_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let lock = millpond_wal::DirectoryLock::acquire(directory.path()).expect("nobody else has it");
        let inode = fs::metadata(directory.path().join("LOCK")).expect("made by the lock").ino();
        let pid = std::process::id();
        assert!(holds_lock(pid, inode), "{:?}", fs::read_to_string("/proc/locks"));
        drop(lock);
        assert!(!holds_lock(pid, inode), "{:?}", fs::read_to_string("/proc/locks"));
    }

    #[test]
    fn lines_of_other_locks_are_told_apart() {
        assert!(is_lock("1: FLOCK  ADVISORY  WRITE 4711 fe:00:613 0 EOF", 4711, 613));
        for other in [
            "1: FLOCK  ADVISORY  WRITE 4712 fe:00:613 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 4711 fe:00:614 0 EOF",
            "1: POSIX  ADVISORY  WRITE 4711 fe:00:613 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:613 0 EOF",
            "",
        ] {
            assert!(!is_lock(other, 4711, 613), "{other}");
        }
    }
}
