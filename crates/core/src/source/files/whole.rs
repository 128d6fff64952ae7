//! Files as a data set: all of their lines, as they are now, for a batch context.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cut::{Limits, cut};
use super::decode::{EachRecord, Framing, text};
use super::listing::{Filter, Found, Place, cannot, not_hidden};
use super::partition::{FilePartition, open};
use super::plan::Range;
use crate::error::Result;
use crate::source::SourcePartition;
use crate::source::refusal::OnRefused;

/// Bytes of a partition, about.
const PARTITION_BYTES: u64 = 4 << 20;

/// The most bytes of a line.
const LINE_LIMIT_BYTES: usize = 16 << 20;

/// Partitions of lines.
type Partitions = Vec<Arc<dyn SourcePartition<String>>>;

/// The lines of a file, of the files of a directory, or of all that a pattern matches, as partitions; and the files, in order.
pub(crate) fn text_partitions(path: &Path) -> Result<(Partitions, Vec<PathBuf>)> {
    let files = find(path)?;
    let framing = Framing::Lines { limit_bytes: LINE_LIMIT_BYTES };
    let limits = Limits { bytes: u64::MAX, records: u64::MAX, piece_bytes: PARTITION_BYTES, at_least_one: true };
    let mut partitions: Partitions = Vec::new();
    for found in &files {
        let mut file = open(&found.path)?;
        let pieces =
            cut(framing, &mut file, 0, found.size, limits).map_err(|error| cannot("read", &found.path, error))?;
        for piece in pieces {
            let range = Range {
                path: found.path.clone(),
                size: found.size,
                mtime_ns: found.mtime_ns,
                from: piece.from,
                to: piece.to,
                records: piece.records,
            };
            let decoder = Arc::new(EachRecord(text));
            let partition = FilePartition { ranges: vec![range], framing, decoder, on_refused: OnRefused::Stop };
            partitions.push(Arc::new(partition));
        }
    }
    Ok((partitions, files.into_iter().map(|found| found.path).collect()))
}

/// The files meant, in the order of their paths.
fn find(path: &Path) -> Result<Vec<Found>> {
    let filter: Filter = Arc::new(not_hidden);
    let mut files = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Place::Directory(path.to_owned()).list(&filter)?,
        Ok(metadata) => vec![Found::new(path.to_owned(), &metadata)],
        Err(error) => {
            let files = match path.to_str().filter(|pattern| pattern.contains(['*', '?', '['])) {
                Some(pattern) => Place::Glob(pattern.to_owned()).list(&filter)?,
                None => return Err(cannot("read", path, error)),
            };
            if files.is_empty() {
                return Err(cannot("read", path, error));
            }
            files
        }
    };
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
