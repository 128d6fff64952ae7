//! The rows in which a window keeps its panes (docs/formats-state.md, "Keys and values in RocksDB").

use serde::{Deserialize, Serialize};

/// A value in the state of a window's panes. Its name for serde is one that no type of a program has: what a schema says of a type
/// goes by names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename = "millpond window row")]
pub(crate) enum Row<T> {
    List(List),
    Pane { chunks: u32, next: Option<u64> },
    Chunk(Vec<T>),
}

/// The list of the panes of a partition, by their batch times in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "millpond window list")]
pub(crate) struct List {
    pub(crate) oldest: Option<u64>,
    pub(crate) newest: Option<u64>,
    /// The first pane that no window has held yet.
    pub(crate) entering: Option<u64>,
    /// For a window that turns its panes over: the newest that it has.
    pub(crate) turned: u64,
}
