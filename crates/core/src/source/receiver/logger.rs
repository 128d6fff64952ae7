//! The thread that takes complete blocks to the log, in order, a few at once, so that they share
//! its syncs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use super::intake::{Block, Intake, Outside, Phase};
use super::sequences;
use super::ticket::Told;
use super::tracker::Waiting;
use crate::error::{Error, ErrorKind, Result};
use crate::source::BlockId;

/// How long after a refusal of the log a kept block is tried again, in milliseconds.
const RETRY_MS: u64 = 1000;

/// Starts the thread. It ends when the intake is closed and everything logged, or when it is abandoned.
pub(super) fn spawn(intake: Arc<Intake>, source: &str) -> Result<()> {
    thread::Builder::new().name(format!("log {source}")).spawn(move || run(&intake)).map(drop).map_err(|error| {
        Error::new(ErrorKind::Retry, format!("cannot start a thread for source `{source}`")).with_source(error)
    })
}

fn run(intake: &Arc<Intake>) {
    while let Some((block, outside)) = next(intake) {
        log(intake, block, &outside);
    }
}

/// The next block for the log, when there is one; `None` at the end.
fn next(intake: &Intake) -> Option<(Block, Outside)> {
    let mut state = intake.lock();
    loop {
        let outside = state.outside()?;
        if state.phase == Phase::Abandoned {
            return None;
        }
        let now_ms = outside.clock.now_ms();
        let mut look_ms = intake.cut_if_due(&mut state, now_ms);
        let mut look = |time_ms: u64| look_ms = Some(look_ms.map_or(time_ms, |look_ms| look_ms.min(time_ms)));
        if state.waits_for_permit() {
            match state.rate.take(0, now_ms) {
                Ok(()) if state.under_way.len() + state.cut.len() < intake.limits.blocks_waiting => {
                    intake.wake_all(state);
                    state = intake.lock();
                    continue;
                }
                Ok(()) => {}
                Err(permit_ms) => look(permit_ms),
            }
        }
        match &state.failing {
            // After a refusal one block at a time is tried, and only when the others have come back.
            Some((_, retry_ms)) if *retry_ms > now_ms => look(*retry_ms),
            Some(_) if !state.under_way.is_empty() => {}
            _ => {
                if let Some(block) = state.cut.pop_front() {
                    state.under_way.insert(block.number, block.records);
                    return Some((block, outside));
                }
            }
        }
        if state.phase == Phase::Closed && !state.has_unlogged() {
            return None;
        }
        state = intake.wait(state, look_ms);
    }
}

/// Hands a block to the log when the budget has room for it.
fn log(intake: &Arc<Intake>, block: Block, outside: &Outside) {
    let bytes = block.payload.len() as u64;
    if let Err(error) = take_budget(intake, bytes, outside) {
        return refused(intake, block, error, outside);
    }
    if crate::controls::broken("break-acknowledged-before-sync")
        && let Some(ticket) = &block.ticket
    {
        // Its giver is told that it is durable, and the log has not even got it.
        ticket.complete(Ok(()));
        thread::sleep(std::time::Duration::from_millis(50));
    }
    let Block { number, payload, records, position, numbers, ticket, due_ms } = block;
    let position = if numbers.is_empty() { position } else { sequences::encode(&numbers) };
    let kept: Arc<[u8]> = payload.as_slice().into();
    let intake = Arc::clone(intake);
    let outside_then = outside.clone();
    let position_then = position.clone();
    let done = Box::new(move |outcome: Result<BlockId>| match outcome {
        Ok(id) => {
            fail::fail_point!(super::failpoints::BLOCK_SYNCED);
            let block = Waiting { records, bytes, position: position_then };
            logged(&intake, number, id, block, kept, numbers, &outside_then);
            if let Some(ticket) = ticket {
                ticket.complete(Ok(()));
            }
        }
        Err(error) => {
            outside_then.log.budget().give_back(bytes);
            let block =
                Block { number, payload: kept.to_vec(), records, position: position_then, numbers, ticket, due_ms };
            refused(&intake, block, error, &outside_then);
        }
    });
    outside.log.submit(payload, records, position, done);
    fail::fail_point!(super::failpoints::BLOCK_APPENDED);
}

/// Takes the block's bytes from the budget, whatever it says if a stop has begun.
fn take_budget(intake: &Intake, bytes: u64, outside: &Outside) -> Result<()> {
    let budget = outside.log.budget();
    let must_wait = budget.used_bytes() + bytes > budget.limit_bytes();
    if must_wait {
        intake.set_blocked(true);
    }
    let taken = budget.take(bytes, || intake.is_patient());
    if must_wait {
        intake.set_blocked(false);
    }
    match taken {
        Err(_) if !intake.is_patient() && intake.lock().phase != Phase::Abandoned => {
            budget.force(bytes);
            Ok(())
        }
        taken => taken,
    }
}

/// A block is durable.
fn logged(
    intake: &Intake,
    number: u64,
    id: BlockId,
    block: Waiting,
    payload: Arc<[u8]>,
    numbers: BTreeMap<String, u64>,
    outside: &Outside,
) {
    let mut state = intake.lock();
    state.under_way.remove(&number);
    if state.phase == Phase::Abandoned {
        outside.log.budget().give_back(block.bytes);
    } else {
        state.failing = None;
        state.sequences.are_logged(numbers);
        state.tracker.add(id, block, Some(payload));
    }
    intake.wake_all(state);
}

/// The log refused a block. If nobody waits for it, and it may succeed later, it is kept.
fn refused(intake: &Intake, block: Block, error: Error, outside: &Outside) {
    let mut state = intake.lock();
    state.under_way.remove(&block.number);
    if state.phase == Phase::Abandoned {
        intake.wake_all(state);
        return complete(block, &error);
    }
    let keep = block.ticket.is_none() && error.kind() == ErrorKind::Retry;
    let given_up = if keep {
        let at = state.cut.partition_point(|other| other.number < block.number);
        state.cut.insert(at, block);
        state.failing = Some((Told::of(&error), outside.clock.now_ms() + RETRY_MS));
        None
    } else {
        if block.ticket.is_none() {
            state.failing = Some((Told::of(&error), u64::MAX));
            state.phase = Phase::Abandoned;
            intake.hurry();
        }
        state.sequences.are_lost(&block.numbers);
        Some(block)
    };
    intake.wake_all(state);
    if let Some(block) = given_up {
        complete(block, &error);
    }
    let for_good = matches!(error.kind(), ErrorKind::Restart | ErrorKind::Restore);
    let error = error.context(format!("source `{}` cannot log a block", outside.source));
    if for_good { outside.events.fatal(error) } else { outside.events.error(error) }
}

fn complete(block: Block, error: &Error) {
    if let Some(ticket) = block.ticket {
        ticket.complete(Err(Told::of(error)));
    }
}
