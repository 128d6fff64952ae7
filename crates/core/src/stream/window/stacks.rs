//! A keyed window of a function without an inverse, by two stacks: each pane value is folded twice, however long the window is.
//!
//! Of each key the state has two values: `front`, over the panes that were there at the last turn, and `back`, over those that came
//! since. A pane that enters is folded into `back`. At a turn each pane is written anew, from the newest to the oldest: in place of
//! a key's value stands what its `front` will be once the pane has left, and that is all that has to be done when it leaves. The
//! next turn comes when a pane leaves that came after the last: once a window. Order is kept, so the function need only be
//! associative.

use std::sync::Arc;

use millpond_state::Partition;
use serde::{Deserialize, Serialize};

use super::keys::{Stays, fold_panes, look_up, put_out};
use super::panes::Panes;
use super::run::{Slide, StagedKeys, Times};
use crate::error::Result;
use crate::exec::{Effect, Task};
use crate::rdd::{CombineTable, Key, Out, Value, encoded};
use crate::stream::state::Stateful;

/// The state of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "millpond window value")]
pub(super) struct Stacks<V> {
    front: Option<V>,
    back: Option<V>,
}

pub(super) struct WithoutInverse<V: Value, F> {
    pub(super) name: Arc<str>,
    pub(super) keys: Arc<Stateful<Stacks<V>>>,
    pub(super) reduce: F,
}

/// A pane holds a key with its value; after a turn with what the key's `front` will be when the pane has left.
impl<K, V, F> Slide<(K, Option<V>)> for WithoutInverse<V, F>
where
    K: Key + Clone,
    V: Value,
    F: Fn(V, V) -> V + Send + Sync + 'static,
{
    type Output = (K, V);

    fn slide(
        &self,
        panes: &mut Panes<(K, Option<V>)>,
        times: Times,
        task: &Task,
        out: &mut Out<'_, (K, V)>,
    ) -> Result<Option<Box<dyn Effect>>> {
        let mut state = self.keys.operator()?.partition(panes.partition());
        let leaving = panes.until(times.start_ms)?;
        if leaving.last().is_none_or(|pane| pane.time <= panes.list.turned) {
            let fronts = fold_panes(panes, &leaving, |(key, front)| (key, front.clone()), |_, newest| newest)?;
            panes.delete(&leaving)?;
            let entering = panes.take_entering(times.end_ms)?;
            let fold = |a, b| self.fold(a, b);
            let backs = fold_panes(panes, &entering, |(key, value)| (key, value.clone()), fold)?;
            self.move_on(&mut state, fronts, backs)?;
            put_out(&mut state, task, &self.name, out, |_: &K, stacks, _| self.value(stacks))?;
        } else {
            panes.delete(&leaving)?;
            let fronts = self.turn(panes, times.end_ms)?;
            let mut slots = Vec::new();
            look_up(&mut state, &fronts, |(key, _)| key, &mut slots)?;
            state.load_misses()?;
            let mut held = vec![false; slots.iter().map(|slot| slot.index() + 1).max().unwrap_or(0)];
            for ((_, front), slot) in fronts.into_iter().zip(slots) {
                held[slot.index()] = true;
                state.put(slot, Some(Stacks { front: Some(front), back: None }));
            }
            put_out(&mut state, task, &self.name, out, |_: &K, stacks, slot| {
                // What no pane holds any more had its last value in a pane that has just left.
                let held = slot.is_some_and(|slot| held.get(slot.index()).is_some_and(|&held| held));
                if held { self.value(stacks) } else { (None, Stays::No) }
            })?;
        }
        Ok(Some(Box::new(StagedKeys(state))))
    }
}

impl<V: Value, F: Fn(V, V) -> V> WithoutInverse<V, F> {
    /// The older value first.
    fn fold(&self, older: Option<V>, newer: Option<V>) -> Option<V> {
        match (older, newer) {
            (Some(older), Some(newer)) => Some((self.reduce)(older, newer)),
            (older, newer) => older.or(newer),
        }
    }

    fn value(&self, stacks: &Stacks<V>) -> (Option<V>, Stays) {
        let value = self.fold(stacks.front.clone(), stacks.back.clone());
        let stays = if value.is_some() { Stays::Yes } else { Stays::No };
        (value, stays)
    }

    /// Gives keys their new fronts, and folds what enters into their backs.
    fn move_on<K: Key>(
        &self,
        state: &mut Partition<Stacks<V>>,
        fronts: Vec<(K, Option<V>)>,
        backs: Vec<(K, Option<V>)>,
    ) -> Result<()> {
        let mut slots = Vec::with_capacity(fronts.len() + backs.len());
        look_up(state, &fronts, |(key, _)| key, &mut slots)?;
        look_up(state, &backs, |(key, _)| key, &mut slots)?;
        state.load_misses()?;
        let mut slots = slots.into_iter();
        let empty = || Stacks { front: None, back: None };
        for ((_, front), slot) in fronts.into_iter().zip(slots.by_ref()) {
            state.get_mut(slot).get_or_insert_with(empty).front = front;
        }
        for ((_, value), slot) in backs.into_iter().zip(slots) {
            let stacks = state.get_mut(slot).get_or_insert_with(empty);
            stacks.back = self.fold(stacks.back.take(), value);
        }
        Ok(())
    }

    /// Turns over all panes up to a time, none of which was turned before; the new fronts.
    fn turn<K: Key + Clone>(&self, panes: &mut Panes<(K, Option<V>)>, until: u64) -> Result<Vec<(K, V)>> {
        panes.take_entering(until)?;
        let mut table = CombineTable::new();
        for pane in panes.until(until)?.iter().rev() {
            let mut turned = Vec::new();
            panes.read(pane, |records| {
                turned.reserve(records.len());
                for (key, value) in records {
                    let Some(value) = value.clone() else { continue };
                    let (hash, bytes) = encoded(key)?;
                    table.fold(
                        hash,
                        bytes,
                        || key.clone(),
                        |front: Option<V>| {
                            turned.push((key.clone(), front.clone()));
                            match front {
                                Some(front) => (self.reduce)(value, front),
                                None => value,
                            }
                        },
                    );
                }
                Ok(())
            })?;
            panes.replace(pane, turned)?;
        }
        panes.list.turned = until;
        Ok(table.into_records().collect())
    }
}
