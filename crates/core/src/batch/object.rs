//! Saved values as an `Rdd`.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::BatchContext;
use super::text::content;
use crate::error::Result;
use crate::rdd::{Rdd, SourceRdd, read_saved};

impl BatchContext {
    /// The values that [`Rdd::save_as_object_file`] wrote, in the same partitions. The type must be the one that was saved: values of another
    /// type fail the task where their bytes show it.
    ///
    /// # Errors
    /// A directory that is not there, or is none of these; a missing part. Damage further inside fails the task that reads it.
    pub fn object_file<T: DeserializeOwned + Send + 'static>(
        &self,
        directory: impl AsRef<Path>,
    ) -> Result<Rdd<'static, T>> {
        let directory = directory.as_ref();
        let rdd = read_saved(directory, |label, partitions| {
            Rdd::new(self.env.clone(), SourceRdd { label, partitions, refused: None })
        })?;
        self.note(format!("data set {}", directory.display()), || {
            let mut parts: Vec<_> = std::fs::read_dir(directory)
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .map_err(|error| crate::source::file_failed("list", directory, error))?;
            parts.sort();
            content("objects", &parts)
        })?;
        Ok(rdd)
    }
}
