//! What a discretized stream must yield, case by case, through the public API on a manual clock; and the public conformance
//! suites of the traits.

mod accumulators;
mod crashes;
mod edges;
mod joins;
mod keyed_state;
mod lifecycle;
mod listeners;
mod operators;
mod pushes;
mod rate;
mod rdd;
mod receivers;
mod recovery;
mod refusals;
mod savepoints;
mod slices;
mod speculation;
mod state;
mod state_model;
mod support;
mod telemetry;
mod time;
mod timeouts;
mod window_model;
mod windows;
