//! The same random script of calls on the model and on a real broker: two producers with one transactional id that shut one another
//! out, and a reader. What each call said, in the words by which the sink decides, and what the reader saw, must be the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_core::Result;
use millpond_core::sink::Records;

use super::broker::Generation;
use super::cluster::{Fate, Fates, ModelCluster};
use crate::client::retry_by;
use crate::settings::Settings;
use crate::sink::client::{Cluster, CursorReader, Isolation, Polled};
use crate::sink::{Failure, Librdkafka, Outcome, Partitioner, TransactionalProducer};

/// Where a script is played.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// On the model.
    Model,
    /// On the real broker at this address.
    Broker(&'a str),
}

/// Longer than any call takes.
const LIMIT: Duration = Duration::from_secs(60);
/// What does not move for so long stands still.
const STILL: Duration = Duration::from_millis(400);
/// Of scripts in which a transaction takes too long: the timeout, and how long nobody does anything.
const SHORT_TIMEOUT_MS: u64 = 8_000;
const EXPIRES_AFTER: Duration = Duration::from_secs(11);

/// Plays the script of a seed, on topics and under an id that begin with `name`; what each call said.
///
/// # Errors
/// The script cannot be played: no broker, no topics.
pub fn play(seed: u64, calls: usize, name: &str, side: Side<'_>) -> Result<Vec<String>> {
    let (cluster, brokers): (Arc<dyn Cluster>, &str) = match side {
        Side::Broker(brokers) => (Arc::new(Librdkafka), brokers),
        Side::Model => {
            let fates = Box::new(Calm { base: Instant::now(), elapsed_us: AtomicU64::new(0) });
            (Arc::new(ModelCluster::new(fates, Generation::V1, Duration::ZERO)), "model:9092")
        }
    };
    let topics = ["a", "b"].map(|topic| format!("{name}-{seed:x}-{topic}"));
    let reader = |topic: &String| -> Result<Box<dyn CursorReader>> {
        let reader = cluster.reader(brokers, topic, name, &Settings::default())?;
        reader.wait_for_cluster(LIMIT)?;
        // There already if the script was played before.
        let _ = reader.create_topic(topic, &[], LIMIT);
        Ok(reader)
    };
    let readers = topics.iter().map(reader).collect::<Result<Vec<_>>>()?;
    let expires = seed & 3 == 0;
    let mut settings = Settings::default();
    let timeout_ms = if expires { SHORT_TIMEOUT_MS } else { 60_000 };
    settings.set("transaction.timeout.ms".into(), timeout_ms.to_string());
    let (id, brokers) = (format!("{name}-{seed:x}"), brokers.to_owned());
    let mut stage = Stage { cluster, brokers, id, settings, topics, readers, slots: [Slot::Gone, Slot::Gone], next: 0 };
    let mut dice = Dice(seed | 1);
    let mut said = Vec::new();
    let mut may_expire = expires;
    for _ in 0..calls {
        let slot = dice.below(2);
        said.push(stage.call(slot, &mut dice, &mut may_expire, !expires)?);
    }
    said.push(stage.read()?);
    Ok(said)
}

enum Slot {
    /// Not made, or of no use any more.
    Gone,
    Ready(TransactionalProducer),
    Open(TransactionalProducer, bool),
}

struct Stage {
    cluster: Arc<dyn Cluster>,
    brokers: String,
    id: String,
    settings: Settings,
    topics: [String; 2],
    readers: Vec<Box<dyn CursorReader>>,
    slots: [Slot; 2],
    next: u64,
}

impl Stage {
    /// One call of a producer, or a look at what is there.
    fn call(&mut self, number: usize, dice: &mut Dice, may_expire: &mut bool, may_crash: bool) -> Result<String> {
        let slot = std::mem::replace(&mut self.slots[number], Slot::Gone);
        let (what, next) = match slot {
            Slot::Gone => {
                let mut producer = TransactionalProducer::new(&self.cluster, &self.brokers, &self.id, &self.settings)?;
                for topic in &self.topics {
                    producer.add_topic(topic, Partitioner::Murmur2)?;
                }
                let outcome = producer.init(LIMIT);
                (said("init", &outcome), if outcome.is_ok() { Slot::Ready(producer) } else { Slot::Gone })
            }
            Slot::Ready(mut producer) => match dice.below(10) {
                0 => (self.read()?, Slot::Ready(producer)),
                1 => ("dropped".into(), Slot::Gone),
                _ => {
                    let outcome = producer.begin();
                    (said("begin", &outcome), if outcome.is_ok() { Slot::Open(producer, false) } else { Slot::Gone })
                }
            },
            Slot::Open(mut producer, written) => match dice.below(20) {
                0..8 => self.write(producer, dice.below(2), 1 + dice.below(3)),
                8..11 => {
                    let offsets = [(&*self.topics[0], 0, self.next as i64)];
                    match self.readers[0].group() {
                        Some(group) => {
                            let outcome = producer.send_offsets(&offsets, &group);
                            (said("offsets", &outcome), after(outcome, producer, true))
                        }
                        None => ("no group".into(), Slot::Gone),
                    }
                }
                11..15 => {
                    let outcome = producer.commit();
                    (said("commit", &outcome), if outcome.is_ok() { Slot::Ready(producer) } else { Slot::Gone })
                }
                15..17 => {
                    let outcome = producer.abort();
                    (said("abort", &outcome), if outcome.is_ok() { Slot::Ready(producer) } else { Slot::Gone })
                }
                17 if may_crash => ("dropped in a transaction".into(), Slot::Gone),
                18 if *may_expire && written => {
                    *may_expire = false;
                    self.cluster.sleep(EXPIRES_AFTER);
                    ("a pause".into(), Slot::Open(producer, written))
                }
                _ => (self.read()?, Slot::Open(producer, written)),
            },
        };
        self.slots[number] = next;
        Ok(format!("producer {number}: {what}"))
    }

    fn write(&mut self, mut producer: TransactionalProducer, topic: usize, count: usize) -> (String, Slot) {
        let mut records = Records::new();
        for _ in 0..count {
            records.push(None, Some(format!("record {}", self.next).as_bytes()));
            self.next += 1;
        }
        let outcome = producer.produce(&self.topics[topic], &records).and_then(|()| producer.drain());
        (said("write", &outcome), after(outcome, producer, true))
    }

    /// What is committed in each topic, whether a transaction holds readers, and the high watermark.
    fn read(&mut self) -> Result<String> {
        let mut seen = Vec::new();
        for (topic, reader) in self.readers.iter().enumerate() {
            let (high, stable) = self.stand_still(&**reader)?;
            let mut values = Vec::new();
            let cannot = |error| crate::error::failed("cannot read", error);
            if stable > 0 {
                reader.assign(0).map_err(cannot)?;
                let deadline = self.cluster.now() + LIMIT;
                while self.cluster.now() < deadline {
                    match reader.poll(Duration::from_millis(100)) {
                        Some(Polled::Record { value, .. }) => values.push(text(value)),
                        Some(Polled::End) => break,
                        Some(Polled::Failed(_)) | None => {}
                    }
                }
                reader.unassign().map_err(cannot)?;
            }
            seen.push(format!("topic {topic}: {values:?}, high {high}, held {}", stable < high));
        }
        Ok(seen.join("; "))
    }

    /// The ends of a partition when its markers are written.
    fn stand_still(&self, reader: &dyn CursorReader) -> Result<(i64, i64)> {
        let cannot = |error| crate::error::failed("cannot ask for the end", error);
        let ends = || -> Result<(i64, i64)> {
            // A topic that was just made has no leader at first.
            let end = |isolation| {
                let ask = |limit| reader.watermarks(isolation, limit);
                retry_by(&*self.cluster, LIMIT, ask, || reader.serve()).map_err(cannot).map(|(_, end)| end)
            };
            Ok((end(Isolation::Uncommitted)?, end(Isolation::Committed)?))
        };
        let mut last = ends()?;
        let mut since = self.cluster.now();
        while self.cluster.now() - since < STILL {
            self.cluster.sleep(Duration::from_millis(20));
            let now = ends()?;
            if now != last {
                (last, since) = (now, self.cluster.now());
            }
        }
        Ok(last)
    }
}

fn text(value: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

/// The class of an outcome: by it the sink decides.
fn said(call: &str, outcome: &Outcome<()>) -> String {
    let class = match outcome {
        Ok(()) => "done",
        Err(Failure::Abort(_)) => "the transaction has to be aborted",
        Err(Failure::Producer { fenced: true, .. }) => "the producer is shut out",
        Err(Failure::Producer { fenced: false, .. }) => "the producer is of no use",
    };
    format!("{call}: {class}")
}

/// After a call within a transaction.
fn after(outcome: Outcome<()>, producer: TransactionalProducer, written: bool) -> Slot {
    match outcome {
        Ok(()) | Err(Failure::Abort(_)) => Slot::Open(producer, written),
        Err(Failure::Producer { .. }) => Slot::Gone,
    }
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit) as usize
    }
}

/// A model cluster without faults, whose time is that of those who wait.
struct Calm {
    base: Instant,
    elapsed_us: AtomicU64,
}

impl Fates for Calm {
    fn now(&self) -> Instant {
        self.base + Duration::from_micros(self.elapsed_us.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.elapsed_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn below(&self, _: u64) -> u64 {
        0
    }

    fn fate(&self, _: &str) -> Fate {
        Fate::Answered
    }

    fn note(&self, _: String) {}
}
