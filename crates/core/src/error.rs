//! The one error of this crate boundary: a kind that says what the caller should do, and a message
//! that names the thing it happened to.

use std::error::Error as StdError;
use std::fmt;

/// A boxed source of an error.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result of everything in Millpond that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The same call may succeed later: a broker is away, a disk is full, a limit is reached.
    Retry,
    /// A setting, a name or the shape of the pipeline is wrong; the message says which.
    Configuration,
    /// The process cannot go on, its directory can: start it again and it recovers.
    Restart,
    /// Directory and sink do not belong together, or stored data is damaged: an operator decides.
    Restore,
    /// A function or a type of the program failed: correct the program.
    Program,
    /// The context has been stopped.
    Stopped,
}

/// An error of Millpond.
///
/// `Display` gives the whole message, causes included, on one line or a few.
///
/// ```
/// use millpond_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Configuration, "batch interval is 0 ms");
/// assert_eq!(error.kind(), ErrorKind::Configuration);
/// ```
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

impl Error {
    /// Makes an error of a kind with a message that names the thing and the way out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { inner: Box::new(Inner { kind, message: message.into(), source: None }) }
    }

    /// The same error with the cause that led to it.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error, its message preceded by where it happened.
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.inner.message = format!("{place}: {}", self.inner.message);
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Configuration, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        let mut cause = self.source();
        let mut last = self.inner.message.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors print their causes themselves.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            // An `Error` prints its own causes.
            cause = if error.is::<Error>() { None } else { error.source() };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `fn main() -> Result<()>` prints with Debug: what an operator reads must be readable.
        write!(f, "{self} ({:?})", self.inner.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<millpond_wal::Error> for Error {
    fn from(error: millpond_wal::Error) -> Self {
        use millpond_wal::ErrorKind as Wal;
        let kind = match error.kind() {
            Wal::InvalidInput | Wal::InUse => ErrorKind::Configuration,
            Wal::Poisoned => ErrorKind::Restart,
            Wal::Corrupt | Wal::NewerFormat | Wal::Released => ErrorKind::Restore,
            Wal::Closed => ErrorKind::Stopped,
            // A full disk, a busy one, a refusing one: the log goes on when the cause is gone.
            _ => ErrorKind::Retry,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<millpond_state::Error> for Error {
    fn from(error: millpond_state::Error) -> Self {
        use millpond_state::ErrorKind as State;
        let kind = match error.kind() {
            State::Io | State::Poisoned | State::Misuse => ErrorKind::Retry,
            State::Mismatch | State::Foreign => ErrorKind::Configuration,
            State::Codec => ErrorKind::Program,
            _ => ErrorKind::Restore,
        };
        Error::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error that prints its cause itself, as many do.
    #[derive(Debug)]
    struct Talkative(std::io::Error);

    impl fmt::Display for Talkative {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the client failed: {}", self.0)
        }
    }

    impl StdError for Talkative {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn each_cause_is_printed_once_also_if_another_prints_it_too() {
        let cause = Talkative(std::io::Error::other("no route"));
        let error = Error::new(ErrorKind::Retry, "cannot send").with_source(cause);
        assert_eq!(error.to_string(), "cannot send: the client failed: no route");
        let outer = Error::new(ErrorKind::Restart, "batch 1").with_source(error);
        assert_eq!(outer.to_string(), "batch 1: cannot send: the client failed: no route");
    }
}
