//! `Rdd`s without any stream, against the collections of the standard library.

mod laziness;
mod operators;
