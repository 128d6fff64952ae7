//! A directory of an application to look at, and the command to look with.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// How the command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }

    /// Ended with this status, and says all of this on standard output or standard error.
    #[track_caller]
    pub(crate) fn failed(self, status: i32, says: &[&str]) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        for text in says {
            assert!(self.out.contains(text) || self.err.contains(text), "no {text:?} in {self:#?}");
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let ended = self.succeeded();
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error} in {ended:#?}"))
    }
}

/// The command, not yet run.
pub(crate) fn command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// Runs the command to its end.
pub(crate) fn millpond<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Ended {
    ended(&mut command(arguments))
}

pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("the command can be started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Waits for something.
#[track_caller]
pub(crate) fn until<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An application, that of the demo's worker, with its folders.
pub(crate) struct Pond {
    folder: TempDir,
}

impl Pond {
    pub(crate) fn new() -> Pond {
        let pond = Pond { folder: tempfile::tempdir().expect("a directory") };
        fs::create_dir(pond.input()).expect("a folder");
        pond
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("word-count.pond")
    }

    pub(crate) fn shown(&self) -> String {
        self.directory().display().to_string()
    }

    /// Puts a text file into the input.
    pub(crate) fn feed(&self, name: &str, text: &str) {
        let aside = self.folder.path().join(name);
        fs::write(&aside, text).expect("a file");
        fs::rename(aside, self.input().join(name)).expect("in place");
    }

    /// Starts the application.
    pub(crate) fn start(&self) -> Application {
        let mut command = command(["demo-worker", "--batch-bytes", "4096"]);
        command
            .arg("--input")
            .arg(self.input())
            .arg("--output")
            .arg(self.output())
            .arg("--directory")
            .arg(self.directory());
        let child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the worker can be started");
        Application { child }
    }

    /// An application that was started, has counted some words, has written a checkpoint of them and was killed.
    pub(crate) fn killed() -> Pond {
        let pond = Pond::new();
        pond.run("first.txt", "to be or not to be\n", 4);
        pond
    }

    /// Starts it, gives it a text, and kills it when a checkpoint holds so many keys.
    pub(crate) fn run(&self, name: &str, text: &str, keys: u64) {
        let mut application = self.start();
        self.feed(name, text);
        application.wait_for(self, "a checkpoint of all words", |found| found["operators"][0]["keys"] == keys);
        application.kill();
    }

    pub(crate) fn inspect(&self) -> Value {
        millpond(["inspect", "--json", &self.shown()]).json()
    }

    pub(crate) fn verify(&self) -> Ended {
        millpond(["verify", &self.shown()])
    }

    /// All that is in the directory: content and time of change of every file, names of folders.
    pub(crate) fn everything(&self) -> BTreeMap<PathBuf, (Vec<u8>, Option<std::time::SystemTime>)> {
        let mut found = BTreeMap::new();
        add_all(&self.directory(), &mut found);
        found
    }

    /// The files of a folder of the directory whose names end so, in order.
    pub(crate) fn files(&self, folder: &str, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory().join(folder)).expect("a folder");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(ending));
        paths.sort();
        paths
    }
}

fn add_all(folder: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, Option<std::time::SystemTime>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.insert(path.clone(), (Vec::new(), None));
            add_all(&path, found);
        } else {
            let changed = fs::metadata(&path).and_then(|file| file.modified()).expect("a file");
            found.insert(path.clone(), (fs::read(&path).expect("a file"), Some(changed)));
        }
    }
}

/// Flips a bit of a file, which keeps its times: as a failing disk would.
pub(crate) fn flip(path: &Path, offset: u64) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[offset as usize] ^= 0x10;
    fs::write(path, bytes).expect("a file");
}

/// A running application; killed when it is dropped.
pub(crate) struct Application {
    child: Child,
}

impl Application {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `millpond inspect --json` finds what is wanted.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, pond: &Pond, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            if let Some(status) = self.child.try_wait().expect("our child") {
                let said = self.child.stderr.take().map(BufReader::new);
                let said: Vec<String> = said.into_iter().flat_map(|said| said.lines().map_while(Result::ok)).collect();
                panic!("the application ended ({status}) while waiting for {what}: {said:#?}");
            }
            // Too early there is no directory yet.
            let found = millpond(["inspect", "--json", &pond.shown()]);
            let found: Value = serde_json::from_str(&found.out).ok()?;
            wanted(&found).then_some(found)
        })
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Stops it gracefully.
    pub(crate) fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = until("the application to stop", || self.child.try_wait().expect("our child"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
    assert!(status.expect("kill can be started").success());
}
