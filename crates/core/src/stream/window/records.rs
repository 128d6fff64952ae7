//! The window of any records, and the panes of a keyed one put together.

use super::panes::Panes;
use super::run::{Slide, Times};
use crate::error::Result;
use crate::exec::{Effect, Task};
use crate::rdd::{Out, Value};

/// Puts out the records of all panes as they are, the oldest pane first.
pub(super) struct AsTheyAre;

impl<T: Value> Slide<T> for AsTheyAre {
    type Output = T;

    fn slide(
        &self,
        panes: &mut Panes<T>,
        times: Times,
        _: &Task,
        out: &mut Out<'_, T>,
    ) -> Result<Option<Box<dyn Effect>>> {
        let leaving = panes.until(times.start_ms)?;
        panes.delete(&leaving)?;
        for pane in panes.until(times.end_ms)? {
            panes.read(&pane, |records| out(records.to_vec()))?;
        }
        Ok(None)
    }
}
