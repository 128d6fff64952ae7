//! Section C of the cases: joins within a batch.

use std::fmt::Debug;

use millpond_core::DStream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::*;

/// The cases' A (words with 1) and B (words with "x") through a join; each batch sorted.
fn joined<U>(
    join: impl for<'g> Fn(DStream<'g, (String, i64)>, DStream<'g, (String, String)>) -> DStream<'g, (String, U)>,
) -> Vec<Vec<(String, U)>>
where
    U: Serialize + DeserializeOwned + Ord + Debug + Send + 'static,
{
    let bench = Bench::new();
    let (a, b) = (queue_of(words("a,b | a,\"\" | \"\" | ·")), queue_of(words("a,b | b,\"\" | · | \"\"")));
    let running = bench.start(|graph| {
        let a = graph.source("a", source(&a)).map(|word| (word, 1));
        let b = graph.source("b", source(&b)).map(|word| (word, "x".to_owned()));
        join(a, b).sink_json("out", bench.collection.sink());
        Ok(())
    });
    (0..4).for_each(|_| bench.tick(&running));
    sorted(bench.outputs("out", 4))
}

fn expect<U: Ord>(batches: [Vec<(&str, U)>; 4]) -> Vec<Vec<(String, U)>> {
    sorted(batches.into_iter().map(|batch| batch.into_iter().map(|(key, u)| (key.to_owned(), u)).collect()).collect())
}

fn x() -> String {
    "x".to_owned()
}

#[test]
fn c1_join() {
    let expected = expect([vec![("a", (1, x())), ("b", (1, x()))], vec![("", (1, x()))], vec![], vec![]]);
    assert_eq!(joined(|a, b| a.join(b)), expected);
    assert_eq!(joined(|a, b| a.transform_with(b, |a, b, _| a.join(b))), expected);
}

#[test]
fn c2_left_outer_join() {
    let expected = expect([
        vec![("a", (1, Some(x()))), ("b", (1, Some(x())))],
        vec![("", (1, Some(x()))), ("a", (1, None))],
        vec![("", (1, None))],
        vec![],
    ]);
    assert_eq!(joined(|a, b| a.left_outer_join(b)), expected);
}

#[test]
fn c3_right_outer_join() {
    let expected = expect([
        vec![("a", (Some(1), x())), ("b", (Some(1), x()))],
        vec![("", (Some(1), x())), ("b", (None, x()))],
        vec![],
        vec![("", (None, x()))],
    ]);
    assert_eq!(joined(|a, b| a.right_outer_join(b)), expected);
}

#[test]
fn full_outer_join_and_cogroup() {
    let expected = expect([
        vec![("a", (Some(1), Some(x()))), ("b", (Some(1), Some(x())))],
        vec![("", (Some(1), Some(x()))), ("a", (Some(1), None)), ("b", (None, Some(x())))],
        vec![("", (Some(1), None))],
        vec![("", (None, Some(x())))],
    ]);
    assert_eq!(joined(|a, b| a.full_outer_join(b)), expected);
    let expected = expect([
        vec![("a", (vec![1], vec![x()])), ("b", (vec![1], vec![x()]))],
        vec![("", (vec![1], vec![x()])), ("a", (vec![1], vec![])), ("b", (vec![], vec![x()]))],
        vec![("", (vec![1], vec![]))],
        vec![("", (vec![], vec![x()]))],
    ]);
    assert_eq!(joined(|a, b| a.cogroup(b)), expected);
}
