//! The examples of the documents, which are tests.

#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

#[doc = include_str!("../../../docs/operators/rdd.md")]
struct OfRdd;

#[doc = include_str!("../../../docs/operators/per-batch.md")]
struct PerBatch;

#[doc = include_str!("../../../docs/operators/joins.md")]
struct Joins;

#[doc = include_str!("../../../docs/operators/windows.md")]
struct Windows;

#[doc = include_str!("../../../docs/operators/keyed-state.md")]
struct KeyedState;

#[doc = include_str!("../../../docs/operators/sources.md")]
struct Sources;

#[doc = include_str!("../../../docs/operators/output.md")]
struct OfOutput;

#[doc = include_str!("../../../docs/operators/shared-values.md")]
struct SharedValues;
