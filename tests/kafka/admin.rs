//! What tests ask of a broker beside reading and writing: deleted records, more partitions, a group's offsets.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(20);

fn client(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client")
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park_timeout(LIMIT);
    }
}

/// Deletes everything before an offset, as retention does.
pub(crate) fn delete_records(brokers: &str, topic: &str, partition: i32, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let result = wait(client(brokers).delete_records(&list, &options)).expect("records can be deleted");
    result.elements()[0].error().expect("records were deleted");
}

/// Gives a topic more partitions.
pub(crate) fn set_partitions(brokers: &str, topic: &str, count: usize) {
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    let more = NewPartitions::new(topic, count);
    let results = wait(client(brokers).create_partitions([&more], &options)).expect("partitions can be made");
    results.into_iter().for_each(|result| drop(result.expect("partitions were made")));
    crate::input::eventually("metadata with all partitions", || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("metadata");
        (metadata.topics()[0].partitions().iter().filter(|partition| partition.leader() >= 0).count() == count)
            .then_some(())
    });
}

/// The offset that a group has committed; `None` if it has none.
pub(crate) fn group_offset(brokers: &str, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        // Else an answer waits until no transaction is open.
        .set("isolation.level", "read_uncommitted")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = consumer.committed_offsets(list, LIMIT).expect("offsets can be read");
    found.elements()[0].offset().to_raw().filter(|offset| *offset >= 0)
}

/// One past the last record that a reader of committed records may read.
pub(crate) fn end(brokers: &str, topic: &str, partition: i32, isolation: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("isolation.level", isolation)
        .create()
        .expect("a consumer");
    consumer.fetch_watermarks(topic, partition, LIMIT).expect("watermarks").1
}
