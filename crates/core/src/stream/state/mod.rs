//! What all stateful operators share: their place in the state store, and the task that holds a partition of it.

mod batch;
mod initial;
mod keyed;
mod snapshots;
mod time_rows;
mod times;

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use millpond_state::{Operator, OperatorSpec, PartitionGuard, StateStore, codec};

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Effect;
use crate::rdd::Value;

use super::DStream;

pub(crate) use batch::KeyedBatch;
pub(crate) use initial::GivenStates;
pub(crate) use keyed::{Began, Held, KeyedState, Opened, SchemaStep, Timed};
pub(crate) use snapshots::{Gathered, Snapshots};
pub(crate) use times::{Begun, Entries, Times, keys};

/// A stateful operator without its types, as the engine opens it at every recovery.
pub(crate) trait AnyOperator: Send + Sync {
    fn name(&self) -> &str;
    fn open(&self, store: &StateStore) -> Result<()>;
    fn close(&self);
    /// Takes a version step of the state's type (a boxed [`SchemaStep`]); says no if it is of another type.
    fn set_schema(&self, step: Box<dyn Any>) -> bool;
    /// Takes a timeout; says why not if there can be none.
    fn set_timeout(&self, _timeout_ms: u64) -> Result<(), String> {
        Err("it has no timeouts: only map_with_state has".into())
    }
    /// Takes an initial state.
    fn give_initial(&self, _states: GivenStates) -> Result<()> {
        Err(Error::configuration("it keeps no state for each key"))
    }
    /// Its [`KeyedState`], if it is one: for what needs the types of keys and states.
    fn keyed(&self) -> Option<&dyn Any> {
        None
    }
    /// The types of keys and states, for messages.
    fn types(&self) -> &'static str {
        "not one for each key"
    }
}

/// Adds a version and a migration to an operator's spec.
pub(crate) type Step<V> = Box<dyn Fn(OperatorSpec<V>) -> OperatorSpec<V> + Send + Sync>;

/// A stateful operator's handle on its state: filled when the store is opened.
pub(crate) struct Stateful<V> {
    name: Arc<str>,
    kind: &'static str,
    schema: Mutex<Option<Step<V>>>,
    open: Mutex<Option<Operator<V>>>,
}

impl<V: Value> Stateful<V> {
    pub(crate) fn new(name: Arc<str>, kind: &'static str) -> Arc<Self> {
        Arc::new(Stateful { name, kind, schema: Mutex::new(None), open: Mutex::new(None) })
    }

    /// The operator's state, for one batch.
    pub(crate) fn operator(&self) -> Result<Operator<V>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| Error::new(ErrorKind::Restart, format!("the state of `{}` is not open", self.name)))
    }
}

impl<V: Value> AnyOperator for Stateful<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, store: &StateStore) -> Result<()> {
        let mut spec = OperatorSpec::new(&*self.name, self.kind);
        if let Some(step) = &*self.schema.lock().unwrap_or_else(PoisonError::into_inner) {
            spec = step(spec);
        }
        let operator = store.operator(spec)?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(operator);
        Ok(())
    }

    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set_schema(&self, step: Box<dyn Any>) -> bool {
        let step = step.downcast::<SchemaStep<V>>().ok();
        step.map(|step| *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.plain())).is_some()
    }
}

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// Says that the state of the stateful operator before this call has version `version` of its type, and how a state
    /// of the version before is made into one of now. Every stored state is migrated once, at the next start.
    ///
    /// Has to be called directly on what the operator returned; opening the context fails else.
    ///
    /// ```
    /// # use millpond_core::{stream::{DStream, Graph}, sink::IntoSink};
    /// # fn f<'g>(words: DStream<'g, (String, u64)>, sink: impl IntoSink) {
    /// words
    ///     .update_touched_by_key("counts", |ones, total: Option<i64>| Some(total.unwrap_or(0) + ones.sum() as i64))
    ///     .schema(2, |stored: u64| stored as i64)
    ///     .sink_text_of("out", sink)
    /// # }
    /// # trait T { fn sink_text_of(self, name: &str, sink: impl IntoSink); }
    /// # impl T for DStream<'_, (String, i64)> { fn sink_text_of(self, name: &str, sink: impl IntoSink) { self.sink_json(name, sink) } }
    /// ```
    pub fn schema<Old: Value, New: Value>(
        self,
        version: u32,
        migrate: impl Fn(Old) -> New + Send + Sync + Clone + 'static,
    ) -> DStream<'g, T> {
        let step = SchemaStep::new(version, migrate);
        match &self.operator {
            Some(operator) if operator.set_schema(Box::new(step)) => {}
            Some(operator) => self.graph.fail(format!(
                "schema({version}, ..) of `{}`: its state is not a {}",
                operator.name(),
                std::any::type_name::<New>()
            )),
            None => self.graph.fail(format!("schema({version}, ..) on `{}`, which keeps no state", self.label)),
        }
        self
    }
}

/// Staged changes of a partition: they stay if the task ends well.
pub(crate) struct StagedState<V: Value> {
    pub(crate) state: PartitionGuard<V>,
    /// The rows beside the state, if there are any.
    pub(crate) times: Option<Times>,
    pub(crate) once: ComputeOnce,
}

impl<V: Value> Effect for StagedState<V> {
    fn keep(mut self: Box<Self>) -> Result<()> {
        self.once.kept();
        if let Some(times) = self.times {
            times.into_rows().commit_task()?;
        }
        Ok(self.state.commit_task()?)
    }

    fn undo(mut self: Box<Self>) {
        // The rows beside it roll back when they are let go.
        self.state.rollback_task();
    }
}

/// Guards a partition of keyed state against being computed twice in one batch, which would count twice. A user's function
/// cannot cause it: it gets a kept copy. A failed try, whichever way it fails, does not count.
pub(crate) struct ComputeOnce {
    computed: Arc<AtomicBool>,
    kept: bool,
}

impl ComputeOnce {
    pub(crate) fn begin(computed: &Arc<AtomicBool>, name: &str) -> Result<Self> {
        if computed.swap(true, Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Restart,
                format!("the state of `{name}` was to be computed twice in one batch"),
            ));
        }
        Ok(ComputeOnce { computed: computed.clone(), kept: false })
    }

    /// The task has ended well.
    pub(crate) fn kept(&mut self) {
        self.kept = true;
    }
}

impl Drop for ComputeOnce {
    fn drop(&mut self) {
        if !self.kept {
            self.computed.store(false, Ordering::Relaxed);
        }
    }
}

/// The first state of a task is decoded and encoded again, before anything of it commits (hard case H16).
pub(crate) fn check_first<V: Value>(checked: &mut bool, value: &V, name: &str) -> Result<()> {
    if !*checked {
        *checked = true;
        codec::check_round_trip(value).map_err(|error| Error::from(error).context(format!("the state of `{name}`")))?;
    }
    Ok(())
}
