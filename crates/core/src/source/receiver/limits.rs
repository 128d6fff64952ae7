//! The limits within which an intake works.

use std::time::Duration;

/// The settings of an intake.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) block_interval: Duration,
    pub(crate) block_bytes: usize,
    pub(crate) group_bytes: usize,
    pub(crate) blocks_waiting: usize,
    pub(crate) max_rate: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            block_interval: Duration::from_millis(200),
            block_bytes: 1 << 20,
            group_bytes: 8 << 20,
            blocks_waiting: 10,
            max_rate: None,
        }
    }
}
