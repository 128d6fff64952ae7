//! A test that cannot fail proves nothing: here the log is broken on purpose, and the model test has to notice.
//!
//! A binary of its own, since a failpoint is set for the whole process.

mod common;
mod model;

use proptest::test_runner::{Config, TestError, TestRunner};

#[test]
fn the_model_test_catches_a_log_that_does_not_sync() {
    let run = || {
        let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
        TestRunner::new_with_rng(config, fixed()).run(&model::steps(), |steps| model::run(&steps))
    };
    run().expect("the log as it is passes the same cases");
    fail::cfg("break-log-skip-sync", "return").unwrap();
    let broken = run();
    fail::remove("break-log-skip-sync");
    match broken {
        Err(TestError::Fail(reason, _)) => assert!(reason.message().contains("acknowledged"), "{reason}"),
        other => panic!("a log that does not sync passed the model test: {other:?}"),
    }
}

/// The same cases for the sound log and the broken one.
fn fixed() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}
