//! The log itself: what a user of this crate holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::commit::Committer;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::format::frame_bytes;
use crate::fs::FileSystem;
use crate::options::LogOptions;
use crate::position::{Frame, Position, SegmentInfo};
use crate::recovery::{self, Recovery};
use crate::shelf::{ReleaseFailure, Shelf};
use crate::writer::PendingFrame;

/// A durable log of frames of bytes. Threads share it by reference.
///
/// ```
/// use std::sync::Arc;
/// use millpond_wal::{Log, LogOptions, fs::DiskFileSystem};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// let open = |visit: &mut dyn FnMut(millpond_wal::Frame<'_>)| {
///     Log::open(Arc::new(DiskFileSystem), &path, LogOptions::default(), &mut |frame| Ok(visit(frame)))
/// };
/// let log = open(&mut |_| {})?;
/// let position = log.append(1, b"durable when this returns")?;
/// assert_eq!(log.read(position)?, (1, b"durable when this returns".to_vec()));
/// drop(log);
///
/// let mut found = Vec::new();
/// open(&mut |frame| found.push((frame.position, frame.payload.to_vec())))?;
/// assert_eq!(found, [(position, b"durable when this returns".to_vec())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Log {
    directory: PathBuf,
    options: LogOptions,
    shelf: Arc<Shelf>,
    committer: Arc<Committer>,
    server: Mutex<Option<JoinHandle<()>>>,
    recovery: Recovery,
}

impl Log {
    /// Opens the log in `directory`, which is made if it is missing.
    ///
    /// Reads the log once, from its oldest segment to its valid end, and hands every frame to `visit`. Memory is bounded by a
    /// window of 1 MiB or the largest frame. When `open` has returned, every frame visited is durable. It never appends to a segment that it
    /// found; a fresh one is begun by the first append.
    ///
    /// The caller sees to it that nobody else has the log open: [`DirectoryLock`](crate::DirectoryLock).
    ///
    /// # Errors
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the options contradict one another.
    /// - [`Corrupt`](ErrorKind::Corrupt): bytes that were on disk have changed or are missing; the message names segment and offset.
    /// - [`NewerFormat`](ErrorKind::NewerFormat): a newer version of this program wrote the log.
    /// - [`Visitor`](ErrorKind::Visitor): `visit` failed.
    /// - [`Io`](ErrorKind::Io): the operating system refused something.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        options: LogOptions,
        visit: &mut dyn FnMut(Frame<'_>) -> Result<(), BoxError>,
    ) -> Result<Self> {
        options.validate()?;
        let (shelf, writer, recovery) = recovery::recover(&fs, directory, &options, visit)?;
        Ok(Self {
            directory: directory.to_owned(),
            shelf,
            committer: Arc::new(Committer::new(writer, options.clone())),
            options,
            server: Mutex::new(None),
            recovery,
        })
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Appends a frame; it is durable when this returns. Calls of many threads share syncs.
    ///
    /// # Errors
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the payload is larger than `max_payload_bytes`.
    /// - [`StorageFull`](ErrorKind::StorageFull), [`Io`](ErrorKind::Io): the frame was not written, the log goes on.
    /// - [`Poisoned`](ErrorKind::Poisoned): this write or sync, or an earlier one, failed. The frame of the one that failed may be on disk or not.
    /// - [`Closed`](ErrorKind::Closed): the frame was not written.
    pub fn append(&self, kind: u8, payload: &[u8]) -> Result<Position> {
        self.check(payload.len())?;
        self.committer.append(&[PendingFrame::new(kind, payload)])
    }

    /// Appends frames that stand together, in this order, and are made durable by one sync. A crash before this returns may keep the first
    /// few of them.
    ///
    /// # Errors
    /// As [`append`](Self::append); [`InvalidInput`](ErrorKind::InvalidInput) too if they do not fit into one segment. A failure is
    /// one of all.
    pub fn append_all(&self, frames: &[(u8, &[u8])]) -> Result<Vec<Position>> {
        let mut bytes = 0;
        for (_, payload) in frames {
            self.check(payload.len())?;
            bytes += frame_bytes(payload.len());
        }
        let capacity = self.options.capacity();
        if bytes > capacity {
            let message = format!(
                "frames of {bytes} bytes cannot be appended together, a segment takes {capacity} (segment_bytes)"
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if frames.is_empty() {
            return Ok(Vec::new());
        }
        let pending: Vec<_> = frames.iter().map(|(kind, payload)| PendingFrame::new(*kind, payload)).collect();
        let mut next = self.committer.append(&pending)?;
        Ok(frames
            .iter()
            .map(|(_, payload)| {
                let position = next;
                next.offset += frame_bytes(payload.len());
                position
            })
            .collect())
    }

    /// Queues a frame and returns; `done` is called once, with its position when it is durable, or with the error.
    ///
    /// Completions are called in the order of submission, on a thread of the log or of another append, so they must be quick; one that
    /// waits for this log (`append`, or `submit` with a full queue) gets an error. When the queue is full this waits for room, at most `wait_limit`.
    /// If the machine has no thread for the log to give, the frame is written and `done` called before this returns.
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`Busy`](ErrorKind::Busy) when the queue stayed full. Then `done` is never called.
    pub fn submit(&self, kind: u8, payload: Vec<u8>, done: Box<dyn FnOnce(Result<Position>) + Send>) -> Result<()> {
        self.check(payload.len())?;
        if self.has_server() {
            return self.committer.submit(kind, payload, done);
        }
        done(self.append(kind, &payload));
        Ok(())
    }

    /// Reads a durable frame: its kind and its payload. Works on a poisoned or closed log too.
    ///
    /// # Errors
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the position lies outside the log.
    /// - [`Released`](ErrorKind::Released): its segment was released.
    /// - [`Corrupt`](ErrorKind::Corrupt): no valid frame stands there.
    /// - [`Io`](ErrorKind::Io): the file cannot be read.
    pub fn read(&self, position: Position) -> Result<(u8, Vec<u8>)> {
        self.shelf.read(position)
    }

    /// Deletes or recycles every segment whose frames all lie below `before`; returns how many. The newest segment stays in any case.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if a file cannot be removed; those before it are gone, the log goes on. If the directory cannot be
    /// synced the log is poisoned.
    pub fn release(&self, before: Position) -> Result<usize> {
        let (released, result) = self.shelf.release(before);
        match result {
            Ok(()) => Ok(released),
            Err(ReleaseFailure::Refused(error)) => Err(error),
            Err(ReleaseFailure::InDoubt(error)) => {
                self.committer.poison(error.clone());
                Err(error)
            }
        }
    }

    /// The position behind the last durable frame. Every later frame has this position or a larger one.
    pub fn end(&self) -> Position {
        self.shelf.end()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shelf.live()
    }

    /// Where the log is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Closes the log: a write under way ends, appends that are queued fail with [`Closed`](ErrorKind::Closed), later ones too. Dropping the log
    /// does the same. Closing twice is no error.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if the disk has not ended a write within `wait_limit`.
    pub fn close(&self) -> Result<()> {
        self.committer.close()?;
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server.filter(|server| server.thread().id() != thread::current().id()) {
            // It has nothing left to do, and a panic of it was told to those who waited for it.
            let _ = server.join();
        }
        Ok(())
    }

    fn check(&self, payload_bytes: usize) -> Result<()> {
        let limit = self.options.max_payload_bytes;
        match payload_bytes <= limit as usize {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a payload of {payload_bytes} bytes is larger than max_payload_bytes ({limit})"),
            )),
        }
    }

    /// Whether the thread in the background is there, which the first caller starts. Where the machine has none to give, frames have to be
    /// written by those who queue them: slower, and nobody is refused.
    fn has_server(&self) -> bool {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            let committer = Arc::clone(&self.committer);
            *server = thread::Builder::new().name("millpond-log".into()).spawn(move || committer.serve()).ok();
        }
        server.is_some()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // An error means that the disk hangs; there is nobody to tell.
        let _ = self.close();
    }
}
