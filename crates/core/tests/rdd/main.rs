//! `Rdd`s without any stream, against the collections of the standard library.

mod files;
mod laziness;
mod operators;
mod persist;

/// Waits until it holds: the thread that ran the last task lets go of what it computed a moment after the action has returned.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}
