//! Content in the log: blocks are made durable before their records count, and found again after a crash.

use std::sync::mpsc;
use std::time::Duration;

use millpond_core::log::BlockLog;
use millpond_core::source::BlockId;
use millpond_core::{Error, ErrorKind, Result};

use super::content::{Place, append_record, begin_records};
use super::queues::{Key, PartitionQueue, Queues, Run};
use crate::native::{MessageView, Messages};
use crate::position::Position;

/// Bytes of messages in one block, about; one larger message is a block of its own.
const BLOCK_BYTES: u64 = 1 << 20;
/// More than the place of a block takes: the name of its topic, and offsets.
const PLACE_BYTES: usize = 512;
/// How long the thread rests when the disk is full.
const FULL_DISK_WAIT: Duration = Duration::from_millis(100);
/// How often a wait for the log looks whether the source was stopped.
const WAIT: Duration = Duration::from_millis(50);

/// Makes the records of one partition, which `stands` before them, durable in order, and gives them back with their blocks.
/// Waits while the disk is full; nothing later of the partition counts meanwhile. `discard` gets blocks that were logged and
/// do not count.
pub(crate) fn log_run(
    log: &BlockLog,
    key: &Key,
    mut stands: Position,
    messages: Messages,
    go_on: impl Fn() -> bool,
    report: impl Fn(Error),
    mut discard: impl FnMut(BlockId),
) -> Result<Vec<(BlockId, Messages)>> {
    let mut logged = Vec::new();
    let mut parts = blocks_of(messages, log.block_limit_bytes());
    let mut told = false;
    while !parts.is_empty() {
        // Together, so that they share a sync.
        let (send, results) = mpsc::channel();
        let mut from = stands.next;
        for part in &parts {
            let (Some(first), Some(last)) = (part.first_offset(), part.last_offset()) else { continue };
            let after = Position { next: last + 1, ..stands };
            let place = Place { topic: key.0.to_string(), partition: key.1, from, first, after };
            from = last + 1;
            let send = send.clone();
            // The receiver is gone only if the source was stopped: then nobody asks.
            let done = Box::new(move |result| drop(send.send(result)));
            log.submit(encode_records(part), part.len() as u64, place.encode(), done);
        }
        let mut failed = None;
        // Where the next round goes on.
        let mut stands_at = stands.next;
        for part in std::mem::take(&mut parts) {
            match wait(&results, &go_on)? {
                // A block behind one that failed would stand before it once that is tried again.
                Ok(block) if failed.is_none() => {
                    stands_at = part.last_offset().map_or(stands_at, |last| last + 1);
                    logged.push((block, part));
                }
                Ok(block) => {
                    discard(block);
                    parts.push(part);
                }
                Err(error) => {
                    parts.push(part);
                    failed.get_or_insert(error);
                }
            }
        }
        stands.next = stands_at;
        let Some(error) = failed else { continue };
        if error.kind() != ErrorKind::Retry {
            return Err(error.context(format!("cannot log what was received of {}/{}", key.0, key.1)));
        }
        if !std::mem::replace(&mut told, true) {
            report(error);
        }
        if !go_on() {
            return Ok(logged);
        }
        std::thread::sleep(FULL_DISK_WAIT);
    }
    Ok(logged)
}

/// The payload of a block that holds these records.
fn encode_records(messages: &Messages) -> Vec<u8> {
    let mut out = begin_records(messages.len() as u32);
    for message in messages.iter() {
        let headers: Vec<_> = message.headers().collect();
        append_record(&mut out, message.offset(), message.timestamp_ms(), message.key(), message.value(), &headers);
    }
    out.into_bytes()
}

fn wait(results: &mpsc::Receiver<Result<BlockId>>, go_on: impl Fn() -> bool) -> Result<Result<BlockId>> {
    loop {
        match results.recv_timeout(WAIT) {
            Ok(result) => return Ok(result),
            Err(mpsc::RecvTimeoutError::Timeout) if go_on() => {}
            Err(_) => {
                return Err(Error::new(ErrorKind::Stopped, "the source was stopped while a block was being logged"));
            }
        }
    }
}

fn blocks_of(mut messages: Messages, limit_bytes: usize) -> Vec<Messages> {
    let mut blocks = Vec::new();
    while !messages.is_empty() {
        let mut bytes = 0;
        let fits = |message: MessageView<'_>| {
            bytes += (message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len)) as u64;
            bytes <= BLOCK_BYTES
        };
        let count = messages.iter().map(fits).take_while(|fits| *fits).count().max(1);
        let rest = messages.split_off(count);
        halve(std::mem::replace(&mut messages, rest), limit_bytes, &mut blocks);
    }
    blocks
}

/// Splits what a log of small segments would not take in one block. Beside keys and values there are headers, timestamps, lengths.
fn halve(mut messages: Messages, limit_bytes: usize, blocks: &mut Vec<Messages>) {
    let has_room = limit_bytes as u64 >= 8 * BLOCK_BYTES;
    if has_room || messages.len() < 2 || encode_records(&messages).len() + PLACE_BYTES <= limit_bytes {
        return blocks.push(messages);
    }
    let rest = messages.split_off(messages.len() / 2);
    halve(messages, limit_bytes, blocks);
    halve(rest, limit_bytes, blocks);
}

/// Puts blocks that an earlier process logged and planned into no batch where plans take them from.
pub(crate) fn add_unplanned(queues: &mut Queues, log: &BlockLog, unplanned: &[BlockId]) -> Result<()> {
    for id in unplanned {
        let block = log.read(*id)?;
        let place = Place::decode(&block.position)?;
        let key: Key = (place.topic.as_str().into(), place.partition);
        // A partition that is in no plan yet began where its first block did.
        let start = Position { next: place.from, ..place.after };
        let queue = queues.partitions.entry(key).or_insert_with(|| PartitionQueue::new(start));
        if place.follows(queue.fetched) {
            queue.push(Run { records: block.records, end: place.after.next, block: Some(*id), memory: None });
        } else {
            queues.discarded.push(*id);
        }
    }
    Ok(())
}
