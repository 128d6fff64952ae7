//! The thread of a source: fetches, hands over to the queues, logs content if asked to, and looks after partitions that
//! come, go, end or hold back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::log::{BlockLog, Budget};
use millpond_core::source::{BlockId, SourceEvents};
use millpond_core::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::blocks::log_run;
use super::discovery::{Discovery, Ends, ends, starting_offsets};
use super::metrics::{KafkaSourceMetrics, add};
use super::options::{Lost, Options, StartingOffsets};
use super::queues::{Key, Lease, PartitionQueue, Queues, Run};
use super::replay::{BESIDE, another_cluster, lost, lost_unseen};
use crate::client::{Consumer, Reports, client_of, consumer, serve, wait_for_cluster};
use crate::error::{failed, kind_of};
use crate::native::{FetchQueue, Fetched, Messages, TopicInfo, cached_high_watermark};
use crate::position::{Position, TopicId, cluster_hash, partition_name};

/// Messages in one fetch.
const FETCH: usize = 2048;
/// How long a fetch waits for the first message; also how often the rest is looked after.
const FETCH_WAIT: Duration = Duration::from_millis(50);
/// How long the thread rests when the budget is used up.
const FULL_WAIT: Duration = Duration::from_millis(1);
/// How often partitions that hold back or have not grown to their starting offset are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a transaction may hold a partition back before a warning.
const HELD_BACK_WARNING: Duration = Duration::from_secs(10);
/// So many times in a row a topic must be unknown to be gone: metadata of a broker that has just started may lack it.
const GONE_AFTER: u32 = 3;
/// The same error of a client is not reported more often.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Records that a partition may have waiting, whatever a limit of records per batch says, before it is paused.
const PAUSE_FLOOR: u64 = 20_000;

/// What the thread shares with the source.
#[derive(Default)]
pub(crate) struct Shared {
    queues: Mutex<Queues>,
    stop: AtomicBool,
}

impl Shared {
    pub(crate) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// What a source gives to its thread.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) options: Arc<Options>,
    pub(crate) name: String,
    pub(crate) group: String,
    /// Nothing was planned before: starting offsets apply.
    pub(crate) first_start: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) blocks: BlockLog,
    pub(crate) events: SourceEvents,
    pub(crate) metrics: Arc<KafkaSourceMetrics>,
}

pub(crate) struct Fetcher {
    task: Task,
    discovery: Discovery,
    consumer: Arc<Consumer>,
    queue: FetchQueue,
    cluster: u64,
    partitions: HashMap<Key, Watched>,
    topics: HashMap<String, WatchedTopic>,
    /// The consumer has given a partition up.
    given_up: bool,
    next_discovery: Instant,
    next_look: Instant,
    reported: HashMap<String, Instant>,
}

/// A partition as the thread sees it.
#[derive(Default)]
struct Watched {
    assigned: bool,
    paused: bool,
    /// Its end, if everything before has come.
    at_end: Option<i64>,
    held_back_since: Option<Instant>,
    warned: bool,
}

struct WatchedTopic {
    id: TopicId,
    missed: u32,
}

impl Fetcher {
    /// Connects, finds the partitions, checks or makes their positions, and assigns them.
    pub(crate) fn connect(task: Task) -> Result<Self> {
        let options = Arc::clone(&task.options);
        let discovery = Discovery::new(&options)?;
        let consumer = open(&task)?;
        let goes_on = || task.shared.goes_on();
        let id = wait_for_cluster(
            client_of(&consumer),
            &options.brokers,
            options.wait_for_broker,
            || serve(&consumer),
            goes_on,
        )?;
        let mut fetcher = Fetcher {
            discovery,
            queue: FetchQueue::new(Arc::clone(&consumer)),
            consumer,
            cluster: cluster_hash(&id),
            partitions: HashMap::new(),
            topics: HashMap::new(),
            given_up: false,
            next_discovery: Instant::now() + options.discover_every,
            next_look: Instant::now(),
            reported: HashMap::new(),
            task,
        };
        fetcher.find_all()?;
        Ok(fetcher)
    }

    fn find_all(&mut self) -> Result<()> {
        let limit = self.task.options.wait_for_broker;
        let known: Vec<(Key, Position)> = self.known();
        if let Some((key, _)) = known.iter().find(|(_, position)| position.cluster != self.cluster) {
            return Err(another_cluster(&partition_name(&key.0, key.1), &self.task.options.brokers));
        }
        let is_known = |topic: &str| known.iter().any(|(key, _)| &*key.0 == topic);
        let topics = self.discovery.first(&self.consumer, limit, is_known)?;
        // A topic that was read before and is gone, or is another one under the old name.
        for (key, position) in &known {
            self.check_known(&topics, key, *position)?;
        }
        let present: Vec<Key> = keys(&topics).filter(|key| known.iter().any(|(known, _)| known == key)).collect();
        let found = self.stable_ends(&present)?;
        for (key, ends) in present.iter().zip(found) {
            self.check_ends(key, ends)?;
        }
        self.add_new(&topics, limit)?;
        // What is found later was not there at the first start.
        self.task.first_start = false;
        let mut all: Vec<Key> = keys(&topics).collect();
        all.retain(|key| self.is_reached(key));
        self.assign(&all)
    }

    fn known(&self) -> Vec<(Key, Position)> {
        let queues = self.task.shared.queues();
        let position = |queue: &PartitionQueue| Position {
            cluster: queue.cluster,
            topic_id: queue.topic_id,
            next: queue.next,
            reached: queue.reached,
        };
        queues.partitions.iter().map(|(key, queue)| (key.clone(), position(queue))).collect()
    }

    fn is_reached(&self, key: &Key) -> bool {
        self.task.shared.queues().partitions.get(key).is_some_and(|queue| queue.reached)
    }

    /// Whether a partition that was read before is still the same one.
    fn check_known(&mut self, topics: &[TopicInfo], key: &Key, position: Position) -> Result<()> {
        let (topic, partition) = (&*key.0, key.1);
        let found = topics.iter().find(|found| found.name == topic && found.error.is_none());
        let Some(found) = found.filter(|found| found.partitions.contains(&partition)) else {
            let what = format!("topic {topic} is gone; partition {partition} was read up to offset {}", position.next);
            // What was received is in the log; whether the rest matters shows when the topic comes again.
            if self.task.options.log_content {
                self.report(&format!("gone {topic}"), Error::new(ErrorKind::Retry, what));
                return Ok(());
            }
            return self.lose(&what, None);
        };
        if position.topic_id.is_another(found.id) {
            let what = format!(
                "topic {topic} was deleted and made again; partition {partition} was read up to offset {} of the old one",
                position.next
            );
            self.lose(&what, None)?;
            self.restart_partition(key, found.id, 0);
        } else if let Some(queue) = self.task.shared.queues().partitions.get_mut(key) {
            queue.topic_id = found.id;
        }
        Ok(())
    }

    /// The ends of partitions; looked at again if one seems shorter than it was, since a broker that has just started may
    /// not know its last records yet.
    fn stable_ends(&self, keys: &[Key]) -> Result<Vec<Ends>> {
        let limit = self.task.options.wait_for_broker;
        let deadline = Instant::now() + BESIDE;
        loop {
            let found = ends(&self.consumer, keys, limit)?;
            let queues = self.task.shared.queues();
            let short = |(key, ends): (&Key, &Ends)| {
                queues.partitions.get(key).is_some_and(|queue| queue.reached && ends.high < queue.fetched)
            };
            if !keys.iter().zip(&found).any(short) || Instant::now() >= deadline {
                return Ok(found);
            }
            drop(queues);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Whether the broker still has what comes next in a partition.
    fn check_ends(&mut self, key: &Key, ends: Ends) -> Result<()> {
        let (fetched, reached) = {
            let queues = self.task.shared.queues();
            let Some(queue) = queues.partitions.get(key) else { return Ok(()) };
            (queue.fetched, queue.reached)
        };
        let name = partition_name(&key.0, key.1);
        if fetched < ends.low {
            let what = format!("{name} now begins at offset {}, reading goes on at {fetched}", ends.low);
            self.lose(&what, Some((ends.low - fetched) as u64))?;
            self.jump(key, ends.low);
        } else if reached && fetched > ends.high {
            let what = format!(
                "{name} ends at offset {}, but was read up to {fetched}: the broker has lost records",
                ends.high
            );
            self.lose(&what, Some((fetched - ends.high) as u64))?;
            self.jump(key, ends.high);
        } else if !reached
            && fetched <= ends.high
            && let Some(queue) = self.task.shared.queues().partitions.get_mut(key)
        {
            queue.reached = true;
        }
        Ok(())
    }

    /// Applies the policy for what is lost.
    fn lose(&mut self, what: &str, count: Option<u64>) -> Result<()> {
        let error = match count {
            Some(count) => lost(what, count, "offsets"),
            None => lost_unseen(what),
        };
        match self.task.options.lost {
            Lost::Stop => Err(error),
            Lost::LogAndSkip => {
                add(&self.task.metrics.lost_offsets, count.unwrap_or(0));
                tracing::warn!(source = self.task.name, "{error}");
                self.task.events.error(error);
                Ok(())
            }
        }
    }

    fn jump(&self, key: &Key, to: i64) {
        if let Some(queue) = self.task.shared.queues().partitions.get_mut(key) {
            queue.jump(to);
        }
    }

    /// The partition of a topic that was made again.
    fn restart_partition(&self, key: &Key, topic_id: TopicId, next: i64) {
        let position = Position { cluster: self.cluster, topic_id, next, reached: true };
        self.task.shared.queues().partitions.insert(key.clone(), PartitionQueue::new(position));
    }

    /// Adds partitions that are not known yet. At the very first start they begin at the starting offsets, later at their
    /// beginning.
    fn add_new(&mut self, topics: &[TopicInfo], limit: Duration) -> Result<Vec<Key>> {
        let new: Vec<Key> = {
            let queues = self.task.shared.queues();
            keys(topics).filter(|key| !queues.partitions.contains_key(key)).collect()
        };
        for topic in topics.iter().filter(|topic| topic.error.is_none()) {
            self.topics.entry(topic.name.clone()).or_insert(WatchedTopic { id: topic.id, missed: 0 });
        }
        if new.is_empty() {
            return Ok(new);
        }
        let earliest = StartingOffsets::Earliest;
        let starting = if self.task.first_start { &self.task.options.starting } else { &earliest };
        let offsets = starting_offsets(&self.consumer, &new, starting, limit)?;
        let found = ends(&self.consumer, &new, limit)?;
        let mut queues = self.task.shared.queues();
        for ((key, next), ends) in new.iter().zip(offsets).zip(found) {
            let topic_id = self.topics.get(&*key.0).map_or_else(TopicId::default, |topic| topic.id);
            let position = Position { cluster: self.cluster, topic_id, next, reached: next <= ends.high };
            queues.partitions.insert(key.clone(), PartitionQueue::new(position));
        }
        Ok(new)
    }

    fn assign(&mut self, keys: &[Key]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(keys.len());
        for key in keys {
            let watched = self.partitions.entry(key.clone()).or_default();
            if watched.assigned {
                continue;
            }
            let fetched = self.task.shared.queues().partitions.get(key).map_or(0, |queue| queue.fetched);
            let place = || format!("cannot read {} from offset {fetched}", partition_name(&key.0, key.1));
            self.queue.forward(&key.0, key.1).map_err(|error| failed(place(), error))?;
            list.add_partition_offset(&key.0, key.1, Offset::Offset(fetched))
                .map_err(|error| failed(place(), error))?;
            watched.assigned = true;
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_assign(&list).map_err(|error| failed("cannot assign partitions", error))
    }

    /// Begins anew with another consumer, at what is to be fetched next: a partition that was given up cannot be taken again
    /// by the same one (see [`FetchQueue::forward`]).
    fn reopen(&mut self) -> Result<()> {
        let mut keys: Vec<Key> =
            self.partitions.iter().filter(|(_, w)| w.assigned).map(|(key, _)| key.clone()).collect();
        keys.sort();
        self.consumer = open(&self.task)?;
        self.queue = FetchQueue::new(Arc::clone(&self.consumer));
        self.partitions.clear();
        self.given_up = false;
        self.assign(&keys)
    }

    fn unassign(&mut self, key: &Key) -> Result<()> {
        let watched = self.partitions.entry(key.clone()).or_default();
        if !std::mem::take(&mut watched.assigned) {
            return Ok(());
        }
        *watched = Watched::default();
        self.given_up = true;
        let mut list = TopicPartitionList::new();
        list.add_partition(&key.0, key.1);
        self.consumer.incremental_unassign(&list).map_err(|error| failed("cannot give a partition up", error))
    }

    /// Fetches until it is told to stop, or fails.
    pub(crate) fn run(mut self) -> Result<()> {
        let budget = Arc::clone(self.task.blocks.budget());
        while self.task.shared.goes_on() {
            serve(&self.consumer);
            self.report_errors();
            self.look_after()?;
            if !budget.has_room() {
                std::thread::park_timeout(FULL_WAIT);
                continue;
            }
            let mut fetched = Vec::new();
            self.queue.fetch(FETCH, FETCH_WAIT, |part| fetched.push(part));
            self.hand_over(fetched, &budget)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, fetched: Vec<Fetched>, budget: &Arc<Budget>) -> Result<()> {
        let mut runs = Vec::new();
        let mut events = Vec::new();
        for part in fetched {
            match part {
                Fetched::Messages { topic, partition, messages } => runs.push((topic, partition, messages)),
                Fetched::Event { topic, partition, code, offset, text } => {
                    events.push(((topic, partition), code, offset, text))
                }
            }
        }
        if self.task.options.log_content {
            for (topic, partition, messages) in runs {
                let Some(key) = self.key(&topic, partition) else { continue };
                let parts = self.log(&key, messages)?;
                let mut queues = self.task.shared.queues();
                for (block, messages) in parts {
                    push(&mut queues, &key, messages, Some(block), budget, &self.task.metrics);
                }
            }
        } else if !runs.is_empty() {
            let mut queues = self.task.shared.queues();
            for (topic, partition, messages) in runs {
                let Some(key) = self.key(&topic, partition) else { continue };
                push(&mut queues, &key, messages, None, budget, &self.task.metrics);
            }
        }
        for ((topic, partition), code, offset, text) in events {
            let Some(key) = self.key(&topic, partition) else { continue };
            self.event(&key, code, offset, &text)?;
        }
        self.pause_and_resume()
    }

    /// The key under which a partition is watched; `None` for one that was given up meanwhile.
    fn key(&self, topic: &str, partition: i32) -> Option<Key> {
        let key = (Arc::from(topic), partition);
        self.partitions.get(&key).is_some_and(|watched| watched.assigned).then_some(key)
    }

    /// Makes the records durable, in order, and gives them back with their blocks. A full disk is waited out.
    fn log(&mut self, key: &Key, messages: Messages) -> Result<Vec<(BlockId, Messages)>> {
        let stands = {
            let queues = self.task.shared.queues();
            let Some(queue) = queues.partitions.get(key) else { return Ok(Vec::new()) };
            Position { cluster: self.cluster, topic_id: queue.topic_id, next: queue.pushed, reached: true }
        };
        let (blocks, shared, events) = (&self.task.blocks, &self.task.shared, &self.task.events);
        log_run(
            blocks,
            key,
            stands,
            messages,
            || shared.goes_on(),
            |error| events.error(error),
            |block| {
                shared.queues().discarded.push(block);
            },
        )
    }

    fn event(&mut self, key: &Key, code: Code, offset: i64, text: &str) -> Result<()> {
        let name = partition_name(&key.0, key.1);
        match code {
            Code::PartitionEOF => {
                if let Some(watched) = self.partitions.get_mut(key) {
                    watched.at_end = Some(offset);
                }
                Ok(())
            }
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                // The partition is not fetched any more: look why, then go on from where it should.
                let found = self.stable_ends(std::slice::from_ref(key))?[0];
                self.check_ends(key, found)?;
                self.reopen()
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
                self.next_discovery = self.next_discovery.min(Instant::now() + Duration::from_millis(200));
                Ok(())
            }
            code if kind_of(Some(code)) == ErrorKind::Configuration => {
                Err(Error::new(ErrorKind::Configuration, format!("{name} cannot be read: {text}")))
            }
            _ => {
                self.report(text, Error::new(ErrorKind::Retry, format!("source `{}`, {name}: {text}", self.task.name)));
                Ok(())
            }
        }
    }

    /// With a limit of records a batch, a partition that is far behind must not take the room of the others.
    fn pause_and_resume(&mut self) -> Result<()> {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        {
            let queues = self.task.shared.queues();
            let most = self.task.options.max_records_per_partition.or(queues.asked_per_partition);
            for (key, watched) in &mut self.partitions {
                let Some(queue) = queues.partitions.get(key).filter(|_| watched.assigned) else { continue };
                let ahead = most.map_or(u64::MAX, |most| most.saturating_mul(8).max(PAUSE_FLOOR));
                if !watched.paused && queue.waiting_records() > ahead {
                    pause.add_partition(&key.0, key.1);
                    watched.paused = true;
                } else if watched.paused && queue.waiting_records() <= ahead / 2 {
                    resume.add_partition(&key.0, key.1);
                    watched.paused = false;
                }
            }
        }
        if pause.count() > 0 {
            self.consumer.pause(&pause).map_err(|error| failed("cannot pause partitions", error))?;
        }
        if resume.count() > 0 {
            self.consumer.resume(&resume).map_err(|error| failed("cannot resume partitions", error))?;
        }
        Ok(())
    }

    fn look_after(&mut self) -> Result<()> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY.min(self.task.options.discover_every);
            self.look_at_ends(now)?;
        }
        if now >= self.next_discovery {
            self.next_discovery = now + self.task.options.discover_every;
            self.discover()?;
        }
        Ok(())
    }

    /// Partitions that somebody's open transaction holds back (H7), and those that have not grown to their starting offset.
    fn look_at_ends(&mut self, now: Instant) -> Result<()> {
        let mut held_back = 0;
        for (key, watched) in &mut self.partitions {
            // What the last response said: no request.
            let end = cached_high_watermark(&self.consumer, &key.0, key.1).unwrap_or(0);
            match watched.at_end.filter(|at| watched.assigned && end > *at) {
                // Records have come since the end was met: the next one will tell.
                Some(at) if self.task.shared.queues().partitions.get(key).is_some_and(|queue| queue.fetched > at) => {
                    (watched.held_back_since, watched.warned) = (None, false);
                }
                Some(at) => {
                    let since = *watched.held_back_since.get_or_insert(now);
                    held_back += u64::from(now > since);
                    if now - since >= HELD_BACK_WARNING && !std::mem::replace(&mut watched.warned, true) {
                        tracing::warn!(
                            source = self.task.name,
                            "{}: a transaction that somebody has left open holds readers at offset {at}, {} offsets wait \
                             behind it",
                            partition_name(&key.0, key.1),
                            end - at
                        );
                    }
                }
                None => (watched.held_back_since, watched.warned) = (None, false),
            }
        }
        self.task.metrics.held_back_partitions.store(held_back, Ordering::Relaxed);

        let unreached: Vec<Key> = {
            let queues = self.task.shared.queues();
            queues.partitions.iter().filter(|(_, queue)| !queue.reached).map(|(key, _)| key.clone()).collect()
        };
        if unreached.is_empty() {
            return Ok(());
        }
        match ends(&self.consumer, &unreached, BESIDE) {
            Ok(found) => {
                for (key, ends) in unreached.iter().zip(found) {
                    self.check_ends(key, ends)?;
                }
                let reached: Vec<Key> = unreached.into_iter().filter(|key| self.is_reached(key)).collect();
                self.assign(&reached)
            }
            Err(error) => {
                self.report("ends", error);
                Ok(())
            }
        }
    }

    /// Topics and partitions that have come or gone.
    fn discover(&mut self) -> Result<()> {
        let topics = match self.discovery.topics(&self.consumer, BESIDE) {
            Ok(topics) => topics,
            // The broker is away: the same at the next time.
            Err(error) => {
                self.report("discovery", error);
                return Ok(());
            }
        };
        let names: Vec<String> = self.topics.keys().cloned().collect();
        for name in names {
            let found = topics.iter().find(|topic| topic.name == name && topic.error.is_none());
            let Some(watched) = self.topics.get_mut(&name) else { continue };
            match found {
                None => {
                    watched.missed += 1;
                    if watched.missed == GONE_AFTER {
                        self.topic_is_gone(&name)?;
                    } else {
                        self.next_discovery = self.next_discovery.min(Instant::now() + Duration::from_secs(1));
                    }
                }
                Some(found) if watched.id.is_another(found.id) => {
                    watched.id = found.id;
                    watched.missed = 0;
                    let (id, partitions) = (found.id, found.partitions.clone());
                    self.topic_was_made_again(&name, id, &partitions)?;
                }
                Some(_) => watched.missed = 0,
            }
        }
        // What is read before and came again while nobody looked is found by its positions.
        let known = self.known();
        for (key, position) in known {
            let is_new = !self.topics.contains_key(&*key.0);
            if is_new && topics.iter().any(|topic| topic.name == *key.0 && topic.error.is_none()) {
                self.check_known(&topics, &key, position)?;
            }
        }
        let new = match self.add_new(&topics, BESIDE) {
            Ok(new) => new,
            Err(error) => {
                self.report("discovery", error);
                return Ok(());
            }
        };
        if !new.is_empty() {
            tracing::info!(
                source = self.task.name,
                "{} new partitions, {}/{} the first",
                new.len(),
                new[0].0,
                new[0].1
            );
        }
        let mut present: Vec<Key> = keys(&topics).collect();
        present.retain(|key| self.is_reached(key));
        if self.given_up && present.iter().any(|key| !self.partitions.get(key).is_some_and(|w| w.assigned)) {
            self.reopen()?;
        }
        self.assign(&present)
    }

    fn topic_is_gone(&mut self, topic: &str) -> Result<()> {
        let what = format!("topic {topic} was deleted; what had not been read of it is gone");
        self.lose(&what, None)?;
        self.drop_topic(topic)
    }

    fn drop_topic(&mut self, topic: &str) -> Result<()> {
        let keys: Vec<Key> = self.partitions.keys().filter(|key| &*key.0 == topic).cloned().collect();
        keys.iter().try_for_each(|key| self.unassign(key))
    }

    fn topic_was_made_again(&mut self, topic: &str, id: TopicId, partitions: &[i32]) -> Result<()> {
        let what = format!("topic {topic} was deleted and made again; what had not been read of the old one is gone");
        self.lose(&what, None)?;
        self.drop_topic(topic)?;
        for partition in partitions {
            self.restart_partition(&(Arc::from(topic), *partition), id, 0);
        }
        Ok(())
    }

    fn report_errors(&mut self) {
        for (code, text) in client_of(&self.consumer).context().take_errors() {
            let error = Error::new(kind_of(Some(code)), format!("source `{}`: {text}", self.task.name));
            self.report(&format!("{code:?}"), error);
        }
    }

    /// Reports an error that the source survives, the same one now and then only.
    fn report(&mut self, same: &str, error: Error) {
        let now = Instant::now();
        if self.reported.get(same).is_some_and(|last| now - *last < REPORT_EVERY) {
            return;
        }
        self.reported.insert(same.to_owned(), now);
        tracing::warn!(source = self.task.name, "{error}");
        self.task.events.error(error);
    }
}

fn open(task: &Task) -> Result<Arc<Consumer>> {
    let reports = Reports::new(format!("source `{}`", task.name));
    Ok(Arc::new(consumer(&task.options.client(&task.group), reports)?))
}

/// Puts fetched records where plans take them from.
fn push(
    queues: &mut Queues,
    key: &Key,
    messages: Messages,
    block: Option<BlockId>,
    budget: &Arc<Budget>,
    metrics: &KafkaSourceMetrics,
) {
    let Some(queue) = queues.partitions.get_mut(key) else { return };
    let (Some(first), Some(last)) = (messages.first_offset(), messages.last_offset()) else { return };
    // Never: a partition is assigned at `fetched`, and librdkafka hands out nothing before. But twice is worse than a check.
    if first < queue.fetched {
        tracing::error!("{} gave offset {first} again", partition_name(&key.0, key.1));
        return;
    }
    let (records, bytes) = (messages.len() as u64, messages.bytes());
    add(&metrics.fetched_records, records);
    add(&metrics.fetched_bytes, bytes);
    queue.push(Run { records, end: last + 1, block, memory: Some((messages, Lease::new(budget, bytes))) });
}

/// The partitions of topics that exist.
fn keys(topics: &[TopicInfo]) -> impl Iterator<Item = Key> + '_ {
    topics.iter().filter(|topic| topic.error.is_none()).flat_map(|topic| {
        let name: Arc<str> = Arc::from(&*topic.name);
        topic.partitions.iter().map(move |partition| (Arc::clone(&name), *partition))
    })
}
