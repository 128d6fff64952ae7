//! Kafka sinks on a model cluster, whose broker goes down, whose requests are lost, late and double.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::simulation::Simulator;
use millpond_core::sink::{Cursor, Sink};
use millpond_kafka::simulation::{Fate, Fates, Generation, ModelCluster};

use super::scheduler::{self, Scheduler};
use super::{Batch, Outside};

/// The name of the application, and with it of the cursor topic.
pub(super) const APPLICATION: &str = "simulated";
/// Shorter than a long pause of the machine.
const TRANSACTION_TIMEOUT_MS: u64 = 10_000;

/// The sinks of a run.
pub(super) struct KafkaSinks {
    scheduler: Arc<Scheduler>,
    cluster: Arc<ModelCluster>,
    once_in: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
    /// The newest cursors, as of so many decided transactions.
    cursors: Mutex<(usize, BTreeMap<String, Cursor>)>,
}

impl KafkaSinks {
    /// A cluster with a topic for each sink, whose requests meet a fault once in so many (0: never).
    pub(super) fn new(scheduler: &Arc<Scheduler>, generation: Generation, once_in: u64, topics: &[&str]) -> Self {
        let once_in = Arc::new(AtomicU64::new(once_in));
        let down = Arc::new(AtomicBool::new(false));
        let network = Network {
            generation,
            down: Arc::clone(&down),
            scheduler: Arc::clone(scheduler),
            once_in: Arc::clone(&once_in),
        };
        let cluster = ModelCluster::new(Box::new(network), generation, Duration::from_millis(20));
        topics.iter().for_each(|topic| cluster.create_topic(topic));
        KafkaSinks { scheduler: Arc::clone(scheduler), cluster, once_in, down, cursors: Mutex::default() }
    }

    fn all_cursors(&self) -> Vec<(u64, String, Cursor)> {
        self.cluster.cursors(&format!("{APPLICATION}.millpond-cursor"))
    }
}

impl Outside for KafkaSinks {
    fn sink(&self, name: &str) -> Box<dyn Sink> {
        let sink = self.cluster.sink(name).setting("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string());
        Box::new(sink.wait_for_broker(Duration::from_secs(20)))
    }

    fn committed(&self, sink: &str) -> Vec<Batch> {
        let cursors = self.all_cursors();
        let batch_of = |number: u64| {
            let found = cursors.iter().find(|(of, name, _)| *of == number && name == sink);
            // Output without a cursor is of no batch.
            found.map_or(0, |(_, _, cursor)| cursor.batch.as_ms())
        };
        let mut batches: Vec<(u64, Batch)> = Vec::new();
        for (number, (_, value)) in self.cluster.committed(sink) {
            if batches.last().is_none_or(|(last, _)| *last != number) {
                batches.push((number, Batch { time_ms: batch_of(number), values: Vec::new() }));
            }
            if let Some((_, batch)) = batches.last_mut() {
                batch.values.push(value.unwrap_or_default());
            }
        }
        batches.into_iter().map(|(_, batch)| batch).collect()
    }

    fn cursor(&self, sink: &str) -> Option<Cursor> {
        let mut cached = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self.cluster.decided();
        if cached.0 != decided {
            for (_, name, cursor) in self.all_cursors() {
                let newest = cached.1.entry(name).or_insert_with(|| cursor.clone());
                if cursor.batch >= newest.batch {
                    *newest = cursor;
                }
            }
            cached.0 = decided;
        }
        cached.1.get(sink).cloned()
    }

    fn turn(&self) {
        match self.scheduler.below(4) {
            0 if self.once_in.load(Ordering::Relaxed) > 0 => {
                self.scheduler.note(|| "the broker goes down".into());
                self.down.store(true, Ordering::Relaxed);
            }
            _ => self.cluster.deliver_late(),
        }
    }

    fn heal(&self) {
        self.once_in.store(0, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
        while self.cluster.late_requests() > 0 {
            self.cluster.deliver_late();
        }
    }

    fn left_open(&self) -> Option<String> {
        // The markers of the last transaction take their time.
        self.scheduler.pause(Duration::from_secs(1));
        let open = self.cluster.open_transactions();
        (!open.is_empty()).then(|| format!("transactions of {open:?}"))
    }
}

/// The way to the broker.
struct Network {
    scheduler: Arc<Scheduler>,
    once_in: Arc<AtomicU64>,
    down: Arc<AtomicBool>,
    generation: Generation,
}

impl Fates for Network {
    fn now(&self) -> Instant {
        self.scheduler.now()
    }

    fn sleep(&self, time: Duration) {
        self.scheduler.wait(&|| false, Some(self.scheduler.now() + time));
    }

    fn below(&self, limit: u64) -> u64 {
        self.scheduler.below(limit)
    }

    fn fate(&self, request: &str) -> Fate {
        scheduler::point(request);
        self.sleep(Duration::from_micros(100 + self.scheduler.below(2000)));
        if self.down.load(Ordering::Relaxed) {
            // Up again some time, with all it had.
            self.down.store(!self.scheduler.one_in(12), Ordering::Relaxed);
            return Fate::Lost;
        }
        let once_in = self.once_in.load(Ordering::Relaxed);
        if once_in == 0 || !self.scheduler.one_in(once_in) {
            return Fate::Answered;
        }
        let fates = [Fate::Lost, Fate::AnswerLost, Fate::Late, Fate::Twice, Fate::Refused];
        match fates[self.scheduler.below(fates.len() as u64) as usize] {
            // A request that is repeated without the client's knowledge ends the next transaction: version 1 of the protocol cannot
            // tell, and TCP does not do it.
            Fate::Twice if request.starts_with("EndTxn") && self.generation == Generation::V1 => Fate::Late,
            fate => fate,
        }
    }

    fn note(&self, what: String) {
        self.scheduler.note(|| what);
        scheduler::point("an answer");
    }
}
