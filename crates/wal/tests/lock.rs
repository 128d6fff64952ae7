//! The lock of a directory, with real processes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use millpond_wal::{DirectoryLock, ErrorKind};

const DIRECTORY: &str = "MILLPOND_WAL_TEST_LOCK_DIRECTORY";

/// Not a test of its own: what the other process does when this binary is started with a directory.
#[test]
fn child_that_holds_the_lock() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let _lock = DirectoryLock::acquire(Path::new(&directory)).unwrap();
    println!("locked");
    // Until the parent ends us, or ends itself.
    let _ = std::io::stdin().read(&mut [0]);
}

fn holder(directory: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_the_lock", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("locked")));
    child
}

#[test]
fn a_second_process_is_told_who_holds_the_directory_and_since_when_and_sigkill_frees_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = holder(directory.path());
    let error = DirectoryLock::acquire(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let message = error.to_string();
    let start = format!("cannot open {}: it is in use by process {} since 20", directory.path().display(), child.id());
    assert!(message.starts_with(&start) && message.ends_with('Z'), "{message}");
    child.kill().unwrap();
    child.wait().unwrap();
    DirectoryLock::acquire(directory.path()).unwrap();
}

#[test]
fn a_second_context_of_the_same_process_is_kept_out_too_and_dropping_frees_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/by/the lock");
    let lock = DirectoryLock::acquire(&path).unwrap();
    assert_eq!(lock.path(), path.join("LOCK"));
    let error = DirectoryLock::acquire(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    DirectoryLock::acquire(&path).unwrap();
}

#[test]
fn a_lock_file_full_of_garbage_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("LOCK"), [0xff; 5000]).unwrap();
    let _lock = DirectoryLock::acquire(directory.path()).unwrap();
    let error = DirectoryLock::acquire(directory.path()).unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a file");
    std::fs::write(&file, b"").unwrap();
    let error = DirectoryLock::acquire(&file.join("below")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("a file"), "{error}");
}
