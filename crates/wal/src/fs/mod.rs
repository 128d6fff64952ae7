//! The little that the log asks of a file system, so that tests can take the disk's place.
//!
//! What an implementation promises is what a disk promises, and no more: after [`FileHandle::sync_data`] a file's bytes and length
//! survive a power failure; after [`FileSystem::sync_directory`] the names in it do. Anything else may or may not.

mod disk;
pub mod fault;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use disk::DiskFileSystem;

/// The files below some root, as the log uses them.
pub trait FileSystem: Send + Sync {
    /// Makes the directory and those above it that are missing, durably.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The names of the files in a directory, in no order.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file, for reading and writing; one of that name that is there already is emptied.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>>;

    /// Opens a file that is there, for reading only or for writing too.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>>;

    /// Gives a file another name in the same directory, in one step; a file that has this name is gone.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says; then nobody knows which names are durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// An open file. Threads may share it.
pub trait FileHandle: Send + Sync {
    /// Its length, in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset` and says how many bytes it wrote, which may be fewer.
    ///
    /// # Errors
    /// As the operating system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Takes the space on disk for `length` bytes at `offset` and makes the file that long, without writing it: it reads as zeros.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the file system cannot; the caller writes zeros then. Else as the operating system says.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes the bytes and the length of the file durable.
    ///
    /// # Errors
    /// As the operating system says; then nobody knows what is durable, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends; returns how many bytes it read.
pub(crate) fn read_full(file: &dyn FileHandle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Writes all of `bytes`.
pub(crate) fn write_all(file: &dyn FileHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
