//! Reads the calls that the preloaded library has written down (`preload/control.c` has the layout).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Call;
use crate::chaos::{Finding, Result};

/// A call that a process has made, or words that it has said on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    kinds: u32,
    /// The `errno` that a rule gave it; 0 for none.
    pub error: i32,
    /// What it was about: of two paths the new one. Of words the first line, up to 79 bytes of it.
    pub path: PathBuf,
}

impl Traced {
    /// Whether it is these words.
    pub fn is_said(&self, words: &str) -> bool {
        self.kinds == 0 && self.path.as_os_str() == words
    }

    /// Whether a rule about these calls is about this one.
    pub fn is_one_of(&self, calls: &[Call]) -> bool {
        calls.iter().any(|call| self.kinds & call.bit() != 0)
    }
}

/// Reads all lines. A path with a line break in it is read as two.
pub(super) fn read(trace: &Path) -> Result<Vec<Traced>> {
    let bytes = fs::read(trace).map_err(|error| Finding::from(error).at("there is no trace: call `trace`"))?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // SIGKILL may have cut the last one short.
    Ok(lines.filter_map(traced).collect())
}

fn traced(line: &[u8]) -> Option<Traced> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok();
    let (kinds, error) = (number()?.parse().ok()?, number()?.parse().ok()?);
    Some(Traced { kinds, error, path: PathBuf::from(OsStr::from_bytes(parts.next()?)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kinds_error_and_path_and_one_that_was_cut_short_is_none() {
        let line = format!("{} 28 /a/a file", Call::Write.bit() | Call::Grow.bit());
        let call = traced(line.as_bytes()).unwrap();
        assert!(call.is_one_of(&[Call::Grow]) && !call.is_one_of(&[Call::Sync]) && !call.is_said("/a/a file"));
        assert_eq!((call.error, call.path.as_path()), (28, Path::new("/a/a file")));
        assert!(traced(b"0 0 ready").unwrap().is_said("ready"));
        assert_eq!(traced(b"64 0"), None);
    }
}
