//! Where a frame stands in the log, and what a reader is handed.

use std::fmt;
use std::ops::Add;

/// The place of a frame: the segment it stands in and its offset there, in bytes. Later frames have larger positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The segment's number; segments are numbered from 1 and no number is used twice.
    pub segment: u64,
    /// Bytes from the beginning of the segment's file.
    pub offset: u64,
}

impl Position {
    /// The position before every frame.
    pub const ZERO: Self = Self { segment: 0, offset: 0 };

    /// Sixteen bytes that sort as positions do.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.segment.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// The position that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// ```
    /// use millpond_wal::Position;
    /// let position = Position { segment: 3, offset: 4096 };
    /// assert_eq!(Position::from_bytes(position.to_bytes()), position);
    /// ```
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let (segment, offset) = bytes.split_at(8);
        Self {
            segment: u64::from_be_bytes(segment.try_into().expect("eight of sixteen bytes")),
            offset: u64::from_be_bytes(offset.try_into().expect("eight of sixteen bytes")),
        }
    }
}

impl Add<u64> for Position {
    type Output = Self;

    /// The position so many bytes further on in the same segment.
    fn add(self, bytes: u64) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "segment {} offset {}", self.segment, self.offset)
    }
}

/// A frame as it is handed to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it stands.
    pub position: Position,
    /// What the writer said it is; this crate gives it no meaning.
    pub kind: u8,
    /// Its number in the log: one more than the frame before it, the first is 1.
    pub sequence: u64,
    /// Its content.
    pub payload: &'a [u8],
}

/// One segment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The segment's number.
    pub segment: u64,
    /// The sequence of its first frame (or of the first one it would get).
    pub first_sequence: u64,
    /// The offset behind its last valid frame.
    pub end_offset: u64,
    /// How long its file is, in bytes; what lies behind `end_offset` was written ahead.
    pub file_bytes: u64,
}
