//! Walks the log from its oldest segment to its valid end. Opening and scanning both stand on it.
//!
//! Where the valid frames of a segment end is known from outside for all but the newest: the next segment's header says so. In
//! the newest, the first bad frame ends the log, unless a frame behind it proves that it had been synced; then it is damage.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::{self, Role};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::format::{BadHeader, DATA_START, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::fs::{Access, FileHandle, FileSystem, read_full};
use crate::position::{Frame, Position, SegmentInfo};
use crate::reader::{Next, SegmentReader};

/// A place where bytes that were safely on disk have changed or are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// The segment's number.
    pub segment: u64,
    /// Where in the segment the first bad frame stands; 0 is the segment's own header.
    pub offset: u64,
    /// What is wrong there, and how it is known to be damage and not the torn end of the log.
    pub reason: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, segment, offset, reason } = self;
        write!(formatter, "the log is damaged at segment {segment} offset {offset} ({}): {reason}", path.display())
    }
}

impl Corruption {
    pub(crate) fn into_error(self) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "{self}. Restore the directory, or say that what stands before this place shall be kept (OnCorruption::KeepBefore)"
            ),
        )
    }
}

/// What a walk is handed its frames with.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(Frame<'_>) -> std::result::Result<(), BoxError>;

/// The segments that follow one another without a gap, from the oldest.
pub(crate) struct Chain {
    pub(crate) links: Vec<Link>,
    /// What ends the chain before the newest segment.
    pub(crate) damage: Option<Corruption>,
}

pub(crate) struct Link {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) file_bytes: u64,
}

impl Chain {
    /// Reads the headers of these segments, which are in order; the log is known to have come to segment `marked`.
    pub(crate) fn read(fs: &dyn FileSystem, directory: &Path, segments: &[u64], marked: Option<u64>) -> Result<Self> {
        let mut chain = Self { links: Vec::with_capacity(segments.len()), damage: None };
        for &segment in segments {
            let path = directory::path(directory, segment, Role::Segment);
            let link = match read_link(fs, &path, segment)? {
                Read::Link(link) => link,
                // Released since the directory was listed, and with it all that are older.
                Read::Gone => {
                    chain.links.clear();
                    continue;
                }
                Read::Bad(reason) => {
                    chain.damage = Some(Corruption { path, segment, offset: 0, reason });
                    break;
                }
            };
            chain.damage = chain.links.last().and_then(|before| before.broken_by(&link));
            if chain.damage.is_some() {
                break;
            }
            chain.links.push(link);
        }
        if chain.damage.is_none() {
            chain.damage = marked.and_then(|marked| chain.ends_before(marked, directory));
        }
        Ok(chain)
    }

    /// How the chain contradicts that the log has come to segment `marked`.
    fn ends_before(&self, marked: u64, directory: &Path) -> Option<Corruption> {
        let last = self.links.last().map_or(0, |last| last.header.segment);
        (last < marked).then(|| {
            let found = match last {
                0 => "there is no segment".to_owned(),
                last => format!("the newest one found is {last}"),
            };
            let mark = directory::path(directory, marked, Role::Newest);
            let mark = mark.file_name().unwrap_or_default().display().to_string();
            Corruption {
                path: directory::path(directory, marked, Role::Segment),
                segment: marked,
                offset: 0,
                reason: format!("the file is missing: {mark} says that the log goes on to this segment, {found}"),
            }
        })
    }
}

impl Link {
    /// How `next` contradicts that it follows this segment.
    fn broken_by(&self, next: &Self) -> Option<Corruption> {
        let (this, next_header) = (&self.header, &next.header);
        let at_next =
            |reason: String| Corruption { path: next.path.clone(), segment: next_header.segment, offset: 0, reason };
        if next_header.predecessor != this.segment {
            return Some(at_next(format!(
                "it follows segment {}, which is missing; the one found before it is {}",
                next_header.predecessor, this.segment
            )));
        }
        if next_header.predecessor_end > self.file_bytes {
            return Some(Corruption {
                path: self.path.clone(),
                segment: this.segment,
                offset: self.file_bytes,
                reason: format!(
                    "the file ends here, but segment {} says that its frames reach to offset {}",
                    next_header.segment, next_header.predecessor_end
                ),
            });
        }
        (next_header.predecessor_end < DATA_START || next_header.first_sequence < this.first_sequence)
            .then(|| at_next(format!("its header contradicts that of segment {}", this.segment)))
    }
}

enum Read {
    Link(Link),
    Gone,
    Bad(String),
}

fn read_link(fs: &dyn FileSystem, path: &Path, segment: u64) -> Result<Read> {
    let read_error = |error| Error::io("read", path, error);
    let file = match fs.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Gone),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = read_full(&*file, &mut bytes, 0).map_err(read_error)?;
    if read < bytes.len() {
        return Ok(Read::Bad("the file ends inside the segment's header".into()));
    }
    let file_bytes = file.length().map_err(read_error)?;
    Ok(match SegmentHeader::decode(&bytes) {
        Ok(header) if header.segment == segment => Read::Link(Link { path: path.to_owned(), header, file_bytes }),
        Ok(header) => Read::Bad(format!("the header says that this is segment {}", header.segment)),
        Err(BadHeader::NotASegment) => Read::Bad("the file does not begin as a segment of a log does".into()),
        Err(BadHeader::Checksum) => Read::Bad("the checksum of the segment's header does not match".into()),
        Err(BadHeader::Sequence(sequence)) => {
            Read::Bad(format!("the header says that frames are counted from {sequence}, to which no log comes"))
        }
        Err(BadHeader::NewerVersion(version)) => {
            return Err(Error::new(
                ErrorKind::NewerFormat,
                format!(
                    "{} has format version {version}, this program knows versions up to {}: use the newer program",
                    path.display(),
                    crate::format::VERSION
                ),
            ));
        }
    })
}

/// What a walk found.
pub(crate) struct Walk {
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) next_sequence: u64,
    pub(crate) frames: u64,
    pub(crate) payload_bytes: u64,
    /// Where the frames of the newest segment begin that nothing proves to be synced.
    pub(crate) in_doubt_from: u64,
    pub(crate) damage: Option<Corruption>,
    /// The newest segment was released while we walked: the log goes on behind it.
    pub(crate) overtaken: bool,
}

impl Walk {
    /// Behind the last valid frame.
    pub(crate) fn end(&self) -> Position {
        let last = self.segments.last();
        last.map_or(Position::ZERO, |last| Position { segment: last.segment, offset: last.end_offset })
    }

    /// Hands every valid frame of the chain to `visit`, in order.
    pub(crate) fn run(fs: &dyn FileSystem, chain: &Chain, visit: Visit<'_>) -> Result<Self> {
        let mut walk = Self {
            segments: Vec::new(),
            next_sequence: 1,
            frames: 0,
            payload_bytes: 0,
            in_doubt_from: DATA_START,
            damage: None,
            overtaken: false,
        };
        for (index, link) in chain.links.iter().enumerate() {
            let next = chain.links.get(index + 1).map(|next| &next.header);
            match fs.open(&link.path, Access::Read) {
                Ok(file) => walk.damage = walk.segment(&file, link, next, visit)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("open", &link.path, error)),
            }
            // Only the scan of a live log sees this: the segment was released, and may have been written anew under our hands.
            let suspicious = walk.damage.is_some() || next.is_none() || walk.segments.is_empty();
            if suspicious && matches!(read_link(fs, &link.path, link.header.segment)?, Read::Gone) {
                walk.damage = None;
                walk.segments.clear();
                walk.overtaken = next.is_none();
            } else if walk.damage.is_some() {
                return Ok(walk);
            }
        }
        walk.damage = chain.damage.clone();
        Ok(walk)
    }

    fn segment(
        &mut self,
        file: &Arc<dyn FileHandle>,
        link: &Link,
        next: Option<&SegmentHeader>,
        visit: Visit<'_>,
    ) -> Result<Option<Corruption>> {
        let segment = link.header.segment;
        let limit = next.map_or(link.file_bytes, |next| next.predecessor_end);
        let mut reader = SegmentReader::new(&**file, segment, DATA_START, limit, link.header.first_sequence);
        let mut proof = None;
        self.in_doubt_from = DATA_START;
        let reason = loop {
            let bad = match reader.next().map_err(|error| Error::io("read", &link.path, error))? {
                Next::Frame { offset, header, payload } => {
                    proof = None;
                    self.frames += 1;
                    self.payload_bytes += payload.len() as u64;
                    self.in_doubt_from = header.synced;
                    let frame = Frame {
                        position: Position { segment, offset },
                        kind: header.kind,
                        sequence: header.sequence,
                        payload,
                    };
                    visit(frame).map_err(|error| {
                        let place = frame.position;
                        Error::new(ErrorKind::Visitor, format!("the frame at {place} was refused")).with_source(error)
                    })?;
                    continue;
                }
                Next::End => match next {
                    Some(next) if next.first_sequence != reader.sequence() => {
                        "frames are missing before the next segment"
                    }
                    _ => break None,
                },
                Next::Bad(reason) => reason,
            };
            if let Some(next) = next {
                break Some(format!("{bad}; segment {} says that frames reach to offset {limit}", next.segment));
            }
            if let Some(proof) = proof {
                break Some(format!("{bad}; the frame at offset {proof} was written after this place was synced"));
            }
            proof = reader.find_proof_of_sync().map_err(|error| Error::io("read", &link.path, error))?;
            if proof.is_none() {
                break None;
            }
            // Of a live log: the writer may have passed by between our two looks. So look here once more.
            reader.refresh();
        };
        self.next_sequence = reader.sequence();
        self.segments.push(SegmentInfo {
            segment,
            first_sequence: link.header.first_sequence,
            end_offset: reader.offset().max(DATA_START.min(link.file_bytes)),
            file_bytes: link.file_bytes,
        });
        Ok(reason.map(|reason| Corruption { path: link.path.clone(), segment, offset: reader.offset(), reason }))
    }
}
