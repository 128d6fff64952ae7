//! Standard output, which may be a pipe that nobody reads to its end.

use std::io::{ErrorKind, Write};

use millpond::{Error, Result};

/// Prints a text. A reader that has gone, as `head` does, is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(millpond::ErrorKind::Retry, "cannot write to standard output").with_source(error))
        }
        _ => Ok(()),
    }
}
