//! The one error of this crate: what happened to which thing, and what the caller can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a caller's own function may fail with; see [`Log::open`](crate::Log::open).
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller of a failed operation should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call or the options: they ask for something that can never work.
    InvalidInput,
    /// The disk is full. Nothing was written; make room and try again, the log goes on.
    StorageFull,
    /// Try again later: a queue stayed full, or a wait took longer than its limit.
    Busy,
    /// Another process, or another context of this one, uses the directory. Stop it first.
    InUse,
    /// The log does not know whether its last write is on disk and takes no more. Restart the
    /// process: opening the log again settles it.
    Poisoned,
    /// Bytes that were safely on disk have changed or are missing. Restore the directory, or open with
    /// [`OnCorruption::KeepBefore`](crate::OnCorruption::KeepBefore).
    Corrupt,
    /// The files were written by a newer version. Use that version.
    NewerFormat,
    /// The frame asked for was released; see [`Log::release`](crate::Log::release).
    Released,
    /// The log was closed.
    Closed,
    /// The caller's own function failed; its error is the source.
    Visitor,
    /// The operating system refused (permission, missing directory, failing disk); the message names the
    /// path, the source says why. Nothing was appended; the log goes on.
    Io,
}

/// An error with a [kind](ErrorKind) (what to do), a message (what happened to which thing), and where there is
/// one, a source.
///
/// It can be cloned, since one failed write fails every append that waited for it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// An operation on a file that the operating system refused.
    pub(crate) fn io(action: &str, path: &Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {action} {}", path.display())).with_source(error)
    }

    /// A write or a sync that failed, so that nobody knows what is on disk.
    pub(crate) fn in_doubt(action: &str, path: &Path, error: io::Error) -> Self {
        Self { kind: ErrorKind::Poisoned, ..Self::io(action, path, error) }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    /// The message and, behind a colon, its source, so that a line in a log tells the whole story.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(formatter, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // Display has told the source itself already; a chain printer goes on with what lies below it.
        self.source.as_ref().and_then(|source| source.source())
    }
}
