//! What librdkafka's admin client does for a broker: metadata, topics made and deleted.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::process::wait_until;
use crate::error::{Error, ErrorKind, Result};

const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// True if the broker answers a request for metadata within the limit, names itself and leads every partition there is.
pub(crate) fn answers(bootstrap_servers: &str, limit: Duration) -> bool {
    let Ok(client) = client(bootstrap_servers) else { return false };
    match client.inner().fetch_metadata(None, limit) {
        Ok(metadata) => {
            let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            !metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0)
        }
        Err(_) => false,
    }
}

pub(crate) fn create_topic(
    bootstrap_servers: &str,
    name: &str,
    partitions: u32,
    config: &[(&str, &str)],
    limit: Duration,
) -> Result<()> {
    let failed = |why: String| {
        Error::new(ErrorKind::Failed, format!("cannot create topic {name} on {bootstrap_servers}: {why}"))
    };
    let partitions_signed = i32::try_from(partitions).map_err(|_| {
        Error::new(ErrorKind::Configuration, format!("topic {name}: {partitions} partitions are too many"))
    })?;
    let mut topic = NewTopic::new(name, partitions_signed, TopicReplication::Fixed(1));
    for (key, value) in config {
        topic = topic.set(key, value);
    }
    let client = client(bootstrap_servers)?;
    let results = block_on(limit, client.create_topics([&topic], &options()))
        .ok_or_else(|| timed_out(format!("topic {name} was not created"), limit))?
        .map_err(|error| failed(error.to_string()))?;
    for result in results {
        result.map_err(|(_, code)| failed(code.to_string()))?;
    }
    // The answer comes from the controller, the broker itself learns of the topic a little later.
    let there = wait_until(limit, || Ok::<_, Error>(partition_count(&client, name)? == partitions as usize))?;
    if there { Ok(()) } else { Err(timed_out(format!("topic {name} was created but not seen by clients"), limit)) }
}

pub(crate) fn delete_topic(bootstrap_servers: &str, name: &str, limit: Duration) -> Result<()> {
    let failed = |why: String| {
        Error::new(ErrorKind::Failed, format!("cannot delete topic {name} on {bootstrap_servers}: {why}"))
    };
    let client = client(bootstrap_servers)?;
    let results = block_on(limit, client.delete_topics(&[name], &options()))
        .ok_or_else(|| timed_out(format!("topic {name} was not deleted"), limit))?
        .map_err(|error| failed(error.to_string()))?;
    for result in results {
        result.map_err(|(_, code)| failed(code.to_string()))?;
    }
    let gone = wait_until(limit, || Ok::<_, Error>(partition_count(&client, name)? == 0))?;
    if gone { Ok(()) } else { Err(timed_out(format!("topic {name} was deleted but clients still see it"), limit)) }
}

/// How many partitions clients see; 0 for a topic that is not there.
fn partition_count(client: &AdminClient<DefaultClientContext>, topic: &str) -> Result<usize> {
    let metadata = match client.inner().fetch_metadata(Some(topic), REQUEST_LIMIT) {
        Ok(metadata) => metadata,
        Err(error) if error.rdkafka_error_code() == Some(Code::UnknownTopicOrPartition) => return Ok(0),
        Err(error) => return Err(Error::new(ErrorKind::Retry, format!("no metadata of topic {topic}")).because(error)),
    };
    let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(0) };
    if topic.error().is_some() {
        return Ok(0);
    }
    // A partition without a leader cannot be used yet.
    Ok(topic.partitions().iter().filter(|partition| partition.leader() >= 0).count())
}

fn client(bootstrap_servers: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        // What it would print of a broker that is still starting is no news.
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
        .create()
        .map_err(|error| Error::new(ErrorKind::Configuration, "cannot make a Kafka admin client").because(error))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_LIMIT)).operation_timeout(Some(REQUEST_LIMIT))
}

fn timed_out(what: String, limit: Duration) -> Error {
    Error::new(ErrorKind::Retry, format!("{what} within {limit:?}"))
}

/// Drives one future on this thread; `None` at the limit. Admin requests are the only futures here, and not worth a
/// runtime.
fn block_on<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let deadline = Instant::now() + limit;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        thread::park_timeout(left);
    }
}
