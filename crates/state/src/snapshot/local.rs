//! Snapshots in a directory of this machine: files by hard link, manifests written aside, synced and
//! renamed.
//!
//! ```text
//! FORMAT            what this directory is, and the version of its layout
//! files/            immutable files, by name
//! manifests/        one a batch: 20 digits and `.manifest`
//! bad/              one a damaged file: the file's name, with the reason inside
//! ```

use super::SnapshotStore;
use super::manifest::{MANIFEST_LIMIT_BYTES, is_file_name};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use std::fs::{self, File};
use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const FORMAT_FILE: &str = "FORMAT";
const FORMAT: &str = "millpond snapshots 1\n";
const FORMAT_ASIDE: &str = ".FORMAT.aside";
const DIRECTORIES: [&str; 3] = ["bad", "files", "manifests"];
/// Longest reason read back from a mark.
const REASON_LIMIT_BYTES: u64 = 4096;

/// Keeps snapshots in a directory, which should be on the file system of the live state: then files are
/// hard-linked, not copied.
#[derive(Debug)]
pub struct LocalSnapshotStore {
    directory: PathBuf,
    /// Files have been put since the directory was last synced.
    unsynced: AtomicBool,
}

impl LocalSnapshotStore {
    /// Opens the store in `directory`, making it if it is not there or empty, and deletes what a crash
    /// left behind. The caller makes sure that only one process does this at a time.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign) if the directory holds something else (nothing is changed then),
    /// [`Mismatch`](ErrorKind::Mismatch) for a newer layout, failures to read or write.
    pub fn open(directory: &Path) -> Result<Self> {
        if !Self::check(directory)? {
            files::make_directory(directory)?;
            // The format file first: a crash from here on leaves a directory known to be ours.
            let (path, aside) = (directory.join(FORMAT_FILE), directory.join(FORMAT_ASIDE));
            files::replace(&path, &aside, FORMAT.as_bytes(), || ())?;
            files::sync_directory(directory)?;
        }
        for name in DIRECTORIES {
            files::make_directory(&directory.join(name))?;
        }
        files::sync_directory(directory)?;
        // The name of the directory itself: made just now, or by a process that died before its sync.
        files::sync_directory(&files::parent(directory))?;
        let store = LocalSnapshotStore { directory: directory.to_owned(), unsynced: AtomicBool::new(false) };
        for part in DIRECTORIES.map(|name| directory.join(name)) {
            for name in files::names(&part)?.into_iter().filter(|name| name.starts_with('.')) {
                files::remove_file(&part.join(name))?;
            }
        }
        super::collect_garbage(&store)?;
        Ok(store)
    }

    /// Opens an existing store to look at it; nothing in the directory is changed, also when another
    /// process is using it. Calls that would change it fail or must not be made.
    pub fn open_read_only(directory: &Path) -> Result<Self> {
        if !Self::check(directory)? {
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{} holds no snapshots of Millpond", directory.display()),
            ));
        }
        Ok(LocalSnapshotStore { directory: directory.to_owned(), unsynced: AtomicBool::new(false) })
    }

    /// Whether `directory` is a store already; an error if it is something else.
    fn check(directory: &Path) -> Result<bool> {
        match fs::read_to_string(directory.join(FORMAT_FILE)) {
            Ok(format) if format == FORMAT => return Ok(true),
            Ok(format) if format.starts_with("millpond snapshots ") => {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{} has the layout {:?}, this program knows {:?}: use a newer one",
                        directory.display(),
                        format.trim_end(),
                        FORMAT.trim_end()
                    ),
                ));
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::InvalidData | IoKind::NotADirectory) => {}
            Err(error) => return Err(Error::io("open", &directory.join(FORMAT_FILE), error)),
        }
        let names = match fs::metadata(directory) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("look at", directory, error)),
            Ok(found) if found.is_file() => {
                return Err(Error::new(
                    ErrorKind::Foreign,
                    format!("{} is a file, not a directory for snapshots", directory.display()),
                ));
            }
            Ok(_) => files::names(directory)?,
        };
        match names.iter().find(|name| *name != FORMAT_ASIDE) {
            None => Ok(false),
            Some(name) => Err(Error::new(
                ErrorKind::Foreign,
                format!("{} holds {name:?}, which is not Millpond's: choose an empty directory", directory.display()),
            )),
        }
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        if !is_file_name(name) {
            return Err(Error::misuse(format!("{name:?} is no name for a snapshot file")));
        }
        Ok(self.directory.join("files").join(name))
    }

    fn manifest_path(&self, batch: u64) -> PathBuf {
        self.directory.join("manifests").join(format!("{batch:020}.manifest"))
    }
}

/// Links a file, or copies it where links cannot be had; a copy is synced if `sync` says so.
fn link_or_copy(from: &Path, to: &Path, may_link: bool, sync: bool) -> Result<()> {
    if may_link {
        match fs::hard_link(from, to) {
            Ok(()) => return Ok(()),
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::AlreadyExists) => {
                return Err(Error::io(&format!("link {} to", from.display()), to, error));
            }
            // Another file system, one without links, or too many of them.
            Err(_) => {}
        }
    }
    let copy = || -> std::io::Result<()> {
        fs::copy(from, to)?;
        if sync { File::open(to)?.sync_all() } else { Ok(()) }
    };
    copy().map_err(|error| Error::io(&format!("copy {} to", from.display()), to, error))
}

impl SnapshotStore for LocalSnapshotStore {
    fn put(&self, name: &str, from: &Path) -> Result<()> {
        let to = self.file(name)?;
        // Aside first: the file of this name may be one that published snapshots name.
        let aside = self.directory.join("files").join(format!(".{name}.aside"));
        files::remove_file(&aside)?;
        self.unsynced.store(true, Ordering::Release);
        let linked = link_or_copy(from, &aside, true, true);
        let put =
            linked.and_then(|()| fs::rename(&aside, &to).map_err(|error| Error::io("rename a file to", &to, error)));
        if put.is_err() {
            // The disk may be full: what is there of it goes, if it can.
            let _ = fs::remove_file(&aside);
        }
        put?;
        // A rename between two links of one file does nothing.
        files::remove_file(&aside)?;
        files::remove_file(&self.directory.join("bad").join(name))
    }

    fn fetch(&self, name: &str, to: &Path, may_link: bool) -> Result<()> {
        link_or_copy(&self.file(name)?, to, may_link, false)
    }

    fn read(&self, name: &str) -> Result<Box<dyn Read + Send>> {
        let path = self.file(name)?;
        Ok(Box::new(File::open(&path).map_err(|error| Error::io("open", &path, error))?))
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = self.file(name)?;
        match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == IoKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", &path, error)),
        }
    }

    fn files(&self) -> Result<Vec<String>> {
        let mut names = files::names(&self.directory.join("files"))?;
        names.retain(|name| is_file_name(name));
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<()> {
        files::remove_file(&self.file(name)?)?;
        files::remove_file(&self.directory.join("bad").join(name))
    }

    fn publish(&self, batch: u64, manifest: &[u8]) -> Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel)
            && let Err(error) = files::sync_directory(&self.directory.join("files"))
        {
            self.unsynced.store(true, Ordering::Release);
            return Err(error);
        }
        let manifests = self.directory.join("manifests");
        let aside = manifests.join(format!(".{batch:020}.aside"));
        files::replace(&self.manifest_path(batch), &aside, manifest, || {
            fail::fail_point!(crate::failpoints::MANIFEST_WRITTEN);
        })?;
        fail::fail_point!(crate::failpoints::MANIFEST_RENAMED);
        files::sync_directory(&manifests)
    }

    fn batches(&self) -> Result<Vec<u64>> {
        let names = files::names(&self.directory.join("manifests"))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".manifest")?.parse().ok()).collect())
    }

    fn manifest(&self, batch: u64) -> Result<Vec<u8>> {
        let path = self.manifest_path(batch);
        let size = fs::metadata(&path).map_err(|error| Error::io("look at", &path, error))?.len();
        if size > MANIFEST_LIMIT_BYTES as u64 {
            return Err(Error::corrupt(format!("{} has {size} bytes, which no manifest has", path.display())));
        }
        fs::read(&path).map_err(|error| Error::io("read", &path, error))
    }

    fn withdraw(&self, batch: u64) -> Result<()> {
        files::remove_file(&self.manifest_path(batch))?;
        files::sync_directory(&self.directory.join("manifests"))
    }

    fn mark_bad(&self, name: &str, reason: &str) -> Result<()> {
        self.file(name)?;
        let bad = self.directory.join("bad");
        files::replace(&bad.join(name), &bad.join(format!(".{name}.aside")), reason.as_bytes(), || ())?;
        files::sync_directory(&bad)
    }

    fn bad(&self) -> Result<Vec<(String, String)>> {
        let bad = self.directory.join("bad");
        let mut marked = Vec::new();
        for name in files::names(&bad)?.into_iter().filter(|name| is_file_name(name)) {
            let mut reason = Vec::new();
            let path = bad.join(&name);
            File::open(&path)
                .and_then(|file| file.take(REASON_LIMIT_BYTES).read_to_end(&mut reason))
                .map_err(|error| Error::io("read", &path, error))?;
            marked.push((name, String::from_utf8_lossy(&reason).into_owned()));
        }
        Ok(marked)
    }
}
