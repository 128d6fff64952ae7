//! Records in librdkafka's own buffers, fetched in batches.
//!
//! `rd_kafka_consume_batch_queue` costs half of what a poll a record costs. It hands over pointers to messages that point
//! into the buffer of the response; nothing is copied, and a buffer is freed with the last message in it.
//!
//! Why it is sound:
//! - a message is owned by whoever got it from the queue, until `rd_kafka_message_destroy`: [`Messages`] has each pointer
//!   once, moves it but never copies it, and destroys it in its drop;
//! - a message may not outlive its client: every [`Messages`] holds the consumer;
//! - fields of a message never change after it was handed over, so it may be read from several threads, with one exception:
//!   headers are parsed at the first request for them. That is done under a lock, and never again for that message; the
//!   parsed headers never change;
//! - destroying is thread-safe: the counts of references are atomic.

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use crate::client::Consumer;

/// What librdkafka holds for a message beside its key and value.
const OVERHEAD_BYTES: u64 = 320;

/// What came from a [`FetchQueue`].
pub(crate) enum Fetched {
    /// A run of messages of one partition.
    Messages { topic: String, partition: i32, messages: Messages },
    /// The end of a partition, or what went wrong with it.
    Event { topic: String, partition: i32, code: Code, offset: i64, text: String },
}

/// A queue of messages, of one partition or of all that are forwarded to it. Everything else that a consumer has to say
/// stays in the consumer's own queue.
pub(crate) struct FetchQueue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    consumer: Arc<Consumer>,
    headers: Arc<Mutex<()>>,
}

// SAFETY: librdkafka's queues are thread-safe.
unsafe impl Send for FetchQueue {}
// SAFETY: as above.
unsafe impl Sync for FetchQueue {}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: destroyed once, before the client, which is still held by `consumer`.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl FetchQueue {
    pub(crate) fn new(consumer: Arc<Consumer>) -> Self {
        // SAFETY: the client is alive. The function allocates, and aborts rather than return null.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).expect("rd_kafka_queue_new never gives null");
        FetchQueue { queue, consumer, headers: Arc::default() }
    }

    /// The own queue of one partition, which nothing else reads; to be called before the partition is assigned.
    pub(crate) fn of_partition(consumer: Arc<Consumer>, topic: &str, partition: i32) -> Result<Self, KafkaError> {
        let queue = partition_queue(&consumer, topic, partition)?;
        // SAFETY: the queue is alive; forwarding to nothing keeps its messages in it.
        unsafe { rd::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) }
        Ok(FetchQueue { queue, consumer, headers: Arc::default() })
    }

    /// Has the messages of a partition come here; to be called before it is assigned.
    ///
    /// Once only for each partition of a consumer: when a partition is given up, librdkafka undoes the forwarding some time
    /// later, which would undo a second one too.
    pub(crate) fn forward(&self, topic: &str, partition: i32) -> Result<(), KafkaError> {
        let queue = partition_queue(&self.consumer, topic, partition)?;
        // SAFETY: both queues are alive; the handle of the partition's queue is given back, the forwarding stays (librdkafka
        // counts the references itself).
        unsafe {
            rd::rd_kafka_queue_forward(queue.as_ptr(), self.queue.as_ptr());
            rd::rd_kafka_queue_destroy(queue.as_ptr());
        }
        Ok(())
    }

    /// Waits up to `limit` for the first message, then gives all that are there, up to `max`.
    pub(crate) fn fetch(&self, max: usize, limit: Duration, mut out: impl FnMut(Fetched)) {
        let mut list: Vec<*mut rd::rd_kafka_message_t> = vec![ptr::null_mut(); max];
        // A call waits until the array is full: so first for one message, then for no time at all.
        let mut count = self.consume(&mut list[..1], limit);
        if count == 1 {
            count += self.consume(&mut list[1..], Duration::ZERO);
        }
        list.truncate(count);
        let owned = Messages { list, headers: Arc::clone(&self.headers), consumer: Arc::clone(&self.consumer) };
        owned.into_runs(&mut out);
    }

    fn consume(&self, list: &mut [*mut rd::rd_kafka_message_t], limit: Duration) -> usize {
        let limit_ms = limit.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the queue is alive, and the array has room for as many pointers as its length says.
        let count =
            unsafe { rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), limit_ms, list.as_mut_ptr(), list.len()) };
        usize::try_from(count).unwrap_or(0)
    }
}

/// A handle of the queue of a partition, to be destroyed by the caller.
fn partition_queue(
    consumer: &Consumer,
    topic: &str,
    partition: i32,
) -> Result<NonNull<rd::rd_kafka_queue_t>, KafkaError> {
    let name = CString::new(topic)?;
    // SAFETY: client and name are alive.
    let queue = unsafe { rd::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
    NonNull::new(queue).ok_or(KafkaError::Global(Code::UnknownPartition))
}

/// Messages of one partition, in order, without gaps in what was delivered.
pub(crate) struct Messages {
    list: Vec<*mut rd::rd_kafka_message_t>,
    headers: Arc<Mutex<()>>,
    consumer: Arc<Consumer>,
}

// SAFETY: see the head of the file: owned, thread-safe to destroy.
unsafe impl Send for Messages {}
// SAFETY: see the head of the file: immutable but for the headers, which a lock guards.
unsafe impl Sync for Messages {}

impl Drop for Messages {
    fn drop(&mut self) {
        for message in self.list.drain(..) {
            // SAFETY: owned by this list alone; the client is still held by `consumer`.
            unsafe { rd::rd_kafka_message_destroy(message) }
        }
    }
}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Memory that they hold, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.raw().map(|message| (message.len + message.key_len) as u64 + OVERHEAD_BYTES).sum()
    }

    pub(crate) fn first_offset(&self) -> Option<i64> {
        self.raw().next().map(|message| message.offset)
    }

    pub(crate) fn last_offset(&self) -> Option<i64> {
        self.raw().next_back().map(|message| message.offset)
    }

    /// How many lie before an offset.
    pub(crate) fn count_before(&self, offset: i64) -> usize {
        // SAFETY: every pointer of the list is a live message.
        self.list.partition_point(|message| unsafe { (**message).offset } < offset)
    }

    /// Keeps the first `count`, gives the rest.
    pub(crate) fn split_off(&mut self, count: usize) -> Messages {
        let list = self.list.split_off(count);
        Messages { list, headers: Arc::clone(&self.headers), consumer: Arc::clone(&self.consumer) }
    }

    /// Adds the messages that follow.
    pub(crate) fn append(&mut self, mut next: Messages) {
        self.list.append(&mut next.list);
    }

    /// The messages in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = MessageView<'_>> {
        self.raw().map(|message| MessageView { message, headers: &self.headers })
    }

    fn raw(&self) -> impl DoubleEndedIterator<Item = &rd::rd_kafka_message_t> {
        // SAFETY: every pointer of the list is a live message, borrowed no longer than the list.
        self.list.iter().map(|message| unsafe { &**message })
    }

    /// Takes fetched messages apart into runs of one partition each, and events.
    fn into_runs(mut self, out: &mut impl FnMut(Fetched)) {
        let list = std::mem::take(&mut self.list);
        let owned = |list| Messages { list, headers: Arc::clone(&self.headers), consumer: Arc::clone(&self.consumer) };
        // Owned from here on, so that nothing leaks should `out` panic.
        let mut rest = owned(list);
        while let Some(&first) = rest.list.first() {
            // SAFETY: a live message; its topic, if it has one, lives as long.
            let (code, topic, partition, same) = unsafe {
                let (rkt, partition) = ((*first).rkt, (*first).partition);
                let same = rest.list.iter().position(|&other| {
                    (*other).rkt != rkt
                        || (*other).partition != partition
                        || (*other).err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
                });
                let topic = match rkt.is_null() {
                    true => String::new(),
                    false => CStr::from_ptr(rd::rd_kafka_topic_name(rkt)).to_string_lossy().into_owned(),
                };
                ((*first).err, topic, partition, same)
            };
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                let after = match same {
                    Some(count) => rest.split_off(count),
                    None => owned(Vec::new()),
                };
                let messages = std::mem::replace(&mut rest, after);
                out(Fetched::Messages { topic, partition, messages });
            } else {
                let after = rest.split_off(1);
                let event = std::mem::replace(&mut rest, after);
                let view = event.raw().next().expect("one message was left");
                // SAFETY: for an event the payload is the text of the error, `len` bytes of it.
                let text = unsafe { bytes(view.payload, view.len) }.map(String::from_utf8_lossy).unwrap_or_default();
                let (code, offset, text) = (code.into(), view.offset, text.into_owned());
                out(Fetched::Event { topic, partition, code, offset, text });
            }
        }
    }
}

/// # Safety
/// `start` is null or points to `len` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast_const().cast::<u8>(), len) })
}

/// One message, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct MessageView<'a> {
    message: &'a rd::rd_kafka_message_t,
    headers: &'a Mutex<()>,
}

impl<'a> MessageView<'a> {
    pub(crate) fn offset(self) -> i64 {
        self.message.offset
    }

    pub(crate) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: key and length belong together and live as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    pub(crate) fn value(self) -> Option<&'a [u8]> {
        // SAFETY: as above.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// Milliseconds since the epoch, if the message has a time.
    pub(crate) fn timestamp_ms(self) -> Option<i64> {
        // SAFETY: a live message; the type of the time is not asked for.
        let time = unsafe { rd::rd_kafka_message_timestamp(self.message, ptr::null_mut()) };
        (time >= 0).then_some(time)
    }

    pub(crate) fn headers(self) -> Headers<'a> {
        let mut headers = ptr::null_mut();
        let code = {
            let _parsing = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: a live message; parsing is guarded by the lock that all messages of this consumer share.
            unsafe { rd::rd_kafka_message_headers(self.message, &mut headers) }
        };
        let found = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        Headers { headers: if found { headers } else { ptr::null_mut() }, at: 0, message: PhantomData }
    }
}

/// The headers of a message, in order.
#[derive(Clone, Debug)]
pub(crate) struct Headers<'a> {
    /// Null if there are none.
    headers: *mut rd::rd_kafka_headers_t,
    at: usize,
    message: PhantomData<&'a rd::rd_kafka_message_t>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.headers.is_null() {
            return None;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the parsed headers live as long as the message and never change; name and value point into them.
        unsafe {
            let code = rd::rd_kafka_header_get_all(self.headers, self.at, &mut name, &mut value, &mut size);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            self.at += 1;
            // Names are UTF-8 by the protocol; what is not has no name that a program could ask for.
            Some((CStr::from_ptr(name).to_str().unwrap_or("?"), bytes(value.cast_mut(), size)))
        }
    }
}
