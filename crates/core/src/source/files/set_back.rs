//! What is said where the system's clock was set back.

use std::path::PathBuf;

use super::{PLAN_LIMIT_BYTES, Running};
use crate::error::{Error, ErrorKind, Result};

impl Running {
    /// Fails where the clock was set back and so many old files are to be remembered that new ones would have to wait for long.
    pub(super) fn check_remembered(&self, old: usize, limit: usize) -> Result<()> {
        let bytes = self.progress.remembered_bytes();
        if old == 0 || (self.progress.remembered() <= limit / 2 && bytes <= PLAN_LIMIT_BYTES / 2) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the system's clock was set back, and {old} files with mtimes that it has yet to pass must be remembered, with others {} files \
                 and {bytes} bytes a plan. Move files that were read out of the directory, or allow more: `remembered_files_limit` is {limit}, \
                 of which half may be used so, and half of {PLAN_LIMIT_BYTES} bytes",
                self.progress.remembered()
            ),
        ))
    }

    /// Tells of files that came before the clock was set back or after it.
    pub(super) fn report_unknown(&self, files: &[PathBuf]) {
        if files.is_empty() {
            return;
        }
        let shown: Vec<String> = files.iter().take(10).map(|path| path.display().to_string()).collect();
        let more = match files.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.events.error(Error::new(
            ErrorKind::Configuration,
            format!(
                "the system's clock was set back since the last batch was planned, and by their mtimes it cannot be said whether these files came \
                 before that or after: {}{more}. They are taken for read; put those that are new in place once more, under another name",
                shown.join(", ")
            ),
        ));
    }
}
