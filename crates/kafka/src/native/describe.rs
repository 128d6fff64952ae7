//! Ids of topics and clusters, and the ends of partitions that librdkafka knows already, none of which rdkafka offers.

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use crate::position::TopicId;

/// A topic as the cluster describes it.
#[derive(Clone, Debug)]
pub(crate) struct TopicInfo {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<i32>,
    /// Why the cluster could not describe it: unknown, not authorized.
    pub(crate) error: Option<Code>,
}

/// A queue for the one answer, destroyed with its owner.
struct AnswerQueue(*mut rd::rd_kafka_queue_t);

impl Drop for AnswerQueue {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new`, destroyed once. An answer that comes later is dropped by librdkafka.
        unsafe { rd::rd_kafka_queue_destroy(self.0) }
    }
}

/// The answer, destroyed with its owner; everything read from it is copied before.
struct Answer(*mut rd::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: got from `rd_kafka_queue_poll`, which hands over ownership; destroyed once.
        unsafe { rd::rd_kafka_event_destroy(self.0) }
    }
}

/// Options of a request, destroyed with their owner.
struct Options(*mut rd::rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_AdminOptions_new`, destroyed once.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) }
    }
}

/// Makes one admin request and waits for its answer.
fn ask<C: ClientContext>(
    client: &Client<C>,
    operation: rd::rd_kafka_admin_op_t,
    limit: Duration,
    request: impl FnOnce(*mut rd::rd_kafka_t, *const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
) -> KafkaResult<Answer> {
    let limit_ms = limit.as_millis().clamp(1, 300_000) as i32;
    let handle = client.native_ptr();
    let mut text = [0; 128];
    // SAFETY: the client is alive for the whole call, so its handle is valid; both functions never fail for valid operations,
    // and the length given is that of the buffer.
    let (options, queue) = unsafe {
        let options = Options(rd::rd_kafka_AdminOptions_new(handle, operation));
        let code = rd::rd_kafka_AdminOptions_set_request_timeout(options.0, limit_ms, text.as_mut_ptr(), text.len());
        debug_assert_eq!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
        (options, AnswerQueue(rd::rd_kafka_queue_new(handle)))
    };
    request(handle, options.0, queue.0);
    // SAFETY: the queue is alive. The answer comes at the request's own limit at the latest; the second is for the way.
    let event = unsafe { rd::rd_kafka_queue_poll(queue.0, limit_ms + 1000) };
    if event.is_null() {
        return Err(KafkaError::AdminOp(Code::OperationTimedOut));
    }
    let answer = Answer(event);
    // SAFETY: the event is alive as long as `answer`.
    let code = unsafe { rd::rd_kafka_event_error(answer.0) };
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        Ok(answer)
    } else {
        // Not `AdminOp`, which hides its code.
        Err(KafkaError::Global(code.into()))
    }
}

/// The id of the cluster that a client is connected to; a broker is asked, however much the client knows already.
///
/// With a plain request for metadata: `DescribeCluster` of librdkafka 2.12 aborts the process when the answer names no broker,
/// as that of one that has lost its controller does.
pub(crate) fn describe_cluster<C: ClientContext>(client: &Client<C>, limit: Duration) -> KafkaResult<String> {
    let limit_ms = limit.as_millis().clamp(1, 300_000) as i32;
    let handle = client.native_ptr();
    // SAFETY: the client is alive for the whole call, so its handle is valid. The metadata is only written where there is no
    // error, and then destroyed once; the id is a string that is copied here and freed once.
    unsafe {
        let mut metadata = ptr::null();
        let code = rd::rd_kafka_metadata(handle, 0, ptr::null_mut(), &mut metadata, limit_ms);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::Global(code.into()));
        }
        rd::rd_kafka_metadata_destroy(metadata);
        let id = rd::rd_kafka_clusterid(handle, 0);
        if id.is_null() {
            return Ok(String::new());
        }
        let text = CStr::from_ptr(id).to_string_lossy().into_owned();
        rd::rd_kafka_mem_free(handle, id.cast());
        Ok(text)
    }
}

/// Describes topics by name. One that does not exist has an error in its description.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[String],
    limit: Duration,
) -> KafkaResult<Vec<TopicInfo>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = names.iter().map(|name| CString::new(&**name)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the strings outlive the call, which copies them.
    let collection = unsafe { rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: all four are valid for the call, which copies the collection; it is destroyed once, after it.
    let answer = ask(client, operation, limit, |handle, options, queue| unsafe {
        rd::rd_kafka_DescribeTopics(handle, collection, options, queue);
        rd::rd_kafka_TopicCollection_destroy(collection);
    })?;
    // SAFETY: an answer without an error to DescribeTopics is its result. The arrays have the counts that are written with
    // them; everything lives as long as the event and is copied here.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(answer.0);
        if result.is_null() {
            return Ok(Vec::new());
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok((0..count).map(|at| topic_info(*topics.add(at))).collect())
    }
}

/// # Safety
/// The description must be alive.
unsafe fn topic_info(topic: *const rd::rd_kafka_TopicDescription_t) -> TopicInfo {
    // SAFETY: as promised by the caller; a name is never null, an id and an error may be.
    unsafe {
        let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let code = match error.is_null() {
            true => RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            false => rd::rd_kafka_error_code(error),
        };
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = match id.is_null() {
            true => TopicId::default(),
            false => TopicId::from_bits(
                rd::rd_kafka_Uuid_most_significant_bits(id),
                rd::rd_kafka_Uuid_least_significant_bits(id),
            ),
        };
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let mut partitions: Vec<i32> = match partitions.is_null() {
            true => Vec::new(),
            false => (0..count).map(|at| rd::rd_kafka_TopicPartitionInfo_partition(*partitions.add(at))).collect(),
        };
        partitions.sort_unstable();
        let error = (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| code.into());
        TopicInfo { name, id, partitions, error }
    }
}

/// The high watermark of a partition as the last response to a fetch told it; `None` before the first. No request is made.
pub(crate) fn cached_high_watermark<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: client and name are alive, the numbers are written before the call returns.
    let code = unsafe {
        let client = consumer.client().native_ptr();
        rd::rd_kafka_get_watermark_offsets(client, name.as_ptr(), partition, &mut low, &mut high)
    };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
