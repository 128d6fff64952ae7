//! Part files of encoded values, as partitions. Also what a persisted `Rdd` spills.

use std::fs::File;
use std::io::BufReader;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::Rdd;
pub(crate) use super::chunks::{ObjectWriter, read_values};
use super::chunks::{damaged, read_header};
use super::staging::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Task;
use crate::sink::disk::failed;
use crate::source::{SourceOutput, SourcePartition};

/// Bytes read ahead: a chunk, about.
const BUFFER: usize = 256 << 10;

pub(super) fn write_part<T: Serialize + DeserializeOwned + Send + 'static>(
    rdd: &Rdd<'static, T>,
    task: &Task,
    part: Part,
) -> Result<()> {
    let (number, of) = (part.number, part.of);
    part.write(|out| {
        let mut writer = ObjectWriter::begin(out, number, of)?;
        rdd.op.compute(task.partition, task, &mut |chunk| writer.write(&chunk))?;
        writer.finish()
    })
}

/// One part file as a partition.
struct ObjectPart<T> {
    path: PathBuf,
    part: u32,
    of: u32,
    values: PhantomData<fn() -> T>,
}

/// The parts of a saved directory.
///
/// # Errors
/// A directory that is none of ours, or lacks a part.
pub(super) fn parts<T: DeserializeOwned + Send + 'static>(
    directory: &Path,
) -> Result<Vec<Arc<dyn SourcePartition<T>>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| crate::source::file_failed("read", directory, error))? {
        let entry = entry.map_err(|error| failed("list", directory, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b"part-") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let of = paths.len() as u32;
    if of == 0 {
        return Err(Error::new(ErrorKind::Restore, format!("{} holds no object files", directory.display())));
    }
    let mut parts: Vec<Arc<dyn SourcePartition<T>>> = Vec::with_capacity(paths.len());
    for (part, path) in paths.into_iter().enumerate() {
        let part = ObjectPart { path, part: part as u32, of, values: PhantomData };
        // Whether all are there is known before anything is computed.
        part.open()?;
        parts.push(Arc::new(part));
    }
    Ok(parts)
}

impl<T: DeserializeOwned + Send> SourcePartition<T> for ObjectPart<T> {
    fn compute(&self, out: &mut dyn SourceOutput<T>) -> Result<()> {
        let mut file = self.open()?;
        read_values(&self.path, &mut file, &mut |chunk| out.records(chunk)).map(drop)
    }

    fn records(&self) -> u64 {
        // Known when it has been read.
        0
    }
}

impl<T> ObjectPart<T> {
    fn open(&self) -> Result<BufReader<File>> {
        let (file, part, of) = open(&self.path)?;
        if (part, of) == (self.part, self.of) {
            return Ok(file);
        }
        Err(damaged(
            &self.path,
            &format!(
                "is part {part} of {of}, and stands where part {} of {} should: a part is missing",
                self.part, self.of
            ),
        ))
    }
}

/// Opens a file of values: its number, and how many belong together.
pub(crate) fn open(path: &Path) -> Result<(BufReader<File>, u32, u32)> {
    let file = File::open(path).map_err(|error| crate::source::file_failed("read", path, error))?;
    let mut file = BufReader::with_capacity(BUFFER, file);
    let (part, of) = read_header(path, &mut file)?;
    Ok((file, part, of))
}

#[cfg(test)]
mod tests {
    use super::super::staging::PartWriter;
    use super::*;

    /// The example of docs/formats.md, "Object files".
    const PAGE: &str = "
        4d 50 4f 42 4a 45 43 54  01 00 00 00 02 00 00 00  03 00 00 00 3e 29 d1 0b
        0c 00 00 00 02 00 00 00  e7 1b 6c 0c  01 00 00 00 07  03 00 00 00 fb 2c 01
        08 00 00 00 00 00 00 00  67 d3 8d dd  02 00 00 00 00 00 00 00";

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("part");
        let mut file = PartWriter::create(&path).expect("created");
        let mut writer = ObjectWriter::begin(&mut file, 2, 3).expect("begun");
        writer.write(&[7_u64, 300]).expect("written");
        writer.finish().expect("finished");
        file.finish(false).expect("flushed");
        let bytes = std::fs::read(&path).expect("read");
        let page: Vec<u8> =
            PAGE.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect();
        assert_eq!(bytes, page, "{bytes:02x?}");
        let (mut file, part, of) = open(&path).expect("opened");
        let mut values = Vec::new();
        let records = read_values(&path, &mut file, &mut |chunk: Vec<u64>| {
            values.extend(chunk);
            Ok(())
        });
        assert_eq!((records.expect("read"), part, of, values), (2, 2, 3, vec![7_u64, 300]));
    }
}
