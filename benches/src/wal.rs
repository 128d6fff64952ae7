//! `wal`: appends to the log, beside a bare loop of write and fdatasync on the same disk in the same run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use millpond_wal::fs::DiskFileSystem;
use millpond_wal::{Log, LogOptions};

use crate::Failure;
use crate::report::Report;
use crate::usage::Meter;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; all measures take their turn in each, and medians are told, since a disk's speed drifts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Appends of 4 KiB by each writer in a round.
    #[arg(long, default_value_t = 1000)]
    records: usize,
    /// Appends of 1 MiB in a round.
    #[arg(long, default_value_t = 200)]
    blocks: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub(crate) fn run(options: &Options, directory: &Path) -> Result<Report, Failure> {
    type Measure<'a> = (&'a str, Box<dyn Fn(&Path) -> Result<f64, Failure>>);
    let Options { rounds, records, blocks } = *options;
    let measures: [Measure<'_>; 7] = [
        ("bare_4k", Box::new(move |path| bare(path, 4 * KIB, records, false))),
        ("one_writer_4k", Box::new(move |path| log(path, 4 * KIB, 1, records))),
        ("sixteen_writers_4k", Box::new(move |path| log(path, 4 * KIB, 16, records))),
        ("bare_1m", Box::new(move |path| bare(path, MIB, blocks, false))),
        ("bare_1m_written_ahead", Box::new(move |path| bare(path, MIB, blocks, true))),
        ("one_writer_1m", Box::new(move |path| log(path, MIB, 1, blocks))),
        ("one_writer_1m_recycled", Box::new(move |path| recycled(path, blocks))),
    ];
    let meter = Meter::start()?;
    let mut figures = vec![Vec::new(); measures.len()];
    for round in 0..rounds.max(1) {
        for (index, (_, measure)) in measures.iter().enumerate() {
            let path = directory.join(format!("{round}-{index}"));
            std::fs::create_dir(&path)?;
            figures[index].push(measure(&path)?);
            std::fs::remove_dir_all(&path)?;
        }
    }
    let used = meter.used()?;
    let medians: Vec<f64> = figures
        .into_iter()
        .map(|mut of_rounds| {
            of_rounds.sort_by(f64::total_cmp);
            of_rounds[of_rounds.len() / 2]
        })
        .collect();
    let appends = rounds.max(1) * (17 * records + 2 * blocks);
    let mut report = Report::new("wal", appends as u64, &used, &[], &[]);
    for ((name, _), median) in measures.iter().zip(&medians) {
        report = report.with(&format!("{name}_per_second"), *median);
    }
    let [_, one, sixteen, bare, _, blocks, recycled] = medians[..] else { return Err("seven measures".into()) };
    Ok(report
        .with("sixteen_writers_to_one", sixteen / one)
        .with("of_bare_1m", blocks / bare)
        .with("of_bare_1m_recycled", recycled / bare))
}

/// A plain loop, with the file growing or over zeros written before.
fn bare(path: &Path, size: usize, count: usize, written_ahead: bool) -> Result<f64, Failure> {
    let file: File = OpenOptions::new().write(true).create_new(true).open(path.join("bare"))?;
    let (block, zeros) = (vec![7; size], vec![0; size]);
    if written_ahead {
        for index in 0..count {
            file.write_all_at(&zeros, (index * size) as u64)?;
        }
        file.sync_all()?;
    }
    let started = Instant::now();
    for index in 0..count {
        file.write_all_at(&block, (index * size) as u64)?;
        file.sync_data()?;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

fn open(path: &Path) -> Result<Log, Failure> {
    Ok(Log::open(Arc::new(DiskFileSystem), path, LogOptions::default(), &mut |_| Ok(()))?)
}

fn log(path: &Path, size: usize, writers: usize, each: usize) -> Result<f64, Failure> {
    let log = open(path)?;
    let gate = Barrier::new(writers + 1);
    let block = vec![7; size];
    let append = || -> Result<(), Failure> {
        gate.wait();
        (0..each).try_for_each(|_| log.append(1, &block).map(drop))?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(append)).collect();
        gate.wait();
        let started = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| "a writer panicked")??;
        }
        Ok((writers * each) as f64 / started.elapsed().as_secs_f64())
    })
}

/// As in the long run: the segments written were released before.
fn recycled(path: &Path, count: usize) -> Result<f64, Failure> {
    let log = open(path)?;
    let block = vec![7; MIB];
    let append = |count| -> Result<(), Failure> {
        for _ in 0..count {
            log.append(1, &block)?;
            log.release(log.end())?;
        }
        Ok(())
    };
    append(200)?;
    let started = Instant::now();
    append(count)?;
    Ok(count as f64 / started.elapsed().as_secs_f64())
}
