//! The `millpond` command: `demo` shows what the library promises, `inspect` and `verify` look into the directory of an
//! application that runs or has died.

mod demo;
mod human;
mod inspect;
mod output;
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
    /// The process that the demo kills
    #[command(hide = true)]
    DemoWorker(demo::WorkerOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo::run(options),
        Command::Inspect { directory, json } => inspect::run(&directory, json),
        Command::Verify { directory } => verify::run(&directory),
        Command::DemoWorker(options) => demo::work(options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        ExitCode::FAILURE
    })
}
