//! A model of the log, and a machine that drives both through steps, crashes and failures and compares them.
//!
//! The model is a list: frames that were acknowledged, and behind them frames in doubt (asked for, neither acknowledged nor
//! cleanly refused). After a crash the log must hold all of the first, from the oldest unreleased, and a first part of the second.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use millpond_wal::fs::FileSystem;
use millpond_wal::fs::fault::{Call, EIO, Effect, FaultFileSystem, Keep};
use millpond_wal::{ErrorKind, Log, LogOptions, Position, scan};
use proptest::prelude::*;

use crate::common::{DIRECTORY, open_on, payload};

/// What can happen.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Append(usize),
    AppendTogether(Vec<usize>),
    Submit(usize),
    /// Releases what lies before this share of the log, in percent.
    Release(usize),
    CloseAndOpen,
    /// The process dies between two calls, the machine lives.
    Kill,
    /// The power fails between two calls.
    PowerFailure(Keep),
    /// So it ends, and the file of the newest segment is missing when the log is opened; then it is put back.
    NewestIsMissing(Keep),
    /// The power fails, or the process dies, in the midst of the append after so many changes.
    DieDuringAppend(u64, Vec<usize>, Keep),
    DieDuringRelease(u64, Keep),
    DieDuringOpen(u64, Keep),
    SyncFails,
    WriteFails(usize),
    /// The disk has so many bytes left from now on.
    DiskHasLeft(u64),
    DiskHasRoom,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![4 => 0_usize..200, 2 => 200_usize..3000, 1 => 3000_usize..8000];
    let lengths = || prop::collection::vec(prop_oneof![3 => 0_usize..200, 1 => 200_usize..2000], 1..6);
    let keep = || {
        prop_oneof![
            2 => Just(Keep::Synced),
            4 => any::<u64>().prop_map(Keep::Random),
            1 => Just(Keep::Everything),
        ]
    };
    let step = prop_oneof![
        12 => length.clone().prop_map(Step::Append),
        6 => lengths().prop_map(Step::AppendTogether),
        3 => length.prop_map(Step::Submit),
        3 => (0_usize..=100).prop_map(Step::Release),
        1 => Just(Step::CloseAndOpen),
        1 => Just(Step::Kill),
        3 => keep().prop_map(Step::PowerFailure),
        2 => keep().prop_map(Step::NewestIsMissing),
        4 => (0_u64..12, lengths(), keep()).prop_map(|(after, lengths, keep)| Step::DieDuringAppend(after, lengths, keep)),
        1 => (0_u64..6, keep()).prop_map(|(after, keep)| Step::DieDuringRelease(after, keep)),
        2 => (0_u64..8, keep()).prop_map(|(after, keep)| Step::DieDuringOpen(after, keep)),
        1 => Just(Step::SyncFails),
        1 => (0_usize..600).prop_map(Step::WriteFails),
        1 => (0_u64..9000).prop_map(Step::DiskHasLeft),
        2 => Just(Step::DiskHasRoom),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// Unknown as long as it is in doubt.
    position: Option<Position>,
    kind: u8,
    payload: Vec<u8>,
}

struct Machine {
    fs: FaultFileSystem,
    log: Option<Log>,
    /// Acknowledged and not released.
    certain: Vec<Entry>,
    in_doubt: Vec<Entry>,
    /// The sequence of the first of `certain`, or of the frame that comes next.
    first_sequence: u64,
    counter: usize,
    /// What a release that a crash cut short was allowed to take.
    releasing: Option<Position>,
    poisoned: bool,
}

type Outcome = Result<(), TestCaseError>;

/// Runs the steps; an error is where log and model part.
pub(crate) fn run(steps: &[Step]) -> Outcome {
    let mut machine = Machine {
        fs: FaultFileSystem::new(),
        log: None,
        certain: Vec::new(),
        in_doubt: Vec::new(),
        first_sequence: 1,
        counter: 0,
        releasing: None,
        poisoned: false,
    };
    machine.open()?;
    for step in steps {
        machine.step(step)?;
    }
    // Whatever state it is in: the power fails once more.
    machine.crash(Keep::Synced)
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        preallocate_bytes: 4 << 10,
        max_payload_bytes: 8 << 10,
        group_bytes: 8 << 10,
        queue_bytes: 64 << 10,
        ..LogOptions::default()
    }
}

impl Machine {
    fn log(&self) -> &Log {
        self.log.as_ref().expect("open between steps")
    }

    fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Append(length) => self.append(&[*length]),
            Step::AppendTogether(lengths) => self.append(lengths),
            Step::Submit(length) => self.submit(*length),
            Step::Release(percent) => self.release(*percent),
            Step::CloseAndOpen => {
                self.log().close().map_err(|error| TestCaseError::fail(error.to_string()))?;
                self.crash(Keep::Everything)
            }
            Step::Kill => self.crash(Keep::Everything),
            Step::PowerFailure(keep) => self.crash(*keep),
            Step::NewestIsMissing(keep) => self.newest_is_missing(*keep),
            Step::DieDuringAppend(after, lengths, keep) => {
                self.fs.stop_after(*after);
                self.append(lengths)?;
                self.crash(*keep)
            }
            Step::DieDuringRelease(after, keep) => {
                self.fs.stop_after(*after);
                self.release(70)?;
                self.crash(*keep)
            }
            Step::DieDuringOpen(after, keep) => {
                self.log = None;
                self.fs.crash(Keep::Everything);
                self.fs.stop_after(*after);
                drop(open_on(Arc::new(self.fs.clone()), Path::new(DIRECTORY), options()));
                self.crash(*keep)
            }
            Step::SyncFails => {
                self.fs.fail(Call::SyncData, 1, Effect::Fail(EIO));
                self.append(&[100])?;
                // A poisoned log takes nothing more; the process restarts.
                self.append(&[100])?;
                self.crash(Keep::Everything)
            }
            Step::WriteFails(bytes) => {
                self.fs.fail(Call::Write, 1, Effect::Torn(*bytes, EIO));
                self.append(&[1000])?;
                self.crash(Keep::Everything)
            }
            Step::DiskHasLeft(bytes) => {
                self.fs.set_capacity(Some(self.fs.used_bytes() + bytes));
                Ok(())
            }
            Step::DiskHasRoom => {
                self.fs.set_capacity(None);
                Ok(())
            }
        }
    }

    fn next(&mut self, length: usize) -> Entry {
        self.counter += 1;
        Entry { position: None, kind: self.counter as u8, payload: payload(self.counter, length) }
    }

    fn append(&mut self, lengths: &[usize]) -> Outcome {
        let entries: Vec<Entry> = lengths.iter().map(|length| self.next(*length)).collect();
        let frames: Vec<(u8, &[u8])> = entries.iter().map(|entry| (entry.kind, entry.payload.as_slice())).collect();
        let result = match frames.as_slice() {
            [(kind, payload)] => self.log().append(*kind, payload).map(|position| vec![position]),
            frames => self.log().append_all(frames),
        };
        self.settle(entries, result)
    }

    fn submit(&mut self, length: usize) -> Outcome {
        let entry = self.next(length);
        let (done, completions) = mpsc::channel();
        let tell = Box::new(move |result| done.send(result).expect("the test waits"));
        let result = match self.log().submit(entry.kind, entry.payload.clone(), tell) {
            Ok(()) => completions
                .recv_timeout(Duration::from_secs(30))
                .map_err(|_| TestCaseError::fail("a submitted frame never completed"))?,
            Err(error) => Err(error),
        };
        self.settle(vec![entry], result.map(|position| vec![position]))
    }

    /// Takes over into the model what the log said.
    fn settle(&mut self, mut entries: Vec<Entry>, result: millpond_wal::Result<Vec<Position>>) -> Outcome {
        match result {
            Ok(positions) => {
                prop_assert_eq!(positions.len(), entries.len());
                prop_assert_eq!(&self.in_doubt, &[], "an append after a failure in doubt succeeded");
                for (entry, position) in entries.iter_mut().zip(positions) {
                    if let Some(last) = self.certain.last() {
                        prop_assert!(last.position < Some(position));
                    }
                    entry.position = Some(position);
                    let read = self.log().read(position).map_err(|error| TestCaseError::fail(error.to_string()))?;
                    prop_assert_eq!(read, (entry.kind, entry.payload.clone()));
                }
                self.certain.append(&mut entries);
            }
            // A clean refusal: never to be seen. (A machine that has stopped says nothing about cleanness.)
            Err(error) if error.kind() == ErrorKind::StorageFull && !self.fs.stopped() => {
                prop_assert!(!error.to_string().is_empty());
            }
            // A log that was poisoned before does not even try.
            Err(error) if error.kind() == ErrorKind::Poisoned && self.poisoned => {}
            Err(error) => {
                self.poisoned |= error.kind() == ErrorKind::Poisoned;
                self.in_doubt.append(&mut entries);
            }
        }
        Ok(())
    }

    fn release(&mut self, percent: usize) -> Outcome {
        let Some(index) = (self.certain.len() * percent / 100).checked_sub(1) else { return Ok(()) };
        let before = self.certain[index].position.expect("certain frames have positions");
        let released = self.log().release(before);
        if self.fs.stopped() {
            // What has gone is seen after the crash; nothing from `before` on may be missing.
            self.releasing = Some(before);
            return Ok(());
        }
        released.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let oldest = self.log().segments()[0].segment;
        self.forget_before(oldest, before)
    }

    /// Segments below `oldest` are gone; that was allowed below `before` only.
    fn forget_before(&mut self, oldest: u64, before: Position) -> Outcome {
        let gone = self.certain.iter().take_while(|entry| entry.position.is_some_and(|at| at.segment < oldest)).count();
        for entry in self.certain.drain(..gone) {
            prop_assert!(entry.position < Some(before), "{:?} was released, asked for was {before}", entry.position);
        }
        self.first_sequence += gone as u64;
        Ok(())
    }

    /// A log whose newest segment holds a frame does not open without it, and has done no harm when it is put back.
    fn newest_is_missing(&mut self, keep: Keep) -> Outcome {
        self.fs.crash(keep);
        self.log = None;
        self.fs.set_capacity(None);
        let (fs, directory) = (self.fs.clone(), Path::new(DIRECTORY));
        let mut in_newest = None;
        let report = scan(&fs, directory, &mut |frame| {
            in_newest = Some(frame.position.segment);
            Ok(())
        });
        let report = report.map_err(|error| TestCaseError::fail(format!("cannot scan: {error}")))?;
        let newest = report.end.segment;
        if newest > 0 && in_newest == Some(newest) {
            let path = crate::common::segment_path(newest);
            let bytes = fs.contents(&path);
            fs.remove(&path).expect("it is there");
            let opened = open_on(Arc::new(fs.clone()), directory, options());
            let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
            let name = format!("{newest:020}.log");
            prop_assert!(error.contains(&name), "opened without segment {newest}, or said `{error}`");
            fs.set_contents(&path, &bytes);
        }
        self.open()
    }

    fn crash(&mut self, keep: Keep) -> Outcome {
        // The dead process's handles fail from here on, so that dropping the log changes nothing.
        self.fs.crash(keep);
        self.log = None;
        self.fs.set_capacity(None);
        self.open()
    }

    fn open(&mut self) -> Outcome {
        let mut scanned = 0;
        let (fs, directory) = (&self.fs, Path::new(DIRECTORY));
        if !self.certain.is_empty() {
            let report = scan(fs, directory, &mut |_| {
                scanned += 1;
                Ok(())
            });
            let report = report.map_err(|error| TestCaseError::fail(format!("cannot scan: {error}")))?;
            prop_assert_eq!(report.corruption, None);
        }
        let (log, seen) = open_on(Arc::new(self.fs.clone()), directory, options())
            .map_err(|error| TestCaseError::fail(format!("cannot open: {error}")))?;
        prop_assert!(self.certain.is_empty() || seen.len() == scanned, "a scan saw {scanned} frames");

        if let Some(before) = self.releasing.take() {
            self.forget_before(log.segments()[0].segment, before)?;
        }
        let all: Vec<&Entry> = self.certain.iter().chain(&self.in_doubt).collect();
        prop_assert!(
            (self.certain.len()..=all.len()).contains(&seen.len()),
            "{} frames, {} acknowledged, {} in doubt",
            seen.len(),
            self.certain.len(),
            self.in_doubt.len()
        );
        let mut certain = Vec::with_capacity(seen.len());
        for (index, (frame, entry)) in seen.iter().zip(all).enumerate() {
            prop_assert_eq!(frame.sequence, self.first_sequence + index as u64);
            prop_assert_eq!((frame.kind, &frame.payload), (entry.kind, &entry.payload));
            prop_assert!(entry.position.is_none_or(|position| position == frame.position));
            certain.push(Entry { position: Some(frame.position), ..entry.clone() });
        }
        // What was in doubt and is seen is certain from now on; what is not seen will never be.
        self.certain = certain;
        self.in_doubt.clear();
        self.poisoned = false;
        self.log = Some(log);
        Ok(())
    }
}
