//! What the preloaded library is told, and what it tells: a small file that both have in memory (`preload/control.c` has its
//! layout).

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chaos::{Finding, Result};

const BYTES: u64 = 16_384;
const CLOCK_AT: u64 = 8;
const OPERATIONS_AT: u64 = 16;
const MET_AT: u64 = 32;
const RULES: usize = 32;
const TEXT_AT: u64 = 4096;

/// `errno` of a full disk.
pub const ENOSPC: i32 = 28;
/// `errno` of a failing disk.
pub const EIO: i32 = 5;

/// What a call to the system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they bear the names of the calls")]
pub enum Call {
    Open,
    /// Opens a file that was not there.
    Create,
    Mkdir,
    Link,
    Rename,
    Remove,
    Write,
    /// A write behind the end of a file, or space taken there: what a full disk refuses.
    Grow,
    Truncate,
    Read,
    Sync,
    SyncDirectory,
}

impl Call {
    /// As in `preload/preload.h`, where they stand in this order.
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    fn name(self) -> &'static str {
        match self {
            Call::Open => "open",
            Call::Create => "create",
            Call::Mkdir => "mkdir",
            Call::Link => "link",
            Call::Rename => "rename",
            Call::Remove => "remove",
            Call::Write => "write",
            Call::Grow => "grow",
            Call::Truncate => "truncate",
            Call::Read => "read",
            Call::Sync => "sync",
            Call::SyncDirectory => "sync-directory",
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this `errno`, having done nothing.
    Fail(i32),
    /// It takes so many milliseconds longer.
    Slow(u64),
    /// A write writes so many bytes and fails for want of room.
    Short(u64),
    /// A write writes so many bytes, and the process dies of SIGKILL.
    Torn(u64),
    /// A sync is answered, and nothing is synced: seen in a power failure only. For negative controls.
    Lie,
}

/// A fault: these calls on these paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    calls: Vec<Call>,
    effect: Effect,
    from: u64,
    times: u64,
    paths: String,
}

impl Rule {
    /// Each of these calls on a path that the pattern fits (`*` stands for anything, `/` too).
    pub fn new(calls: &[Call], effect: Effect, paths: impl Into<String>) -> Self {
        Rule { calls: calls.to_vec(), effect, from: 1, times: 0, paths: paths.into() }
    }

    /// A full disk: nothing grows, nothing new is made.
    pub fn full(paths: impl Into<String>) -> Self {
        Rule::new(&[Call::Grow, Call::Create, Call::Mkdir, Call::Link], Effect::Fail(ENOSPC), paths)
    }

    /// From the `from`th such call on, counted from 1 and from the moment when the rule is given.
    #[must_use]
    pub fn from(mut self, from: u64) -> Self {
        self.from = from;
        self
    }

    /// So many times only.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls: Vec<&str> = self.calls.iter().map(|call| call.name()).collect();
        let (what, argument) = match self.effect {
            Effect::Fail(errno) => ("fail", errno as u64),
            Effect::Slow(ms) => ("slow", ms),
            Effect::Short(bytes) => ("short", bytes),
            Effect::Torn(bytes) => ("torn", bytes),
            Effect::Lie => ("lie", 0),
        };
        write!(f, "{} {what} {argument} {} {} {}", calls.join(","), self.from, self.times, self.paths)
    }
}

/// The pattern that fits this path and all that begins with it.
pub(super) fn beginning_with(path: &Path) -> String {
    let text = path.display().to_string();
    let special = |c: char| c.is_whitespace() || "*?[]\\".contains(c);
    text.chars().map(|c| if special(c) { '?' } else { c }).chain(['*']).collect()
}

/// The file.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    file: File,
    generation: AtomicU64,
}

impl Control {
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(BYTES)?;
        let control = Control { path, file, generation: AtomicU64::new(0) };
        control.set(&[], None)?;
        Ok(control)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// These rules and no others, at once.
    pub(super) fn set(&self, rules: &[Rule], cut_after: Option<u64>) -> Result<()> {
        if rules.len() > RULES {
            return Err(Finding::new(format!("at most {RULES} rules")));
        }
        if let Some(rule) = rules.iter().find(|rule| rule.paths.contains(char::is_whitespace)) {
            return Err(Finding::new(format!("a pattern may hold no space, `?` stands for one: {:?}", rule.paths)));
        }
        let mut text = String::new();
        for rule in rules {
            let _ = writeln!(text, "{rule}");
        }
        if let Some(changes) = cut_after {
            let _ = writeln!(text, "cut {changes}");
        }
        text.push('\0');
        if text.len() as u64 > BYTES - TEXT_AT {
            return Err(Finding::new("the rules are too long"));
        }
        self.file.write_all_at(text.as_bytes(), TEXT_AT)?;
        // Last: the library reads the rules when this has changed.
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(self.file.write_all_at(&generation.to_le_bytes(), 0)?)
    }

    pub(super) fn set_clock_offset_ns(&self, offset: i64) -> Result<()> {
        Ok(self.file.write_all_at(&offset.to_le_bytes(), CLOCK_AT)?)
    }

    fn number_at(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// How many calls have met a rule since it was given, by its place among the rules.
    pub(super) fn met(&self, rule: usize) -> Result<u64> {
        self.number_at(MET_AT + 8 * rule as u64)
    }

    /// How many changes the newest process has made.
    pub(super) fn operations(&self) -> Result<u64> {
        self.number_at(OPERATIONS_AT)
    }
}
