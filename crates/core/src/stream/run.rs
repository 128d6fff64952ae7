//! One batch under way: its inputs, and what is computed once for all who ask.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Input, Node};
use crate::error::Result;
use crate::rdd::{Rdd, RddEnv};

/// One batch under way.
pub(crate) struct BatchRun {
    pub(crate) env: Arc<RddEnv>,
    /// What each source gives, by the source's number.
    pub(crate) inputs: Vec<Input>,
    /// What is computed once a batch, by memo number.
    memo: Mutex<HashMap<usize, Arc<dyn Any + Send + Sync>>>,
}

impl BatchRun {
    pub(crate) fn new(env: Arc<RddEnv>, inputs: Vec<Input>) -> Arc<Self> {
        Arc::new(BatchRun { env, inputs, memo: Mutex::default() })
    }

    /// Whether the batch has a value of this number.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// The batch's one value of this number, made at the first call. Called from the batch's thread alone.
    pub(crate) fn once<M: Clone + Send + Sync + 'static>(
        &self,
        number: usize,
        make: impl FnOnce() -> Result<M>,
    ) -> Result<M> {
        let found = self.memo.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        if let Some(found) = found.and_then(|found| found.downcast_ref::<M>().cloned()) {
            return Ok(found);
        }
        let made = make()?;
        self.memo.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(made.clone()));
        Ok(made)
    }
}

/// A node whose `Rdd` is made and computed once a batch.
pub(crate) fn share<T: Clone + Send + 'static>(memo: usize, node: Arc<dyn Node<T>>) -> Arc<dyn Node<T>> {
    Arc::new(move |run: &Arc<BatchRun>| {
        run.once(memo, || {
            let rdd = node.rdd(run)?;
            Ok(if rdd.op.is_kept() { rdd } else { rdd.cache() })
        })
    })
}

/// The `Rdd` as a user's function may have it: it can compute it as often as it likes, and accumulators count it once.
pub(crate) fn for_user<T: Clone + Send + 'static>(rdd: Rdd<'static, T>) -> Rdd<'static, T> {
    if rdd.op.repeatable() && !rdd.env.executor.has_accumulators { rdd } else { rdd.cache() }
}
