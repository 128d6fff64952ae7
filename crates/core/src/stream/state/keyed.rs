//! A state for each key: what `map_with_state` and the `update_..._by_key` family share. With a timeout each state is kept
//! with its times, so its values in the store are of another kind; a program that gains or loses the timeout has them migrated.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use millpond_state::{Operator, OperatorSpec, PartitionGuard, StateStore};
use serde::{Deserialize, Serialize};

use super::initial::{GivenStates, Initial};
use super::times::{Begun, Row, Times};
use super::{AnyOperator, Stateful, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{Key, RddEnv, Value};

/// What is after an operator's name in that of the rows beside its state. A user's name holds no slash.
const TIMES: &str = "/times";

/// After the kind of an operator whose states are kept with their times.
const TIMED: &str = ", timeout";

/// A state with its times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timed<S> {
    pub(crate) state: S,
    /// The batch that used it last; 0 if that was before there was a timeout.
    pub(crate) updated_ms: u64,
    /// The bucket that holds its entry.
    pub(crate) bucket: u64,
}

/// The operator's state while the store is open.
pub(crate) struct Opened<S> {
    pub(crate) held: Held<S>,
    pub(crate) times: Option<Operator<Row>>,
    /// It held no key when the store was opened.
    was_empty: bool,
}

impl<S> Clone for Opened<S> {
    fn clone(&self) -> Self {
        Opened { held: self.held.clone(), times: self.times.clone(), was_empty: self.was_empty }
    }
}

/// The states, as they are or with their times.
pub(crate) enum Held<S> {
    Plain(Operator<S>),
    Timed(Operator<Timed<S>>, u64),
}

impl<S> Clone for Held<S> {
    fn clone(&self) -> Self {
        match self {
            Held::Plain(operator) => Held::Plain(operator.clone()),
            Held::Timed(operator, timeout_ms) => Held::Timed(operator.clone(), *timeout_ms),
        }
    }
}

/// How a batch finds a partition.
pub(crate) enum Began {
    /// This is the operator's first batch.
    Now,
    /// There is state, but nothing has been noted beside it.
    Unnoted,
    Before(Begun),
}

impl<S: Value> Opened<S> {
    /// The states of an operator that knows no times.
    pub(crate) fn plain(&self, name: &str) -> Result<&Operator<S>> {
        match &self.held {
            Held::Plain(operator) => Ok(operator),
            Held::Timed(..) => Err(Error::new(ErrorKind::Restart, format!("the states of `{name}` have times"))),
        }
    }

    /// Locks what is kept beside the state of a partition. After the state itself, always.
    pub(crate) fn times(&self, partition: usize, env: &RddEnv) -> Result<Option<(Times, Began)>> {
        let Some(operator) = &self.times else { return Ok(None) };
        let (times, noted) = Times::of(operator, partition, env)?;
        Ok(Some((
            times,
            match noted {
                Some(begun) => Began::Before(begun),
                None if self.was_empty => Began::Now,
                None => Began::Unnoted,
            },
        )))
    }
}

/// A version step of a state's type. Each gets the spec, and the kind of those that are kept the other way.
pub(crate) struct SchemaStep<S> {
    version: u32,
    plain: TypedStep<S>,
    timed: TypedStep<Timed<S>>,
}

type TypedStep<V> = Box<dyn Fn(OperatorSpec<V>, &str) -> OperatorSpec<V> + Send + Sync>;

impl<New: Value> SchemaStep<New> {
    pub(super) fn new<Old: Value>(version: u32, migrate: impl Fn(Old) -> New + Send + Sync + Clone + 'static) -> Self {
        let (before, plain, timed) = (version.saturating_sub(1), migrate.clone(), migrate);
        SchemaStep {
            version,
            plain: Box::new(move |spec, timed_kind| {
                let without_times = plain.clone();
                spec.schema(version, plain.clone())
                    .migrate_from_kind(timed_kind, before, move |old: Timed<Old>| without_times(old.state))
            }),
            timed: Box::new(move |spec, plain_kind| {
                let (same, with_times) = (timed.clone(), timed.clone());
                spec.schema(version, move |old: Timed<Old>| Timed {
                    state: same(old.state),
                    updated_ms: old.updated_ms,
                    bucket: old.bucket,
                })
                .migrate_from_kind(plain_kind, before, move |old: Old| Timed::unscheduled(with_times(old)))
            }),
        }
    }

    /// For an operator that knows no times.
    pub(super) fn plain(self) -> Step<New> {
        Box::new(move |spec| (self.plain)(spec, ""))
    }
}

impl<S> Timed<S> {
    fn unscheduled(state: S) -> Self {
        Timed { state, updated_ms: 0, bucket: 0 }
    }
}

/// A named operator that keeps a state for each key.
pub(crate) struct KeyedState<K, S> {
    name: Arc<str>,
    kind: &'static str,
    has_timeouts: bool,
    times: Arc<Stateful<Row>>,
    schema: Mutex<Option<SchemaStep<S>>>,
    timeout_ms: OnceLock<u64>,
    pub(crate) initial: Initial<K, S>,
    /// The memos of the batch's computed output and of its snapshots, if they are asked for.
    pub(crate) snapshots: OnceLock<(usize, usize)>,
    open: Mutex<Option<Opened<S>>>,
}

impl<K: Key, S: Value> KeyedState<K, S> {
    pub(crate) fn new(name: Arc<str>, kind: &'static str, has_timeouts: bool) -> Arc<Self> {
        let times = Stateful::new(format!("{name}{TIMES}").into(), "times");
        Arc::new(KeyedState {
            name,
            kind,
            has_timeouts,
            times,
            schema: Mutex::default(),
            timeout_ms: OnceLock::new(),
            initial: Initial::default(),
            snapshots: OnceLock::new(),
            open: Mutex::default(),
        })
    }

    /// The operator's state, for one batch.
    pub(crate) fn opened(&self) -> Result<Opened<S>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| Error::new(ErrorKind::Restart, format!("the state of `{}` is not open", self.name)))
    }

    /// For states without times: the initial state in the operator's first batch, and what is to be noted beside it.
    pub(crate) fn begin(
        &self,
        opened: &Opened<S>,
        state: &mut PartitionGuard<S>,
        partition: usize,
        env: &RddEnv,
    ) -> Result<Option<Times>> {
        let Some((mut times, began)) = opened.times(partition, env)? else { return Ok(None) };
        match began {
            Began::Before(Begun { timeout_ms: None, .. }) => return Ok(Some(times)),
            Began::Before(Begun { generation, .. }) => {
                // There was a timeout once.
                times.forget_others(generation + 1)?;
                times.note(Begun { generation: generation + 1, ..Begun::default() });
            }
            Began::Unnoted => times.note(Begun::default()),
            Began::Now => {
                self.initial.put(state, partition, env, |state| state)?;
                times.note(Begun::default());
            }
        }
        Ok(Some(times))
    }

    fn open_held(&self, store: &StateStore, timed_kind: &str) -> Result<(Held<S>, u64)> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner);
        let version = schema.as_ref().map_or(1, |step| step.version);
        if let Some(timeout_ms) = self.timeout_ms.get() {
            let spec = OperatorSpec::new(&*self.name, timed_kind);
            let spec = schema.iter().fold(spec, |spec, step| (step.timed)(spec, self.kind));
            let operator = store.operator(spec.migrate_from_kind(self.kind, version, Timed::unscheduled))?;
            let keys = operator.keys();
            Ok((Held::Timed(operator, *timeout_ms), keys))
        } else {
            let spec = OperatorSpec::new(&*self.name, self.kind);
            let spec = schema.iter().fold(spec, |spec, step| (step.plain)(spec, timed_kind));
            let operator =
                store.operator(spec.migrate_from_kind(timed_kind, version, |timed: Timed<S>| timed.state))?;
            let keys = operator.keys();
            Ok((Held::Plain(operator), keys))
        }
    }
}

impl<K: Key, S: Value> AnyOperator for KeyedState<K, S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, store: &StateStore) -> Result<()> {
        let timed_kind = format!("{}{TIMED}", self.kind);
        let wants_times = self.timeout_ms.get().is_some() || self.initial.is_given();
        let stored = store.unopened_operators();
        let found = |name: &str| stored.iter().find(|record| record.name == name);
        let kind = if self.timeout_ms.get().is_some() { &*timed_kind } else { self.kind };
        // States that are migrated are entered nowhere: without this the first batch would take them for entered.
        let migrates = found(&self.name).is_some_and(|record| record.kind != kind && record.keys > 0);
        if found(self.times.name()).is_some() && (migrates || !wants_times) {
            store.remove_operator(self.times.name())?;
        }
        let (held, keys) = self.open_held(store, &timed_kind)?;
        let times = if wants_times {
            self.times.open(store)?;
            Some(self.times.operator()?)
        } else {
            None
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Opened { held, times, was_empty: keys == 0 });
        Ok(())
    }

    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.times.close();
    }

    fn set_schema(&self, step: Box<dyn Any>) -> bool {
        let step = step.downcast::<SchemaStep<S>>().ok();
        step.map(|step| *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(*step)).is_some()
    }

    fn set_timeout(&self, timeout_ms: u64) -> Result<(), String> {
        if !self.has_timeouts {
            return Err("it has no timeouts: only map_with_state has".into());
        }
        self.timeout_ms.set(timeout_ms).map_err(|_| "it has a timeout already".to_owned())
    }

    fn give_initial(&self, states: GivenStates) -> Result<()> {
        self.initial.give(states)
    }

    fn keyed(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn types(&self) -> &'static str {
        std::any::type_name::<(K, S)>()
    }
}
