//! Sources: files, queue, channel, a receiver.

use std::fs;
use std::sync::mpsc::{Receiver as Inbox, Sender, channel as std_channel};
use std::time::Duration;

use millpond_core::source::{
    ChannelSource, FileSource, Pusher, Queue, QueueSource, Receiver, ReceiverHandle, ReceiverSource, channel,
};
use millpond_testkit::conformance::source::{self, SourceHarness};
use tempfile::TempDir;

/// The next numbers.
#[derive(Default)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, count: usize) -> Vec<u64> {
        let first = self.0;
        self.0 += count as u64;
        (first..self.0).collect()
    }
}

/// Each gift is a file of its own.
struct Files {
    directory: TempDir,
    numbers: Numbers,
    files: usize,
    batch_bytes: u64,
}

impl Files {
    fn with_batches_of(batch_bytes: u64) -> Self {
        Files { directory: TempDir::new().unwrap(), numbers: Numbers::default(), files: 0, batch_bytes }
    }
}

impl SourceHarness for Files {
    type Source = FileSource;

    fn open(&mut self) -> FileSource {
        FileSource::directory(self.directory.path()).batch_limit_bytes(self.batch_bytes).partition_bytes(100)
    }

    fn give(&mut self, count: usize) -> Vec<String> {
        let lines: Vec<String> = self.numbers.next(count).iter().map(u64::to_string).collect();
        self.files += 1;
        let (aside, name) = (self.directory.path().join(".new"), format!("file-{}", self.files));
        fs::write(&aside, lines.join("\n") + "\n").unwrap();
        fs::rename(aside, self.directory.path().join(name)).unwrap();
        lines
    }
}

#[test]
fn the_file_source() {
    source::run(|| Files::with_batches_of(64 << 20));
}

#[test]
fn the_file_source_with_files_larger_than_a_batch() {
    source::run(|| Files::with_batches_of(200));
}

#[derive(Default)]
struct Queued {
    queue: Queue<u64>,
    numbers: Numbers,
}

impl SourceHarness for Queued {
    type Source = QueueSource<u64>;

    fn open(&mut self) -> QueueSource<u64> {
        QueueSource::all_waiting(&self.queue).partitions(2).replayable()
    }

    fn give(&mut self, count: usize) -> Vec<u64> {
        let numbers = self.numbers.next(count);
        // Small elements: a limit on records is kept by whole ones.
        numbers.chunks(5).for_each(|element| self.queue.push(element.to_vec()));
        numbers
    }
}

#[test]
fn the_queue_that_outlives_its_context() {
    source::run(Queued::default);
}

#[derive(Default)]
struct Pushed {
    pusher: Option<Pusher<u64>>,
    numbers: Numbers,
}

impl SourceHarness for Pushed {
    type Source = ChannelSource<u64>;

    fn open(&mut self) -> ChannelSource<u64> {
        let (pusher, source) = channel();
        self.pusher = Some(pusher);
        source
    }

    fn give(&mut self, count: usize) -> Vec<u64> {
        let numbers = self.numbers.next(count);
        let pusher = self.pusher.as_ref().unwrap();
        numbers.iter().for_each(|number| pusher.push_blocking(*number).unwrap());
        numbers
    }
}

#[test]
fn the_channel() {
    source::run(Pushed::default);
}

/// A reliable receiver that hands its handle to the test.
struct Handed(Sender<ReceiverHandle<u64>>);

impl Receiver for Handed {
    type Item = u64;

    fn on_start(&mut self, handle: ReceiverHandle<u64>) {
        let _ = self.0.send(handle);
    }

    fn on_stop(&mut self) {}
}

#[derive(Default)]
struct Received {
    handles: Option<Inbox<ReceiverHandle<u64>>>,
    handle: Option<ReceiverHandle<u64>>,
    numbers: Numbers,
}

impl SourceHarness for Received {
    type Source = ReceiverSource<Handed>;

    fn open(&mut self) -> ReceiverSource<Handed> {
        let (sender, handles) = std_channel();
        (self.handles, self.handle) = (Some(handles), None);
        ReceiverSource::new(Handed(sender))
    }

    fn give(&mut self, count: usize) -> Vec<u64> {
        let handles = self.handles.as_ref().unwrap();
        let handle = self.handle.get_or_insert_with(|| handles.recv_timeout(Duration::from_secs(20)).unwrap());
        let numbers = self.numbers.next(count);
        numbers.chunks(30).for_each(|group| handle.store_group(group).unwrap());
        numbers
    }
}

#[test]
fn a_reliable_receiver() {
    source::run(Received::default);
}
