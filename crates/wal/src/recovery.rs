//! Opens a log: cleans up what a crash left, reads to the valid end, and settles what the last process did not know to be synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::{self, Role};
use crate::error::{Error, Result};
use crate::fs::{Access, FileSystem, read_full, write_all};
use crate::newest::{self, Newest};
use crate::options::{LogOptions, OnCorruption};
use crate::position::Position;
use crate::shelf::Shelf;
use crate::walk::{Chain, Corruption, Visit, Walk};
use crate::writer::{WriteFailure, Writer};

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// How many frames were visited.
    pub frames: u64,
    /// How many bytes of payload they had.
    pub payload_bytes: u64,
    /// The damage before which everything was kept, where [`OnCorruption::KeepBefore`] asked for it.
    pub given_up: Option<Corruption>,
    /// The files that were set aside because of it.
    pub discarded: Vec<PathBuf>,
}

pub(crate) fn recover(
    fs: &Arc<dyn FileSystem>,
    directory: &Path,
    options: &LogOptions,
    visit: Visit<'_>,
) -> Result<(Arc<Shelf>, Writer, Recovery)> {
    fs.create_directory(directory).map_err(|error| Error::io("create the directory", directory, error))?;
    let files = directory::list(&**fs, directory)?;
    let recycled = clean_up(&**fs, directory, &files, options)?;
    // Names that the last process saw may not be durable yet.
    sync_directory(&**fs, directory)?;

    let chain = Chain::read(&**fs, directory, &directory::segments(&files), newest::marked(&files))?;
    if let (Some(damage), OnCorruption::Refuse) = (&chain.damage, options.on_corruption) {
        return Err(damage.clone().into_error());
    }
    let walk = Walk::run(&**fs, &chain, visit)?;
    if let (Some(damage), OnCorruption::Refuse) = (&walk.damage, options.on_corruption) {
        return Err(damage.clone().into_error());
    }
    settle(&**fs, directory, walk.end(), walk.in_doubt_from)?;

    let mut recovery = Recovery {
        frames: walk.frames,
        payload_bytes: walk.payload_bytes,
        given_up: walk.damage.clone(),
        discarded: Vec::new(),
    };
    if walk.damage.is_some() {
        let kept = walk.end().segment;
        for &segment in directory::segments(&files).iter().rev().filter(|segment| **segment > kept) {
            recovery.discarded.push(discard(&**fs, directory, segment)?);
        }
    }

    // Numbers are never used twice, not even those of files that are no segments any more: their old frames must not look new.
    let next_segment = files.iter().map(|(segment, _)| segment + 1).max().unwrap_or(1);
    let shelf = Arc::new(Shelf::new(
        Arc::clone(fs),
        directory,
        walk.segments,
        recycled,
        options.segment_bytes,
        options.recycled_segments,
    ));
    let failed = |(WriteFailure::Clean(error) | WriteFailure::InDoubt(error))| error;
    let mut newest = Newest::found(Arc::clone(fs), directory, &files);
    if let Some(last) = shelf.live().last() {
        // Unless a crash came between, or the mark was lost, it is there.
        newest.reach(last.segment).map_err(failed)?;
    }
    let options = options.clone();
    let mut writer =
        Writer::new(Arc::clone(fs), directory, options, Arc::clone(&shelf), newest, next_segment, walk.next_sequence);
    if walk.damage.is_some() {
        // A fresh segment says where its predecessor ends: the decision is durable, the next opening need not be asked again.
        writer.begin_segment().map_err(failed)?;
    }
    Ok((shelf, writer, recovery))
}

/// Removes segments that were never finished and released files beyond the limit; returns the released files that stay.
fn clean_up(fs: &dyn FileSystem, directory: &Path, files: &[(u64, Role)], options: &LogOptions) -> Result<Vec<u64>> {
    let mut recycled = Vec::new();
    for &(segment, role) in files {
        let surplus = match role {
            Role::New => true,
            Role::Recycled => recycled.len() >= options.recycled_segments,
            Role::Segment | Role::Discarded | Role::Newest => false,
        };
        if surplus {
            let path = directory::path(directory, segment, role);
            fs.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        } else if role == Role::Recycled {
            recycled.push(segment);
        }
    }
    Ok(recycled)
}

/// Makes the frames durable that nothing proves to be synced. They are written once more first: after a sync that failed in the last
/// process, the system may hold them for clean although the disk never got them, and syncing alone would do nothing.
fn settle(fs: &dyn FileSystem, directory: &Path, end: Position, from: u64) -> Result<()> {
    if end == Position::ZERO {
        return Ok(());
    }
    let path = directory::path(directory, end.segment, Role::Segment);
    let file = fs.open(&path, Access::ReadWrite).map_err(|error| Error::io("open", &path, error))?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = from;
    while offset < end.offset {
        let length = (end.offset - offset).min(buffer.len() as u64) as usize;
        let read = read_full(&*file, &mut buffer[..length], offset).map_err(|error| Error::io("read", &path, error))?;
        write_all(&*file, &buffer[..read], offset).map_err(|error| Error::io("write", &path, error))?;
        if read < length {
            return Err(Error::io("read", &path, io::ErrorKind::UnexpectedEof.into()));
        }
        offset += read as u64;
    }
    file.sync_data().map_err(|error| Error::io("sync", &path, error))
}

fn discard(fs: &dyn FileSystem, directory: &Path, segment: u64) -> Result<PathBuf> {
    let path = directory::path(directory, segment, Role::Segment);
    let aside = directory::path(directory, segment, Role::Discarded);
    fs.rename(&path, &aside).map_err(|error| Error::io("set aside", &path, error))?;
    sync_directory(fs, directory)?;
    Ok(aside)
}

fn sync_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    fs.sync_directory(directory).map_err(|error| Error::io("sync the directory", directory, error))
}
