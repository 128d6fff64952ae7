//! A part of text lines.

use std::fmt::Display;

use super::super::Rdd;
use super::staging::Part;
use crate::error::Result;
use crate::exec::Task;

pub(super) fn write_part<T: Display + Send + 'static>(rdd: &Rdd<'static, T>, task: &Task, part: Part) -> Result<()> {
    part.write(|out| {
        rdd.op.compute(task.partition, task, &mut |chunk| chunk.iter().try_for_each(|record| out.line(record)))
    })
}
