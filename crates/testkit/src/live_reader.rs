//! A `read_committed` reader that runs beside a test and remembers what it saw, so that a result which was shown and
//! later taken back, or changed, does not stay unnoticed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::error::{Error, ErrorKind, Result};
use crate::kafka_reader::{READ_LIMIT, assign, bearable, consumer, read_ranges, stable_ranges, to_record};
use crate::record::Record;

/// Reads a topic on a thread of its own, `read_committed`, from its present end on, through restarts of the broker.
///
/// ```no_run
/// # use millpond_testkit::LiveReader;
/// # use std::time::Duration;
/// let reader = LiveReader::start("127.0.0.1:9092", "counts")?;
/// // ... run and kill the pipeline ...
/// reader.wait_for(Duration::from_secs(30), |seen| seen.len() >= 1000)?;
/// let reading = reader.finish()?;
/// assert!(reading.is_consistent(), "{reading}");
/// # Ok::<(), millpond_testkit::Error>(())
/// ```
#[derive(Debug)]
pub struct LiveReader {
    bootstrap_servers: String,
    topic: String,
    starts: Vec<i64>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Record>,
    failed: Option<String>,
}

impl LiveReader {
    /// Starts reading. What was written before the call is not seen, all that is committed after it is.
    ///
    /// # Errors
    ///
    /// As [`read_committed`](crate::read_committed): an open transaction must end before.
    pub fn start(bootstrap_servers: &str, topic: &str) -> Result<Self> {
        let before = stable_ranges(bootstrap_servers, topic, READ_LIMIT)?;
        let starts: Vec<_> = before.iter().map(|range| range.end).collect();
        let consumer = consumer(bootstrap_servers, "read_committed")?;
        assign(&consumer, topic, starts.iter().copied())?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name(format!("live reader of {topic}"))
            .spawn({
                let (shared, topic) = (Arc::clone(&shared), topic.to_owned());
                move || read(&consumer, &topic, &shared)
            })
            .map_err(|error| Error::new(ErrorKind::Failed, "cannot start a thread").because(error))?;
        let (bootstrap_servers, topic) = (bootstrap_servers.to_owned(), topic.to_owned());
        Ok(LiveReader { bootstrap_servers, topic, starts, shared, thread: Some(thread) })
    }

    /// What has been seen so far, in the order in which it was seen.
    pub fn seen(&self) -> Vec<Record> {
        self.shared.lock().seen.clone()
    }

    /// Waits until `condition` holds for what has been seen; it is asked whenever something new has come.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Retry`] at the limit, with what was seen last; [`ErrorKind::Failed`] if reading failed for good.
    pub fn wait_for(&self, limit: Duration, mut condition: impl FnMut(&[Record]) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            if condition(&state.seen) {
                return Ok(());
            }
            if let Some(failure) = &state.failed {
                return Err(Error::new(ErrorKind::Failed, failure.clone()));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                let (topic, count, last) = (&self.topic, state.seen.len(), state.seen.last());
                let why = format!(
                    "topic {topic}: not what was waited for after {limit:?} and {count} records, the last {last:?}"
                );
                return Err(Error::new(ErrorKind::Retry, why));
            };
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads the topic again from the beginning to its true end, waits until the live reader is there too, stops it and
    /// compares the two.
    ///
    /// # Errors
    ///
    /// As [`read_committed`](crate::read_committed). A difference is no error: it is in the result.
    pub fn finish(mut self) -> Result<LiveReading> {
        let ranges = stable_ranges(&self.bootstrap_servers, &self.topic, READ_LIMIT)?;
        let mut from_beginning = Vec::new();
        read_ranges(&self.bootstrap_servers, &self.topic, &ranges, READ_LIMIT, |record| from_beginning.push(record))?;
        from_beginning.sort_by_key(|record| (record.partition, record.offset));

        let mut lasts = BTreeMap::new();
        for record in from_beginning.iter().filter(|record| self.is_after_start(record)) {
            lasts.insert(record.partition, record.offset);
        }
        let arrived = self.wait_for(READ_LIMIT, |seen| {
            for record in seen {
                if lasts.get(&record.partition).is_some_and(|last| record.offset >= *last) {
                    lasts.remove(&record.partition);
                }
            }
            lasts.is_empty()
        });
        match arrived {
            // A record that never comes is a finding, and shown by the comparison.
            Err(error) if error.kind() != ErrorKind::Retry => return Err(error),
            _ => {}
        }
        self.stop();
        let live = std::mem::take(&mut self.shared.lock().seen);
        let after_start: Vec<_> = from_beginning.iter().filter(|record| self.is_after_start(record)).cloned().collect();
        let before_end = live
            .iter()
            .filter(|record| ranges.get(record.partition as usize).is_some_and(|range| record.offset < range.end));
        let differences = compare(before_end, &after_start);
        Ok(LiveReading { live, from_beginning, differences })
    }

    fn is_after_start(&self, record: &Record) -> bool {
        self.starts.get(record.partition as usize).is_none_or(|start| record.offset >= *start)
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked but in the client; what it had seen counts all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(consumer: &BaseConsumer, topic: &str, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(50)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                shared.lock().seen.push(to_record(&message));
                shared.changed.notify_all();
            }
            Some(Err(error)) => {
                if let Err(error) = bearable(error, topic) {
                    shared.lock().failed = Some(error.to_string());
                    shared.changed.notify_all();
                    return;
                }
            }
        }
    }
}

/// What a [`LiveReader`] saw, beside what the topic holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveReading {
    /// Everything that was seen live, in the order in which it was seen.
    pub live: Vec<Record>,
    /// Everything that the topic holds, by partition and offset; also what was there before the live reader began.
    pub from_beginning: Vec<Record>,
    /// Where the two differ.
    pub differences: Vec<Difference>,
}

/// A place at which two readings of the same topic differ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// Seen live, and not there when the topic was read again.
    Vanished(Record),
    /// There when the topic was read again, though it was not seen live.
    NotSeenLive(Record),
    /// Another record stood at the same place.
    Changed {
        /// What was seen live.
        live: Record,
        /// What was there later.
        later: Record,
    },
    /// Handed to the live reader after one at the same or a later place of its partition.
    OutOfOrder(Record),
}

impl LiveReading {
    /// True if the live reader saw exactly what the topic holds.
    pub fn is_consistent(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for LiveReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (live, later, count) = (self.live.len(), self.from_beginning.len(), self.differences.len());
        write!(f, "{live} records seen live, {later} in the topic, {count} differences")?;
        for difference in self.differences.iter().take(10) {
            write!(f, "\n  {difference:?}")?;
        }
        if count > 10 { write!(f, "\n  ... and {} more", count - 10) } else { Ok(()) }
    }
}

fn compare<'a>(live: impl Iterator<Item = &'a Record>, later: &[Record]) -> Vec<Difference> {
    let place = |record: &Record| (record.partition, record.offset);
    let mut unseen: BTreeMap<_, _> = later.iter().map(|record| (place(record), record)).collect();
    let mut newest = BTreeMap::new();
    let mut differences = Vec::new();
    for record in live {
        let before = newest.insert(record.partition, record.offset);
        if before.is_some_and(|before| record.offset <= before) {
            differences.push(Difference::OutOfOrder(record.clone()));
            continue;
        }
        match unseen.remove(&place(record)) {
            Some(same) if same == record => {}
            Some(other) => differences.push(Difference::Changed { live: record.clone(), later: other.clone() }),
            None => differences.push(Difference::Vanished(record.clone())),
        }
    }
    differences.extend(unseen.into_values().map(|record| Difference::NotSeenLive(record.clone())));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, value: &str) -> Record {
        let (key, value) = (None, Some(value.into()));
        Record { partition: 0, offset, key, value, headers: Vec::new(), timestamp_ms: None }
    }

    #[test]
    fn equal_readings_do_not_differ() {
        let records = [record(0, "a"), record(2, "b")];
        assert_eq!(compare(records.iter(), &records), []);
    }

    #[test]
    fn a_record_that_vanished_is_told() {
        let live = [record(0, "a"), record(1, "b")];
        assert_eq!(compare(live.iter(), &[record(0, "a")]), [Difference::Vanished(record(1, "b"))]);
    }

    #[test]
    fn a_record_that_was_not_seen_live_is_told() {
        let later = [record(0, "a"), record(1, "b")];
        assert_eq!(compare([record(1, "b")].iter(), &later), [Difference::NotSeenLive(record(0, "a"))]);
    }

    #[test]
    fn a_record_that_changed_is_told() {
        let expected = Difference::Changed { live: record(0, "a"), later: record(0, "b") };
        assert_eq!(compare([record(0, "a")].iter(), &[record(0, "b")]), [expected]);
    }

    #[test]
    fn a_record_that_was_handed_out_twice_is_told() {
        let live = [record(0, "a"), record(0, "a")];
        assert_eq!(compare(live.iter(), &[record(0, "a")]), [Difference::OutOfOrder(record(0, "a"))]);
    }
}
