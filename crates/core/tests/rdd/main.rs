//! `Rdd`s without any stream, against the collections of the standard library.

mod files;
mod laziness;
mod operators;
mod persist;
