//! Reads the journal that the preloaded library writes: every change of the disk, in order, and every sync
//! (`preload/journal.c` has the layout).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::chaos::{Finding, Result};

const HEAD_BYTES: usize = 24;

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'j> {
    File { inode: u64, path: &'j Path },
    Directory { inode: u64, path: &'j Path },
    Link { inode: u64, path: &'j Path },
    Rename { inode: u64, from: &'j Path, to: &'j Path },
    Remove { path: &'j Path },
    Write { inode: u64, offset: u64, bytes: &'j [u8] },
    Length { inode: u64, length: u64 },
    Grow { inode: u64, length: u64 },
    Sync { inode: u64, number: u64 },
    Synced { inode: u64, number: u64 },
    SyncLost { inode: u64, number: u64 },
}

impl Record<'_> {
    /// Whether it changes the disk; a sync does not.
    pub(super) fn is_change(&self) -> bool {
        !matches!(self, Record::Sync { .. } | Record::Synced { .. } | Record::SyncLost { .. })
    }
}

/// Reads all records.
pub(super) fn read(mut journal: &[u8]) -> Result<Vec<Record<'_>>> {
    let mut records = Vec::new();
    while journal.len() >= HEAD_BYTES {
        let (head, rest) = journal.split_at(HEAD_BYTES);
        let small = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let large = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (kind, length, inode, number) = (small(0), small(4) as usize, large(8), large(16));
        // SIGKILL from outside may have cut the last one short: its change was not made, or is taken for lost.
        let Some((body, after)) = rest.split_at_checked(length) else { break };
        records.push(record(kind, inode, number, body)?);
        journal = after;
    }
    Ok(records)
}

fn record(kind: u32, inode: u64, number: u64, body: &[u8]) -> Result<Record<'_>> {
    let path = Path::new(OsStr::from_bytes(body));
    Ok(match kind {
        1 => Record::File { inode, path },
        2 => Record::Directory { inode, path },
        3 => Record::Link { inode, path },
        4 => {
            let mut names = body.split(|byte| *byte == 0).map(|name| Path::new(OsStr::from_bytes(name)));
            match (names.next(), names.next()) {
                (Some(from), Some(to)) => Record::Rename { inode, from, to },
                _ => return Err(Finding::new("the journal has a rename without a second name")),
            }
        }
        5 => Record::Remove { path },
        6 => Record::Write { inode, offset: number, bytes: body },
        7 => Record::Length { inode, length: number },
        8 => Record::Grow { inode, length: number },
        9 => Record::Sync { inode, number },
        10 => Record::Synced { inode, number },
        11 => Record::SyncLost { inode, number },
        other => return Err(Finding::new(format!("the journal has a record of kind {other}"))),
    })
}

/// Parent and name of a path.
pub(super) fn divide(path: &Path) -> Result<(PathBuf, String)> {
    match (path.parent(), path.file_name().and_then(OsStr::to_str)) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_owned())),
        _ => Err(Finding::new(format!("{} is no path of ours", path.display()))),
    }
}
