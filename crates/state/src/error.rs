//! The one error type of this crate. Its kind says what the caller should do, its message what
//! happened to which thing.

use std::fmt;
use std::path::Path;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file operation or the database failed (full disk, permissions). Nothing of the failed call is
    /// visible in a snapshot; the open store is unusable: drop it and open the newest snapshot again.
    Io,
    /// Something read back is not what was written. Use an older snapshot.
    Corrupt,
    /// What is on disk does not fit the program: another type, schema, shard count or format
    /// version. Change the program (or go back), then start again.
    Mismatch,
    /// A value cannot be encoded, or does not decode to what was encoded. Change its type.
    Codec,
    /// The directory holds something that is not ours. Choose another directory.
    Foreign,
    /// A call came out of order (see the crate's protocol). A bug of the caller.
    Misuse,
    /// An earlier failure made the store unusable: drop it and open the newest snapshot again.
    Poisoned,
}

/// An error: what happened to which thing, and what can be done. The message carries its causes.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// The same error, said of `place`.
    pub(crate) fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// A failed file operation: `doing` is a verb phrase such as "link table file".
    pub(crate) fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        Error::new(ErrorKind::Io, format!("cannot {doing} {}: {source}", path.display()))
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Misuse, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
