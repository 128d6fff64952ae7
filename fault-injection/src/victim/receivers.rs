//! Receivers of the lines of a [server](crate::line_server): one that is a reliable receiver, and one that pushes into a channel under
//! numbers.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, ErrorKind as IoErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use millpond::source::{Pusher, Receiver, ReceiverHandle};
use millpond::{Error, ErrorKind};

/// Lines that are stored together.
const GROUP: usize = 3;
/// How often a reader that gets nothing looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The name under which lines are pushed.
const PRODUCER: &str = "line-server";

/// Receives the lines of a server, from where its last process was.
pub(super) struct Tcp {
    address: String,
}

impl Tcp {
    pub(super) fn of(address: &str) -> Self {
        Tcp { address: address.to_owned() }
    }
}

impl Receiver for Tcp {
    type Item = String;

    fn on_start(&mut self, handle: ReceiverHandle<String>) {
        let address = self.address.clone();
        thread::spawn(move || {
            if let Err(error) = receive(&address, &handle) {
                handle.restart(error);
            }
        });
    }

    fn on_stop(&mut self) {}
}

/// A connection that gives the lines after the first `position`.
struct Lines {
    reader: BufReader<TcpStream>,
    line: String,
}

impl Lines {
    fn connect(address: &str, position: u64) -> std::io::Result<Self> {
        let mut server = TcpStream::connect(address)?;
        server.set_read_timeout(Some(LOOK_EVERY))?;
        server.write_all(&position.to_le_bytes())?;
        Ok(Lines { reader: BufReader::new(server), line: String::new() })
    }

    /// The next line; `None` if there is none yet.
    fn next(&mut self) -> std::io::Result<Option<String>> {
        match self.reader.read_line(&mut self.line) {
            Ok(0) => Err(IoErrorKind::UnexpectedEof.into()),
            Ok(_) if self.line.ends_with('\n') => Ok(Some(std::mem::take(&mut self.line).trim_end().to_owned())),
            Ok(_) => Ok(None),
            // What has come of the line stays.
            Err(error) if matches!(error.kind(), IoErrorKind::WouldBlock | IoErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn receive(address: &str, handle: &ReceiverHandle<String>) -> Result<(), Box<dyn std::error::Error>> {
    let position = handle.last_position().and_then(|bytes| bytes.try_into().ok());
    let mut position = position.map_or(0, u64::from_le_bytes);
    let mut lines = Lines::connect(address, position)?;
    let mut group = Vec::new();
    while !handle.is_stopped() {
        let line = lines.next()?;
        let waits = line.is_none();
        group.extend(line);
        if !group.is_empty() && (waits || group.len() == GROUP) {
            position += group.len() as u64;
            handle.store_group_at(&group, &position.to_le_bytes())?;
            group.clear();
        }
    }
    Ok(())
}

/// Pushes the lines of a server from the first that is not in the log, until the context stops; again and again while the log cannot be written
/// to. A service whose events can be pushed no more for another reason has to end: one that lived on without them would look well and be deaf.
pub(super) fn push(address: String, pusher: Pusher<String>) {
    thread::spawn(move || {
        let Err(error) = push_all(&address, &pusher);
        if !error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Stopped) {
            eprintln!("no more events can be pushed: {error}");
            std::process::exit(1);
        }
    });
}

fn push_all(address: &str, pusher: &Pusher<String>) -> Result<Infallible, Box<dyn std::error::Error>> {
    let mut next = pusher.last_sequence(PRODUCER).map_or(0, |last| last + 1);
    let mut lines = Lines::connect(address, next)?;
    loop {
        if let Some(line) = lines.next()? {
            // Numbered, so it may be pushed again: a full disk may have room later.
            while let Err(error) = pusher.push_once_blocking(PRODUCER, next, line.clone()) {
                match error.kind() {
                    ErrorKind::Retry | ErrorKind::Restart => thread::sleep(LOOK_EVERY),
                    _ => return Err(error.into()),
                }
            }
            next += 1;
        }
    }
}
