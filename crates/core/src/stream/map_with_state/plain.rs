//! States without a timeout: kept as they are.

use millpond_state::PartitionGuard;

use super::{Change, MapWithStateRdd, Output, State, look_up, refused};
use crate::error::Result;
use crate::rdd::{Bucket, Key, Keyed, Value};
use crate::stream::state::{Gathered, Times, check_first};
use crate::time::BatchTime;

impl<K, V, S, U, F> MapWithStateRdd<K, V, S, U, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    U: Send + 'static,
    F: Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync,
{
    pub(super) fn map_plain(
        &self,
        mut state: PartitionGuard<S>,
        partition: usize,
        buckets: Vec<Bucket<Keyed<K, V>>>,
        output: &mut Output<'_, '_, U>,
    ) -> Result<(PartitionGuard<S>, Option<Times>)> {
        let times = self.batch.keyed.begin(&self.batch.opened, &mut state, partition, &self.batch.env)?;
        let slots = look_up(&mut state, &buckets)?;
        let mut checked = false;
        for (Keyed { key, value, .. }, slot) in buckets.into_iter().flatten().zip(slots) {
            let mut of_key = State::of(state.get(slot));
            let made = (self.f)(self.batch.env.batch, &key, Some(value), &mut of_key);
            match of_key.change {
                Change::None => {}
                Change::Updated(updated) => {
                    check_first(&mut checked, &updated, &self.batch.label)?;
                    state.put(slot, Some(updated));
                }
                Change::Removed => {
                    if state.get(slot).is_some() {
                        state.put(slot, None);
                    }
                }
                Change::Refused(call) => return Err(refused(call)),
            }
            output.add(made)?;
        }
        if let Some(snapshots) = &self.batch.snapshots {
            snapshots.set(
                partition,
                Gathered::new(&self.batch.label, self.batch.env.partitions).all(&mut state, |state| state)?,
            );
        }
        Ok((state, times))
    }
}
