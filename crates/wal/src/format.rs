//! The bytes of a segment: its header and the header of a frame. The page for humans is docs/formats-log.md.
//!
//! Numbers are little-endian. A checksum is the CRC-32 of zlib and PNG. The checksum of a frame's header
//! starts with the segment's number and the frame's offset, so that a frame left over in a recycled file, or one that
//! strayed to another place, is never taken for one written there.

/// Where the first frame of a segment stands. The header has this page for itself, so that no later write touches it.
pub(crate) const DATA_START: u64 = 4096;
/// Frames start at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const MAGIC: [u8; 8] = *b"MPONDLOG";
pub(crate) const VERSION: u32 = 1;
/// No frame has a larger sequence: counting on from a segment's first one never overflows.
const LAST_SEQUENCE: u64 = 1 << 62;

/// How many bytes a frame takes, header and padding included.
pub(crate) const fn frame_bytes(payload_bytes: usize) -> u64 {
    FRAME_HEADER_BYTES as u64 + (payload_bytes as u64).next_multiple_of(ALIGNMENT)
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: u64,
    /// The segment before this one, 0 for none.
    pub(crate) predecessor: u64,
    /// Where the predecessor's valid frames end.
    pub(crate) predecessor_end: u64,
    /// The sequence of this segment's first frame: one more than the predecessor's last.
    pub(crate) first_sequence: u64,
}

/// Why a segment's header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    NotASegment,
    NewerVersion(u32),
    Checksum,
    /// A sequence that no log comes to; behind 0 not even a frame that was acknowledged would be found again.
    Sequence(u64),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(DATA_START as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.predecessor.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.predecessor_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadHeader> {
        if bytes[0..8] != MAGIC {
            return Err(BadHeader::NotASegment);
        }
        // The version comes before the checksum: a newer version may sum other bytes.
        let version = u32_at(bytes, 8);
        if version > VERSION {
            return Err(BadHeader::NewerVersion(version));
        }
        let header = Self {
            segment: u64_at(bytes, 16),
            predecessor: u64_at(bytes, 24),
            predecessor_end: u64_at(bytes, 32),
            first_sequence: u64_at(bytes, 40),
        };
        // Encoding again and comparing covers the checksum and every reserved byte.
        if header.encode() != *bytes {
            return Err(BadHeader::Checksum);
        }
        match header.first_sequence {
            1..=LAST_SEQUENCE => Ok(header),
            sequence => Err(BadHeader::Sequence(sequence)),
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) payload_checksum: u32,
    pub(crate) kind: u8,
    pub(crate) sequence: u64,
    /// Everything in this segment below this offset was synced before this frame was written.
    pub(crate) synced: u64,
}

impl FrameHeader {
    pub(crate) fn encode(&self, segment: u64, offset: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[12] = self.kind;
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        let checksum = header_checksum(&bytes, segment, offset);
        bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at `offset` of `segment`, or `None` if these bytes are none.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], segment: u64, offset: u64) -> Option<Self> {
        let header = Self::decode_unchecked(bytes)?;
        (header_checksum(bytes, segment, offset) == u32_at(bytes, 0)).then_some(header)
    }

    /// The fields alone, for a search that looks at their plausibility before it computes a checksum.
    pub(crate) fn decode_unchecked(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            payload_bytes: u32_at(bytes, 4),
            payload_checksum: u32_at(bytes, 8),
            kind: bytes[12],
            sequence: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
        };
        // A sequence is never 0, so zeros written ahead are no frame whatever their checksum would be.
        (bytes[13..16] == [0; 3] && header.sequence != 0).then_some(header)
    }
}

fn header_checksum(bytes: &[u8; FRAME_HEADER_BYTES], segment: u64, offset: u64) -> u32 {
    let mut seeded = [0; 16 + FRAME_HEADER_BYTES - 4];
    seeded[0..8].copy_from_slice(&segment.to_le_bytes());
    seeded[8..16].copy_from_slice(&offset.to_le_bytes());
    seeded[16..].copy_from_slice(&bytes[4..]);
    crc32fast::hash(&seeded)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentHeader =
        SegmentHeader { segment: 7, predecessor: 6, predecessor_end: 5000, first_sequence: 99 };
    const FRAME: FrameHeader =
        FrameHeader { payload_bytes: 5, payload_checksum: 0xdead_beef, kind: 3, sequence: 17, synced: 4096 };

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let bytes = SEGMENT.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(SEGMENT));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_segment_that_begins_with_a_sequence_no_log_comes_to_is_damaged() {
        for first_sequence in [0, u64::MAX] {
            let bytes = SegmentHeader { first_sequence, ..SEGMENT }.encode();
            assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Sequence(first_sequence)));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_header_is_noticed() {
        let bytes = FRAME.encode(7, 4096);
        assert_eq!(FrameHeader::decode(&bytes, 7, 4096), Some(FRAME));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&damaged, 7, 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_or_offset_is_none() {
        let bytes = FRAME.encode(7, 4096);
        assert_eq!(FrameHeader::decode(&bytes, 8, 4096), None);
        assert_eq!(FrameHeader::decode(&bytes, 7, 4104), None);
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(FrameHeader::decode(&[0; FRAME_HEADER_BYTES], 1, 4096), None);
    }
}
