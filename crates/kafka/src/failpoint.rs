//! The failpoints of this crate, in one place. Inert without the feature `failpoints` and until a test arms them.

#![cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "the points are compiled out"))]

/// A transaction has begun: nothing of the batch is at the broker yet.
pub(crate) const TRANSACTION_BEGUN: &str = "transaction-begun";
/// All output of the batch is acknowledged by the broker, the offsets of the sources are not in the transaction yet.
pub(crate) const OUTPUT_WRITTEN: &str = "output-written";
/// Output and offsets are in the transaction, the cursor is not.
pub(crate) const OFFSETS_SENT: &str = "offsets-sent";
/// Everything is in the transaction; the commit has not been asked for.
pub(crate) const BEFORE_COMMIT: &str = "before-commit";
/// The broker has committed, the engine does not know yet.
pub(crate) const AFTER_COMMIT: &str = "after-commit";
/// Earlier incarnations are fenced, the cursor has not been read again.
pub(crate) const SINK_FENCED: &str = "sink-fenced";
