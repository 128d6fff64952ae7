//! How fast the log is, beside what the same disk does for a bare loop of write and fdatasync, in the same run.
//!
//! `cargo run --release -p millpond-wal --example log_bench -- [DIRECTORY]`
//!
//! Each figure is the best and the median of several rounds that alternate, since a disk's speed drifts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use millpond_wal::fs::DiskFileSystem;
use millpond_wal::{Log, LogOptions};

const ROUNDS: usize = 7;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

type Measure<'a> = (&'a str, Box<dyn Fn(&Path) -> f64>);

fn main() {
    let root = std::env::args().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = tempfile::tempdir_in(root).expect("a directory to write to");
    let measures: Vec<Measure<'_>> = vec![
        ("bare 4 KiB, file grows", Box::new(|path| bare(path, 4 * KIB, 1000, false))),
        ("bare 4 KiB, zeros ahead", Box::new(|path| bare(path, 4 * KIB, 1000, true))),
        ("log 4 KiB, 1 writer", Box::new(|path| log(path, 4 * KIB, 1, 1000))),
        ("log 4 KiB, 2 writers", Box::new(|path| log(path, 4 * KIB, 2, 1000))),
        ("log 4 KiB, 4 writers", Box::new(|path| log(path, 4 * KIB, 4, 1000))),
        ("log 4 KiB, 16 writers", Box::new(|path| log(path, 4 * KIB, 16, 500))),
        ("log 4 KiB, by its thread", Box::new(|path| by_thread(path, 4 * KIB, 1000))),
        ("log 4 KiB, submit", Box::new(|path| submit(path, 4 * KIB, 8000))),
        ("bare 64 KiB, file grows", Box::new(|path| bare(path, 64 * KIB, 500, false))),
        ("log 64 KiB, 1 writer", Box::new(|path| log(path, 64 * KIB, 1, 500))),
        ("bare 1 MiB, file grows", Box::new(|path| bare(path, MIB, 200, false))),
        ("bare 1 MiB, zeros ahead", Box::new(|path| bare(path, MIB, 200, true))),
        ("log 1 MiB, 1 writer", Box::new(|path| log(path, MIB, 1, 200))),
        ("log 1 MiB, 2 writers", Box::new(|path| log(path, MIB, 2, 100))),
        ("log 1 MiB, recycled", Box::new(|path| recycled(path, MIB, 200))),
    ];
    let mut figures = vec![Vec::new(); measures.len()];
    for round in 0..ROUNDS {
        for (index, (_, measure)) in measures.iter().enumerate() {
            let path = directory.path().join(format!("{round}-{index}"));
            std::fs::create_dir(&path).expect("a fresh directory");
            figures[index].push(measure(&path));
            std::fs::remove_dir_all(&path).expect("our own directory");
        }
    }
    println!("{:<28} {:>12} {:>12}", "appends/s", "median", "best");
    for ((name, _), mut figures) in measures.iter().zip(figures) {
        figures.sort_by(f64::total_cmp);
        println!("{name:<28} {:>12.0} {:>12.0}", figures[ROUNDS / 2], figures[ROUNDS - 1]);
    }
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn bare(path: &Path, size: usize, count: usize, zeros_ahead: bool) -> f64 {
    let mut options = OpenOptions::new();
    let file: File = options.write(true).create_new(true).open(path.join("bare")).expect("a fresh file");
    let block = vec![7; size];
    if zeros_ahead {
        let zeros = vec![0; size];
        for index in 0..count {
            file.write_all_at(&zeros, (index * size) as u64).expect("room");
        }
        file.sync_all().expect("a disk");
    }
    let start = Instant::now();
    for index in 0..count {
        file.write_all_at(&block, (index * size) as u64).expect("room");
        file.sync_data().expect("a disk");
    }
    per_second(count, start.elapsed())
}

fn open(path: &Path) -> Log {
    Log::open(Arc::new(DiskFileSystem), path, LogOptions::default(), &mut |_| Ok(())).expect("a fresh log")
}

fn log(path: &Path, size: usize, writers: usize, each: usize) -> f64 {
    let log = open(path);
    let gate = Barrier::new(writers + 1);
    let block = vec![7; size];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    gate.wait();
                    for _ in 0..each {
                        log.append(1, &block).expect("room");
                    }
                })
            })
            .collect();
        gate.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().expect("no panic");
        }
        per_second(writers * each, start.elapsed())
    })
}

/// One writer that hands each append to the log's thread and waits: what a dedicated writer thread would cost.
fn by_thread(path: &Path, size: usize, count: usize) -> f64 {
    let log = open(path);
    let (done, completions) = std::sync::mpsc::channel();
    let start = Instant::now();
    for _ in 0..count {
        let done = done.clone();
        log.submit(1, vec![7; size], Box::new(move |result| done.send(result).expect("a receiver"))).expect("room");
        completions.recv().expect("a completion").expect("room");
    }
    per_second(count, start.elapsed())
}

fn submit(path: &Path, size: usize, count: usize) -> f64 {
    let log = open(path);
    let (done, completions) = std::sync::mpsc::channel();
    let start = Instant::now();
    for _ in 0..count {
        let done = done.clone();
        log.submit(1, vec![7; size], Box::new(move |result| done.send(result).expect("a receiver"))).expect("room");
    }
    for _ in 0..count {
        completions.recv().expect("a completion").expect("room");
    }
    per_second(count, start.elapsed())
}

/// As in the long run: the segments written were released before.
fn recycled(path: &Path, size: usize, count: usize) -> f64 {
    let log = open(path);
    let block = vec![7; size];
    let append = |count| {
        for _ in 0..count {
            log.append(1, &block).expect("room");
            log.release(log.end()).expect("a disk");
        }
    };
    append(200);
    let start = Instant::now();
    append(count);
    per_second(count, start.elapsed())
}
