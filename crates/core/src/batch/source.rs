//! Data sets that somebody else defines: ranges of a log, a table at a version. What can be read again gives the same.

use std::sync::Arc;

use super::BatchContext;
use crate::error::Result;
use crate::rdd::{Rdd, SourceRdd};
use crate::source::SourcePartition;

/// Something outside that gives the same records whenever it is read, as given ranges of offsets do. [`BatchContext::source`] makes
/// an [`Rdd`] of it.
///
/// ```
/// use std::sync::Arc;
/// use millpond_core::batch::{BatchInput, BatchSource};
/// use millpond_core::source::{SourceOutput, SourcePartition};
/// use millpond_core::{BatchContext, Result};
///
/// /// The numbers of a range, in parts of ten.
/// struct Numbers(std::ops::Range<u64>);
///
/// struct Part(std::ops::Range<u64>);
///
/// impl SourcePartition<u64> for Part {
///     fn compute(&self, out: &mut dyn SourceOutput<u64>) -> Result<()> {
///         out.records(self.0.clone().collect())
///     }
///     fn records(&self) -> u64 {
///         self.0.end - self.0.start
///     }
/// }
///
/// impl BatchSource for Numbers {
///     type Item = u64;
///
///     fn open(self) -> Result<BatchInput<u64>> {
///         let part = |from| Arc::new(Part(from..self.0.end.min(from + 10))) as Arc<dyn SourcePartition<u64>>;
///         Ok(BatchInput {
///             name: "numbers".into(),
///             content: format!("{:?}", self.0),
///             partitions: self.0.clone().step_by(10).map(part).collect(),
///         })
///     }
/// }
///
/// # fn main() -> Result<()> {
/// assert_eq!(BatchContext::new().source(Numbers(0..25))?.count()?, 25);
/// # Ok(())
/// # }
/// ```
pub trait BatchSource {
    /// What its records are decoded to.
    type Item: Send + 'static;

    /// Looks whether all of it is there, and says where. Records are read when the `Rdd` is computed: each partition by a task, again after a
    /// failure and for each action.
    ///
    /// # Errors
    /// What is not to be had, by its name.
    fn open(self) -> Result<BatchInput<Self::Item>>;
}

/// What a [`BatchSource`] found.
pub struct BatchInput<T> {
    /// What it is called in messages and in the checkpoint: `Kafka lines/0`.
    pub name: String,
    /// What tells its content. Where it is read by a graph's context and has changed while batches have to be replayed, the start is refused.
    pub content: String,
    /// Each becomes a partition of the [`Rdd`].
    pub partitions: Vec<Arc<dyn SourcePartition<T>>>,
}

impl<T> std::fmt::Debug for BatchInput<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BatchInput({}, {}, {} partitions)", self.name, self.content, self.partitions.len())
    }
}

impl BatchContext {
    /// The records of a [`BatchSource`], such as given ranges of a Kafka topic (`KafkaSource::ranges`).
    ///
    /// # Errors
    /// What it has not, or no longer.
    pub fn source<S: BatchSource>(&self, source: S) -> Result<Rdd<'static, S::Item>> {
        let BatchInput { name, content, partitions } = source.open()?;
        self.note(format!("data set {name}"), || Ok(content))?;
        Ok(Rdd::new(self.env.clone(), SourceRdd { label: name.into(), partitions, refused: None }))
    }
}
