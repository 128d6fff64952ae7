//! `make chaos`: kills at random times and at random failpoints, as many as asked, of every pipeline in turn; after each round
//! the oracle says whether readers saw every result exactly once. Status 1 with what was found, and the seed, if not.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use millpond_fault_injection::files::Files;
use millpond_fault_injection::kafka::Kafka;
use millpond_fault_injection::points::{self, Point};
use millpond_fault_injection::victim::{Pipeline, run_if_asked};
use millpond_fault_injection::{Dice, Lineage, Result, World, kill_at, kill_at_random};
use millpond_testkit::broker::KafkaBroker;

/// Kills of one lineage before its output is judged.
const KILLS_A_ROUND: u64 = 20;

const PIPELINES: [Pipeline; 7] = [
    Pipeline::Files,
    Pipeline::KafkaCount,
    Pipeline::Spool,
    Pipeline::KafkaCopy,
    Pipeline::TwoFileSinks,
    Pipeline::KafkaAndFiles,
    Pipeline::KafkaContent,
];

/// Kills real processes again and again and judges what readers saw.
#[derive(Parser)]
struct Arguments {
    /// How many kills.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Stop after so many seconds, kills left or not.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// The seed of input, points and moments; the machine's own timing is in no seed. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Without the pipelines that need a broker.
    #[arg(long)]
    files_only: bool,
}

fn main() -> ExitCode {
    run_if_asked();
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(Dice::seed_of_now);
    println!("seed {seed}");
    match run(&arguments, seed) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(finding) => {
            eprintln!("FOUND, seed {seed}: {finding}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, seed: u64) -> Result<String> {
    let began = Instant::now();
    let time_is_left = || began.elapsed().as_secs() < arguments.seconds;
    let broker = if arguments.files_only { None } else { Some(KafkaBroker::builder().start()?) };
    let mut dice = Dice::new(seed);
    let (mut kills, mut rounds) = (0, 0);
    let pipelines = PIPELINES.iter().filter(|pipeline| broker.is_some() || !needs_broker(**pipeline)).cycle();
    for pipeline in pipelines {
        let wanted = (arguments.kills - kills).min(KILLS_A_ROUND);
        if wanted == 0 || !time_is_left() {
            break;
        }
        let seed = dice.below(u64::MAX);
        let (mut world, setup): (Box<dyn World>, _) = match &broker {
            Some(broker) if needs_broker(*pipeline) => {
                let world = Kafka::new(broker, *pipeline, seed)?;
                let setup = world.setup();
                (Box::new(world), setup)
            }
            _ => {
                let world = Files::new(*pipeline, seed)?;
                let setup = world.setup();
                (Box::new(world), setup)
            }
        };
        let mut lineage = Lineage::new(setup);
        let points = points_of(*pipeline);
        let mut done = 0;
        while done < wanted && time_is_left() {
            kill_once(&mut lineage, &mut *world, &points, &mut dice)?;
            done += 1;
        }
        lineage.finish(&mut *world)?;
        (kills, rounds) = (kills + done, rounds + 1);
        println!("{pipeline:?}: {done} kills, every result exactly once; {kills} kills in {:.0?}", began.elapsed());
    }
    Ok(format!("{kills} kills in {rounds} lineages, nothing lost, nothing twice"))
}

/// Every third time at a random moment, else at a point.
fn kill_once(lineage: &mut Lineage, world: &mut dyn World, points: &[Point], dice: &mut Dice) -> Result<()> {
    if dice.below(3) == 0 {
        return kill_at_random(lineage, world, dice, Duration::from_millis(1000));
    }
    let point = points[dice.below(points.len() as u64) as usize];
    // What comes once in a recovery, or once in many batches, is waited for once only.
    let often = points::SINK.contains(&point) || points::ENGINE[..6].contains(&point);
    let hit = if often { 1 + dice.below(8) as u32 } else { point.hit };
    kill_at(lineage, world, Point { hit, ..point }, "")
}

fn needs_broker(pipeline: Pipeline) -> bool {
    match pipeline {
        Pipeline::Files | Pipeline::Spool | Pipeline::TwoFileSinks | Pipeline::FloatSums => false,
        Pipeline::KafkaCount | Pipeline::KafkaCopy | Pipeline::KafkaContent | Pipeline::KafkaAndFiles => true,
    }
}

fn points_of(pipeline: Pipeline) -> Vec<Point> {
    let mut points = [points::ENGINE, points::SINK, points::RECOVERY].concat();
    if needs_broker(pipeline) {
        points.extend(points::KAFKA_SINK);
    }
    if !needs_broker(pipeline) || pipeline == Pipeline::KafkaAndFiles {
        points.extend(points::FILE_SINK);
    }
    if pipeline == Pipeline::Spool {
        points.extend(points::RECEIVER);
    }
    points
}
