//! What both keyed windows need: the keys of panes looked up in the state, and every key of a window put out.

use millpond_state::{KeyBlock, Partition, Slot, codec};

use super::panes::{Pane, Panes};
use crate::chunk::{chunk, chunk_len};
use crate::error::Result;
use crate::exec::Task;
use crate::rdd::{CombineTable, Key, Out, Value, encoded};

/// Looks the keys of `records` up; their slots are appended in order. What is not in memory is a miss, to be loaded.
pub(super) fn look_up<R, K: Key, S: Value>(
    state: &mut Partition<S>,
    records: &[R],
    key: impl Fn(&R) -> &K,
    slots: &mut Vec<Slot>,
) -> Result<()> {
    let mut block = KeyBlock::default();
    slots.reserve(records.len());
    for together in records.chunks(KeyBlock::KEYS) {
        for record in together {
            let key = key(record);
            block.push(codec::hash_of(key)?, key)?;
        }
        state.slots(&mut block, slots);
    }
    Ok(())
}

/// A value a key: each pane has at most one, folded into one in the order of the panes.
pub(super) fn fold_panes<T: Value, K: Key + Clone, C>(
    panes: &mut Panes<T>,
    of: &[Pane],
    split: impl Fn(&T) -> (&K, C),
    fold: impl Fn(C, C) -> C,
) -> Result<Vec<(K, C)>> {
    let mut folded = Vec::new();
    if let [pane] = of {
        panes.read(pane, |records| {
            folded.extend(records.iter().map(|record| {
                let (key, value) = split(record);
                (key.clone(), value)
            }));
            Ok(())
        })?;
        return Ok(folded);
    }
    let mut table = CombineTable::new();
    for pane in of {
        panes.read(pane, |records| {
            for record in records {
                let (key, value) = split(record);
                let (hash, bytes) = encoded(key)?;
                table.fold(
                    hash,
                    bytes,
                    || key.clone(),
                    |old| match old {
                        Some(old) => fold(old, value),
                        None => value,
                    },
                );
            }
            Ok(())
        })?;
    }
    folded.extend(table.into_records());
    Ok(folded)
}

/// Visits every key of a window. `visit` says what the key puts out, or `None`, and whether it stays.
pub(super) fn put_out<K: Key, S: Value, V>(
    state: &mut Partition<S>,
    task: &Task,
    label: &std::sync::Arc<str>,
    out: &mut Out<'_, (K, V)>,
    visit: impl Fn(&K, &S, Option<Slot>) -> (Option<V>, Stays),
) -> Result<()> {
    let mut made = Vec::new();
    state.visit_all(|visited| {
        let key: K = codec::decode(visited.key())?;
        let Some(stored) = visited.get() else { return Ok(()) };
        let (value, stays) = visit(&key, stored, visited.slot());
        if stays == Stays::No {
            visited.put(None);
        }
        if let Some(value) = value {
            made.push((key, value));
            if made.len() == chunk_len::<(K, V)>() {
                out(std::mem::replace(&mut made, chunk()))?;
                task.enter(label);
            }
        }
        Ok::<_, crate::error::Error>(())
    })?;
    if made.is_empty() { Ok(()) } else { out(made) }
}

/// Whether a key keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    Yes,
    No,
}
