//! Real processes that append and release, killed with SIGKILL at every failpoint and at random moments.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use millpond_wal::fs::DiskFileSystem;
use millpond_wal::{DirectoryLock, Frame, Log, LogOptions, Position, scan};

const DIRECTORY: &str = "MILLPOND_WAL_TEST_KILL_DIRECTORY";
const FAILPOINT: &str = "MILLPOND_WAL_TEST_KILL_FAILPOINT";
const WRITERS: u8 = 3;

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        preallocate_bytes: 16 << 10,
        max_payload_bytes: 8 << 10,
        queue_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

/// The number that each writer's last frame in the log bears; its frames must have all numbers up to it.
#[derive(Default, Debug)]
struct Found {
    last: BTreeMap<u8, u64>,
    sequence: Option<u64>,
}

impl Found {
    fn frame(&mut self, frame: &Frame<'_>) {
        assert!(self.sequence.is_none_or(|last| frame.sequence == last + 1), "a gap before {}", frame.position);
        self.sequence = Some(frame.sequence);
        let number = u64::from_le_bytes(frame.payload[..8].try_into().unwrap());
        let before = self.last.insert(frame.kind, number);
        assert!(before.is_none_or(|before| number == before + 1), "writer {}: {before:?}, {number}", frame.kind);
    }
}

/// Not a test of its own: what the victim does when this binary is started with a directory.
#[test]
fn victim() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    if let Ok(point) = std::env::var(FAILPOINT) {
        let (name, hit) = point.split_once(':').unwrap();
        let left = AtomicU64::new(hit.parse().unwrap());
        fail::cfg_callback(name, move || {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            }
        })
        .unwrap();
    }
    let _lock = DirectoryLock::acquire(directory).unwrap();
    let mut found = Found::default();
    let visit = &mut |frame: Frame<'_>| {
        found.frame(&frame);
        Ok(())
    };
    let log = Log::open(Arc::new(DiskFileSystem), &directory.join("log"), options(), visit).unwrap();
    let gate = Barrier::new(WRITERS.into());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, gate, mut number) = (&log, &gate, found.last.get(&writer).copied().unwrap_or(0));
            scope.spawn(move || {
                gate.wait();
                loop {
                    number += 1;
                    let mut payload = number.to_le_bytes().to_vec();
                    payload.resize(8 + (number as usize * 97) % 5000, writer);
                    log.append(writer, &payload).unwrap();
                    // One write call a line: a line is there whole or not at all.
                    std::io::stdout().write_all(format!("acknowledged {writer} {number}\n").as_bytes()).unwrap();
                    if writer == 0 {
                        log.release(Position { segment: log.end().segment.saturating_sub(6), offset: 0 }).unwrap();
                    }
                }
            });
        }
    });
}

fn start(directory: &Path, failpoint: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "victim", "--nocapture"]).env(DIRECTORY, directory).stdout(Stdio::piped());
    if let Some(failpoint) = failpoint {
        command.env(FAILPOINT, failpoint);
    }
    command.spawn().unwrap()
}

/// Reads acknowledgements until the victim is dead; kills it after so many.
fn watch(mut child: Child, kill_after: Option<u64>, acknowledged: &mut BTreeMap<u8, u64>) {
    use std::os::unix::process::ExitStatusExt;
    let mut lines = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(rest) = line.strip_prefix("acknowledged ") else { continue };
        let (writer, number) = rest.split_once(' ').unwrap();
        acknowledged.insert(writer.parse().unwrap(), number.parse().unwrap());
        lines += 1;
        if kill_after == Some(lines) {
            child.kill().unwrap();
        }
        assert!(lines < 1_000_000, "the failpoint was never reached");
    }
    assert_eq!(child.wait().unwrap().signal(), Some(9), "it died of something else");
}

/// Each writer's frames are there up to the acknowledged one, and at most one more. What is seen has to stay from now on.
fn check(directory: &Path, acknowledged: &mut BTreeMap<u8, u64>, round: &str) {
    let mut found = Found::default();
    let report = scan(&DiskFileSystem, &directory.join("log"), &mut |frame| {
        found.frame(&frame);
        Ok(())
    });
    assert_eq!(report.unwrap().corruption, None, "{round}");
    for (writer, number) in &*acknowledged {
        let last = found.last[writer];
        assert!(
            (*number..=number + 1).contains(&last),
            "{round}: writer {writer}: {number} acknowledged, {last} found"
        );
    }
    *acknowledged = found.last;
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_at_each_failpoint() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for name in ["log-appended", "log-synced", "log-segment-created", "log-segment-deleted"] {
        for hit in [1, 2, 7] {
            let point = format!("{name}:{hit}");
            watch(start(directory.path(), Some(&point)), None, &mut acknowledged);
            check(directory.path(), &mut acknowledged, &point);
        }
    }
    assert!(acknowledged.values().all(|number| *number > 10), "{acknowledged:?}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_at_random() {
    let seed = std::process::id();
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut random = u64::from(seed);
    for round in 0..15 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        watch(start(directory.path(), None), Some(1 + (random >> 33) % 200), &mut acknowledged);
        check(directory.path(), &mut acknowledged, &format!("seed {seed}, round {round}"));
    }
}
