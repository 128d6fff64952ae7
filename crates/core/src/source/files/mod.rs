//! Text lines, JSON lines or binary records from the files of a directory or a glob.
//!
//! A plan lists files with size, mtime and ranges of whole records, so a large file spreads over
//! batches; a planned file that has changed or gone is an error that names it (hard case H24).
//! Files must be moved into place whole. `listing` finds files, `progress` decides what a batch may
//! take, `cut` cuts and counts, `plan` is the encoding, `partition` reads, `decode` makes records; `set_back`
//! is what is said of a clock that was set back.

mod cut;
mod decode;
mod listing;
mod partition;
mod plan;
mod progress;
mod set_back;
#[cfg(test)]
mod tests;
mod whole;

pub use decode::LineRef;
pub(crate) use listing::cannot as file_failed;
pub(crate) use progress::describe as describe_file_position;
pub(crate) use whole::text_partitions;

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use self::cut::{Limits, cut};
use self::decode::{Decoder, EachRecord, Framing, Run, text};
use self::listing::{Filter, Found, Place, cannot, not_hidden};
use self::partition::{FilePartition, open};
use self::plan::Range;
use self::progress::{At, Candidate, Candidates, Progress, Window};
use super::planned::PlannedBatches;
use super::refusal::{Chunks, OnRefused};
use super::{FedRecord, Plan, PlanRequest, Replay, Source, SourceEvents, SourceOutput, SourcePartition, SourceStart};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::time::BatchTime;

/// A plan's ranges take at most so many bytes in the log, and so do the positions of remembered files.
const PLAN_LIMIT_BYTES: usize = 2 << 20;

/// New files of a directory or a glob, as text lines, decoded lines or binary records.
///
/// A file belongs to batch t if its mtime is after the first start of the context (see
/// [`existing_files`](FileSource::existing_files)), not more than the
/// [remember window](FileSource::remember_window) before t and not after t, and it was not taken before. So a file
/// must be written elsewhere on the same file system and moved into place whole, and not be changed then. It may be
/// deleted when a checkpoint holds its last batch.
///
/// Where the system's clock is set back, batch times run ahead of it; the window then goes by the clock. Files that were
/// there before are told from new ones as long as the source runs. At its next start they cannot be told apart: then an
/// error names them, and none of them is taken.
///
/// Replayable: exactly-once.
///
/// ```
/// use millpond_core::source::FileSource;
/// let lines = FileSource::directory("/var/spool/orders");
/// let lengths = FileSource::glob("/var/spool/*/n-*.txt").decode(|line| line.text().map(str::len));
/// ```
pub struct FileSource<T = String> {
    place: Place,
    filter: Filter,
    framing: Framing,
    decoder: Arc<dyn Decoder<T>>,
    on_refused: OnRefused,
    existing: bool,
    remember: Duration,
    batch_bytes: u64,
    partition_bytes: u64,
    remembered_files: usize,
    running: Option<Running>,
}

impl<T> fmt::Debug for FileSource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What a started source knows.
struct Running {
    progress: Progress,
    planned: PlannedBatches,
    first_start: BatchTime,
    clock: Arc<dyn Clock>,
    /// The files before the window, as the last look found them; `None` before the first.
    passed: Option<Vec<PathBuf>>,
    events: SourceEvents,
    /// Changed files that have been reported.
    reported: HashSet<PathBuf>,
    receiving: bool,
}

impl FileSource<String> {
    /// The text lines of the files of a directory; directories in it are not looked into.
    pub fn directory(path: impl AsRef<Path>) -> Self {
        FileSource::new(Place::Directory(path.as_ref().to_owned()))
    }

    /// The text lines of all files that match a pattern with `*`, `?`, `[a-z]` and `**`, and of the
    /// files of matching directories: `/logs/*/` for those of all directories below `/logs`.
    pub fn glob(pattern: impl Into<String>) -> Self {
        FileSource::new(Place::Glob(pattern.into()))
    }

    fn new(place: Place) -> Self {
        FileSource {
            place,
            filter: Arc::new(not_hidden),
            framing: Framing::Lines { limit_bytes: 16 << 20 },
            decoder: Arc::new(EachRecord(text)),
            on_refused: OnRefused::Stop,
            existing: false,
            remember: Duration::from_secs(60),
            batch_bytes: 64 << 20,
            partition_bytes: 4 << 20,
            remembered_files: 10_000,
            running: None,
        }
    }

    /// JSON, one value a line.
    pub fn json<T: DeserializeOwned + Send + 'static>(self) -> FileSource<T> {
        self.decode(|line| serde_json::from_slice::<T>(line.bytes()))
    }
}

impl<T: Send + 'static> FileSource<T> {
    /// Decodes each line with a function. A line that it refuses stops the pipeline, unless
    /// [`skip_refused`](FileSource::skip_refused) or a second stream says otherwise. It must be deterministic: lines
    /// are decoded again after a crash.
    pub fn decode<U, E, F>(self, decoder: F) -> FileSource<U>
    where
        U: Send + 'static,
        E: Display,
        F: Fn(&LineRef<'_>) -> Result<U, E> + Send + Sync + 'static,
    {
        self.with_decoder(Arc::new(EachRecord(decoder)))
    }

    /// Binary records of `bytes` bytes each in place of lines.
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn fixed_length(mut self, bytes: usize) -> FileSource<Vec<u8>> {
        assert!(bytes > 0, "a record of 0 bytes");
        self.framing = Framing::FixedLength(bytes);
        self.with_decoder(Arc::new(EachRecord(|record: &LineRef<'_>| Ok::<_, String>(record.bytes().to_vec()))))
    }

    /// Takes the files that a function accepts, in place of those whose name does not begin with a dot.
    pub fn filter(mut self, accepts: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Arc::new(accepts);
        self
    }

    /// Whether files from before the first start of the context are taken too; default: no.
    pub fn existing_files(mut self, taken: bool) -> Self {
        self.existing = taken;
        self
    }

    /// How long before a batch a new file's mtime may lie; default 60 s. Longer if files come late,
    /// by clocks that differ or slow copies that keep the mtime.
    pub fn remember_window(mut self, window: Duration) -> Self {
        self.remember = window;
        self
    }

    /// At most so many bytes a batch, default 64 MiB; a longer line is taken alone.
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn batch_limit_bytes(mut self, bytes: u64) -> Self {
        assert!(bytes > 0, "a batch of 0 bytes");
        self.batch_bytes = bytes;
        self
    }

    /// About so many bytes a partition, default 4 MiB: smaller for costly records.
    ///
    /// # Panics
    /// If `bytes` is 0.
    pub fn partition_bytes(mut self, bytes: u64) -> Self {
        assert!(bytes > 0, "a partition of 0 bytes");
        self.partition_bytes = bytes;
        self
    }

    /// A line of more bytes is refused, default 16 MiB. Has no meaning for records of fixed length.
    pub fn line_limit_bytes(mut self, bytes: usize) -> Self {
        if let Framing::Lines { limit_bytes } = &mut self.framing {
            *limit_bytes = bytes;
        }
        self
    }

    /// At most so many files in the remember window, default 10,000: more of them wait for a later batch. Each takes
    /// about 100 bytes in the log a batch.
    ///
    /// # Panics
    /// If `files` is 0.
    pub fn remembered_files_limit(mut self, files: usize) -> Self {
        assert!(files > 0, "no file may be remembered");
        self.remembered_files = files;
        self
    }

    /// Leaves out, and counts, lines that the decoder refuses, in place of stopping.
    pub fn skip_refused(mut self) -> Self {
        self.on_refused = OnRefused::Skip;
        self
    }

    fn with_decoder<U>(self, decoder: Arc<dyn Decoder<U>>) -> FileSource<U> {
        FileSource {
            place: self.place,
            filter: self.filter,
            framing: self.framing,
            decoder,
            on_refused: self.on_refused,
            existing: self.existing,
            remember: self.remember,
            batch_bytes: self.batch_bytes,
            partition_bytes: self.partition_bytes,
            remembered_files: self.remembered_files,
            running: None,
        }
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(|| Error::new(ErrorKind::Stopped, "a file source was used before its start"))
    }

    /// Takes files up to the limits; returns the partitions.
    fn take(&mut self, request: &PlanRequest) -> Result<Vec<Vec<Range>>> {
        let found = self.place.list(&self.filter)?;
        let (framing, batch_bytes, piece_bytes, remembered_limit) =
            (self.framing, self.batch_bytes, self.partition_bytes, self.remembered_files);
        let (remember, existing) = (self.remember, self.existing);
        let running = self.running()?;
        let window = Window { first_start: running.first_start, remember, existing };
        let clock = BatchTime::from_ms(running.clock.wall_ms());
        let at = At { time: request.time, interval: request.interval, clock };
        let candidates = running.progress.candidates(at, window, found, running.passed.as_deref())?;
        running.check_remembered(candidates.remembered, remembered_limit)?;
        let Candidates { files, changed, passed, unknown, .. } = candidates;
        running.passed = Some(passed);
        running.report(changed);
        running.report_unknown(&unknown);

        let mut partitions = Partitions { limit_bytes: piece_bytes, ..Partitions::default() };
        let mut position_bytes = running.progress.remembered_bytes();
        let mut full = false;
        for Candidate { found, offset } in files {
            let records_left = request.max_records.unwrap_or(u64::MAX) - partitions.records;
            let limits = Limits {
                bytes: batch_bytes - partitions.bytes.min(batch_bytes),
                records: records_left,
                piece_bytes,
                at_least_one: partitions.bytes == 0,
            };
            full = full
                || limits.records == 0
                || (limits.bytes == 0 && !limits.at_least_one)
                || partitions.encoded_bytes > PLAN_LIMIT_BYTES
                || (offset == 0
                    && (running.progress.remembered() >= remembered_limit || position_bytes > PLAN_LIMIT_BYTES));
            if full {
                running.progress.hold_back(&found);
                continue;
            }
            let Some(pieces) = cut_file(framing, &found, offset, limits)? else {
                // It is being written, or has gone between two looks: the next batch will see.
                running.progress.hold_back(&found);
                continue;
            };
            if pieces.is_empty() && found.size > offset {
                full = true;
                running.progress.hold_back(&found);
                continue;
            }
            let end = pieces.last().map_or(found.size, |piece| piece.to);
            running.progress.take(&found, end);
            position_bytes += progress::position_bytes(&found.path);
            full = end < found.size;
            for piece in pieces {
                partitions.add(Range {
                    path: found.path.clone(),
                    size: found.size,
                    mtime_ns: found.mtime_ns,
                    from: piece.from,
                    to: piece.to,
                    records: piece.records,
                });
            }
        }
        Ok(partitions.done)
    }
}

/// Cuts a file within the limits; `None` if it is not the file that was found.
fn cut_file(framing: Framing, found: &Found, offset: u64, limits: Limits) -> Result<Option<Vec<cut::Piece>>> {
    let failed = |error| cannot("read", &found.path, error);
    let mut file = match open(&found.path) {
        Ok(file) => file,
        Err(_) if offset == 0 && !found.path.exists() => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata().map_err(failed)?;
    if Found::new(found.path.clone(), &metadata) != *found {
        return if offset == 0 { Ok(None) } else { Err(progress::changed(&found.path, "has changed")) };
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    cut(framing, &mut file, offset, found.size, limits).map(Some).map_err(failed)
}

/// Ranges gathered into partitions: small files share one.
#[derive(Default)]
struct Partitions {
    limit_bytes: u64,
    done: Vec<Vec<Range>>,
    newest_bytes: u64,
    bytes: u64,
    records: u64,
    encoded_bytes: usize,
}

impl Partitions {
    fn add(&mut self, range: Range) {
        let bytes = range.to - range.from;
        self.bytes += bytes;
        self.records += range.records;
        self.encoded_bytes += range.encoded_bytes();
        match self.done.last_mut() {
            Some(newest) if self.newest_bytes + bytes <= self.limit_bytes => {
                self.newest_bytes += bytes;
                newest.push(range);
            }
            _ => {
                self.newest_bytes = bytes;
                self.done.push(vec![range]);
            }
        }
    }
}

impl Running {
    /// Tells once of files that were changed after all of them had been taken.
    fn report(&mut self, changed: Vec<PathBuf>) {
        for path in changed {
            if self.reported.insert(path.clone()) {
                self.events.error(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "{} was changed after it had been taken: the change is not read. \
                         Move new data into place under a new name",
                        path.display()
                    ),
                ));
            }
        }
    }
}

impl<T: Send + 'static> Source for FileSource<T> {
    type Item = T;

    fn kind(&self) -> &'static str {
        "files"
    }

    fn identity(&self) -> String {
        match self.framing {
            Framing::Lines { .. } => self.place.describe(),
            Framing::FixedLength(length) => format!("{}, records of {length} bytes", self.place.describe()),
        }
    }

    fn replay(&self) -> Replay {
        Replay::ByPosition
    }

    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.place.check()?;
        self.running = Some(Running {
            progress: start.positions.as_deref().map(Progress::from_positions).transpose()?.unwrap_or_default(),
            planned: PlannedBatches::default(),
            first_start: start.first_start,
            clock: start.clock,
            passed: None,
            events: start.events,
            reported: HashSet::new(),
            receiving: true,
        });
        Ok(())
    }

    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        if let Some(plan) = self.running()?.planned.again(request.time)? {
            return Ok(plan);
        }
        let partitions = if self.running()?.receiving { self.take(request)? } else { Vec::new() };
        let running = self.running()?;
        let plan = Plan {
            records: partitions.iter().flatten().map(|range| range.records).sum(),
            read: if partitions.is_empty() { Vec::new() } else { plan::encode(&partitions) },
            blocks: Vec::new(),
            positions: running.progress.positions(),
            watermark_ms: None,
        };
        running.planned.keep(request.time, &plan);
        Ok(plan)
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
        Ok(plan::decode(&plan.read)?
            .into_iter()
            .map(|ranges| {
                let (framing, decoder, on_refused) = (self.framing, Arc::clone(&self.decoder), self.on_refused);
                Arc::new(FilePartition { ranges, framing, decoder, on_refused }) as Arc<dyn SourcePartition<T>>
            })
            .collect())
    }

    fn release(&mut self, committed: BatchTime) {
        if let Some(running) = &mut self.running {
            running.planned.release(committed);
        }
    }

    fn stop_receiving(&mut self, _: std::time::Duration) -> Result<()> {
        self.running()?.receiving = false;
        Ok(())
    }

    fn has_waiting(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.receiving && running.progress.has_backlog())
    }

    fn feed(&self, records: Vec<FedRecord>) -> Result<Arc<dyn SourcePartition<T>>> {
        Ok(Arc::new(FedPartition {
            records,
            framing: self.framing,
            decoder: Arc::clone(&self.decoder),
            on_refused: self.on_refused,
        }))
    }
}

/// Records that a test feeds.
struct FedPartition<T> {
    records: Vec<FedRecord>,
    framing: Framing,
    decoder: Arc<dyn Decoder<T>>,
    on_refused: OnRefused,
}

impl<T: Send> SourcePartition<T> for FedPartition<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut chunks = Chunks::new(out, self.on_refused);
        for record in &self.records {
            let mut bytes = record.value.clone().unwrap_or_default();
            if let Framing::Lines { .. } = self.framing {
                // The end of the line belongs to the file: an empty record is an empty line.
                bytes.push(b'\n');
            }
            self.decoder.decode(
                Run { path: Path::new("fed by the test"), offset: 0, bytes: &bytes, framing: self.framing },
                &mut chunks,
            )?;
        }
        chunks.finish().map(drop)
    }

    fn records(&self) -> u64 {
        self.records.len() as u64
    }
}
