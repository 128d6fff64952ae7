//! The process that counts. It is an ordinary program: nothing in it knows that it will be killed.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};

use clap::Args;
use millpond::prelude::*;
use millpond::{Error, ErrorKind, Result};

use super::{Folders, failed};

/// A batch each so many ms.
pub(crate) const BATCH_MS: u64 = 50;
/// A checkpoint each so many batches.
pub(crate) const CHECKPOINT_EVERY: u32 = 4;

#[derive(Args)]
pub(crate) struct WorkerOptions {
    #[arg(long)]
    input: PathBuf,
    #[arg(long)]
    output: PathBuf,
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    batch_bytes: u64,
}

/// What the process does: a word count from files to files, until SIGTERM.
pub(crate) fn work(options: WorkerOptions) -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    end_with_the_parent()?;
    StreamingContext::builder("word-count")
        .directory(options.directory)
        .batch_interval(milliseconds(BATCH_MS))
        .checkpoint_interval(milliseconds(BATCH_MS) * CHECKPOINT_EVERY)
        .log_segment_bytes(1 << 20)
        .open(|graph| {
            let files = FileSource::directory(&options.input).existing_files(true);
            graph
                .source(
                    "lines",
                    files.batch_limit_bytes(options.batch_bytes).partition_bytes(options.batch_bytes.div_ceil(2)),
                )
                .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
                .map(|word| (word, 1_u64))
                // The count so far, and how many of it this batch has brought: so a reader can tell that no step is missing.
                .update_touched_by_key("counts", |ones, state: Option<(u64, u64)>| {
                    let new = ones.sum();
                    Some((state.map_or(0, |(total, _)| total) + new, new))
                })
                .sink_key_value("counts-out", FileSink::text(&options.output), |(word, (total, new))| {
                    (word.clone(), format!("{total}\t+{new}"))
                });
            Ok(())
        })?
        .run_until_signal()?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input is a pipe from the parent: when that ends, nobody will stop this process any more.
fn end_with_the_parent() -> Result<()> {
    let watch = || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        std::process::exit(3);
    };
    let thread = std::thread::Builder::new().name("parent".into()).spawn(watch);
    thread.map(drop).map_err(|error| failed("start a thread", error))
}

/// A worker as its parent sees it. Killed when it is dropped.
pub(crate) struct Worker {
    child: Child,
    _lifeline: Option<ChildStdin>,
}

impl Worker {
    /// Starts this program again as a worker.
    pub(crate) fn start(folders: &Folders, batch_bytes: u64) -> Result<Worker> {
        let program = std::env::current_exe().map_err(|error| failed("find this program", error))?;
        let log = File::options().create(true).append(true).open(&folders.log);
        let log = log.map_err(|error| failed(&format!("open {}", folders.log.display()), error))?;
        let mut child = Command::new(program)
            .arg("demo-worker")
            .arg("--input")
            .arg(&folders.input)
            .arg("--output")
            .arg(&folders.output)
            .arg("--directory")
            .arg(&folders.pond)
            .arg("--batch-bytes")
            .arg(batch_bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| failed("start the worker", error))?;
        let lifeline = child.stdin.take();
        Ok(Worker { child, _lifeline: lifeline })
    }

    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self, folders: &Folders) -> Result<()> {
        match self.child.try_wait().map_err(|error| failed("look after the worker", error))? {
            None => Ok(()),
            Some(status) => Err(Error::new(
                ErrorKind::Program,
                format!("the worker has ended by itself ({status}); it said:\n{}", last_words(folders)),
            )),
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|error| failed("kill the worker", error))
    }

    /// Asks it to stop gracefully; `None` if it still runs when `waits` says that it is enough.
    pub(crate) fn stop(mut self, mut waits: impl FnMut() -> bool) -> Result<Option<ExitStatus>> {
        signal(&self.child)?;
        loop {
            let ended = self.child.try_wait().map_err(|error| failed("wait for the worker", error))?;
            if ended.is_some() || !waits() {
                return Ok(ended);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM.
fn signal(child: &Child) -> Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .map_err(|error| failed("stop the worker", error.into()))
}

/// The end of what the worker has said.
pub(crate) fn last_words(folders: &Folders) -> String {
    const LINES: usize = 12;
    let said = std::fs::read(&folders.log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    match lines.len() {
        0 => "nothing".into(),
        count => lines[count.saturating_sub(LINES)..].join("\n"),
    }
}
