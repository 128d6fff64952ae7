//! Text files as an `Rdd` of lines.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::BatchContext;
use crate::error::Result;
use crate::rdd::{Rdd, SourceRdd};
use crate::source::{file_failed, text_partitions};

impl BatchContext {
    /// The lines of a text file; of all files of a directory, hidden ones left out; or of all that a pattern matches (`logs/2024-*/*.txt`).
    /// In the order of the paths. Files are cut into partitions of about 4 MiB.
    ///
    /// The files are looked at now and read when the lines are asked for: they must stay as they are. What is not UTF-8, or a line of more
    /// than 16 MiB, fails the task.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration): there is no such file, or it may not be read.
    pub fn text_file(&self, path: impl AsRef<Path>) -> Result<Rdd<'static, String>> {
        let path = path.as_ref();
        let (partitions, files) = text_partitions(path)?;
        self.note(format!("data set {}", path.display()), || content("text", &files))?;
        let label = format!("text of {}", path.display()).into();
        Ok(Rdd::new(self.env.clone(), SourceRdd { label, partitions, refused: None }))
    }
}

/// What tells the content of files, in the order given.
pub(super) fn content(kind: &str, files: &[PathBuf]) -> Result<String> {
    let mut hash = Xxh3Default::new();
    for file in files {
        hash_file(file, &mut hash)?;
    }
    Ok(format!("{kind} of {} files, content {:016x}", files.len(), hash.digest()))
}

fn hash_file(path: &Path, hash: &mut Xxh3Default) -> Result<()> {
    let failed = |error| file_failed("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut block = vec![0; 256 << 10];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(()),
            read => hash.update(&block[..read]),
        }
    }
}
