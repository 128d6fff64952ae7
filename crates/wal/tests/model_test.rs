//! The log against a model that crashes at any step and keeps only what was synced.

mod common;
mod model;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        max_shrink_iters: 20_000,
        // The seed of a failure is printed, and kept beside this file.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_holds_what_it_acknowledged_through_crashes_at_any_step(steps in model::steps()) {
        model::run(&steps)?;
    }
}
