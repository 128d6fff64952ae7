//! A value that all tasks share: made once by the program, at each start.

use std::ops::Deref;
use std::sync::Arc;

use millpond_state::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BatchContext;
use crate::error::{Error, ErrorKind, Result};

/// How often a value is decoded and encoded again to see whether its bytes stay.
const ROUNDS: usize = 8;

/// A read-only value, shared by all tasks; clones share it too. Made by [`BatchContext::broadcast`].
#[derive(Debug)]
pub struct Broadcast<T>(Arc<T>);

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Broadcast(self.0.clone())
    }
}

impl<T> Deref for Broadcast<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl BatchContext {
    /// Shares a value with all functions of a pipeline, which capture a clone of what this returns.
    ///
    /// A plain `Arc` does that too. What this adds, where the context is a graph's: a hash of the value stands in the checkpoint. The code that makes the
    /// value runs again at every start; where it makes another one while batches have to be replayed, the start is refused and
    /// names it, since the replay would give other output.
    ///
    /// ```
    /// use millpond_core::BatchContext;
    /// # fn main() -> millpond_core::Result<()> {
    /// let batch = BatchContext::new();
    /// let stop_words = batch.broadcast("stop words", vec!["the".to_string(), "a".to_string()])?;
    /// let words = batch.parallelize(["the", "pond"].map(String::from), 2);
    /// assert_eq!(words.filter(move |word| !stop_words.contains(word)).collect()?, ["pond"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Program`](ErrorKind::Program): a type that serde cannot write and read again, or whose bytes change: a `HashMap` or `HashSet` has another order in
    /// each process. Use a `BTreeMap` or `BTreeSet`.
    pub fn broadcast<T: Serialize + DeserializeOwned>(&self, name: &str, value: T) -> Result<Broadcast<T>> {
        let mut bytes = Vec::new();
        let place = |error: Error| error.context(format!("the broadcast value `{name}`"));
        codec::encode(&value, &mut bytes).map_err(|error| place(error.into()))?;
        let mut again = Vec::with_capacity(bytes.len());
        for _ in 0..ROUNDS {
            again.clear();
            let decoded = codec::decode::<T>(&bytes).and_then(|decoded| codec::encode(&decoded, &mut again));
            decoded.map_err(|error| place(error.into()))?;
            if again != bytes {
                let text = format!(
                    "the broadcast value `{name}` of type {} has other bytes each time it is encoded: use a BTreeMap or BTreeSet where it \
                     holds a HashMap or HashSet, whose order differs from process to process",
                    std::any::type_name::<T>()
                );
                return Err(Error::new(ErrorKind::Program, text));
            }
        }
        self.note(format!("broadcast {name}"), || {
            Ok(format!("{} bytes, content {:016x}", bytes.len(), xxhash_rust::xxh3::xxh3_64(&bytes)))
        })?;
        Ok(Broadcast(Arc::new(value)))
    }
}
