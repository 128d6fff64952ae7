//! Where records become blocks: gathered until the block interval ends (or at once, where somebody
//! waits for the log), then logged in order, then waiting for a batch.
//!
//! Everything is behind one lock and one condition: givers of records, the thread that logs blocks
//! (`logger`), the log's call-back, the engine. Memory is bounded by the budget of the context and,
//! before it, by the number of blocks that may wait for the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::{BlockId, Plan, PlanRequest, SourceEvents, SourceStart};
use super::limits::Limits;
use super::rate::RateLimiter;
use super::sequences::{self, Givers, Push, Sequences};
use super::ticket::{Ticket, Told};
use super::tracker::{Tracker, Waiting};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::log::BlockLog;
use crate::time::BatchTime;

/// The longest that a thread sleeps before it looks again, in case nobody woke it.
const LOOK: Duration = Duration::from_secs(1);
/// How long planning waits for blocks that are on their way into the log.
const PLAN_WAIT: Duration = Duration::from_millis(500);

/// What an intake has since its start.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) source: Arc<str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: BlockLog,
    pub(crate) events: SourceEvents,
}

/// Encoded records, in whatever number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) records: u64,
    /// The giver's position after these records; empty for none.
    pub(crate) position: &'a [u8],
    /// Who pushes it, and under which number, so that it counts once however often it is pushed.
    pub(crate) number: Option<(&'a str, u64)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Created,
    Open,
    /// No more records; what is there is still logged.
    Closed,
    /// As after a crash: what is not in the log is dropped.
    Abandoned,
}

/// A block that is not in the log.
pub(super) struct Block {
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
    pub(super) records: u64,
    pub(super) position: Vec<u8>,
    /// The last numbers of producers in it.
    pub(super) numbers: BTreeMap<String, u64>,
    /// Somebody waits for it. Then a failure is theirs to deal with; else the block is kept and tried again.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// When its interval ends.
    pub(super) due_ms: u64,
}

pub(super) struct State {
    pub(super) phase: Phase,
    header: [u8; 2],
    building: Option<Block>,
    /// Complete, waiting for the logger.
    pub(super) cut: VecDeque<Block>,
    /// Blocks handed to the log, or waiting for room: their numbers and records.
    pub(super) under_way: BTreeMap<u64, u64>,
    /// The logger waits for room in the budget.
    pub(super) blocked: bool,
    /// The log refused a block that is kept: what it said, and when to try again.
    pub(super) failing: Option<(Told, u64)>,
    next_number: u64,
    pub(super) rate: RateLimiter,
    room_wakers: Vec<Waker>,
    pub(super) tracker: Tracker,
    pub(super) sequences: Sequences,
    outside: Option<Outside>,
}

/// Gathers records into blocks.
pub(crate) struct Intake {
    pub(super) limits: Limits,
    /// Blocks may wait for room. Beside the state because it is asked where the state must not be locked.
    patient: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// What came of an attempt to add records without waiting.
enum Added {
    Yes(Option<Arc<Ticket>>),
    /// There is no room, or no permit before this time.
    Wait(Option<u64>),
    /// The block of this ticket has to come to its end before.
    After(Arc<Ticket>),
}

impl Intake {
    pub(crate) fn new(limits: Limits, header: [u8; 2], givers: Givers) -> Arc<Self> {
        let state = State {
            phase: Phase::Created,
            header,
            building: None,
            cut: VecDeque::new(),
            under_way: BTreeMap::new(),
            blocked: false,
            failing: None,
            next_number: 0,
            rate: RateLimiter::new(None, 0),
            room_wakers: Vec::new(),
            tracker: Tracker::new(givers),
            sequences: Sequences::default(),
            outside: None,
        };
        Arc::new(Intake { limits, patient: AtomicBool::new(true), state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Opens for records, after what earlier starts left in the log.
    pub(crate) fn start(self: &Arc<Self>, start: &SourceStart) -> Result<()> {
        let mut blocks = Vec::with_capacity(start.unplanned.len());
        for &id in &start.unplanned {
            // Only looked at: the batch reads it again, so that a long queue does not fill the memory.
            let block = start.blocks.read(id)?;
            let bytes = block.payload.len() as u64;
            blocks.push((id, Waiting { records: block.records, bytes, position: block.position }));
        }
        let intake = Arc::downgrade(self);
        start.clock.on_change(Box::new(move || {
            if let Some(intake) = intake.upgrade() {
                intake.wake_all(intake.lock());
            }
        }));
        let mut state = self.lock();
        if state.phase != Phase::Created {
            return Err(Error::new(ErrorKind::Program, "a source was started twice"));
        }
        state.recover(start, blocks)?;
        state.rate = RateLimiter::new(self.limits.max_rate, start.clock.now_ms());
        state.outside = Some(Outside {
            source: start.name.as_str().into(),
            clock: Arc::clone(&start.clock),
            log: start.blocks.clone(),
            events: start.events.clone(),
        });
        state.phase = Phase::Open;
        drop(state);
        super::logger::spawn(Arc::clone(self), &start.name)
    }

    /// Adds records of which nobody needs to know when they are durable. Waits for permits and room.
    pub(crate) fn store(&self, run: Run<'_>) -> Result<()> {
        self.add(run, false).map(drop)
    }

    /// Adds records as one group; comes back when they are durable.
    pub(crate) fn store_durably(&self, run: Run<'_>) -> Result<()> {
        match self.add(run, true)? {
            Some(ticket) => ticket.wait(),
            None => Ok(()),
        }
    }

    fn add(&self, run: Run<'_>, reliable: bool) -> Result<Option<Arc<Ticket>>> {
        let mut state = self.lock();
        loop {
            match self.try_add(&mut state, run, reliable)? {
                Added::Yes(ticket) => return Ok(ticket),
                Added::Wait(until_ms) => state = self.wait(state, until_ms),
                Added::After(ticket) => {
                    drop(state);
                    // Whatever became of it, its numbers are settled.
                    let _ = ticket.wait();
                    state = self.lock();
                }
            }
        }
    }

    /// As [`store_durably`](Intake::store_durably) up to the ticket, for futures: never waits.
    pub(crate) fn poll_add(&self, run: Run<'_>, context: &Context<'_>) -> Poll<Result<Option<Arc<Ticket>>>> {
        loop {
            let mut state = self.lock();
            match self.try_add(&mut state, run, true) {
                Ok(Added::Yes(ticket)) => return Poll::Ready(Ok(ticket)),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Added::After(ticket)) => {
                    drop(state);
                    if ticket.poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
                Ok(Added::Wait(_)) => {
                    state.room_wakers.push(context.waker().clone());
                    drop(state);
                    // The logger keeps the time until the next permit.
                    self.changed.notify_all();
                    return Poll::Pending;
                }
            }
        }
    }

    fn try_add(&self, state: &mut State, run: Run<'_>, reliable: bool) -> Result<Added> {
        let now_ms = state.check_open()?.clock.now_ms();
        if run.records == 0 {
            return Ok(Added::Yes(None));
        }
        if run.bytes.len() > self.limits.group_bytes {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("records of {} bytes in one piece: the limit is {}", run.bytes.len(), self.limits.group_bytes),
            ));
        }
        let fits = |block: &Block| {
            block.ticket.is_some() == reliable && block.payload.len() + run.bytes.len() <= self.limits.block_bytes
        };
        if state.building.as_ref().is_some_and(|block| !fits(block)) && !self.cut(state) {
            return Ok(Added::Wait(None));
        }
        if let Some((producer, number)) = run.number {
            let building = state.building.as_ref().and_then(|block| block.ticket.as_ref());
            match state.sequences.look(producer, number, building)? {
                Push::New => {}
                Push::Logged => return Ok(Added::Yes(None)),
                Push::UnderWay(ticket) => return Ok(Added::Yes(Some(ticket))),
                Push::After(ticket) => return Ok(Added::After(ticket)),
            }
        }
        if let Err(until_ms) = state.rate.take(run.records, now_ms) {
            return Ok(Added::Wait(Some(until_ms)));
        }
        let block = match &mut state.building {
            Some(block) => block,
            None => {
                let interval_ms = (self.limits.block_interval.as_millis() as u64).max(1);
                let number = state.next_number;
                state.next_number += 1;
                // The logger has to know when the interval ends.
                self.changed.notify_all();
                state.building.insert(Block {
                    number,
                    payload: state.header.to_vec(),
                    records: 0,
                    position: Vec::new(),
                    numbers: BTreeMap::new(),
                    ticket: reliable.then(Arc::default),
                    due_ms: (now_ms / interval_ms + 1) * interval_ms,
                })
            }
        };
        block.payload.extend_from_slice(run.bytes);
        block.records += run.records;
        if !run.position.is_empty() {
            block.position = run.position.to_vec();
        }
        let ticket = block.ticket.clone();
        if let Some(((producer, number), ticket)) = run.number.zip(ticket.clone()) {
            block.numbers.insert(producer.to_owned(), number);
            state.sequences.add(producer, number, ticket);
        }
        if block.payload.len() >= self.limits.block_bytes {
            self.cut(state);
        }
        Ok(Added::Yes(ticket))
    }

    /// Ends the block that is being built; false if too many wait for the log.
    fn cut(&self, state: &mut State) -> bool {
        if state.cut.len() + state.under_way.len() >= self.limits.blocks_waiting {
            return false;
        }
        if let Some(block) = state.building.take() {
            state.cut.push_back(block);
            self.changed.notify_all();
        }
        true
    }

    /// Ends the block if its time has come or somebody waits for it. Gives the time to look again.
    pub(super) fn cut_if_due(&self, state: &mut State, now_ms: u64) -> Option<u64> {
        let block = state.building.as_ref()?;
        if state.phase == Phase::Closed || block.ticket.is_some() || block.due_ms <= now_ms {
            self.cut(state);
            return None;
        }
        Some(block.due_ms)
    }

    /// What a batch takes: all that was stored before its time and is durable.
    pub(crate) fn plan(&self, request: &PlanRequest) -> Result<Plan> {
        let mut state = self.lock();
        if let Some(outside) = &state.outside {
            let now_ms = outside.clock.now_ms();
            let interval_ms = (request.interval.as_millis() as u64).max(1);
            let asked = request.max_records.map(|records| records.saturating_mul(1000) / interval_ms);
            state.rate.update(asked, now_ms);
        }
        self.cut_if_due(&mut state, request.time.as_ms());
        let mut state = self.settle(state);
        state.tracker.plan(request)
    }

    /// Waits until what is complete is in the log, unless the log or the budget holds it up.
    fn settle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let began = Instant::now();
        let Some(last) = state.newest_complete() else { return state };
        loop {
            let settled = state.oldest_complete().is_none_or(|oldest| oldest > last);
            let left = PLAN_WAIT.saturating_sub(began.elapsed());
            let held_up = state.blocked || (state.failing.is_some() && state.under_way.is_empty());
            if settled || held_up || left.is_zero() {
                return state;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn release(&self, committed: BatchTime) {
        let mut state = self.lock();
        let bytes = state.tracker.release(committed);
        if let Some(outside) = state.outside.as_ref().filter(|_| bytes > 0) {
            outside.log.budget().give_back(bytes);
        }
    }

    /// No more records are accepted; those there are logged. Waits for that at most so long.
    pub(crate) fn close(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let mut state = self.lock();
        if state.phase == Phase::Created || state.phase == Phase::Open {
            state.phase = Phase::Closed;
            self.hurry();
        }
        self.wake_all(state);
        let mut state = self.lock();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            match state.unlogged() {
                0 => return Ok(()),
                records if left.is_zero() || state.phase == Phase::Abandoned => {
                    let why = state.failing.as_ref().map(|(told, _)| told.error());
                    let error = Error::new(
                        ErrorKind::Retry,
                        format!("{records} received records could not be logged within {} ms", limit.as_millis()),
                    );
                    return Err(why.into_iter().fold(error, Error::with_source));
                }
                _ => state = self.changed.wait_timeout(state, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
    }

    /// As a crash would: what is not in the log is forgotten, whoever waits is told.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.phase = Phase::Abandoned;
        self.hurry();
        let told = Told::of(&Error::new(ErrorKind::Stopped, "the context stopped before the records were logged"));
        let building = state.building.take();
        let dropped: Vec<Block> = state.cut.drain(..).chain(building).collect();
        let bytes = state.tracker.clear_memory();
        if let Some(outside) = &state.outside {
            outside.log.budget().give_back(bytes);
        }
        self.wake_all(state);
        dropped.into_iter().filter_map(|block| block.ticket).for_each(|ticket| ticket.complete(Err(told.clone())));
    }

    /// A stop has begun: records are still taken, and their blocks no longer wait for room in the budget, since what
    /// would make it may wait for the stop.
    pub(super) fn hurry(&self) {
        self.patient.store(false, Ordering::Release);
    }

    pub(super) fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Acquire)
    }

    /// The logger waits for room, or no longer.
    pub(super) fn set_blocked(&self, blocked: bool) {
        self.lock().blocked = blocked;
        self.changed.notify_all();
    }

    /// Whether there are records that no batch has.
    pub(crate) fn has_waiting(&self) -> bool {
        let state = self.lock();
        state.tracker.is_waiting() || state.unlogged() > 0
    }

    /// The last number of a producer that is in the log, also from earlier processes.
    pub(crate) fn last_number(&self, producer: &str) -> Option<u64> {
        self.lock().sequences.last(producer)
    }

    pub(crate) fn last_position(&self) -> Option<Vec<u8>> {
        self.lock().tracker.last_position()
    }

    pub(crate) fn payload(&self, block: BlockId) -> Option<Arc<[u8]>> {
        self.lock().tracker.payload(block)
    }

    pub(crate) fn outside(&self) -> Result<Outside> {
        let not_started = || Error::new(ErrorKind::Stopped, "the source has not been started");
        self.lock().outside.clone().ok_or_else(not_started)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or for the clock to reach a time.
    pub(super) fn wait<'a>(&'a self, state: MutexGuard<'a, State>, until_ms: Option<u64>) -> MutexGuard<'a, State> {
        let clock = state.outside.as_ref().map(|outside| &outside.clock);
        let time = clock.zip(until_ms).and_then(|(clock, until_ms)| clock.until(until_ms));
        let time = time.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK);
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Something has changed: there may be room. Wakers are called without the lock: they may poll at once.
    pub(super) fn wake_all(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.room_wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Takes up what earlier starts have left in the log.
    fn recover(&mut self, start: &SourceStart, blocks: Vec<(BlockId, Waiting)>) -> Result<()> {
        self.tracker.recover(start.positions.as_deref())?;
        if let Some(planned) = self.tracker.numbers() {
            self.sequences.are_logged(planned.clone());
            for (_, block) in blocks.iter().filter(|(_, block)| !block.position.is_empty()) {
                self.sequences.are_logged(sequences::decode(&block.position)?);
            }
        }
        blocks.into_iter().for_each(|(id, block)| self.tracker.add(id, block, None));
        Ok(())
    }

    fn check_open(&self) -> Result<&Outside> {
        if let Some((told, _)) = &self.failing {
            return Err(told.error().context("records cannot be logged"));
        }
        match (self.phase, &self.outside) {
            (Phase::Open, Some(outside)) => Ok(outside),
            (Phase::Created, _) | (_, None) => {
                Err(Error::new(ErrorKind::Retry, "no records are taken before the context has started"))
            }
            (Phase::Closed | Phase::Abandoned, _) => {
                Err(Error::new(ErrorKind::Stopped, "no more records are taken: the source was stopped"))
            }
        }
    }

    pub(super) fn outside(&self) -> Option<Outside> {
        self.outside.clone()
    }

    pub(super) fn waits_for_permit(&self) -> bool {
        !self.room_wakers.is_empty()
    }

    fn oldest_complete(&self) -> Option<u64> {
        self.under_way.keys().next().copied().into_iter().chain(self.cut.iter().map(|block| block.number)).min()
    }

    fn newest_complete(&self) -> Option<u64> {
        self.under_way.keys().next_back().copied().into_iter().chain(self.cut.iter().map(|block| block.number)).max()
    }

    pub(super) fn has_unlogged(&self) -> bool {
        self.building.is_some() || !self.cut.is_empty() || !self.under_way.is_empty()
    }

    /// Records that are not in the log.
    fn unlogged(&self) -> u64 {
        self.cut.iter().chain(&self.building).map(|block| block.records).chain(self.under_way.values().copied()).sum()
    }
}
