//! Positions of sources as text, where this crate wrote them.

use super::report::Position;
use crate::source::PartitionPosition;

/// The positions of a source of this description.
pub(super) fn read(description: &str, positions: &[PartitionPosition]) -> Vec<Position> {
    let text = |position: &PartitionPosition| match description.starts_with("files ") {
        true => crate::source::describe_file_position(position).unwrap_or_else(|| hex(&position.position)),
        false => hex(&position.position),
    };
    let one = |position: &PartitionPosition| Position {
        partition: position.partition.clone(),
        position: text(position),
        bytes: position.position.clone(),
    };
    positions.iter().map(one).collect()
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
