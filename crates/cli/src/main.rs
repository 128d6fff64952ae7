//! The `millpond` command: `demo` shows what the library promises, `inspect` and `verify` look into the directory of an
//! application that runs or has died.

mod demo;
mod human;
mod inspect;
mod output;
mod savepoint;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "millpond",
    version,
    about = "Stream processing with state, exactly once through kill -9",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Count words in a process that is killed with SIGKILL again and again, and compare with a straight count
    Demo(demo::Options),
    /// Show what an application's directory holds, and where its checkpoint, its sinks and its log stand
    #[command(
        long_about = "Show what an application's directory holds, and where its checkpoint, its sinks and its log stand.\n\nChanges \
                      nothing in it; the application may be running. Exit status 0 if it could look, healthy or not; 1 if not."
    )]
    Inspect {
        /// The directory that the program gives to .directory(path)
        directory: PathBuf,
        /// One JSON object; times in milliseconds since the epoch
        #[arg(long)]
        json: bool,
    },
    /// Read an application's directory whole and compare every checksum
    #[command(
        long_about = "Read an application's directory whole and compare every checksum.\n\nChanges nothing in it; the application \
                      may be running. Exit status 0 if all is as it was written, 1 if something is damaged or cannot be read."
    )]
    Verify {
        /// The directory that the program gives to .directory(path)
        directory: PathBuf,
    },
    /// Copy the newest checkpoint out of an application's directory, for others to begin from
    #[command(
        long_about = "Copy the newest checkpoint out of an application's directory, for others to begin from.\n\nEvery checksum is \
                      compared. Changes nothing in the directory; the application may be running. What it has committed since that \
                      checkpoint is not in the copy: stop it gracefully before, if that matters."
    )]
    Savepoint {
        /// The directory that the program gives to .directory(path)
        directory: PathBuf,
        /// Where the savepoint goes: a directory that is empty or does not exist
        target: PathBuf,
    },
    /// The process that the demo kills
    #[command(hide = true)]
    DemoWorker(demo::WorkerOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo::run(options),
        Command::Inspect { directory, json } => inspect::run(&directory, json),
        Command::Verify { directory } => verify::run(&directory),
        Command::Savepoint { directory, target } => savepoint::run(&directory, &target),
        Command::DemoWorker(options) => demo::work(options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        ExitCode::FAILURE
    })
}
