//! A model of a cluster for simulations: the sink's own code runs on it in one thread, with requests that are lost, late and double,
//! markers that take their time, transactions that take too long. For our own tests, which also check the model against a real broker.

mod broker;
mod cluster;
mod producer;
mod reader;
mod script;

pub use broker::Generation;
pub use cluster::{Fate, Fates, ModelCluster};
pub use script::{Side, play};
