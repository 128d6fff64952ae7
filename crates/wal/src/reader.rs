//! Reads the frames of one segment in order, through a window of bounded size.

use std::io;

use crate::format::{ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, frame_bytes};
use crate::fs::{FileHandle, read_full};

/// How much is read at a time; a larger frame is read whole.
const WINDOW_BYTES: usize = 1 << 20;

/// What stands at the reader's offset.
pub(crate) enum Next<'a> {
    /// A valid frame; the reader has moved behind it.
    Frame { offset: u64, header: FrameHeader, payload: &'a [u8] },
    /// The frames end exactly at the limit.
    End,
    /// No valid frame, and why; the reader stays.
    Bad(&'static str),
}

pub(crate) struct SegmentReader<'f> {
    file: &'f dyn FileHandle,
    segment: u64,
    offset: u64,
    limit: u64,
    sequence: u64,
    window: Window,
}

impl<'f> SegmentReader<'f> {
    /// Reads from `offset`, where the frame of this sequence should stand, up to `limit`.
    pub(crate) fn new(file: &'f dyn FileHandle, segment: u64, offset: u64, limit: u64, sequence: u64) -> Self {
        Self { file, segment, offset, limit, sequence, window: Window::default() }
    }

    /// Where the next frame should stand.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The sequence that the next frame should have.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Forgets what was read ahead, so that what has been written since is seen.
    pub(crate) fn refresh(&mut self) {
        self.window.filled = 0;
    }

    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let offset = self.offset;
        if offset == self.limit {
            return Ok(Next::End);
        }
        if offset + FRAME_HEADER_BYTES as u64 > self.limit {
            return Ok(Next::Bad("the segment ends inside a frame's header"));
        }
        let bytes = self.window.get(self.file, offset, FRAME_HEADER_BYTES, self.limit)?;
        let Some(bytes) = bytes.and_then(|bytes| bytes.try_into().ok()) else {
            return Ok(Next::Bad("the file ends inside a frame's header"));
        };
        let Some(header) = FrameHeader::decode(bytes, self.segment, offset) else {
            return Ok(Next::Bad("the checksum of a frame's header does not match"));
        };
        if header.sequence != self.sequence {
            return Ok(Next::Bad("the frame has another sequence than the one due here"));
        }
        let length = header.payload_bytes as usize;
        if offset + frame_bytes(length) > self.limit {
            return Ok(Next::Bad("the segment ends inside a frame"));
        }
        let Some(frame) = self.window.get(self.file, offset, FRAME_HEADER_BYTES + length, self.limit)? else {
            return Ok(Next::Bad("the file ends inside a frame"));
        };
        let payload = &frame[FRAME_HEADER_BYTES..];
        if crc32fast::hash(payload) != header.payload_checksum {
            return Ok(Next::Bad("the checksum of a frame's payload does not match"));
        }
        self.offset += frame_bytes(length);
        self.sequence += 1;
        Ok(Next::Frame { offset, header, payload })
    }

    /// Looks behind the reader's offset for a frame that was written when this offset was known to be synced. Such a frame proves
    /// that the bad frame here is damage; without one it is the torn end of the log. Returns its offset.
    pub(crate) fn find_proof_of_sync(&mut self) -> io::Result<Option<u64>> {
        let bad = self.offset;
        let mut offset = bad + ALIGNMENT;
        while let Some(bytes) = self.window.get(self.file, offset, FRAME_HEADER_BYTES, self.limit)? {
            let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.try_into().expect("asked for as many");
            if let Some(header) = FrameHeader::decode_unchecked(bytes) {
                // Cheap tests first: the space behind a torn end may be full of frames of the file's earlier life.
                let frames_before = (offset - bad) / FRAME_HEADER_BYTES as u64 + 1;
                let plausible = header.synced > bad
                    && header.synced <= offset
                    && header.sequence >= self.sequence
                    && header.sequence - self.sequence <= frames_before;
                if plausible && FrameHeader::decode(bytes, self.segment, offset).is_some() {
                    return Ok(Some(offset));
                }
            }
            offset += ALIGNMENT;
        }
        Ok(None)
    }
}

/// A part of the file in memory.
#[derive(Default)]
struct Window {
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Window {
    /// `length` bytes at `offset`, or `None` if the file or the limit ends before.
    fn get(&mut self, file: &dyn FileHandle, offset: u64, length: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        if offset + length as u64 > limit {
            return Ok(None);
        }
        let inside = offset >= self.start && offset + length as u64 <= self.start + self.filled as u64;
        if !inside {
            self.fill(file, offset, length, limit)?;
        }
        let from = (offset - self.start) as usize;
        Ok(self.buffer[..self.filled].get(from..from + length))
    }

    fn fill(&mut self, file: &dyn FileHandle, offset: u64, length: usize, limit: u64) -> io::Result<()> {
        let end = self.start + self.filled as u64;
        let kept = match (self.start..end).contains(&offset) {
            true => (end - offset) as usize,
            false => 0,
        };
        self.buffer.copy_within(self.filled - kept..self.filled, 0);
        (self.start, self.filled) = (offset, kept);
        let room = limit - offset;
        let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(WINDOW_BYTES).max(length);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        self.filled += read_full(file, &mut self.buffer[kept..wanted], offset + kept as u64)?;
        Ok(())
    }
}
