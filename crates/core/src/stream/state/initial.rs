//! `initial_state`: states that an operator has before its first batch.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock, PoisonError};

use millpond_state::{PartitionGuard, Slot, codec};
use serde::Serialize;
use serde_json::Value as Json;

use super::keyed::KeyedState;
use crate::error::{Error, Result};
use crate::rdd::{Key, RddEnv, Value};
use crate::stream::DStream;

/// States given, if any: the hash and the encoding of each key, in the order of the encodings.
pub(crate) struct Initial<K, S> {
    given: OnceLock<Mutex<Vec<Given<S>>>>,
    key: PhantomData<fn() -> K>,
}

struct Given<S> {
    hash: u64,
    key: Vec<u8>,
    state: S,
}

/// States of any types, and how they are made into others of the same serde form.
pub(crate) struct GivenStates {
    typed: Box<dyn Any>,
    types: &'static str,
    as_json: fn(&dyn Any) -> serde_json::Result<Pairs>,
}

/// Keys and states as JSON.
type Pairs = Vec<(Json, Json)>;

impl GivenStates {
    fn new<K: Serialize + 'static, S: Serialize + 'static>(states: impl IntoIterator<Item = (K, S)>) -> Self {
        GivenStates {
            typed: Box::new(states.into_iter().collect::<Vec<(K, S)>>()),
            types: std::any::type_name::<(K, S)>(),
            as_json: |typed| {
                let states = typed.downcast_ref::<Vec<(K, S)>>().map(Vec::as_slice).unwrap_or_default();
                states
                    .iter()
                    .map(|(key, state)| Ok((serde_json::to_value(key)?, serde_json::to_value(state)?)))
                    .collect()
            },
        }
    }
}

impl<K, S> Default for Initial<K, S> {
    fn default() -> Self {
        Initial { given: OnceLock::new(), key: PhantomData }
    }
}

impl<K: Key, S: Value> Initial<K, S> {
    pub(super) fn is_given(&self) -> bool {
        self.given.get().is_some()
    }

    /// Takes the states, once; the last one of a key holds.
    pub(super) fn give(&self, states: GivenStates) -> Result<()> {
        let states = match states.typed.downcast::<Vec<(K, S)>>() {
            Ok(states) => *states,
            Err(others) => {
                let converted = (states.as_json)(&*others).and_then(|pairs| {
                    let from = |(key, state)| Ok((serde_json::from_value(key)?, serde_json::from_value(state)?));
                    pairs.into_iter().map(from).collect()
                });
                converted.map_err(|error| {
                    let types = std::any::type_name::<(K, S)>();
                    Error::configuration(format!(
                        "keys and states are {types}, and cannot be had from {}",
                        states.types
                    ))
                    .with_source(error)
                })?
            }
        };
        let mut by_key = BTreeMap::new();
        for (key, state) in states {
            if by_key.is_empty() {
                codec::check_round_trip(&key)?;
                codec::check_round_trip(&state)?;
            }
            let mut encoded = Vec::new();
            codec::encode(&key, &mut encoded)?;
            by_key.insert(encoded, state);
        }
        let given = by_key.into_iter().map(|(key, state)| Given { hash: codec::key_hash(&key), key, state });
        let outcome = self.given.set(Mutex::new(given.collect()));
        outcome.map_err(|_| Error::configuration("there is an initial state already"))
    }

    /// Puts the states of a partition into it, each as `make` keeps it, and tells their slots.
    pub(crate) fn put<V: Value>(
        &self,
        state: &mut PartitionGuard<V>,
        partition: usize,
        env: &RddEnv,
        make: impl Fn(S) -> V,
    ) -> Result<Vec<Slot>> {
        let Some(given) = self.given.get() else { return Ok(Vec::new()) };
        let given = given.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |one: &&Given<S>| codec::partition_of(one.hash, env.shards, env.partitions) == partition;
        let mine: Vec<&Given<S>> = given.iter().filter(here).collect();
        let slots: Vec<Slot> = mine.iter().map(|one| state.slot(one.hash, &one.key)).collect();
        state.load_misses()?;
        for (one, slot) in mine.iter().zip(&slots) {
            state.put(*slot, Some(make(one.state.clone())));
        }
        Ok(slots)
    }
}

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// States that the keyed operator before this call has before its first batch, with the time of that batch. They are taken
    /// once: an operator that has had a batch, or has state, keeps what it has. Of two states of a key the last one holds.
    ///
    /// Has to be called directly on what the operator returned; opening the context fails else, and where keys or states can
    /// not be had from those given: these may be of other types of the same serde form, as `"apple"` is for a `String`.
    ///
    /// ```
    /// # use millpond_core::stream::DStream;
    /// # fn f<'g>(words: DStream<'g, (String, u64)>) -> DStream<'g, (String, u64)> {
    /// words
    ///     .update_state_by_key("counts", |ones, total: Option<u64>| Some(total.unwrap_or(0) + ones.sum()))
    ///     .initial_state([("apple", 5), ("pear", 0)])
    /// # }
    /// ```
    pub fn initial_state<K, S>(self, states: impl IntoIterator<Item = (K, S)>) -> DStream<'g, T>
    where
        K: Serialize + 'static,
        S: Serialize + 'static,
    {
        let outcome = match &self.operator {
            Some(operator) => operator.give_initial(GivenStates::new(states)),
            None => Err(not_directly()),
        };
        if let Err(error) = outcome {
            self.graph.fail(format!("initial_state(..) of `{}`: {error}", self.label));
        }
        self
    }

    /// The operator of this stream, with its types.
    pub(super) fn keyed_state<K: Key, S: Value>(&self) -> Result<&KeyedState<K, S>> {
        let operator = self.operator.as_ref().ok_or_else(not_directly)?;
        operator.keyed().and_then(|keyed| keyed.downcast_ref()).ok_or_else(|| {
            Error::configuration(format!(
                "its keys and states are {}, not {}",
                operator.types(),
                std::any::type_name::<(K, S)>()
            ))
        })
    }
}

fn not_directly() -> Error {
    Error::configuration("it has to be called directly on what an operator with keyed state returned")
}
