//! Runs simulated applications, seed after seed, for so long; or one seed, with all that happens.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millpond_fault_injection::Dice;
use millpond_fault_injection::simulation;

#[derive(Parser)]
#[command(about = "Simulates Millpond's engine with faults from seeds")]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Simulations at a time, each in a thread of its own. Default: one a core.
    #[arg(long)]
    workers: Option<usize>,
    /// This seed alone, once, with its log.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = millpond_core::failpoints::arm_from_env() {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    if let Some(seed) = arguments.seed {
        let (outcome, log) = simulation::replay(seed);
        log.iter().for_each(|line| println!("{line}"));
        return match outcome {
            Ok(outcome) => {
                println!("SEED={seed}: {outcome:?}");
                ExitCode::SUCCESS
            }
            Err(broken) => {
                println!("{broken}");
                ExitCode::FAILURE
            }
        };
    }
    let seed = Dice::seed_of_now();
    println!("seeds from {seed} on");
    let workers = arguments.workers.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    match simulation::run_for(Duration::from_secs(arguments.seconds), seed, workers) {
        Ok((runs, outcome)) => {
            println!("{runs} runs, {} a minute: {outcome:?}", runs * 60 / arguments.seconds.max(1));
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}\nfound in run {}", broken.seed.wrapping_sub(seed) + 1);
            ExitCode::FAILURE
        }
    }
}
