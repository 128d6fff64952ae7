//! A writer that panics: the log is poisoned, and nobody waits for it in vain.
//!
//! A binary of its own, since a failpoint is set for the whole process.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use common::{open, payloads};
use millpond_wal::ErrorKind;
use millpond_wal::fs::fault::{FaultFileSystem, Keep};

#[test]
fn a_writer_that_panics_poisons_the_log_and_everyone_is_told() {
    let fs = FaultFileSystem::new();
    let (log, _) = open(&fs).unwrap();
    let first = log.append(1, b"first").unwrap();
    fail::cfg("log-appended", "1*panic(a test's panic)").unwrap();
    let gate = Barrier::new(9);
    let (done, completions) = mpsc::channel();
    let panics = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    gate.wait();
                    catch_unwind(AssertUnwindSafe(|| log.append(1, b"x")))
                })
            })
            .collect();
        gate.wait();
        // If the log was poisoned before, it is refused and its completion never called.
        let queued = log.submit(1, vec![1], Box::new(move |result| done.send(result).unwrap())).is_ok();
        if queued {
            let result = completions.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Poisoned);
        }
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        let (told, panicked): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
        for result in told {
            assert_eq!(result.unwrap().unwrap_err().kind(), ErrorKind::Poisoned);
        }
        panicked.len()
    });
    fail::remove("log-appended");
    // The log's own thread may have been the one.
    assert!(panics <= 1);
    assert_eq!(log.append(1, b"x").unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(log.read(first).unwrap().1, b"first");
    log.close().unwrap();
    drop(log);
    fs.crash(Keep::Synced);
    assert_eq!(payloads(&open(&fs).unwrap().1), [b"first"]);
}
