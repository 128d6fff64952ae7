//! A lock on a directory, so that two processes, or two contexts of one, never work in it at the same time.
//!
//! The system's advisory lock (`flock`) on a file `LOCK` is the lock; the death of the process, however it dies, frees it. What stands in the file is for
//! humans and for the error of whoever comes second: two lines, `pid 4711` and `since 2025-01-31T11:58:02Z`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, ErrorKind, Result};

/// The name of the file that is locked.
const NAME: &str = "LOCK";

/// Keeps others out of a directory until it is dropped or the process dies.
///
/// ```
/// use millpond_wal::{DirectoryLock, ErrorKind};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// let lock = DirectoryLock::acquire(path)?;
/// assert_eq!(DirectoryLock::acquire(path).unwrap_err().kind(), ErrorKind::InUse);
/// drop(lock);
/// DirectoryLock::acquire(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
}

impl DirectoryLock {
    /// Locks the directory, which is made if it is missing. Never waits.
    ///
    /// # Errors
    /// - [`InUse`](ErrorKind::InUse): it is locked; the message names the process that holds it and since when.
    /// - [`Io`](ErrorKind::Io): the directory or the file cannot be made, opened or locked.
    pub fn acquire(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|error| Error::io("create the directory", directory, error))?;
        let path = directory.join(NAME);
        // Not emptied: until we have the lock, what stands in it is the holder's.
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| Error::io("open the lock file", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let holder = holder(&mut file);
                let message = format!("cannot open {}: it is in use by {holder}", directory.display());
                return Err(Error::new(ErrorKind::InUse, message));
            }
            Err(error) => return Err(Error::io("lock", &path, error)),
        }
        #[allow(clippy::disallowed_methods, reason = "a note for humans; nothing depends on it")]
        let now = SystemTime::now();
        let note = format!("pid {}\nsince {}\n", std::process::id(), utc(now));
        let written = file.set_len(0).and_then(|()| file.write_all(note.as_bytes()));
        written.map_err(|error| Error::io("write to the lock file", &path, error))?;
        Ok(Self { file, path })
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // The note goes first, so that the next holder's rival never reads ours.
        let _ = self.file.set_len(0);
        // Closing alone would not free it while a process that is just being started still has a copy of the handle.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// What the holder wrote about itself, as far as it has got.
fn holder(file: &mut File) -> String {
    let mut note = String::new();
    let _ = file.rewind();
    let _ = file.take(256).read_to_string(&mut note);
    let field = |name: &str| note.lines().find_map(|line| line.strip_prefix(name));
    match (field("pid "), field("since ")) {
        (Some(pid), Some(since)) => format!("process {pid} since {since}"),
        _ => "a process that is just starting or stopping".to_owned(),
    }
}

/// A time as `2025-01-31T11:58:02Z`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day at their end; 400 of them have 146 097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dropping_frees_the_lock_though_a_process_being_started_has_a_copy_of_the_handle() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        DirectoryLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_time_is_written_as_the_calendar_has_it() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
