//! A long run under load with random kills: what process, disk and broker use is measured all the time, and must stay flat.

use std::path::Path;
use std::time::{Duration, Instant};

use super::lineage::bytes_in;
use super::report::{Report, Sample, Soak};
use super::{Dice, Ended, Finding, Invariants, Lineage, Process, Result, World, check_cursors, check_settled};

/// From one feeding to the next.
const FEED_EVERY: Duration = Duration::from_millis(60);
/// From one measurement to the next.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// A process younger than this is still filling its caches and is not compared.
const YOUNG: Duration = Duration::from_secs(3);
/// The share of the run that is warming up.
const WARMING_SHARE: f64 = 0.2;
/// The second half may lie above the first by this share, and by what is stated with each measure.
const GROWTH_SHARE: f64 = 0.10;

/// Runs an application under load for this time, killed at random moments 5 to 60 seconds apart, one time in five after three minutes. Ends
/// with a last process, judged, and a verdict on what grew.
pub fn soak(
    victim: &str,
    mut lineage: Lineage,
    world: &mut dyn World,
    invariants: &Invariants<'_>,
    time: Duration,
    seed: u64,
    mut progress: impl FnMut(&Soak),
) -> Report {
    let began = Instant::now();
    let mut report = Report::new(seed);
    let mut run = Soak { victim: victim.to_owned(), ..Soak::default() };
    let outcome = load(&mut lineage, world, invariants, time, seed, &mut run, &mut progress).and_then(|()| {
        lineage.finish(world)?;
        check_cursors(invariants)?;
        check_settled(invariants)
    });
    run.took_ms = began.elapsed().as_millis() as u64;
    run.kills = lineage.tally().kill_count();
    run.records = world.judged();
    run.judge();
    report.took(began.elapsed());
    report.add_lineage(victim, &lineage, world.judged());
    if let Err(finding) = outcome {
        report.add_finding(victim, seed, &finding);
    }
    if !run.flat {
        report.add_finding(victim, seed, &Finding::new(format!("not flat: {:?}", run.verdicts)));
    }
    report.soak = Some(run);
    report
}

fn load(
    lineage: &mut Lineage,
    world: &mut dyn World,
    invariants: &Invariants<'_>,
    time: Duration,
    seed: u64,
    run: &mut Soak,
    progress: &mut impl FnMut(&Soak),
) -> Result<()> {
    let mut dice = Dice::new(seed);
    let began = Instant::now();
    while began.elapsed() < time {
        let lives = match dice.below(5) {
            0 => Duration::from_secs(180),
            _ => Duration::from_millis(5_000 + dice.below(55_000)),
        };
        let mut process = lineage.start("")?;
        let started = Instant::now();
        let (mut fed, mut sampled) = (started, started);
        while started.elapsed() < lives && began.elapsed() < time {
            world.feed()?;
            fed += FEED_EVERY;
            // The pace of the load.
            if let Some(ended) = process.ends_within(fed.saturating_duration_since(Instant::now()))? {
                return Err(died(&process, ended));
            }
            if sampled.elapsed() >= SAMPLE_EVERY {
                sampled = Instant::now();
                run.samples.push(sample(&process, invariants, began, started)?);
                run.took_ms = began.elapsed().as_millis() as u64;
                run.kills = lineage.tally().kill_count();
                progress(run);
            }
        }
        process.kill()?;
        lineage.note_recovery(&process);
        lineage.tally_mut().kill("random");
        world.look()?;
        check_cursors(invariants)?;
    }
    Ok(())
}

fn died(process: &Process, ended: Ended) -> Finding {
    Finding::new(format!("the process {ended}: {}", process.said()))
}

fn sample(process: &Process, invariants: &Invariants<'_>, began: Instant, started: Instant) -> Result<Sample> {
    let of = format!("/proc/{}", process.id());
    let entries = |name: &str| std::fs::read_dir(format!("{of}/{name}")).map_or(0, |entries| entries.count() as u64);
    let open_transactions = match invariants.kafka {
        Some((broker, _, id)) => {
            broker.open_transactions()?.iter().filter(|open| open.transactional_id == id).count() as u64
        }
        None => 0,
    };
    Ok(Sample {
        at_ms: began.elapsed().as_millis() as u64,
        process_age_ms: started.elapsed().as_millis() as u64,
        memory_bytes: resident_bytes(Path::new(&of)).unwrap_or(0),
        file_handles: entries("fd"),
        threads: entries("task"),
        disk_bytes: bytes_in(invariants.directory),
        open_transactions,
    })
}

fn resident_bytes(process: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
}

impl Soak {
    /// Says of each measure whether it stayed flat: after a fifth of the run, of processes older than three seconds, the median of the
    /// second half of the samples is at most a tenth above that of the first, and a few units (8 MiB, 8 handles, 4 threads, 1 transaction).
    pub(super) fn judge(&mut self) {
        type Measure = (&'static str, fn(&Sample) -> u64, u64);
        let measures: [Measure; 5] = [
            ("memory", |sample| sample.memory_bytes, 8 << 20),
            ("file handles", |sample| sample.file_handles, 8),
            ("threads", |sample| sample.threads, 4),
            ("disk", |sample| sample.disk_bytes, 8 << 20),
            ("open transactions", |sample| sample.open_transactions, 1),
        ];
        let end = self.samples.last().map_or(0, |sample| sample.at_ms);
        let warm = (end as f64 * WARMING_SHARE) as u64;
        let compared: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|sample| sample.at_ms >= warm && sample.process_age_ms >= YOUNG.as_millis() as u64)
            .collect();
        let (first, second) = compared.split_at(compared.len() / 2);
        self.flat = !first.is_empty();
        for (name, of, slack) in measures {
            let (before, after) = (median(first, of), median(second, of));
            let flat = after as f64 <= before as f64 * (1.0 + GROWTH_SHARE) + slack as f64;
            let most = compared.iter().map(|sample| of(sample)).max().unwrap_or(0);
            let word = if flat { "flat" } else { "NOT FLAT" };
            let verdict = format!("{word}: median of the first half {before}, of the second {after}, most {most}");
            self.verdicts.insert(name.to_owned(), verdict);
            self.flat &= flat;
        }
    }
}

fn median(samples: &[&Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut all: Vec<u64> = samples.iter().map(|sample| of(sample)).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(memory: impl Fn(u64) -> u64) -> Soak {
        let sample = |n| Sample { at_ms: n * 1000, process_age_ms: 5000, memory_bytes: memory(n), ..Sample::default() };
        let mut soak = Soak { samples: (0..1000).map(sample).collect(), ..Soak::default() };
        soak.judge();
        soak
    }

    #[test]
    fn what_grows_all_the_time_is_not_flat_and_what_swings_is() {
        let growing = run(|n| (100 << 20) + n * (100 << 10));
        assert!(!growing.flat && growing.verdicts["memory"].starts_with("NOT FLAT"), "{:?}", growing.verdicts);
        assert!(run(|n| (100 << 20) + (n % 60) * (1 << 20)).flat);
    }

    #[test]
    fn a_run_without_samples_says_nothing_good() {
        let mut soak = Soak::default();
        soak.judge();
        assert!(!soak.flat);
    }
}
