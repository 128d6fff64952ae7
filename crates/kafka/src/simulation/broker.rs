//! The model of a broker: partitions, the coordinator of transactions, groups. A state machine of requests; time comes in with them.
//!
//! What it keeps of Apache Kafka is what decides what readers see: epochs and who is shut out by them; the states of a
//! transaction; that markers come after the decision, partition by partition, and hold readers at the last stable offset until
//! then; sequence numbers; transactions that take too long; that a request may arrive late or twice. One partition a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Which version of the protocol clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The end of a transaction leaves the epoch as it is: a late request to end one can end the next.
    V1,
    /// Each end of a transaction raises the epoch (KIP-890).
    V2,
}

/// A producer's id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
}

/// What clients ask.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    InitProducerId { id: String, timeout: Duration },
    AddPartition { id: String, from: Identity, topic: String },
    Produce { id: String, from: Identity, topic: String, sequence: i32, records: Vec<Record> },
    CommitOffsets { id: String, from: Identity, group: String, offsets: Vec<(String, i32, i64)> },
    EndTransaction { id: String, from: Identity, commit: bool },
}

impl Request {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Request::InitProducerId { .. } => "InitProducerId",
            Request::AddPartition { .. } => "AddPartitionsToTxn",
            Request::Produce { .. } => "Produce",
            Request::CommitOffsets { .. } => "TxnOffsetCommit",
            Request::EndTransaction { commit: true, .. } => "EndTxn(commit)",
            Request::EndTransaction { commit: false, .. } => "EndTxn(abort)",
        }
    }
}

/// A key and a value.
pub(crate) type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    ConcurrentTransactions,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTransactionState,
    InvalidTransactionTimeout,
    OutOfOrderSequence,
    UnknownTopic,
    /// The coordinator is moving, or loading.
    NotCoordinator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing,
    Prepare { commit: bool },
    Complete { commit: bool },
}

/// The coordinator's picture of one transactional id.
struct Transactional {
    identity: Identity,
    state: State,
    timeout: Duration,
    since: Instant,
    /// Counts all transactions of the broker; of the present or the last one.
    number: u64,
    topics: BTreeSet<String>,
    offsets: Vec<(String, (String, i32), i64)>,
    /// Markers to be written, and when.
    markers: Vec<(String, Instant)>,
}

/// An entry of a partition, by its offset.
enum Entry {
    Record { transaction: u64, record: Record },
    Marker,
}

#[derive(Default)]
struct Partition {
    log: Vec<Entry>,
    producers: BTreeMap<i64, Writer>,
}

struct Writer {
    epoch: i16,
    next_sequence: i32,
    /// Where its open transaction begins.
    open: Option<usize>,
}

/// The longest transaction timeout that a broker allows.
const MAX_TIMEOUT: Duration = Duration::from_secs(15 * 60);

pub(crate) struct Broker {
    generation: Generation,
    topics: BTreeMap<String, Partition>,
    transactions: BTreeMap<String, Transactional>,
    /// Of decided transactions: whether they were committed.
    outcomes: BTreeMap<u64, bool>,
    /// Committed offsets by group, topic and partition.
    groups: BTreeMap<(String, (String, i32)), i64>,
    next_producer: i64,
    next_transaction: u64,
}

impl Broker {
    pub(crate) fn new(generation: Generation) -> Self {
        Broker {
            generation,
            topics: BTreeMap::new(),
            transactions: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_producer: 1000,
            next_transaction: 1,
        }
    }

    /// Makes a topic; false if it is there.
    pub(crate) fn create_topic(&mut self, topic: &str) -> bool {
        let is_new = !self.topics.contains_key(topic);
        self.topics.entry(topic.to_owned()).or_default();
        is_new
    }

    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// What a request does. `delay` says how long a marker takes to a partition.
    pub(crate) fn handle(
        &mut self,
        request: &Request,
        now: Instant,
        delay: &mut dyn FnMut() -> Duration,
    ) -> Result<Option<Identity>, Refusal> {
        self.advance(now, delay);
        let outcome = match request {
            Request::InitProducerId { id, timeout } => self.init(id, *timeout, now, delay).map(Some),
            Request::AddPartition { id, from, topic } => self.add(id, *from, topic, now).map(|()| None),
            Request::Produce { id, from, topic, sequence, records } => {
                self.produce(id, *from, topic, *sequence, records).map(|()| None)
            }
            Request::CommitOffsets { id, from, group, offsets } => self.add(id, *from, "", now).map(|()| {
                if let Some(found) = self.transactions.get_mut(id) {
                    let place = |(topic, partition, offset): &(String, i32, i64)| {
                        (group.clone(), (topic.clone(), *partition), *offset)
                    };
                    found.offsets.extend(offsets.iter().map(place));
                }
                None
            }),
            Request::EndTransaction { id, from, commit } => self.end(id, *from, *commit, now, delay),
        };
        // What is due at once happens at once.
        self.advance(now, delay);
        outcome
    }

    /// Writes the markers that are due, and ends transactions that took too long.
    pub(crate) fn advance(&mut self, now: Instant, delay: &mut dyn FnMut() -> Duration) {
        let ids: Vec<String> = self.transactions.keys().cloned().collect();
        for id in ids {
            let Some(found) = self.transactions.get_mut(&id) else { continue };
            if found.state == State::Ongoing && now.saturating_duration_since(found.since) >= found.timeout {
                self.fence(&id, now, delay);
            }
            self.write_markers(&id, now);
        }
    }

    fn write_markers(&mut self, id: &str, now: Instant) {
        let Some(found) = self.transactions.get_mut(id) else { return };
        let State::Prepare { commit } = found.state else { return };
        let (due, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut found.markers).into_iter().partition(|(_, at)| *at <= now);
        found.markers = left;
        for (topic, _) in due {
            if topic.is_empty() {
                // The partition of the groups.
                let offsets = std::mem::take(&mut found.offsets);
                if commit {
                    self.groups.extend(offsets.into_iter().map(|(group, place, offset)| ((group, place), offset)));
                }
            } else if let Some(partition) = self.topics.get_mut(&topic) {
                partition.log.push(Entry::Marker);
                let identity = found.identity;
                let writer = partition.producers.entry(identity.producer);
                let writer = writer.or_insert(Writer { epoch: identity.epoch, next_sequence: 0, open: None });
                if writer.epoch != identity.epoch {
                    (writer.epoch, writer.next_sequence) = (identity.epoch, 0);
                }
                writer.open = None;
            }
        }
        if found.markers.is_empty() {
            found.state = State::Complete { commit };
        }
    }

    fn init(
        &mut self,
        id: &str,
        timeout: Duration,
        now: Instant,
        delay: &mut dyn FnMut() -> Duration,
    ) -> Result<Identity, Refusal> {
        if timeout > MAX_TIMEOUT || timeout.is_zero() {
            return Err(Refusal::InvalidTransactionTimeout);
        }
        match self.transactions.get_mut(id) {
            None => {
                let identity = Identity { producer: self.next_producer, epoch: 0 };
                self.next_producer += 1;
                let new = Transactional {
                    identity,
                    state: State::Empty,
                    timeout,
                    since: now,
                    number: 0,
                    topics: BTreeSet::new(),
                    offsets: Vec::new(),
                    markers: Vec::new(),
                };
                self.transactions.insert(id.to_owned(), new);
                Ok(identity)
            }
            Some(Transactional { state: State::Ongoing, .. }) => {
                self.fence(id, now, delay);
                Err(Refusal::ConcurrentTransactions)
            }
            Some(Transactional { state: State::Prepare { .. }, .. }) => Err(Refusal::ConcurrentTransactions),
            Some(found) => {
                found.identity.epoch += 1;
                found.state = State::Empty;
                found.timeout = timeout;
                Ok(found.identity)
            }
        }
    }

    /// Aborts an open transaction under a higher epoch, which shuts its producer out.
    fn fence(&mut self, id: &str, now: Instant, delay: &mut dyn FnMut() -> Duration) {
        if let Some(found) = self.transactions.get_mut(id) {
            found.identity.epoch += 1;
        }
        self.decide(id, false, now, delay);
    }

    /// From here on the outcome is fixed; the markers follow.
    fn decide(&mut self, id: &str, commit: bool, now: Instant, delay: &mut dyn FnMut() -> Duration) {
        let Some(found) = self.transactions.get_mut(id) else { return };
        found.state = State::Prepare { commit };
        found.markers = std::mem::take(&mut found.topics).into_iter().map(|topic| (topic, now + delay())).collect();
        self.outcomes.insert(found.number, commit);
        if !commit {
            found.offsets.clear();
        }
    }

    /// The transactional id of a producer that has not been shut out.
    fn known(&mut self, id: &str, from: Identity) -> Result<&mut Transactional, Refusal> {
        let found = self.transactions.get_mut(id).ok_or(Refusal::InvalidProducerIdMapping)?;
        match found.identity {
            identity if identity.producer != from.producer => Err(Refusal::InvalidProducerIdMapping),
            identity if identity.epoch != from.epoch => Err(Refusal::InvalidProducerEpoch),
            _ => Ok(found),
        }
    }

    /// Takes a partition (none: that of the groups) into the transaction, which begins with the first.
    fn add(&mut self, id: &str, from: Identity, topic: &str, now: Instant) -> Result<(), Refusal> {
        if !topic.is_empty() && !self.has_topic(topic) {
            return Err(Refusal::UnknownTopic);
        }
        let next = self.next_transaction;
        let found = self.known(id, from)?;
        match found.state {
            State::Prepare { .. } => return Err(Refusal::ConcurrentTransactions),
            State::Ongoing => {}
            State::Empty | State::Complete { .. } => {
                (found.state, found.since, found.number) = (State::Ongoing, now, next);
                found.topics.clear();
                self.next_transaction += 1;
            }
        }
        if let Some(found) = self.transactions.get_mut(id) {
            found.topics.insert(topic.to_owned());
        }
        Ok(())
    }

    fn produce(
        &mut self,
        id: &str,
        from: Identity,
        topic: &str,
        sequence: i32,
        records: &[Record],
    ) -> Result<(), Refusal> {
        let partition = self.topics.get_mut(topic).ok_or(Refusal::UnknownTopic)?;
        let known = partition.producers.get(&from.producer);
        if known.is_some_and(|writer| from.epoch < writer.epoch) {
            return Err(Refusal::InvalidProducerEpoch);
        }
        let same_epoch = known.filter(|writer| writer.epoch == from.epoch);
        let expected = same_epoch.map_or(0, |writer| writer.next_sequence);
        if sequence < expected {
            // Written already: the answer was lost.
            return Ok(());
        }
        // The first record of a transaction: is there one that has this partition?
        let number = {
            let found = self.transactions.get(id).ok_or(Refusal::InvalidProducerIdMapping)?;
            let is_open = found.identity == from && found.state == State::Ongoing && found.topics.contains(topic);
            if !is_open {
                return Err(Refusal::InvalidTransactionState);
            }
            found.number
        };
        if sequence > expected {
            return Err(Refusal::OutOfOrderSequence);
        }
        let writer = partition.producers.entry(from.producer);
        let writer = writer.or_insert(Writer { epoch: from.epoch, next_sequence: 0, open: None });
        writer.epoch = from.epoch;
        writer.next_sequence = sequence + records.len() as i32;
        writer.open.get_or_insert(partition.log.len());
        let entry = |record: &Record| Entry::Record { transaction: number, record: record.clone() };
        partition.log.extend(records.iter().map(entry));
        Ok(())
    }

    fn end(
        &mut self,
        id: &str,
        from: Identity,
        commit: bool,
        now: Instant,
        delay: &mut dyn FnMut() -> Duration,
    ) -> Result<Option<Identity>, Refusal> {
        let generation = self.generation;
        if let Some(found) = self.transactions.get(id)
            && generation == Generation::V2
            && found.identity == (Identity { epoch: from.epoch + 1, ..from })
            && matches!(found.state, State::Prepare { commit: was } | State::Complete { commit: was } if was == commit)
        {
            // The same request again: its first answer was lost.
            return Ok(Some(found.identity));
        }
        let found = self.known(id, from)?;
        match found.state {
            State::Empty => return Err(Refusal::InvalidTransactionState),
            State::Complete { commit: was } if was == commit => return Ok(None),
            State::Prepare { commit: was } if was == commit => return Err(Refusal::ConcurrentTransactions),
            State::Prepare { .. } | State::Complete { .. } => return Err(Refusal::InvalidTransactionState),
            State::Ongoing => {}
        }
        let raised = match generation {
            Generation::V1 => None,
            Generation::V2 => {
                found.identity.epoch += 1;
                Some(found.identity)
            }
        };
        self.decide(id, commit, now, delay);
        Ok(raised)
    }

    /// Appends records of no transaction.
    pub(crate) fn append(&mut self, topic: &str, records: Vec<Record>) {
        let entries = records.into_iter().map(|record| Entry::Record { transaction: 0, record });
        self.topics.entry(topic.to_owned()).or_default().log.extend(entries);
    }

    /// The high watermark of a topic, and its last stable offset.
    pub(crate) fn ends(&self, topic: &str) -> Option<(i64, i64)> {
        let partition = self.topics.get(topic)?;
        let open = partition.producers.values().filter_map(|writer| writer.open).min();
        Some((partition.log.len() as i64, open.unwrap_or(partition.log.len()) as i64))
    }

    /// The next record that a `read_committed` reader sees from an offset on, with its offset; none: the end.
    pub(crate) fn next_committed(&self, topic: &str, from: i64) -> Option<(i64, Record)> {
        let (_, stable) = self.ends(topic)?;
        let log = &self.topics.get(topic)?.log;
        let is_committed = |offset: i64| match &log[offset as usize] {
            Entry::Record { transaction, record } if self.is_committed(*transaction) => Some((offset, record.clone())),
            _ => None,
        };
        (from.max(0)..stable).find_map(is_committed)
    }

    fn is_committed(&self, transaction: u64) -> bool {
        transaction == 0 || self.outcomes.get(&transaction) == Some(&true)
    }

    /// Everything in a topic that is decided and committed, with the number of its transaction, whether its markers are written or not.
    pub(crate) fn committed(&self, topic: &str) -> Vec<(u64, Record)> {
        let log = self.topics.get(topic).map_or(&[][..], |partition| &partition.log);
        let committed = log.iter().filter_map(|entry| match entry {
            Entry::Record { transaction, record } => Some((*transaction, record)),
            Entry::Marker => None,
        });
        committed.filter(|(number, _)| self.is_committed(*number)).map(|(n, record)| (n, record.clone())).collect()
    }

    /// How many transactions are decided.
    pub(crate) fn decided(&self) -> usize {
        self.outcomes.len()
    }

    /// The committed offset of a group.
    pub(crate) fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.groups.get(&(group.to_owned(), (topic.to_owned(), partition))).copied()
    }

    /// The transactional ids whose transactions have not ended.
    pub(crate) fn open(&self) -> Vec<String> {
        let is_open = |found: &Transactional| matches!(found.state, State::Ongoing | State::Prepare { .. });
        self.transactions.iter().filter(|(_, found)| is_open(found)).map(|(id, _)| id.clone()).collect()
    }
}
