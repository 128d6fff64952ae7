//! What a source's thread knows of its partitions: which there are, whether they are still the same, what is lost, what is
//! held back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millpond_core::{Error, ErrorKind, Result};

use super::discovery::{Ends, ends, starting_offsets};
use super::fetcher::{Fetcher, WatchedTopic};
use super::metrics::add;
use super::options::{Lost, StartingOffsets};
use super::queues::{Key, PartitionQueue};
use super::replay::{BESIDE, another_cluster, lost, lost_unseen};
use crate::native::{TopicInfo, cached_high_watermark};
use crate::position::{Position, TopicId, partition_name};

/// How often partitions that hold back or have not grown to their starting offset are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a transaction may hold a partition back before a warning.
const HELD_BACK_WARNING: Duration = Duration::from_secs(10);
/// So many times in a row a topic must be unknown to be gone: metadata of a broker that has just started may lack it.
const GONE_AFTER: u32 = 3;

impl Fetcher {
    pub(super) fn find_all(&mut self) -> Result<()> {
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
    pub(super) fn stable_ends(&self, keys: &[Key]) -> Result<Vec<Ends>> {
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
    pub(super) fn check_ends(&mut self, key: &Key, ends: Ends) -> Result<()> {
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

    pub(super) fn look_after(&mut self) -> Result<()> {
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
            if let Some(queue) = self.task.shared.queues().partitions.get_mut(key) {
                queue.high = end;
            }
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
}

/// The partitions of topics that exist.
fn keys(topics: &[TopicInfo]) -> impl Iterator<Item = Key> + '_ {
    topics.iter().filter(|topic| topic.error.is_none()).flat_map(|topic| {
        let name: Arc<str> = Arc::from(&*topic.name);
        topic.partitions.iter().map(move |partition| (Arc::clone(&name), *partition))
    })
}
