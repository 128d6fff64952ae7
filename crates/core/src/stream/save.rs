//! Saving each batch as a directory of its own.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DStream;
use crate::error::Result;
use crate::rdd::Rdd;
use crate::time::BatchTime;

impl<'g, T: Clone + Send + 'static> DStream<'g, T> {
    /// Saves each batch, also an empty one, as text in a directory `PREFIX-TIME`, TIME being the batch time in milliseconds: a line a
    /// record, as [`Rdd::save_as_text_file`] does. The directory is there when it is complete.
    ///
    /// Idempotent by batch: a directory that is there is that batch's, and is left as it is when the batch is computed again after a
    /// crash. So use another prefix, or empty the place, when you begin anew with another directory.
    pub fn save_as_text_files(self, prefix: impl AsRef<Path>)
    where
        T: std::fmt::Display,
    {
        self.save_each(prefix.as_ref(), |rdd, directory| rdd.save_as_text_file(directory));
    }

    /// As [`save_as_text_files`](DStream::save_as_text_files), with the values encoded, to be read with
    /// [`BatchContext::object_file`](crate::BatchContext::object_file).
    pub fn save_as_object_files(self, prefix: impl AsRef<Path>)
    where
        T: Serialize + DeserializeOwned,
    {
        self.save_each(prefix.as_ref(), |rdd, directory| rdd.save_as_object_file(directory));
    }

    fn save_each(self, prefix: &Path, save: fn(&Rdd<'_, T>, &Path) -> Result<()>) {
        let prefix = prefix.to_owned();
        self.for_each_rdd(move |rdd, time| {
            let directory = of_batch(&prefix, time);
            if directory.exists() { Ok(()) } else { save(&rdd, &directory) }
        });
    }
}

fn of_batch(prefix: &Path, time: BatchTime) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(format!("-{}", time.as_ms()));
    name.into()
}
