//! Which partitions there are, and the numbers behind earliest, latest and a time.

use std::time::{Duration, Instant};

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use regex::Regex;

use super::options::{Options, StartingOffsets, Subscription};
use super::queues::Key;
use crate::client::{Consumer, REQUEST_LIMIT, client_of, retry, serve};
use crate::error::failed;
use crate::native::{TopicInfo, describe_topics};

/// How long a topic that a source names may be unknown: a broker learns late of topics that were just made.
const UNKNOWN_TOPIC_LIMIT: Duration = Duration::from_secs(10);
/// Topics of Kafka and of our sinks, which no pattern means: a source that reads the cursors of its own sink never rests.
const INTERNAL: &[&str] = &["__consumer_offsets", "__transaction_state", "__share_group_state"];
pub(crate) const CURSOR_TOPIC_SUFFIX: &str = ".millpond-cursor";

/// Finds the topics and partitions that a source reads.
pub(crate) struct Discovery {
    subscription: Subscription,
    pattern: Option<Regex>,
}

impl Discovery {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let pattern = match &options.subscription {
            Subscription::Pattern(pattern) => Some(Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                Error::new(ErrorKind::Configuration, format!("`{pattern}` is no regular expression")).with_source(error)
            })?),
            _ => None,
        };
        Ok(Discovery { subscription: options.subscription.clone(), pattern })
    }

    /// Whether the program has asked for a partition.
    pub(crate) fn reads(&self, topic: &str, partition: i32) -> bool {
        match &self.subscription {
            Subscription::Topics(topics) => topics.iter().any(|of| of == topic),
            Subscription::Assigned(partitions) => {
                partitions.iter().any(|(of, number)| of == topic && *number == partition)
            }
            Subscription::Pattern(_) => self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(topic)),
        }
    }

    /// The topics that exist now, with the partitions to be read; those that a program names and that do not exist come
    /// with their error.
    pub(crate) fn topics(&self, consumer: &Consumer, limit: Duration) -> Result<Vec<TopicInfo>> {
        let names = match &self.subscription {
            Subscription::Topics(topics) => topics.clone(),
            Subscription::Assigned(partitions) => partitions.iter().map(|(topic, _)| topic.clone()).collect(),
            Subscription::Pattern(_) => self.matching(consumer, limit)?,
        };
        let mut names = names;
        names.sort();
        names.dedup();
        let describe = |limit| describe_topics(client_of(consumer), &names, limit);
        let mut topics = retry(limit, describe, || serve(consumer))
            .map_err(|error| failed(format!("cannot describe the topics {}", names.join(", ")), error))?;
        if let Subscription::Assigned(wanted) = &self.subscription {
            for topic in &mut topics {
                topic.partitions.retain(|partition| wanted.contains(&(topic.name.clone(), *partition)));
            }
        }
        Ok(topics)
    }

    fn matching(&self, consumer: &Consumer, limit: Duration) -> Result<Vec<String>> {
        let metadata = retry(limit, |limit| consumer.fetch_metadata(None, limit), || serve(consumer))
            .map_err(|error| failed("cannot list the topics of the cluster", error))?;
        let matches = |name: &str| {
            self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
                && !INTERNAL.contains(&name)
                && !name.ends_with(CURSOR_TOPIC_SUFFIX)
        };
        Ok(metadata.topics().iter().map(|topic| topic.name()).filter(|name| matches(name)).map(str::to_owned).collect())
    }

    /// As [`topics`](Self::topics), waiting a little for those that the program names.
    ///
    /// `may_miss`: topics whose absence is somebody else's matter.
    pub(crate) fn first(
        &self,
        consumer: &Consumer,
        limit: Duration,
        may_miss: impl Fn(&str) -> bool,
    ) -> Result<Vec<TopicInfo>> {
        let deadline = Instant::now() + UNKNOWN_TOPIC_LIMIT.min(limit);
        loop {
            let topics = self.topics(consumer, limit)?;
            let missing = self.missing(&topics, &may_miss);
            match missing {
                None => return Ok(topics),
                Some(error) if Instant::now() >= deadline || error.kind() != ErrorKind::Retry => {
                    return Err(match error.kind() {
                        ErrorKind::Retry => Error::new(ErrorKind::Configuration, error.to_string()),
                        _ => error,
                    });
                }
                Some(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// What the program names and the cluster does not have. Retry: it may appear.
    fn missing(&self, topics: &[TopicInfo], may_miss: impl Fn(&str) -> bool) -> Option<Error> {
        let refused = |topic: &TopicInfo, code: Code| {
            let kind = crate::error::kind_of(Some(code));
            Error::new(kind, format!("topic {} cannot be read: {code}", topic.name))
        };
        for topic in topics.iter().filter(|topic| !may_miss(&topic.name)) {
            match topic.error {
                Some(Code::UnknownTopicOrPartition) => {
                    return Some(Error::new(
                        ErrorKind::Retry,
                        format!("topic {} does not exist: create it", topic.name),
                    ));
                }
                Some(code) => return Some(refused(topic, code)),
                None => {}
            }
        }
        let Subscription::Assigned(wanted) = &self.subscription else { return None };
        let is_there = |name: &str, partition: i32| {
            topics.iter().any(|topic| topic.name == name && topic.partitions.contains(&partition))
        };
        let (topic, partition) =
            wanted.iter().find(|(topic, partition)| !may_miss(topic) && !is_there(topic, *partition))?;
        Some(Error::new(ErrorKind::Retry, format!("topic {topic} has no partition {partition}")))
    }
}

/// The ends of what the broker has of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The oldest offset.
    pub(crate) low: i64,
    /// One past the newest that may be read.
    pub(crate) high: i64,
}

/// The ends of many partitions, with two requests a broker. In the order of `keys`.
pub(crate) fn ends(consumer: &Consumer, keys: &[Key], limit: Duration) -> Result<Vec<Ends>> {
    let low = offsets(consumer, keys, Offset::Beginning, limit)?;
    let high = offsets(consumer, keys, Offset::End, limit)?;
    Ok(low.into_iter().zip(high).map(|(low, high)| Ends { low, high: high.max(low) }).collect())
}

/// Where reading starts in partitions that exist at the very first start.
pub(crate) fn starting_offsets(
    consumer: &Consumer,
    keys: &[Key],
    starting: &StartingOffsets,
    limit: Duration,
) -> Result<Vec<i64>> {
    match starting {
        StartingOffsets::Earliest => offsets(consumer, keys, Offset::Beginning, limit),
        StartingOffsets::Latest => offsets(consumer, keys, Offset::End, limit),
        StartingOffsets::Given(given) => {
            let earliest = offsets(consumer, keys, Offset::Beginning, limit)?;
            let given =
                |(topic, partition): &Key| given.get(&(topic.to_string(), *partition)).map(|offset| *offset as i64);
            Ok(keys.iter().zip(earliest).map(|(key, earliest)| given(key).unwrap_or(earliest)).collect())
        }
        StartingOffsets::ByTimestamp(time_ms) => {
            let found = offsets(consumer, keys, Offset::Offset(*time_ms as i64), limit)?;
            let latest = offsets(consumer, keys, Offset::End, limit)?;
            Ok(found.into_iter().zip(latest).map(|(found, latest)| if found < 0 { latest } else { found }).collect())
        }
    }
}

/// Asks for one offset of each partition: `at` is a time, or the beginning or the end, which are times of their own to Kafka.
fn offsets(consumer: &Consumer, keys: &[Key], at: Offset, limit: Duration) -> Result<Vec<i64>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let what = || format!("cannot ask for offsets of {} partitions, {}/{} the first", keys.len(), keys[0].0, keys[0].1);
    let request = |limit: Duration| {
        let mut list = TopicPartitionList::with_capacity(keys.len());
        for (topic, partition) in keys {
            list.add_partition_offset(topic, *partition, at)?;
        }
        let answer = consumer.offsets_for_times(list, limit)?;
        let elements = answer.elements();
        for element in &elements {
            element.error()?;
        }
        // `End` in the answer stands for a time that no record has reached.
        let offset = |key: &Key| {
            let element = elements.iter().find(|found| found.topic() == &*key.0 && found.partition() == key.1);
            element.map_or(-1, |element| element.offset().to_raw().unwrap_or(-1))
        };
        if elements.len() == keys.len()
            && elements.iter().zip(keys).all(|(e, k)| e.topic() == &*k.0 && e.partition() == k.1)
        {
            return Ok(elements.iter().map(|element| element.offset().to_raw().unwrap_or(-1)).collect());
        }
        Ok(keys.iter().map(offset).collect())
    };
    retry(limit.max(REQUEST_LIMIT), request, || serve(consumer)).map_err(|error| failed(what(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_the_whole_name() {
        let options = Options::new("b".into(), Subscription::Pattern(r"pat\d".into()));
        let pattern = Discovery::new(&options).ok().and_then(|discovery| discovery.pattern).expect("a pattern");
        assert!(pattern.is_match("pat1"));
        assert!(!pattern.is_match("pat12") && !pattern.is_match("xpat1"));
    }

    #[test]
    fn a_pattern_that_is_none_is_an_error() {
        let options = Options::new("b".into(), Subscription::Pattern("(".into()));
        assert_eq!(Discovery::new(&options).err().map(|error| error.kind()), Some(ErrorKind::Configuration));
    }
}
