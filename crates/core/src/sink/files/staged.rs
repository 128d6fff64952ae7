//! The output of one batch on its way: part files in a staging directory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Format;
use super::disk::{delete, failed, sync_directory, sync_file};
use crate::error::Result;
use crate::sink::Records;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Writes part files, the next one when one has reached its limit.
#[derive(Debug)]
pub(super) struct StagedBatch {
    directory: PathBuf,
    part_limit_bytes: u64,
    buffer: Vec<u8>,
    part: Option<(File, PathBuf)>,
    part_bytes: u64,
    parts: usize,
}

impl StagedBatch {
    /// An empty staging directory of this name, and nothing in it.
    pub(super) fn create(directory: PathBuf, part_limit_bytes: u64) -> Result<Self> {
        delete(&directory)?;
        fs::create_dir(&directory).map_err(|error| failed("make the directory", &directory, error))?;
        let buffer = Vec::with_capacity(BUFFER + BUFFER / 4);
        Ok(StagedBatch { directory, part_limit_bytes, buffer, part: None, part_bytes: 0, parts: 0 })
    }

    /// Writes the output of a task.
    pub(super) fn write(&mut self, records: &Records, format: Format) -> Result<()> {
        for record in records.iter() {
            if let (Format::Text, Some(key)) = (format, record.key()) {
                self.buffer.extend_from_slice(key);
                self.buffer.push(b'\t');
            }
            self.buffer.extend_from_slice(record.value().unwrap_or_default());
            self.buffer.push(b'\n');
            if self.buffer.len() >= BUFFER {
                self.flush()?;
                if self.part_bytes >= self.part_limit_bytes {
                    self.end_part()?;
                }
            }
        }
        Ok(())
    }

    /// Makes everything last but the name of the staging directory itself.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.end_part()?;
        sync_directory(&self.directory)
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (file, path) = match &mut self.part {
            Some(part) => part,
            None => {
                let path = self.directory.join(format!("part-{:05}", self.parts));
                let file = File::create_new(&path).map_err(|error| failed("create", &path, error))?;
                self.parts += 1;
                self.part_bytes = 0;
                self.part.insert((file, path))
            }
        };
        file.write_all(&self.buffer).map_err(|error| failed("write to", path, error))?;
        self.part_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn end_part(&mut self) -> Result<()> {
        match self.part.take() {
            Some((file, path)) => sync_file(&file, &path),
            None => Ok(()),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}
