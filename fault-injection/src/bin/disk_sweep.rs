//! `make disk-sweep`: each call of a short life that writes, makes, renames, syncs or reads a file fails once.

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_fault_injection::disk_sweep::{Case, cases, inflict};
use millpond_fault_injection::victim::run_if_asked;
use millpond_fault_injection::{Dice, Result};

/// Lets every call to the disk of a short life fail, one life after the other.
#[derive(Parser)]
struct Arguments {
    /// Every so many-th call only.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// Lives at a time.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// The seed of the input. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only failures whose debug name is this: NoRoom, RoomForSome, NoMoreRoom, Change, Sync, Read.
    #[arg(long)]
    failure: Option<String>,
}

fn main() -> ExitCode {
    run_if_asked();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(finding) => {
            eprintln!("Error: {finding}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(Dice::seed_of_now);
    println!("seed {seed}");
    let wanted = |(_, failing, _): &Case| {
        arguments.failure.as_ref().is_none_or(|name| format!("{:?}", failing.failure) == *name)
    };
    let all: Vec<Case> = cases(seed)?.into_iter().filter(wanted).step_by(arguments.every.max(1)).collect();
    let bar = ProgressBar::new(all.len() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} calls, {elapsed}: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let tally = inflict(all.into_iter(), arguments.workers.max(1), seed, |tally| {
        let done = tally.met() + tally.missed;
        bar.set_position(done);
        if bar.is_hidden() && done % 250 == 0 {
            println!("{done} calls, {} findings", tally.findings.len());
        }
        bar.set_message(format!("{} stopped, {} findings", tally.stopped(), tally.findings.len()));
    })?;
    bar.finish_and_clear();
    for found in &tally.findings {
        println!("FOUND: {found}");
    }
    for ((failure, kind, phase), (on, stopped)) in &tally.answers {
        println!("{failure:?} {kind:?} {phase:?}: {on} went on, {stopped} stopped");
    }
    println!("{}", tally.markdown());
    let (met, stopped, missed) = (tally.met(), tally.stopped(), tally.missed);
    println!(
        "{met} failing calls, {stopped} stopped the process, {missed} were not made; {} findings",
        tally.findings.len()
    );
    Ok(tally.findings.is_empty())
}
