//! Lines from a socket, put into files as they come: the worker may die at any moment, the server must not notice.

use std::fs;
use std::io::{ErrorKind as IoKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millpond::{Error, ErrorKind, Result};

use super::{Folders, failed};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How often lines become a file.
const FILE_INTERVAL: Duration = Duration::from_millis(50);
/// Text without a line's end is cut here.
const LINE_LIMIT_BYTES: usize = 1 << 20;

/// The thread that reads.
pub(crate) struct Spool {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

#[derive(Default)]
struct Shared {
    words: AtomicU64,
    close: AtomicBool,
}

impl Spool {
    /// Connects, and reads from then on.
    pub(crate) fn start(folders: &Folders, address: String) -> Result<Spool> {
        let cannot = |error| {
            let message = format!("cannot connect to {address}. Start a server there first: `nc -lk PORT` is one");
            Error::new(ErrorKind::Configuration, message).with_source(error)
        };
        let resolved = address.to_socket_addrs().map_err(cannot)?.next();
        let resolved = resolved.ok_or_else(|| cannot(IoKind::AddrNotAvailable.into()))?;
        let stream = TcpStream::connect_timeout(&resolved, CONNECT_LIMIT).map_err(cannot)?;
        stream.set_read_timeout(Some(FILE_INTERVAL)).map_err(cannot)?;
        let shared = Arc::new(Shared::default());
        let mut lines = Lines {
            folder: folders.input.clone(),
            aside: folders.root.join("lines.new"),
            shared: shared.clone(),
            waiting: Vec::new(),
            files: 0,
        };
        let thread = std::thread::Builder::new().name("spool".into()).spawn(move || lines.read(stream));
        let thread = thread.map_err(|error| failed("start a thread", error))?;
        Ok(Spool { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Words in files so far.
    pub(crate) fn words(&self) -> u64 {
        self.shared.words.load(Ordering::Acquire)
    }

    /// Reads no more.
    pub(crate) fn close(&self) {
        self.shared.close.store(true, Ordering::Release);
    }

    /// Whether all that was read is in files.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match thread.take_if(|thread| thread.is_finished()) {
            Some(ended) => ended.join().unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Program, "the thread that reads the socket has panicked"))
            })?,
            None => return Ok(thread.is_none()),
        }
        Ok(true)
    }
}

struct Lines {
    folder: PathBuf,
    aside: PathBuf,
    shared: Arc<Shared>,
    waiting: Vec<u8>,
    files: u64,
}

impl Lines {
    fn read(&mut self, mut stream: TcpStream) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut last_file = Instant::now();
        loop {
            let ended = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(read) => {
                    self.waiting.extend_from_slice(&buffer[..read]);
                    false
                }
                Err(error) if matches!(error.kind(), IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted) => {
                    false
                }
                Err(error) => return Err(failed("read from the socket", error)),
            };
            let closed = self.shared.close.load(Ordering::Acquire);
            if ended || closed || last_file.elapsed() >= FILE_INTERVAL {
                // Where the server has ended, what has no line's end is a line; where we have, it is half of one.
                self.write(ended)?;
                last_file = Instant::now();
            }
            if ended || closed {
                return Ok(());
            }
        }
    }

    /// Puts whole lines into a file, which appears whole; at the end also what has no line's end.
    fn write(&mut self, ended: bool) -> Result<()> {
        let whole = match self.waiting.iter().rposition(|&byte| byte == b'\n') {
            Some(end) if !ended => end + 1,
            None if !ended && self.waiting.len() < LINE_LIMIT_BYTES => 0,
            _ => self.waiting.len(),
        };
        let rest = self.waiting.split_off(whole);
        let bytes = std::mem::replace(&mut self.waiting, rest);
        if bytes.is_empty() {
            return Ok(());
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.files += 1;
        let path = self.folder.join(format!("lines-{:09}.txt", self.files));
        fs::write(&self.aside, &text)
            .and_then(|()| fs::rename(&self.aside, &path))
            .map_err(|error| failed(&format!("write {}", path.display()), error))?;
        self.shared.words.fetch_add(text.split_whitespace().count() as u64, Ordering::AcqRel);
        Ok(())
    }
}
