//! `millpond demo`: a running word count in a process of its own, which is killed with SIGKILL at random moments and started
//! again, until all input is counted. Then whatever stands in the output is compared with a straight count of the input.
//!
//! `input` finds the text, `spool` takes lines from a socket, `worker` is the process that counts, `schedule` says when it is
//! killed, `life` lets it live and die, `readback` reads what it has committed, `show` tells.

mod input;
mod life;
mod readback;
mod schedule;
mod show;
mod spool;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use millpond::{Error, ErrorKind, Result};

use input::Input;
use life::Demo;
use readback::Readback;
use schedule::Schedule;
use show::Show;
pub(crate) use worker::{WorkerOptions, work};

/// Most kills that one run may ask for.
const KILLS_LIMIT: i64 = 10_000;

#[derive(Args)]
pub(crate) struct Options {
    /// How often the counting process is killed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=KILLS_LIMIT))]
    kills: u32,
    /// The text to count: a file, or all text files below a directory [default: the repository's docs]
    #[arg(long, value_name = "FILE_OR_DIR", conflicts_with = "socket")]
    input: Option<PathBuf>,
    /// Count the lines that a TCP server sends, until it closes the connection or the last kill; try `nc -lk 9999`
    #[arg(long, value_name = "HOST:PORT")]
    socket: Option<String>,
    /// Keep input, output and the application's directory here; must be empty or missing
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Makes the moments of the kills those of an earlier run [default: random]
    #[arg(long)]
    seed: Option<u64>,
}

/// Where the demo keeps its files.
pub(crate) struct Folders {
    pub(crate) root: PathBuf,
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) pond: PathBuf,
    /// What the worker says.
    pub(crate) log: PathBuf,
}

pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(|error| failed("listen for signals", error))?;
    }
    let seed = options.seed.map_or_else(schedule::random_seed, Ok)?;
    let schedule = Schedule::new(seed, options.kills);

    let temporary = match &options.keep {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|error| failed("make a temporary directory", error))?),
    };
    let root = match (&options.keep, &temporary) {
        (Some(keep), _) => empty_directory(keep)?,
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => unreachable!("one of both is there"),
    };
    let folders = Folders {
        input: root.join("input"),
        output: root.join("output"),
        pond: root.join("word-count.pond"),
        log: root.join("worker.log"),
        root,
    };
    std::fs::create_dir(&folders.input).map_err(|error| failed(&format!("make {}", folders.input.display()), error))?;

    let input = match options.socket {
        Some(address) => Input::from_socket(&folders, address)?,
        None => Input::from_files(&folders, options.input.as_deref(), &schedule)?,
    };
    let show = Show::new();
    show.begin(&input, &schedule, &folders, options.keep.is_some())?;
    let lives = Demo { folders: &folders, input: &input, show: &show, stop: &stop }.run(&schedule);
    if stop.load(Ordering::Relaxed) {
        show.stopped()?;
        return Ok(ExitCode::from(130));
    }
    let lives = lives?;

    // Once more from the beginning, as a reader would that has seen nothing yet.
    let mut counted = Readback::new(&folders.output);
    counted.advance()?;
    let differences = counted.differences(&input.straight_count()?);
    show.end(&lives, &counted, &differences)?;
    if options.keep.is_some() {
        show.kept(&folders)?;
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn empty_directory(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    std::fs::create_dir_all(path).map_err(|error| failed(&format!("make {shown}"), error))?;
    let mut entries = std::fs::read_dir(path).map_err(|error| failed(&format!("list {shown}"), error))?;
    if entries.next().is_some() {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!("{shown} is not empty. Give --keep a directory that is, or one that does not exist yet"),
        ));
    }
    std::path::absolute(path).map_err(|error| failed(&format!("find {shown}"), error))
}

/// The error of a step that the system refused.
pub(crate) fn failed(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Configuration, format!("cannot {what}")).with_source(error)
}
