//! States with a timeout: kept with their times, and looked at when a deadline passes.

use std::collections::HashSet;

use millpond_state::{KeyBlock, PartitionGuard, Slot, codec};

use super::{Change, MapWithStateRdd, Output, State, look_up, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{Bucket, Key, Keyed, Value};
use crate::stream::state::{Began, Begun, Entries, Gathered, Timed, Times, check_first, keys};
use crate::time::BatchTime;

/// One batch's look at the clock.
struct Clock {
    now_ms: u64,
    timeout_ms: u64,
    bucket_ms: u64,
}

impl Clock {
    /// The last time at which a key has not timed out.
    fn deadline_ms(&self, updated_ms: u64) -> u64 {
        updated_ms.saturating_add(self.timeout_ms)
    }

    fn bucket(&self, updated_ms: u64) -> u64 {
        self.deadline_ms(updated_ms) / self.bucket_ms
    }

    fn has_timed_out(&self, updated_ms: u64) -> bool {
        self.deadline_ms(updated_ms) < self.now_ms
    }

    fn enter(&self, entries: &mut Entries, updated_ms: u64, key: &[u8]) {
        entries.add(self.bucket(updated_ms), self.deadline_ms(updated_ms), key);
    }
}

impl<K, V, S, U, F> MapWithStateRdd<K, V, S, U, F>
where
    K: Key,
    V: Send + 'static,
    S: Value,
    U: Send + 'static,
    F: Fn(BatchTime, &K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync,
{
    pub(super) fn map_timed(
        &self,
        mut state: PartitionGuard<Timed<S>>,
        timeout_ms: u64,
        partition: usize,
        buckets: Vec<Bucket<Keyed<K, V>>>,
        output: &mut Output<'_, '_, U>,
    ) -> Result<(PartitionGuard<Timed<S>>, Option<Times>)> {
        let now_ms = self.batch.env.batch.as_ms();
        let (mut times, began) = self.batch.opened.times(partition, &self.batch.env)?.ok_or_else(|| {
            Error::new(ErrorKind::Restart, format!("the times of `{}` are not open", self.batch.label))
        })?;
        let fresh = |generation| Begun {
            timeout_ms: Some(timeout_ms),
            bucket_ms: self.slide_ms,
            generation,
            checked_ms: now_ms,
        };
        // With another timeout than before every key has to be entered anew.
        let (begun, visit_all) = match &began {
            Began::Now => (fresh(0), false),
            Began::Unnoted => (fresh(0), true),
            Began::Before(begun) if begun.timeout_ms == Some(timeout_ms) => (begun.clone(), false),
            Began::Before(begun) => (fresh(begun.generation + 1), true),
        };
        let clock = Clock { now_ms, timeout_ms, bucket_ms: begun.bucket_ms };
        let mut new = Vec::new();
        if matches!(began, Began::Now) {
            let bucket = clock.bucket(now_ms);
            new = self.batch.keyed.initial.put(&mut state, partition, &self.batch.env, |state| Timed {
                state,
                updated_ms: now_ms,
                bucket,
            })?;
        }
        self.call(&mut state, &clock, buckets, &mut new, output)?;
        let mut entries = Entries::default();
        let mut gathered =
            self.batch.snapshots.as_ref().map(|_| Gathered::new(&self.batch.label, self.batch.env.partitions));
        if visit_all {
            self.enter_all(&mut state, &clock, &mut entries, gathered.as_mut(), output)?;
        } else {
            for slot in new {
                if state.get(slot).is_some() {
                    clock.enter(&mut entries, now_ms, state.key(slot));
                }
            }
            for (bucket, keys) in times.take_due(&begun, now_ms)? {
                self.expire(&mut state, &clock, bucket, &keys, &mut entries, output)?;
            }
            if let Some(none) = gathered.take() {
                gathered = Some(none.all(&mut state, |timed| &timed.state)?);
            }
        }
        if let (Some(snapshots), Some(gathered)) = (&self.batch.snapshots, gathered) {
            snapshots.set(partition, gathered);
        }
        times.enter(begun.generation, entries)?;
        if visit_all && begun.generation > 0 {
            times.forget_others(begun.generation)?;
        }
        times.note(Begun { checked_ms: now_ms, ..begun });
        Ok((state, Some(times)))
    }

    /// The calls for records; `new` gets the keys that are to be entered.
    fn call(
        &self,
        state: &mut PartitionGuard<Timed<S>>,
        clock: &Clock,
        buckets: Vec<Bucket<Keyed<K, V>>>,
        new: &mut Vec<Slot>,
        output: &mut Output<'_, '_, U>,
    ) -> Result<()> {
        let slots = look_up(state, &buckets)?;
        let now_ms = clock.now_ms;
        let bucket_now = clock.bucket(now_ms);
        let (mut checked, mut removed) = (false, false);
        for (Keyed { key, value, .. }, slot) in buckets.into_iter().flatten().zip(slots) {
            let stored = state.get(slot);
            let entered = stored.map(|timed| (timed.updated_ms, timed.bucket));
            let mut of_key = State::of(stored.map(|timed| &timed.state));
            let made = (self.f)(self.batch.env.batch, &key, Some(value), &mut of_key);
            match (of_key.change, entered) {
                (Change::None, Some((updated_ms, _))) if updated_ms != now_ms => {
                    if let Some(timed) = state.get_mut(slot) {
                        timed.updated_ms = now_ms;
                    }
                }
                (Change::None | Change::Removed, None) | (Change::None, _) => {}
                (Change::Updated(updated), entered) => {
                    check_first(&mut checked, &updated, &self.batch.label)?;
                    if entered.is_none() {
                        new.push(slot);
                    }
                    let bucket = entered.map_or(bucket_now, |(_, bucket)| bucket);
                    state.put(slot, Some(Timed { state: updated, updated_ms: now_ms, bucket }));
                }
                (Change::Removed, Some(_)) => {
                    removed = true;
                    state.put(slot, None);
                }
                (Change::Refused(call), _) => return Err(refused(call)),
            }
            output.add(made)?;
        }
        if removed {
            // A key that was removed and came again is to be entered once.
            let mut seen = HashSet::new();
            new.retain(|slot| seen.insert(*slot));
        }
        Ok(())
    }

    /// The keys of a bucket that is due: each has timed out, or was used meanwhile and is entered anew.
    fn expire(
        &self,
        state: &mut PartitionGuard<Timed<S>>,
        clock: &Clock,
        bucket: u64,
        due: &[u8],
        entries: &mut Entries,
        output: &mut Output<'_, '_, U>,
    ) -> Result<()> {
        let mut slots = Vec::new();
        let mut block = KeyBlock::default();
        for key in keys(due) {
            block.push_encoded(codec::key_hash(key), key);
            if block.len() == KeyBlock::KEYS {
                state.slots(&mut block, &mut slots);
            }
        }
        state.slots(&mut block, &mut slots);
        state.load_misses()?;
        for (key, slot) in keys(due).zip(slots) {
            // Removed, or removed and come again: that entry is elsewhere.
            let Some(timed) = state.get(slot).filter(|timed| timed.bucket == bucket) else { continue };
            let updated_ms = timed.updated_ms;
            if clock.has_timed_out(updated_ms) {
                self.time_out(key, &timed.state, output)?;
                state.put(slot, None);
            } else {
                if let Some(timed) = state.get_mut(slot) {
                    timed.bucket = clock.bucket(updated_ms);
                }
                clock.enter(entries, updated_ms, key);
            }
        }
        Ok(())
    }

    /// Every key, entered anew; those that have timed out by the new timeout go.
    fn enter_all(
        &self,
        state: &mut PartitionGuard<Timed<S>>,
        clock: &Clock,
        entries: &mut Entries,
        mut gathered: Option<&mut Gathered<K, S>>,
        output: &mut Output<'_, '_, U>,
    ) -> Result<()> {
        state.visit_all(|visited| {
            let Some(timed) = visited.get() else { return Ok(()) };
            // Without a timeout nobody noted when it was used.
            let updated_ms = if timed.updated_ms == 0 { clock.now_ms } else { timed.updated_ms };
            if clock.has_timed_out(updated_ms) {
                self.time_out(visited.key(), &timed.state, output)?;
                visited.put(None);
                return Ok(());
            }
            clock.enter(entries, updated_ms, visited.key());
            if let Some(gathered) = &mut gathered {
                gathered.add(visited.key(), timed.state.clone())?;
            }
            if let Some(timed) = visited.get_mut() {
                (timed.updated_ms, timed.bucket) = (updated_ms, clock.bucket(updated_ms));
            }
            Ok::<_, Error>(())
        })
    }

    /// The one call for a key that has timed out.
    fn time_out(&self, key: &[u8], state: &S, output: &mut Output<'_, '_, U>) -> Result<()> {
        let key: K = codec::decode(key)?;
        let mut of_key = State::timing_out(state);
        let made = (self.f)(self.batch.env.batch, &key, None, &mut of_key);
        if let Change::Refused(call) = of_key.change {
            return Err(refused(call));
        }
        output.add(made)
    }
}
