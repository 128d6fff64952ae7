//! Writes groups of frames to the newest segment: takes their space first, writes, syncs, and begins the next segment
//! when one is full. One thread at a time has it.
//!
//! What fails before the first byte of a frame is written is a clean failure: the frames will never be seen, and the next
//! group may do better. What fails after it, and any failed sync, leaves nobody knowing what is on disk: the log is poisoned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::{self, Role};
use crate::error::{Error, ErrorKind};
use crate::format::{ALIGNMENT, DATA_START, FrameHeader, SegmentHeader, frame_bytes};
use crate::fs::{Access, FileHandle, FileSystem, write_all};
use crate::newest::Newest;
use crate::options::LogOptions;
use crate::position::{Position, SegmentInfo};
use crate::shelf::Shelf;

/// The first step in which zeros are written ahead; later ones double up to the limit, so that a restart costs little.
const FIRST_STEP_BYTES: u64 = 256 << 10;
/// Ahead of a group of this size the space is only allocated: writing so many zeros would cost more than it saves.
const LARGE_GROUP_BYTES: u64 = 192 << 10;
/// A payload of this size is written from where it lies, a smaller one is copied next to its neighbours first.
const DIRECT_BYTES: usize = 32 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A frame that has no place yet.
#[derive(Clone, Copy)]
pub(crate) struct PendingFrame<'a> {
    pub(crate) kind: u8,
    pub(crate) payload_checksum: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> PendingFrame<'a> {
    pub(crate) fn new(kind: u8, payload: &'a [u8]) -> Self {
        Self { kind, payload_checksum: crc32fast::hash(payload), payload }
    }
}

/// Why a group was not written.
pub(crate) enum WriteFailure {
    /// No byte of a frame was written.
    Clean(Error),
    /// Nobody knows what is on disk.
    InDoubt(Error),
}

pub(crate) struct Writer {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    options: LogOptions,
    shelf: Arc<Shelf>,
    /// The segment that this process writes to; none before its first group: it never appends to what it found.
    current: Option<Current>,
    newest: Newest,
    next_segment: u64,
    next_sequence: u64,
    buffer: Vec<u8>,
}

struct Current {
    path: PathBuf,
    file: Arc<dyn FileHandle>,
    segment: u64,
    /// Behind the last synced frame.
    end: u64,
    /// As far as the file has its space on disk.
    allocated: u64,
}

impl Writer {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        options: LogOptions,
        shelf: Arc<Shelf>,
        newest: Newest,
        next_segment: u64,
        next_sequence: u64,
    ) -> Self {
        Self {
            fs,
            directory: directory.to_owned(),
            options,
            shelf,
            current: None,
            newest,
            next_segment,
            next_sequence,
            buffer: Vec::new(),
        }
    }

    /// How many bytes of frames still fit into the newest segment.
    pub(crate) fn room(&self) -> u64 {
        let current = self.current.as_ref();
        current.map_or(0, |current| self.options.segment_bytes.saturating_sub(current.end))
    }

    /// Writes and syncs these frames, which fit into one segment, and returns where the first stands; the others follow it.
    pub(crate) fn write_group(&mut self, frames: &[PendingFrame<'_>]) -> Result<Position, WriteFailure> {
        let bytes = frames.iter().map(|frame| frame_bytes(frame.payload.len())).sum();
        if self.room() < bytes {
            self.begin_segment()?;
        }
        let current = self.current.as_mut().expect("a segment with room");
        // Again, where it failed when the segment was begun.
        self.newest.reach(current.segment)?;
        current.reserve(bytes, &self.options)?;

        current.write(frames, self.next_sequence, &mut self.buffer)?;
        fail::fail_point!(crate::failpoints::APPENDED);
        current.sync()?;
        fail::fail_point!(crate::failpoints::SYNCED);

        let position = Position { segment: current.segment, offset: current.end };
        current.end += bytes;
        self.next_sequence += frames.len() as u64;
        self.shelf.grow(current.end, current.allocated);
        Ok(position)
    }

    /// Makes the next segment: under another name until its header is durable, so that no crash leaves a segment without one.
    pub(crate) fn begin_segment(&mut self) -> Result<(), WriteFailure> {
        let tail = self.shelf.end();
        let header = SegmentHeader {
            segment: self.next_segment,
            predecessor: tail.segment,
            predecessor_end: tail.offset,
            first_sequence: self.next_sequence,
        };
        let (aside, file) = self.blank_file()?;
        let ready = self.prepare(&aside, &*file, &header);
        let allocated = match ready {
            Ok(allocated) => allocated,
            Err(failure) => {
                // Nothing of value is in it. If it cannot be removed either, the next opening does it.
                let _ = self.fs.remove(&aside);
                return Err(failure);
            }
        };
        let path = directory::path(&self.directory, header.segment, Role::Segment);
        self.fs
            .rename(&aside, &path)
            .map_err(|error| WriteFailure::Clean(Error::io("rename a new segment to", &path, error)))?;
        self.fs
            .sync_directory(&self.directory)
            .map_err(|error| WriteFailure::InDoubt(Error::in_doubt("sync the directory", &self.directory, error)))?;
        fail::fail_point!(crate::failpoints::SEGMENT_CREATED);

        self.shelf.add(SegmentInfo {
            segment: header.segment,
            first_sequence: header.first_sequence,
            end_offset: DATA_START,
            file_bytes: allocated,
        });
        self.current = Some(Current { path, file, segment: header.segment, end: DATA_START, allocated });
        self.next_segment += 1;
        self.newest.reach(header.segment)
    }

    /// A file to make a segment of: a released one if there is any, since its space on disk is there already.
    fn blank_file(&self) -> Result<(PathBuf, Arc<dyn FileHandle>), WriteFailure> {
        if let Some(released) = self.shelf.take_recycled() {
            let path = directory::path(&self.directory, released, Role::Recycled);
            if let Ok(file) = self.fs.open(&path, Access::ReadWrite) {
                return Ok((path, file));
            }
        }
        let path = directory::path(&self.directory, self.next_segment, Role::New);
        match self.fs.create(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(WriteFailure::Clean(Error::io("create", &path, error))),
        }
    }

    /// Writes and syncs the header, with the page that is its own; returns how long the file is.
    fn prepare(&self, path: &Path, file: &dyn FileHandle, header: &SegmentHeader) -> Result<u64, WriteFailure> {
        let mut page = [0; DATA_START as usize];
        let bytes = header.encode();
        page[..bytes.len()].copy_from_slice(&bytes);
        let clean = |error| WriteFailure::Clean(Error::io("write the header of", path, error));
        write_all(file, &page, 0).map_err(clean)?;
        let length = file.length().map_err(clean)?;
        file.sync_data().map_err(|error| WriteFailure::InDoubt(Error::in_doubt("sync", path, error)))?;
        Ok(length)
    }
}

impl Current {
    /// Takes the space on disk for so many bytes more, so that a full disk shows before a frame is written.
    fn reserve(&mut self, bytes: u64, options: &LogOptions) -> Result<(), WriteFailure> {
        let needed = self.end + bytes;
        if needed <= self.allocated {
            return Ok(());
        }
        let step = self.allocated.max(FIRST_STEP_BYTES).min(options.preallocate_bytes);
        let target = (needed + step).next_multiple_of(DATA_START).min(options.segment_bytes.max(needed));
        let result = match bytes < LARGE_GROUP_BYTES {
            true => self.write_zeros(target),
            false => self.allocate(target).or_else(|_| self.allocate(needed.max(self.allocated))),
        };
        match result {
            // A disk that is full only behind what this group needs still takes the group.
            Err(error) if self.allocated < needed => {
                let action = format!("append {bytes} bytes at offset {} of", self.end);
                Err(WriteFailure::Clean(Error::io(&action, &self.path, error)))
            }
            _ => Ok(()),
        }
    }

    fn allocate(&mut self, target: u64) -> io::Result<()> {
        if target == self.allocated {
            return Ok(());
        }
        match self.file.allocate(self.allocated, target - self.allocated) {
            Ok(()) => {
                self.allocated = target;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.write_zeros(target),
            Err(error) => Err(error),
        }
    }

    fn write_zeros(&mut self, target: u64) -> io::Result<()> {
        while self.allocated < target {
            let length = (target - self.allocated).min(ZEROS.len() as u64);
            write_all(&*self.file, &ZEROS[..length as usize], self.allocated)?;
            self.allocated += length;
        }
        Ok(())
    }

    fn write(
        &self,
        frames: &[PendingFrame<'_>],
        first_sequence: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), WriteFailure> {
        let write = |bytes: &[u8], offset| {
            write_all(&*self.file, bytes, offset).map_err(|error| {
                let action = format!("write {} bytes at offset {offset} of", bytes.len());
                WriteFailure::InDoubt(Error::in_doubt(&action, &self.path, error))
            })
        };
        let (mut start, mut sequence) = (self.end, first_sequence);
        buffer.clear();
        for frame in frames {
            let header = FrameHeader {
                payload_bytes: frame.payload.len() as u32,
                payload_checksum: frame.payload_checksum,
                kind: frame.kind,
                sequence,
                synced: self.end,
            };
            buffer.extend_from_slice(&header.encode(self.segment, start + buffer.len() as u64));
            if frame.payload.len() >= DIRECT_BYTES {
                write(buffer, start)?;
                start += buffer.len() as u64;
                buffer.clear();
                write(frame.payload, start)?;
                start += frame.payload.len() as u64;
            } else {
                buffer.extend_from_slice(frame.payload);
            }
            let padding = (start + buffer.len() as u64).next_multiple_of(ALIGNMENT) - start;
            buffer.resize(padding as usize, 0);
            sequence += 1;
        }
        match buffer.is_empty() {
            true => Ok(()),
            false => write(buffer, start),
        }
    }

    fn sync(&self) -> Result<(), WriteFailure> {
        // A log that says it has synced and has not.
        if crate::controls::broken("break-log-skip-sync") {
            return Ok(());
        }
        let synced = self.file.sync_data();
        synced.map_err(|error| WriteFailure::InDoubt(Error::in_doubt("sync", &self.path, error)))
    }
}

impl WriteFailure {
    pub(crate) fn poison(error: &Error) -> Error {
        let message = "the log takes no more appends until the process restarts, because nobody knows what its last write left on disk";
        Error::new(ErrorKind::Poisoned, message).with_source(error.clone())
    }
}
