//! An example program as a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits for something.
#[track_caller]
pub(crate) fn until<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running program; killed when it is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

/// Where cargo leaves the examples, beside the tests.
pub(crate) fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("the folder of the profile");
    let path = profile.join("examples").join(name);
    assert!(path.is_file(), "{} is not built: cargo build -p millpond --examples --all-features", path.display());
    path
}

impl Program {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(path(name));
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().expect("the program can be started");
        let (lines, said) = (BufReader::new(child.stderr.take().expect("piped")), Arc::<Mutex<String>>::default());
        let heard = said.clone();
        let listener = thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        Program { name: name.to_owned(), child, said, listener: Some(listener) }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits for the line `ready`.
    #[track_caller]
    pub(crate) fn await_ready(&mut self) {
        let since = Instant::now();
        while !self.said().lines().any(|line| line == "ready") {
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{} has ended ({ended:?}) before it was ready: {}", self.name, self.said());
            assert!(since.elapsed() < LIMIT, "{} is not ready after {LIMIT:?}: {}", self.name, self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// SIGTERM, and its status.
    pub(crate) fn stop(self) -> Option<i32> {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill can be started").success());
        self.end().0
    }

    /// Waits for its end: status, and what it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = until("the program to end", || self.child.try_wait().expect("our child"));
        self.listener.take().into_iter().for_each(|listener| listener.join().expect("it only reads"));
        (status.code(), self.said())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
