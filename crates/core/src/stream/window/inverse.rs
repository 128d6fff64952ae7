//! A keyed window with an inverse function: a value a key, from which what leaves is taken and to which what enters is added.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keys::{Stays, fold_panes, look_up, put_out};
use super::panes::{Pane, Panes};
use super::run::{Slide, StagedKeys, Times};
use crate::error::Result;
use crate::exec::{Effect, Task};
use crate::rdd::{Key, Out, Value};
use crate::stream::state::Stateful;

/// The state of a key. With how many panes of the window hold the key: 0 and not kept, it is forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "millpond window value")]
pub(super) struct Held<V> {
    value: V,
    panes: u64,
}

pub(super) struct WithInverse<V: Value, F, I, P> {
    pub(super) name: Arc<str>,
    pub(super) keys: Arc<Stateful<Held<V>>>,
    pub(super) reduce: F,
    pub(super) inverse: I,
    /// What is put out; a key that is not, and that no pane holds, is forgotten.
    pub(super) keep: P,
}

impl<K, V, F, I, P> Slide<(K, V)> for WithInverse<V, F, I, P>
where
    K: Key + Clone,
    V: Value,
    F: Fn(V, V) -> V + Send + Sync + 'static,
    I: Fn(V, V) -> V + Send + Sync + 'static,
    P: Fn(&K, &V) -> bool + Send + Sync + 'static,
{
    type Output = (K, V);

    fn slide(
        &self,
        panes: &mut Panes<(K, V)>,
        times: Times,
        task: &Task,
        out: &mut Out<'_, (K, V)>,
    ) -> Result<Option<Box<dyn Effect>>> {
        // What enters and has left already, where the slide exceeds the window, was never held.
        let (skipped, entering) = split(panes.take_entering(times.end_ms)?, times.start_ms);
        let gone = panes.until(times.start_ms)?;
        let held = gone.len() - skipped.len();
        let leaving = self.reduced(panes, &gone[..held])?;
        panes.delete(&gone)?;
        let entering = self.reduced(panes, &entering)?;

        let mut state = self.keys.operator()?.partition(panes.partition());
        let mut slots = Vec::with_capacity(leaving.len() + entering.len());
        look_up(&mut state, &leaving, |(key, _)| key, &mut slots)?;
        look_up(&mut state, &entering, |(key, _)| key, &mut slots)?;
        state.load_misses()?;
        let mut slots = slots.into_iter();
        for ((_, (value, count)), slot) in leaving.into_iter().zip(slots.by_ref()) {
            let stored = state.get_mut(slot);
            *stored = stored
                .take()
                .map(|held| Held { value: (self.inverse)(held.value, value), panes: held.panes.saturating_sub(count) });
        }
        for ((_, (value, count)), slot) in entering.into_iter().zip(slots) {
            let stored = state.get_mut(slot);
            *stored = Some(match stored.take() {
                Some(held) => Held { value: (self.reduce)(held.value, value), panes: held.panes + count },
                None => Held { value, panes: count },
            });
        }
        put_out(&mut state, task, &self.name, out, |key: &K, held, _| {
            let kept = (self.keep)(key, &held.value);
            (kept.then(|| held.value.clone()), if kept || held.panes > 0 { Stays::Yes } else { Stays::No })
        })?;
        Ok(Some(Box::new(StagedKeys(state))))
    }
}

impl<V: Value, F: Fn(V, V) -> V, I, P> WithInverse<V, F, I, P> {
    /// The values of each key in some panes, and how many of them have it.
    fn reduced<K: Key + Clone>(&self, panes: &mut Panes<(K, V)>, of: &[Pane]) -> Result<Vec<(K, (V, u64))>> {
        fold_panes(
            panes,
            of,
            |(key, value)| (key, (value.clone(), 1)),
            |(a, before), (b, more)| ((self.reduce)(a, b), before + more),
        )
    }
}

/// The panes up to a time, and those after it.
fn split(mut panes: Vec<Pane>, until: u64) -> (Vec<Pane>, Vec<Pane>) {
    let after = panes.split_off(panes.partition_point(|pane| pane.time <= until));
    (panes, after)
}
