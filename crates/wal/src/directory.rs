//! The names of the log's files in its directory.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::FileSystem;

/// What a file of the log is for; each is named by the number of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A segment: `00000000000000000001.log`.
    Segment,
    /// A segment being made, or what a crash left of one.
    New,
    /// A released segment, kept to be written again.
    Recycled,
    /// A segment given up by [`OnCorruption::KeepBefore`](crate::OnCorruption::KeepBefore); kept for the operator.
    Discarded,
    /// The mark of the newest segment; see the module `newest`.
    Newest,
}

const SUFFIXES: [(Role, &str); 5] = [
    (Role::Segment, ".log"),
    (Role::New, ".log.new"),
    (Role::Recycled, ".log.recycled"),
    (Role::Discarded, ".log.discarded"),
    (Role::Newest, ".log.newest"),
];

impl Role {
    fn suffix(self) -> &'static str {
        let (_, suffix) = SUFFIXES.iter().find(|(role, _)| *role == self).expect("each role has a suffix");
        suffix
    }
}

/// The path of a file of the log.
pub(crate) fn path(directory: &Path, segment: u64, role: Role) -> PathBuf {
    directory.join(format!("{segment:020}{}", role.suffix()))
}

/// The files of the log in a directory, by segment number; files of other names are none of ours.
pub(crate) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<(u64, Role)>> {
    let names = fs.list(directory).map_err(|error| Error::io("list", directory, error))?;
    let mut files: Vec<(u64, Role)> = names.iter().filter_map(|name| parse(name)).collect();
    files.sort_by_key(|(segment, _)| *segment);
    Ok(files)
}

/// The numbers of the segments alone.
pub(crate) fn segments(files: &[(u64, Role)]) -> Vec<u64> {
    let segments = files.iter().filter(|(_, role)| *role == Role::Segment);
    segments.map(|(segment, _)| *segment).collect()
}

fn parse(name: &str) -> Option<(u64, Role)> {
    let (digits, suffix) = name.split_at_checked(20)?;
    let (role, _) = SUFFIXES.iter().find(|(_, known)| *known == suffix)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (number > 0).then_some((number, *role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_foreign_ones_are_ignored() {
        for (role, _) in SUFFIXES {
            let path = path(Path::new("d"), 42, role);
            assert_eq!(parse(path.file_name().unwrap().to_str().unwrap()), Some((42, role)));
        }
        for foreign in [
            "",
            "LOCK",
            "1.log",
            "00000000000000000000.log",
            "0000000000000000000x.log",
            "+0000000000000000001.log",
            "00000000000000000001.logs",
            "99999999999999999999.log",
        ] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
