//! Given ranges of offsets as a data set: what a stream reads batch by batch, read as history.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use millpond_core::batch::{BatchInput, BatchSource};
use millpond_core::source::SourcePartition;
use millpond_core::{Error, ErrorKind, Result};

use super::KafkaSource;
use super::discovery::{Discovery, Ends, ends};
use super::options::{Lost, Subscription};
use super::partition::{Content, Partition};
use super::queues::Key;
use super::replay::{Replayer, Wanted};
use crate::decode::{Decode, Raw};
use crate::position::{Position, TopicId, partition_name};

/// The consumer group of the client, which joins none: for the broker's access lists.
const GROUP: &str = "millpond-ranges";
/// Ranges that a message names one by one.
const NAMED: usize = 4;

/// The records of one partition of a topic from one offset up to another, which is not among them.
///
/// ```
/// use millpond_kafka::OffsetRange;
///
/// let first_hundred = OffsetRange::new("lines", 0, 0..100);
/// assert_eq!(first_hundred.to_string(), "lines/0 0..100");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetRange {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The first offset.
    pub from: u64,
    /// One past the last offset.
    pub until: u64,
}

impl OffsetRange {
    /// A range of a partition: `OffsetRange::new("lines", 0, 0..100)`.
    pub fn new(topic: impl Into<String>, partition: i32, offsets: Range<u64>) -> Self {
        OffsetRange { topic: topic.into(), partition, from: offsets.start, until: offsets.end }
    }

    fn key(&self) -> Key {
        (self.topic.as_str().into(), self.partition)
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{}", partition_name(&self.topic, self.partition), self.from, self.until)
    }
}

/// Given ranges of Kafka topics, for [`BatchContext::source`](millpond_core::BatchContext::source). Made by [`KafkaSource::ranges`].
pub struct KafkaRanges<D = Raw> {
    source: KafkaSource<D>,
    ranges: Vec<OffsetRange>,
}

impl<D> fmt::Debug for KafkaRanges<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaRanges").field("source", &self.source).field("ranges", &self.ranges).finish()
    }
}

impl<D> KafkaSource<D> {
    /// Given ranges of what the source reads, as a data set for [`BatchContext::source`](millpond_core::BatchContext::source): with its decoder and its
    /// settings, so that history is read as the stream is. Each range becomes a partition of the `Rdd`, in the order given.
    ///
    /// All of a range has to be there when the data set is opened, and again whenever it is read: else an error says which offsets
    /// of which partition are lost, or not there yet, unless [`on_lost_range`](Self::on_lost_range) says otherwise. What comes behind a range is never seen.
    /// Offsets without a record (those of transaction markers, aborted and compacted records) count as there.
    ///
    /// ```no_run
    /// use millpond_core::BatchContext;
    /// use millpond_kafka::{KafkaSource, OffsetRange};
    /// # fn main() -> millpond_core::Result<()> {
    /// let lines = KafkaSource::subscribe("localhost:9092", ["lines"]).utf8();
    /// let history = lines.ranges([OffsetRange::new("lines", 0, 0..1000), OffsetRange::new("lines", 1, 0..980)]);
    /// let words = BatchContext::new().source(history)?.flat_map(|line| line.split(' ').map(String::from).collect::<Vec<_>>());
    /// println!("{} words", words.count()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ranges(self, ranges: impl IntoIterator<Item = OffsetRange>) -> KafkaRanges<D> {
        KafkaRanges { source: self, ranges: ranges.into_iter().collect() }
    }
}

impl<D: Decode> BatchSource for KafkaRanges<D> {
    type Item = D::Item;

    /// Asks the broker whether the ranges are there; waits for one that is away, by default 5 minutes.
    ///
    /// # Errors
    /// A range that ends before it begins, is of a topic that the source does not read or that does not exist, or reaches
    /// beyond what the broker has.
    fn open(self) -> Result<BatchInput<D::Item>> {
        let KafkaRanges { source, ranges } = self;
        let name = format!("Kafka {}", described(&ranges));
        source.options.check()?;
        check(&Discovery::new(&source.options)?, &ranges)?;
        if ranges.is_empty() {
            return Ok(BatchInput { name, content: String::new(), partitions: Vec::new() });
        }
        let mut options = source.options;
        options.subscription =
            Subscription::Assigned(ranges.iter().map(|range| (range.topic.clone(), range.partition)).collect());
        let options = Arc::new(options);
        let replayer = Arc::new(Replayer::new(Arc::clone(&options), name.clone(), GROUP)?);
        let topics = Discovery::new(&options)?.first(replayer.consumer(), options.wait_for_broker, |_| false)?;
        // Each partition once: a broker refuses to be asked twice in one request.
        let mut keys: Vec<Key> = ranges.iter().map(OffsetRange::key).collect();
        keys.sort();
        keys.dedup();
        let found = ends(replayer.consumer(), &keys, options.wait_for_broker)?;
        let found: HashMap<Key, Ends> = keys.into_iter().zip(found).collect();
        let mut content = format!("of cluster {:016x}", replayer.cluster());
        let mut partitions: Vec<Arc<dyn SourcePartition<D::Item>>> = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let key = range.key();
            if options.lost == Lost::Stop {
                let Ends { low, high } = found[&key];
                is_there(range, low, high)?;
            }
            let id = topics.iter().find(|topic| topic.name == range.topic).map_or(TopicId::default(), |topic| topic.id);
            let part = format!(", {} {:032x}", range.topic, u128::from_be_bytes(id.0));
            if !content.contains(&part) {
                content += &part;
            }
            let (start, end) = (range.from as i64, range.until as i64);
            let position = Position { cluster: replayer.cluster(), topic_id: id, next: end, reached: true };
            let wanted = Wanted { key: key.clone(), position, start, end, records: OnceLock::new() };
            partitions.push(Arc::new(Partition {
                key,
                records: range.until - range.from,
                content: Content::AtBroker { replayer: Arc::clone(&replayer), wanted },
                decoder: Arc::clone(&source.decoder),
                skip_refused: options.skip_refused,
                metrics: Arc::clone(&source.metrics),
            }));
        }
        Ok(BatchInput { name, content, partitions })
    }
}

/// The ranges in words; of many the first ones, and a hash of all.
fn described(ranges: &[OffsetRange]) -> String {
    let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    match all.len() {
        0 => "without ranges".into(),
        1..=NAMED => all.join(", "),
        count => {
            let hash = xxhash_rust::xxh3::xxh3_64(all.join(", ").as_bytes());
            format!("{} and {} more ({hash:016x})", all[..NAMED].join(", "), count - NAMED)
        }
    }
}

/// What can be told to be wrong without a broker.
fn check(discovery: &Discovery, ranges: &[OffsetRange]) -> Result<()> {
    let wrong = |range: &OffsetRange, why: &str| {
        Err(Error::new(ErrorKind::Configuration, format!("the range {range} of a Kafka topic {why}")))
    };
    for range in ranges {
        match range {
            OffsetRange { from, until, .. } if from > until => return wrong(range, "ends before it begins"),
            OffsetRange { until, .. } if i64::try_from(*until).is_err() => return wrong(range, "ends beyond 2^63"),
            OffsetRange { partition: ..0, .. } => return wrong(range, "has a negative partition"),
            OffsetRange { topic, partition, .. } if !discovery.reads(topic, *partition) => {
                return wrong(range, "is of a partition that the source does not read");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the broker has all of a range: it has offsets from `low` up to `high`.
fn is_there(range: &OffsetRange, low: i64, high: i64) -> Result<()> {
    let (from, until) = (range.from as i64, range.until as i64);
    let missing = match () {
        () if from == until => return Ok(()),
        () if from < low => format!("begins at offset {low}: {} offsets of it are lost", low.min(until) - from),
        () if until > high => format!("ends at offset {high}: {} offsets of it are not there", until - high.max(from)),
        () => return Ok(()),
    };
    let partition = partition_name(&range.topic, range.partition);
    Err(Error::new(
        ErrorKind::Restore,
        format!("the range {range} cannot be read, {partition} {missing}. Give offsets that the broker has"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q7_what_a_range_lacks_is_counted() {
        let of =
            |from, until| is_there(&OffsetRange::new("t", 0, from..until), 2, 4).map_err(|error| error.to_string());
        assert_eq!(of(2, 4), Ok(()));
        assert_eq!(of(9, 9), Ok(()), "nothing is asked for");
        let lost = of(0, 4).expect_err("deleted");
        assert!(
            lost.contains("range t/0 0..4") && lost.contains("begins at offset 2: 2 offsets of it are lost"),
            "{lost}"
        );
        let early = of(3, 9).expect_err("not written");
        assert!(early.contains("ends at offset 4: 5 offsets of it are not there"), "{early}");
        assert!(of(7, 9).expect_err("not written").contains("2 offsets"));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    fn q7_wrong_ranges_need_no_broker() {
        let reads = |range| {
            let ranges = KafkaSource::subscribe("nowhere:1", ["lines"]).ranges([range]);
            ranges.open().map(drop).map_err(|error| (error.kind(), error.to_string())).expect_err("wrong")
        };
        let (kind, text) = reads(OffsetRange::new("lines", 0, 3..1));
        assert!(
            kind == ErrorKind::Configuration && text.contains("lines/0 3..1") && text.contains("ends before"),
            "{text}"
        );
        assert!(reads(OffsetRange::new("words", 0, 0..1)).1.contains("does not read"));
        assert!(reads(OffsetRange::new("lines", -1, 0..1)).1.contains("negative"));
        assert!(reads(OffsetRange::new("lines", 0, 0..u64::MAX)).1.contains("2^63"));
    }

    #[test]
    fn many_ranges_are_not_all_named() {
        let ranges: Vec<_> = (0..100).map(|partition| OffsetRange::new("t", partition, 0..1)).collect();
        assert!(described(&ranges).starts_with("t/0 0..1, t/1 0..1, t/2 0..1, t/3 0..1 and 96 more ("));
        assert_ne!(described(&ranges), described(&ranges[..99]));
    }
}
