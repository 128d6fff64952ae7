//! What is computed when, and how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_core::{BatchContext, ErrorKind, Rdd};

/// Four partitions of a hundred numbers, counting how often one is computed.
fn counted() -> (Rdd<'static, u64>, Arc<AtomicU64>) {
    let computed = Arc::new(AtomicU64::new(0));
    let seen = computed.clone();
    let batch = BatchContext::builder().threads(2).open().expect("within the limits");
    let rdd = batch.parallelize(0..400_u64, 4).map(move |n| {
        seen.fetch_add(1, Ordering::Relaxed);
        n
    });
    (rdd, computed)
}

#[test]
fn nothing_is_computed_before_an_action() {
    let (rdd, computed) = counted();
    let sums = rdd.map(|n| (n % 3, n)).reduce_by_key(|a, b| a + b).sort_by_key();
    assert_eq!(computed.load(Ordering::Relaxed), 0);
    assert_eq!(sums.collect().expect("computed"), [(0, 26733), (1, 26467), (2, 26600)]);
    assert_eq!(computed.load(Ordering::Relaxed), 400);
}

#[test]
fn a_shuffle_that_is_not_cached_is_computed_once_an_action() {
    let (rdd, computed) = counted();
    let sums = rdd.map(|n| (n % 3, n)).reduce_by_key(|a, b| a + b);
    for action in 1..=3 {
        assert_eq!(sums.count().expect("computed"), 3);
        assert_eq!(computed.load(Ordering::Relaxed), 400 * action);
    }
    // Both sides of a join with itself.
    assert_eq!(sums.clone().join(&sums).count().expect("computed"), 3);
    assert_eq!(computed.load(Ordering::Relaxed), 400 * 5);
}

#[test]
fn a_cached_rdd_is_computed_once() {
    let (rdd, computed) = counted();
    let cached = rdd.cache();
    assert_eq!(computed.load(Ordering::Relaxed), 0);
    for _ in 0..3 {
        assert_eq!(cached.count().expect("computed"), 400);
    }
    assert_eq!(cached.clone().map(|n| n + 1).first().expect("computed"), Some(1));
    assert_eq!(computed.load(Ordering::Relaxed), 400);
}

#[test]
fn take_computes_the_first_partition_only_if_that_has_enough() {
    let (rdd, computed) = counted();
    assert_eq!(rdd.take(100).expect("computed").len(), 100);
    assert_eq!(computed.load(Ordering::Relaxed), 100);
    assert_eq!(rdd.take(150).expect("computed").len(), 150);
    assert!(computed.load(Ordering::Relaxed) > 200);
}

#[test]
fn take_behind_a_shuffle_computes_what_is_before_it_once() {
    let (rdd, computed) = counted();
    let sums = rdd.map(|n| (n % 3, n)).reduce_by_key(|a, b| a + b);
    assert_eq!(sums.take(100).expect("computed").len(), 3);
    assert_eq!(computed.load(Ordering::Relaxed), 400);
}

#[test]
fn a_function_that_fails_is_tried_again_and_then_named() {
    let batch = BatchContext::builder().threads(2).task_attempts(3).open().expect("within the limits");
    let tries = Arc::new(AtomicU64::new(0));
    let seen = tries.clone();
    let failing = batch.parallelize(0..10_u64, 2).try_map(move |n| {
        if n == 7 {
            seen.fetch_add(1, Ordering::Relaxed);
            return Err("no sevens");
        }
        Ok(n)
    });
    let error = failing.collect().expect_err("7 fails");
    assert_eq!(error.kind(), ErrorKind::Program);
    let text = error.to_string();
    assert!(text.contains("no sevens") && text.contains("try_map") && text.contains("partition 1"), "{text}");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[test]
fn a_failed_try_behind_a_shuffle_is_made_again_from_the_lineage() {
    let (rdd, _) = counted();
    let failures = Arc::new(AtomicU64::new(0));
    let sums = rdd.map(|n| (n % 3, n)).reduce_by_key(|a, b| a + b).map(move |record| {
        assert!(failures.fetch_add(1, Ordering::Relaxed) >= 2, "fails twice");
        record
    });
    let mut sums = sums.collect().expect("the third try ends well");
    sums.sort_unstable();
    assert_eq!(sums, [(0, 26733), (1, 26467), (2, 26600)]);
}

#[test]
fn an_action_inside_of_a_task_is_refused() {
    let batch = BatchContext::new();
    let (outer, inner) = (batch.parallelize(0..4_u64, 2), batch.parallelize(0..4_u64, 2));
    let error = outer.try_map(move |_| inner.count()).collect().expect_err("nested");
    assert!(error.to_string().contains("cannot be computed inside of a function"), "{error}");
}

#[test]
fn settings_have_limits() {
    for (builder, name) in [
        (BatchContext::builder().threads(0), "threads"),
        (BatchContext::builder().partitions(0), "partitions"),
        (BatchContext::builder().partitions(1025), "partitions"),
        (BatchContext::builder().task_attempts(0), "task_attempts"),
    ] {
        let error = builder.open().expect_err("outside of the limits");
        assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn an_rdd_outlives_its_context() {
    let rdd = {
        let batch = BatchContext::new();
        batch.parallelize(0..1000_u64, 8)
    };
    for _ in 0..20 {
        assert_eq!(rdd.clone().map(|n| n + 1).count().expect("computed"), 1000);
    }
}
