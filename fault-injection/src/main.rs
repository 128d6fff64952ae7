//! `make chaos`: faults at random on every pipeline in turn, judged after each round, with a report as a page and as JSON; or a long run
//! under load. Status 1 if anything was found; the report has it, with its seed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use millpond_fault_injection::arena::{Arena, VICTIMS, is_possible, needs_broker};
use millpond_fault_injection::victim::{Pipeline, run_if_asked};
use millpond_fault_injection::{Dice, Finding, Lineage, Result, faults};
use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::{Control, Fault, Invariants, Needs, Report, Soak, soak};

/// Faults of one lineage before its output is judged.
const FAULTS_A_ROUND: u64 = 20;
/// Rounds after which the broker is replaced, so that it does not fill with topics.
const ROUNDS_A_BROKER: u64 = 12;
/// Lines that a word count may have before its first start.
const LINES_BEFORE: [usize; 4] = [0, 3_000, 15_000, 60_000];
/// After so many findings there is enough to look at.
const FINDINGS_LIMIT: usize = 5;
/// The most bytes that a victim's directory has after a graceful stop: two checkpoints, segments of 64 KiB, and the live state.
const DISK_LIMIT_BYTES: u64 = 256 << 20;

/// Does to real processes whatever can happen to them and judges what readers saw.
#[derive(Parser)]
struct Arguments {
    /// How many kills.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Stop after so many minutes, kills left or not.
    #[arg(long, default_value_t = 1e6)]
    minutes: f64,
    /// As --minutes.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// The seed of input, faults, points and moments; the machine's own timing is in no seed. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults of this name; can be given again. `--fault list` lists them.
    #[arg(long)]
    fault: Vec<String>,
    /// Only pipelines of this name; can be given again. `--victim list` lists them.
    #[arg(long)]
    victim: Vec<String>,
    /// Without the pipelines that need a broker.
    #[arg(long)]
    files_only: bool,
    /// Instead of all this a run under load of so many minutes, with random kills, in which nothing may grow.
    #[arg(long)]
    soak_minutes: Option<f64>,
    /// Pipelines under test at a time, each with a broker of its own.
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// Where report.html and report.json go.
    #[arg(long, default_value = "target/chaos")]
    report: PathBuf,
    /// Outcomes of negative controls to be put into the report: JSON, a list of objects with name, caught, runs and found.
    #[arg(long)]
    controls: Option<PathBuf>,
    /// A report made before, whose figures, long run and controls are put into this one.
    #[arg(long)]
    add: Vec<PathBuf>,
}

fn main() -> ExitCode {
    run_if_asked();
    let arguments = Arguments::parse();
    if listed(&arguments) {
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(Dice::seed_of_now);
    println!("seed {seed}");
    let mut report = Report::new(seed);
    let outcome = run(&arguments, seed, &mut report).and_then(|()| report.write_to(&arguments.report));
    if let Err(finding) = outcome {
        eprintln!("Error: {finding}");
        return ExitCode::FAILURE;
    }
    summarize(&report);
    println!("report: {}", arguments.report.join("report.html").display());
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers `list`.
fn listed(arguments: &Arguments) -> bool {
    let asked = |names: &[String]| names.iter().any(|name| name == "list");
    let (faults_asked, victims_asked) = (asked(&arguments.fault), asked(&arguments.victim));
    if faults_asked {
        print!("{}", faults::markdown());
    }
    if victims_asked {
        VICTIMS.iter().for_each(|(name, _)| println!("{name}"));
    }
    faults_asked || victims_asked
}

fn run(arguments: &Arguments, seed: u64, report: &mut Report) -> Result<()> {
    for path in &arguments.add {
        let text = std::fs::read_to_string(path)?;
        report.merge(serde_json::from_str(&text)?);
    }
    if let Some(path) = &arguments.controls {
        let controls: Vec<Control> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        controls.into_iter().for_each(|control| report.add_control(control));
    }
    match arguments.soak_minutes {
        Some(minutes) => run_soak(Duration::from_secs_f64(minutes * 60.0), seed, report),
        None => run_rounds(arguments, seed, report),
    }
}

/// The pipelines asked for.
fn victims(arguments: &Arguments) -> Result<Vec<(&'static str, Pipeline)>> {
    let known = |name: &String| VICTIMS.iter().any(|(known, _)| known == name);
    if let Some(name) = arguments.victim.iter().find(|name| !known(name)) {
        return Err(Finding::new(format!("there is no pipeline {name}; --victim list lists them")));
    }
    let wanted = |(name, pipeline): &&(&'static str, Pipeline)| {
        (arguments.victim.is_empty() || arguments.victim.iter().any(|one| one == name))
            && !(arguments.files_only && needs_broker(*pipeline))
    };
    Ok(VICTIMS.iter().filter(wanted).copied().collect())
}

/// The faults asked for; without a wish all, the quick ones more often.
fn pool(arguments: &Arguments) -> Result<Vec<Fault>> {
    let all: Vec<Fault> = faults::table().into_iter().map(|row| row.fault).collect();
    if let Some(name) = arguments.fault.iter().find(|name| !all.iter().any(|fault| fault.name() == **name)) {
        return Err(Finding::new(format!("there is no fault {name}; --fault list lists them")));
    }
    let weight = |fault: &Fault| match (fault.name(), fault.needs()) {
        _ if !arguments.fault.is_empty() => usize::from(arguments.fault.iter().any(|name| name == fault.name())),
        ("killed-at-a-point", _) => 36,
        ("killed-at-random", _) => 12,
        (_, Needs::Process) => 2,
        _ => 1,
    };
    Ok(all.into_iter().flat_map(|fault| std::iter::repeat_n(fault.clone(), weight(&fault))).collect())
}

/// What the workers of a run share.
struct Shared<'a> {
    arguments: &'a Arguments,
    seed: u64,
    victims: Vec<(&'static str, Pipeline)>,
    pool: Vec<Fault>,
    began: Instant,
    limit: Duration,
    next_round: AtomicU64,
    report: Mutex<&'a mut Report>,
    kills_before: u64,
    bar: ProgressBar,
}

fn run_rounds(arguments: &Arguments, seed: u64, report: &mut Report) -> Result<()> {
    let limit = Duration::from_secs_f64(arguments.minutes * 60.0).min(Duration::from_secs(arguments.seconds));
    let (victims, pool) = (victims(arguments)?, pool(arguments)?);
    let possible = |(_, pipeline): &(&str, Pipeline)| pool.iter().any(|fault| is_possible(fault, *pipeline));
    let victims: Vec<_> = victims.into_iter().filter(possible).collect();
    if victims.is_empty() {
        return Err(Finding::new("none of these faults is possible with any of these pipelines"));
    }
    let bar = ProgressBar::new(arguments.kills);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} kills, {elapsed}: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (began, next_round, kills_before) = (Instant::now(), AtomicU64::new(0), report.kill_count());
    let report = Mutex::new(report);
    let shared = Shared { arguments, seed, victims, pool, began, limit, next_round, report, kills_before, bar };
    let outcomes: Vec<Result<()>> = std::thread::scope(|threads| {
        let workers: Vec<_> = (0..arguments.workers.max(1)).map(|_| threads.spawn(|| work(&shared))).collect();
        let panicked = |_| Err(Finding::new("a worker panicked"));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)).collect()
    });
    shared.bar.finish_and_clear();
    outcomes.into_iter().collect()
}

/// One round after the other, with a broker of its own.
fn work(shared: &Shared<'_>) -> Result<()> {
    let Shared { arguments, victims, pool, began, bar, .. } = shared;
    let report = || shared.report.lock().unwrap_or_else(PoisonError::into_inner);
    let mut broker: Option<(KafkaBroker, u64)> = None;
    loop {
        let (kills, findings) = {
            let report = report();
            (report.kill_count() - shared.kills_before, report.findings.len())
        };
        if kills >= arguments.kills || began.elapsed() >= shared.limit || findings >= FINDINGS_LIMIT {
            return Ok(());
        }
        let round = shared.next_round.fetch_add(1, Ordering::Relaxed);
        let (name, pipeline) = victims[(round % victims.len() as u64) as usize];
        let faults: Vec<Fault> = pool.iter().filter(|fault| is_possible(fault, pipeline)).cloned().collect();
        if needs_broker(pipeline) {
            broker = match broker.take() {
                Some((broker, rounds)) if rounds < ROUNDS_A_BROKER => Some((broker, rounds + 1)),
                _ => Some((KafkaBroker::builder().with_proxy().start()?, 1)),
            };
        }
        let seed = Dice::new(shared.seed.wrapping_add(round)).below(u64::MAX);
        // Some have state to recover, so that the report can tell what that costs.
        let lines = match pipeline {
            Pipeline::KafkaCount | Pipeline::KafkaAndFiles => LINES_BEFORE[round as usize / 2 % LINES_BEFORE.len()],
            _ => 0,
        };
        let mut arena = Arena::loaded(pipeline, broker.as_ref().map(|(broker, _)| broker), seed, lines)?;
        let recipe = (pipeline == Pipeline::KafkaRandom).then(|| format!(" {:?}", arena.setup().recipe));
        let chaos = arena.chaos().faults(faults).at_random(FAULTS_A_ROUND).seed(seed);
        let one = chaos
            .stop_after(shared.limit.saturating_sub(began.elapsed()))
            .disk_limit_bytes(DISK_LIMIT_BYTES)
            .progress(|fault, _| bar.set_message(format!("{name}, {fault}")))
            .run();
        let verdict = match one.findings.first() {
            None => format!("{} results, each exactly once", one.results_judged),
            Some(found) => format!("FOUND with seed {seed}: {}", found.what),
        };
        let (kills, took) = (one.kill_count(), one.took_ms / 1000);
        let mut report = report();
        report.add(name, one);
        report.took_ms = began.elapsed().as_millis() as u64;
        report.write_to(&arguments.report)?;
        bar.set_position((report.kill_count() - shared.kills_before).min(arguments.kills));
        let recipe = recipe.unwrap_or_default();
        bar.suspend(|| println!("{name}{recipe}: {kills} kills in {took} s: {verdict}"));
    }
}

fn run_soak(time: Duration, seed: u64, report: &mut Report) -> Result<()> {
    let broker = KafkaBroker::builder().start()?;
    let mut arena = Arena::new(Pipeline::KafkaCopy, Some(&broker), seed)?;
    let setup = arena.setup().clone();
    let bar = ProgressBar::new(time.as_secs());
    let lineage = Lineage::new(setup.clone()).patience(Duration::from_secs(600)).into_inner();
    let cursor_topic = format!("{}.millpond-cursor", setup.application);
    let invariants = Invariants {
        directory: &setup.directory,
        kafka: Some((&broker, &cursor_topic, &setup.application)),
        disk_limit_bytes: DISK_LIMIT_BYTES,
    };
    let mut told = Instant::now();
    let progress = |run: &Soak| {
        bar.set_position(run.took_ms / 1000);
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            bar.suspend(|| println!("{} s, {} kills: {:?}", run.took_ms / 1000, run.kills, run.samples.last()));
        }
    };
    let one = soak("kafka-copy under load", lineage, arena.world(), &invariants, time, seed, progress);
    bar.finish_and_clear();
    report.merge(one);
    Ok(())
}

fn summarize(report: &Report) {
    for found in &report.findings {
        eprintln!("FOUND, {}, seed {}: {}", found.victim, found.seed, found.what);
    }
    let ms = |share| report.recovery_ms(share).unwrap_or_default();
    println!(
        "{} kills, {} faults, {} starts in {} runs: {} results judged, {} duplicates, {} losses, {} findings; recovery {:.0} ms \
         median, {:.0} ms 99 %, {:.0} ms worst",
        report.kill_count(),
        report.faults.values().sum::<u64>(),
        report.starts,
        report.runs,
        report.results_judged,
        report.duplicates,
        report.losses,
        report.findings.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    if let Some(run) = &report.soak {
        run.verdicts.iter().for_each(|(name, verdict)| println!("{name}: {verdict}"));
    }
}
