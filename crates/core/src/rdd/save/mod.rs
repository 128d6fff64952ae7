//! Saving an `Rdd` to a directory that appears whole or not at all: text, or values in the library's own codec.

mod chunks;
pub(crate) mod object;
mod staging;
mod text;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::staging::PartWriter;
use self::staging::Staging;
use super::{Rdd, SourceRdd};
use crate::error::Result;
use crate::exec::Task;
use crate::source::SourcePartition;

/// Writes one part.
type WritePart<T> = fn(&Rdd<'static, T>, &Task, staging::Part) -> Result<()>;

impl<'b, T: Send + 'static> Rdd<'b, T> {
    /// Writes each record's text as a line, a part file a partition, into a new directory. It is complete when it is there: what is
    /// written before stands under a name that begins with a dot, and is synced.
    ///
    /// A record whose text holds an end of line is read back as two.
    ///
    /// # Errors
    /// A directory that exists already, a full disk, what a function of the lineage failed with. Nothing is left behind.
    pub fn save_as_text_file(&self, directory: impl AsRef<Path>) -> Result<()>
    where
        T: std::fmt::Display,
    {
        self.save(directory.as_ref(), text::write_part)
    }

    /// As [`save_as_text_file`](Rdd::save_as_text_file), with the values encoded in checksummed chunks. Read them back with
    /// [`BatchContext::object_file`](crate::BatchContext::object_file); the format is drawn in docs/formats.md.
    ///
    /// # Errors
    /// As there; and a type that serde cannot write.
    pub fn save_as_object_file(&self, directory: impl AsRef<Path>) -> Result<()>
    where
        T: Serialize + DeserializeOwned,
    {
        self.save(directory.as_ref(), object::write_part)
    }

    /// Saves the records as [`save_as_object_file`](Rdd::save_as_object_file) does, and returns them as an `Rdd` that is read from there: what they
    /// were computed from is needed no more, and is let go.
    ///
    /// # Errors
    /// As there.
    pub fn checkpoint(self, directory: impl AsRef<Path>) -> Result<Rdd<'b, T>>
    where
        T: Serialize + DeserializeOwned,
    {
        self.save_as_object_file(&directory)?;
        read(directory.as_ref(), |label, partitions| {
            Rdd::new(self.env.clone(), SourceRdd { label, partitions, refused: None })
        })
    }

    fn save(&self, directory: &Path, write: WritePart<T>) -> Result<()> {
        let staging = Arc::new(Staging::begin(directory, self.op.partitions().max(1))?);
        let written = self.write_parts(&staging, write);
        if let Err(error) = written.and_then(|()| staging.publish()) {
            // Now, not when the last task lets go of it: the next save may be to the same place.
            staging.discard();
            return Err(error);
        }
        Ok(())
    }

    fn write_parts(&self, staging: &Arc<Staging>, write: WritePart<T>) -> Result<()> {
        let parts = staging.clone();
        self.run(move |rdd, partition, task| write(rdd, task, parts.part(partition)))?;
        if self.op.partitions() == 0 {
            // A directory without any part would not say what it is.
            let parts = staging.clone();
            let nothing = Rdd::<T>::nothing(self.env.clone()).gather();
            nothing.run(move |rdd, partition, task| write(rdd, task, parts.part(partition)))?;
        }
        Ok(())
    }
}

/// What a saved directory holds, as an `Rdd`.
pub(crate) fn read<T: DeserializeOwned + Send + 'static>(
    directory: &Path,
    make: impl FnOnce(Arc<str>, Vec<Arc<dyn SourcePartition<T>>>) -> Rdd<'static, T>,
) -> Result<Rdd<'static, T>> {
    let partitions = object::parts(directory)?;
    Ok(make(format!("objects of {}", directory.display()).into(), partitions))
}
