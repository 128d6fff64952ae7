//! Which files a batch may take, and what has been taken: the rule of dstream-semantics, "Files".
//!
//! A file is taken in batch t iff its mtime is after max(start, t - remember window) and not after
//! t, and it was not taken before. Two refinements lose nothing where that rule alone would: after a
//! pause the window reaches back to the batch before the pause, and a file that did not fit into its
//! batch keeps its place until it does.
//!
//! Only files behind the window's lower edge have to be remembered: what is before it is not looked
//! at again, unless the system's clock is set back. Batch times do not follow it then, the mtimes of
//! new files do. So the window reaches back to where the clock stands, and what the last listing
//! showed there is remembered: it has been taken, or was too old.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::PartitionPosition;
use super::listing::Found;
use super::plan::{check_version, read_path, write_path};
use crate::bytes::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// The partition that holds what belongs to no single file.
const WINDOW: &str = ".";

/// A place in the order in which files are taken: by mtime, then by path.
type Place = (u64, PathBuf);

/// What has been taken of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) size: u64,
    pub(crate) mtime_ns: u64,
    /// Where its next record begins; `size` when it is done.
    pub(crate) offset: u64,
}

impl Taken {
    fn is_done(&self) -> bool {
        self.offset == self.size
    }

    fn is(&self, found: &Found) -> bool {
        self.size == found.size && self.mtime_ns == found.mtime_ns
    }
}

/// How far the source has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Files before this place are not looked at.
    low: Place,
    /// The newest planned batch; `None` before the first.
    planned: Option<BatchTime>,
    /// The first file that did not fit into its batch.
    backlog: Option<Place>,
    files: BTreeMap<PathBuf, Taken>,
}

/// What bounds the files of a batch from below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) first_start: BatchTime,
    pub(crate) remember: Duration,
    /// Files from before the first start too.
    pub(crate) existing: bool,
}

/// The batch that takes files, and when that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) time: BatchTime,
    pub(crate) interval: Duration,
    /// What the system's clock shows. Files bear its times; batch times run ahead of it where it was set back.
    pub(crate) clock: BatchTime,
}

/// A file that the batch may take, and from where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) found: Found,
    pub(crate) offset: u64,
}

/// The candidates of a batch, in order, and what else was seen.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) files: Vec<Candidate>,
    /// Changed after they had been taken.
    pub(crate) changed: Vec<PathBuf>,
    /// Before the window, and not remembered.
    pub(crate) passed: Vec<PathBuf>,
    /// The clock was found set back, and nobody knows whether these came before or after that: they are passed over.
    pub(crate) unknown: Vec<PathBuf>,
    /// How many files from before the window are remembered because the clock was set back.
    pub(crate) remembered: usize,
}

impl Progress {
    /// The files that a batch may take. Moves the window on. `passed` is what the last look passed over, `None` at the first of this process.
    ///
    /// # Errors
    /// A file of which only a part has been taken has changed or gone.
    pub(crate) fn candidates(
        &mut self,
        at: At,
        window: Window,
        found: Vec<Found>,
        passed: Option<&[PathBuf]>,
    ) -> Result<Candidates> {
        let mut candidates = Candidates::default();
        if let Some(before) = self.move_window(at, window) {
            self.remember_passed(&before, &found, passed, &mut candidates);
        }
        let mut unfinished: BTreeMap<&Path, &Taken> = self
            .files
            .iter()
            .filter(|(_, taken)| !taken.is_done())
            .map(|(path, taken)| (path.as_path(), taken))
            .collect();
        for file in found {
            if let Some(taken) = self.files.get(&file.path) {
                if !taken.is(&file) {
                    if !taken.is_done() {
                        return Err(changed(&file.path, "has changed"));
                    }
                    candidates.changed.push(file.path);
                } else if !taken.is_done() {
                    unfinished.remove(file.path.as_path());
                    candidates.files.push(Candidate { offset: taken.offset, found: file });
                }
                continue;
            }
            let in_window = (file.mtime_ns, file.path.as_path()) >= (self.low.0, self.low.1.as_path());
            if !in_window {
                candidates.passed.push(file.path);
            } else if file.mtime_ns / 1_000_000 <= at.time.as_ms() {
                candidates.files.push(Candidate { offset: 0, found: file });
            }
        }
        if let Some(path) = unfinished.keys().next() {
            return Err(changed(path, "has gone"));
        }
        // What was begun is finished first, then the oldest.
        candidates.files.sort_unstable_by(|a, b| {
            let place = |candidate: &Candidate| (candidate.offset == 0, candidate.found.mtime_ns);
            place(a).cmp(&place(b)).then_with(|| a.found.path.cmp(&b.found.path))
        });
        Ok(candidates)
    }

    /// Moves the lower edge to where the batch's window begins: up, and forgets the files before it; or back where the clock was
    /// set back, and gives where it was.
    fn move_window(&mut self, at: At, window: Window) -> Option<Place> {
        let At { time, interval, clock } = at;
        let after = |time: BatchTime| ((time.as_ms() + 1) * 1_000_000, PathBuf::new());
        let begins = match self.planned {
            None if window.existing => Place::default(),
            None => after(window.first_start.max(time - window.remember)),
            Some(before) => {
                let begins = after(time.min(before + interval).min(clock) - window.remember);
                self.backlog.take().map_or(begins.clone(), |backlog| backlog.min(begins))
            }
        };
        self.backlog = None;
        let was_set_back = self.planned.is_some_and(|before| clock < time.min(before + interval));
        self.planned = Some(time);
        if was_set_back && begins < self.low {
            return Some(std::mem::replace(&mut self.low, begins));
        }
        if begins > self.low {
            self.low = begins;
            let low = &self.low;
            self.files
                .retain(|path, taken| !taken.is_done() || (taken.mtime_ns, path.as_path()) >= (low.0, low.1.as_path()));
        }
        None
    }

    /// The window reaches back behind `before`, where it began: files there that the last look passed over are none of it.
    fn remember_passed(
        &mut self,
        before: &Place,
        found: &[Found],
        passed: Option<&[PathBuf]>,
        candidates: &mut Candidates,
    ) {
        let passed: Option<HashSet<&PathBuf>> = passed.map(|passed| passed.iter().collect());
        let (low, end) = ((self.low.0, self.low.1.as_path()), (before.0, before.1.as_path()));
        for file in found {
            let place = (file.mtime_ns, file.path.as_path());
            let is_new = passed.as_ref().is_some_and(|passed| !passed.contains(&file.path));
            if place < low || place >= end || is_new || self.files.contains_key(&file.path) {
                continue;
            }
            if passed.is_none() {
                candidates.unknown.push(file.path.clone());
            }
            candidates.remembered += 1;
            let done = Taken { size: file.size, mtime_ns: file.mtime_ns, offset: file.size };
            self.files.insert(file.path.clone(), done);
        }
    }

    /// Files that are remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.files.len()
    }

    /// About how many bytes the remembered files take in a plan.
    pub(crate) fn remembered_bytes(&self) -> usize {
        self.files.keys().map(|path| position_bytes(path)).sum()
    }

    /// A file was taken up to `offset`.
    pub(crate) fn take(&mut self, found: &Found, offset: u64) {
        self.files.insert(found.path.clone(), Taken { size: found.size, mtime_ns: found.mtime_ns, offset });
        if offset < found.size {
            self.hold_back(found);
        }
    }

    /// A file, or its rest, is left to a later batch.
    pub(crate) fn hold_back(&mut self, found: &Found) {
        let earlier = |(mtime_ns, path): &Place| (found.mtime_ns, found.path.as_path()) < (*mtime_ns, path.as_path());
        if self.backlog.as_ref().is_none_or(earlier) {
            self.backlog = Some((found.mtime_ns, found.path.clone()));
        }
    }

    /// Whether the newest batch left something to a later one.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog.is_some()
    }

    /// As positions of a plan: one for the window, one for each remembered file.
    pub(crate) fn positions(&self) -> Vec<PartitionPosition> {
        let mut window = Writer::new();
        window.u8(1);
        window.u64(self.low.0);
        write_path(&mut window, &self.low.1);
        window.list(self.planned.as_slice(), |out, time| out.u64(time.as_ms()));
        window.list(self.backlog.as_slice(), |out, (mtime_ns, path)| {
            out.u64(*mtime_ns);
            write_path(out, path);
        });
        let mut positions = vec![PartitionPosition { partition: WINDOW.into(), position: window.into_bytes() }];
        positions.extend(self.files.iter().map(|(path, taken)| {
            let mut out = Writer::new();
            out.u8(1);
            out.u64(taken.size);
            out.u64(taken.mtime_ns);
            out.u64(taken.offset);
            let name = name_of(path);
            if name.as_bytes() != path.as_os_str().as_bytes() {
                write_path(&mut out, path);
            }
            PartitionPosition { partition: name, position: out.into_bytes() }
        }));
        positions
    }

    /// Reads what [`positions`](Progress::positions) gave.
    pub(crate) fn from_positions(positions: &[PartitionPosition]) -> Result<Self> {
        let mut progress = Progress::default();
        for PartitionPosition { partition, position } in positions {
            let mut bytes = Reader::new("a position of a file source", position);
            check_version(&mut bytes)?;
            if partition == WINDOW {
                progress.low = (bytes.u64()?, read_path(&mut bytes)?);
                progress.planned = bytes.optional(|bytes| Ok(BatchTime::from_ms(bytes.u64()?)))?;
                progress.backlog = bytes.optional(|bytes| Ok((bytes.u64()?, read_path(bytes)?)))?;
                bytes.end()?;
                continue;
            }
            let taken = Taken { size: bytes.u64()?, mtime_ns: bytes.u64()?, offset: bytes.u64()? };
            let path = if bytes.end().is_ok() { PathBuf::from(partition) } else { read_path(&mut bytes)? };
            bytes.end()?;
            // Its position would be taken for the window's.
            if path.as_os_str() == WINDOW {
                return Err(bytes.broken("it is that of a file without a name"));
            }
            progress.files.insert(path, taken);
        }
        Ok(progress)
    }
}

/// A position in words: how much of a file has been taken. `None` if it is none of a file source.
pub(crate) fn describe(position: &PartitionPosition) -> Option<String> {
    let progress = Progress::from_positions(std::slice::from_ref(position)).ok()?;
    Some(match progress.files.values().next() {
        Some(taken) if taken.is_done() => format!("all {} bytes", taken.size),
        Some(taken) => format!("{} of {} bytes", taken.offset, taken.size),
        None => match progress.planned {
            Some(planned) => format!("files up to {planned}"),
            None => "no batch yet".into(),
        },
    })
}

/// About how many bytes the position of a file takes in a plan.
pub(crate) fn position_bytes(path: &Path) -> usize {
    path.as_os_str().len() + 40
}

/// The name of a file's partition: its path, with bytes that are not UTF-8 written as `\xFF`.
fn name_of(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(chunk.valid());
        name.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    name
}

/// The error of a file that is no longer what was planned.
pub(crate) fn changed(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Restore,
        format!(
            "{} {what} before all batches that hold records of it were in a checkpoint: they cannot be computed again. \
             Put the file back as it was (bytes and mtime); files must be moved into place whole, not be changed, \
             and stay until a checkpoint holds their last batch",
            path.display()
        ),
    )
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
