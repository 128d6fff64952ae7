//! Which segments there are, and which released files wait to be written again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::directory::{self, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FRAME_HEADER_BYTES, FrameHeader, frame_bytes};
use crate::fs::{Access, FileSystem, read_full};
use crate::position::{Position, SegmentInfo};

pub(crate) struct Shelf {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    state: Mutex<State>,
    /// Held while segments are released: one at a time, each step durable before the next.
    releasing: Mutex<()>,
    segment_bytes: u64,
    recycled_limit: usize,
}

struct State {
    live: Vec<SegmentInfo>,
    recycled: Vec<u64>,
}

impl Shelf {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        live: Vec<SegmentInfo>,
        recycled: Vec<u64>,
        segment_bytes: u64,
        recycled_limit: usize,
    ) -> Self {
        Self {
            fs,
            directory: directory.to_owned(),
            state: Mutex::new(State { live, recycled }),
            releasing: Mutex::new(()),
            segment_bytes,
            recycled_limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self) -> Vec<SegmentInfo> {
        self.lock().live.clone()
    }

    /// Behind the last durable frame.
    pub(crate) fn end(&self) -> Position {
        let state = self.lock();
        state.live.last().map_or(Position::ZERO, |last| Position { segment: last.segment, offset: last.end_offset })
    }

    /// A segment has come to be.
    pub(crate) fn add(&self, segment: SegmentInfo) {
        self.lock().live.push(segment);
    }

    /// The newest segment has grown.
    pub(crate) fn grow(&self, end_offset: u64, file_bytes: u64) {
        if let Some(newest) = self.lock().live.last_mut() {
            newest.end_offset = end_offset;
            newest.file_bytes = file_bytes;
        }
    }

    /// A released file to write again; it is the caller's now.
    pub(crate) fn take_recycled(&self) -> Option<u64> {
        self.lock().recycled.pop()
    }

    /// Reads the frame at `position`.
    pub(crate) fn read(&self, position: Position) -> Result<(u8, Vec<u8>)> {
        self.check_readable(position)?;
        let path = directory::path(&self.directory, position.segment, Role::Segment);
        let result = self.read_file(&path, position);
        // A release that came in between may have taken the file away or given it to a new segment.
        if result.is_err() {
            self.check_readable(position)?;
        }
        result
    }

    fn check_readable(&self, position: Position) -> Result<()> {
        let state = self.lock();
        let Position { segment, offset } = position;
        match state.live.binary_search_by_key(&segment, |info| info.segment) {
            Ok(index) if offset + FRAME_HEADER_BYTES as u64 <= state.live[index].end_offset => Ok(()),
            Err(0) if !state.live.is_empty() => Err(Error::new(
                ErrorKind::Released,
                format!("the frame at {position} was released; the log begins at segment {}", state.live[0].segment),
            )),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("there is no frame at {position} in {}", self.directory.display()),
            )),
        }
    }

    fn read_file(&self, path: &Path, position: Position) -> Result<(u8, Vec<u8>)> {
        let Position { segment, offset } = position;
        let damaged = |what: &str| {
            let place = format!("segment {segment} offset {offset} ({})", path.display());
            Err(Error::new(ErrorKind::Corrupt, format!("{what} at {place}: a wrong position, or the file is damaged")))
        };
        let read_error = |error| Error::io("read", path, error);
        let file = self.fs.open(path, Access::Read).map_err(|error| Error::io("open", path, error))?;
        let mut header = [0; FRAME_HEADER_BYTES];
        let header = match read_full(&*file, &mut header, offset).map_err(read_error)? {
            FRAME_HEADER_BYTES => FrameHeader::decode(&header, segment, offset),
            _ => None,
        };
        let Some(header) = header else {
            return damaged("there is no valid frame");
        };
        let length = header.payload_bytes as usize;
        let file_bytes = file.length().map_err(read_error)?;
        if offset + frame_bytes(length) > file_bytes.max(offset) {
            return damaged("the file ends inside the frame");
        }
        let mut payload = vec![0; length];
        let read = read_full(&*file, &mut payload, offset + FRAME_HEADER_BYTES as u64).map_err(read_error)?;
        if read < length || crc32fast::hash(&payload) != header.payload_checksum {
            return damaged("the checksum of the payload does not match");
        }
        Ok((header.kind, payload))
    }

    /// Lets go of every segment whose frames all lie below `before`, except the newest, which knows where the log ends. Oldest first, each durably
    /// before the next, so that whatever a crash leaves has no gap. Returns how many went and, if it could not go on, why.
    pub(crate) fn release(&self, before: Position) -> (usize, Result<(), ReleaseFailure>) {
        let _one_at_a_time = self.releasing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut released = 0;
        loop {
            let oldest = {
                let state = self.lock();
                match state.live.as_slice() {
                    [oldest, _, ..] if oldest.is_below(before) => oldest.clone(),
                    _ => return (released, Ok(())),
                }
            };
            if let Err(failure) = self.release_one(&oldest) {
                return (released, Err(failure));
            }
            released += 1;
        }
    }

    fn release_one(&self, oldest: &SegmentInfo) -> Result<(), ReleaseFailure> {
        let path = directory::path(&self.directory, oldest.segment, Role::Segment);
        // A file that a restart left short saves no writing ahead, and one of another size is of no use later.
        let worth_keeping = (self.segment_bytes / 2..=self.segment_bytes).contains(&oldest.file_bytes);
        let recycle = worth_keeping && self.lock().recycled.len() < self.recycled_limit;
        let gone = match recycle {
            true => self.fs.rename(&path, &directory::path(&self.directory, oldest.segment, Role::Recycled)),
            false => self.fs.remove(&path),
        };
        gone.map_err(|error| ReleaseFailure::Refused(Error::io("release the segment", &path, error)))?;
        self.lock().live.remove(0);
        // Only when the new name is durable may the file be written again: else a crash could show it under its old one.
        self.fs
            .sync_directory(&self.directory)
            .map_err(|error| ReleaseFailure::InDoubt(Error::in_doubt("sync the directory", &self.directory, error)))?;
        if recycle {
            self.lock().recycled.push(oldest.segment);
        }
        fail::fail_point!(crate::failpoints::SEGMENT_DELETED);
        Ok(())
    }
}

/// Why segments could not be released.
pub(crate) enum ReleaseFailure {
    /// Nothing happened to the segment.
    Refused(Error),
    /// Nobody knows which names are durable.
    InDoubt(Error),
}

impl SegmentInfo {
    fn is_below(&self, before: Position) -> bool {
        let end = Position { segment: self.segment, offset: self.end_offset };
        end <= before
    }
}
