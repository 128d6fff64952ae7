//! The conformance suites of the engine's traits, on all implementations there are.

mod controls;
mod logs;
mod sinks;
mod snapshots;
mod sources;
