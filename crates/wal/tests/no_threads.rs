//! A process that gets no more threads: frames are queued as before, and written by those who queue them.
//!
//! A binary of its own, since the limit is one of the whole process.

mod common;

use std::sync::{Arc, Mutex};

use common::{open_on, payloads, small};
use millpond_wal::fs::DiskFileSystem;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sets how much address space the process may have; the limit before.
fn limit_address_space(bytes: Option<u64>) -> Option<u64> {
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: bytes, maximum: before.maximum }).unwrap();
    before.current
}

fn address_space_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_log_that_gets_no_thread_of_its_own_takes_what_is_queued_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    let told = Arc::new(Mutex::new(Vec::with_capacity(8)));
    let queue = |payload: &[u8]| {
        let told = Arc::clone(&told);
        log.submit(1, payload.to_vec(), Box::new(move |outcome| told.lock().unwrap().push(outcome)))
    };

    // Less than a thread's stack is left.
    let before = limit_address_space(Some(address_space_bytes() + (1 << 20)));
    let refused = std::thread::Builder::new().spawn(|| ());
    let queued = [queue(b"first"), queue(b"second")];
    limit_address_space(before);
    refused.expect_err("the limit is none");
    for outcome in queued {
        outcome.unwrap();
    }
    let first: Vec<_> = told.lock().unwrap().drain(..).map(Result::unwrap).collect();
    assert_eq!(first.len(), 2);
    assert!(first.is_sorted());

    // With room for it the thread comes.
    let (done, completion) = std::sync::mpsc::channel();
    log.submit(1, b"third".to_vec(), Box::new(move |outcome| done.send(outcome).unwrap())).unwrap();
    let third = completion.recv_timeout(std::time::Duration::from_secs(30)).unwrap().unwrap();
    assert!(third > first[1]);
    drop(log);
    let (_log, seen) = open_on(Arc::new(DiskFileSystem), directory.path(), small()).unwrap();
    assert_eq!(payloads(&seen), [&b"first"[..], b"second", b"third"]);
}
