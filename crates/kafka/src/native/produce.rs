//! Producing in batches: a call for some hundred records instead of one each.
//!
//! Why it is sound: topic handles are made from the client of the producer that is held beside them, and destroyed before
//! it; keys and values are copied by librdkafka before a call returns (`RD_KAFKA_MSG_F_COPY`); headers are handed over only
//! if the call succeeds, and destroyed by us if it does not.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use millpond_core::sink::{RecordView, Records};
use rdkafka::bindings as rd;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::types::RDKafkaRespErr;

use crate::client::Reports;

/// Records in one call. Larger ones gain nothing more.
const BATCH: usize = 256;
/// The partitioner chooses.
const ANY_PARTITION: i32 = -1;

/// A producer with handles of the topics it writes to.
pub(crate) struct Outputs {
    // Before the producer: dropped first.
    topics: HashMap<String, TopicHandle>,
    main_queue: QueueHandle,
    producer: BaseProducer<Reports>,
}

/// The queue of everything that a client has to say.
struct QueueHandle(NonNull<rd::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are thread-safe.
unsafe impl Send for QueueHandle {}
// SAFETY: as above.
unsafe impl Sync for QueueHandle {}

impl Drop for QueueHandle {
    fn drop(&mut self) {
        // SAFETY: got from `rd_kafka_queue_get_main`, given back once; the client lives longer (order of fields in `Outputs`).
        unsafe { rd::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

struct TopicHandle(NonNull<rd::rd_kafka_topic_t>);

// SAFETY: librdkafka's topic handles are thread-safe.
unsafe impl Send for TopicHandle {}
// SAFETY: as above.
unsafe impl Sync for TopicHandle {}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, given back once; the client lives longer (order of fields in `Outputs`).
        unsafe { rd::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

impl Outputs {
    pub(crate) fn new(producer: BaseProducer<Reports>) -> Self {
        // SAFETY: the client is alive; the function never gives null.
        let main_queue = unsafe { rd::rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let main_queue = QueueHandle(NonNull::new(main_queue).expect("rd_kafka_queue_get_main never gives null"));
        Outputs { topics: HashMap::new(), main_queue, producer }
    }

    /// Handles everything that the client has to say at this moment. (A poll without a wait handles one thing.)
    pub(crate) fn serve(&self) {
        // SAFETY: the queue is alive.
        let waiting = unsafe { rd::rd_kafka_queue_length(self.main_queue.0.as_ptr()) };
        (0..waiting).for_each(|_| self.producer.poll(Duration::ZERO));
    }

    pub(crate) fn producer(&self) -> &BaseProducer<Reports> {
        &self.producer
    }

    /// Prepares a topic, with a partitioner of its own.
    pub(crate) fn add_topic(&mut self, topic: &str, partitioner: &str) -> Result<(), KafkaError> {
        if self.topics.contains_key(topic) {
            return Ok(());
        }
        let name = CString::new(topic)?;
        let (key, value) = (CString::new("partitioner")?, CString::new(partitioner)?);
        let client = self.producer.client().native_ptr();
        let mut why = [0 as c_char; 256];
        // SAFETY: the client is alive; `rd_kafka_topic_new` takes the configuration over, in every case but the one in which
        // it gives null, which happens only for an invalid name or setting; the text's length is that of the buffer.
        unsafe {
            let conf = rd::rd_kafka_default_topic_conf_dup(client);
            let set = rd::rd_kafka_topic_conf_set(conf, key.as_ptr(), value.as_ptr(), why.as_mut_ptr(), why.len());
            if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                rd::rd_kafka_topic_conf_destroy(conf);
                return Err(KafkaError::Global(Code::InvalidArgument));
            }
            let handle = rd::rd_kafka_topic_new(client, name.as_ptr(), conf);
            let handle = NonNull::new(handle).ok_or(KafkaError::Global(Code::InvalidTopic))?;
            self.topics.insert(topic.to_owned(), TopicHandle(handle));
        }
        Ok(())
    }

    /// Hands records over to librdkafka, from the one at `from`; gives how many it took, and why it took no more.
    ///
    /// # Panics
    /// If the topic was not added.
    pub(crate) fn produce(&self, topic: &str, records: &Records, from: usize) -> (usize, Option<Code>) {
        let handle = &self.topics[topic];
        let mut taken = 0;
        let mut batch: Vec<rd::rd_kafka_message_t> = Vec::with_capacity(BATCH);
        for record in records.iter().skip(from) {
            if record.headers().len() > 0 {
                let (count, error) = handle.produce_batch(&mut batch);
                taken += count;
                if error.is_some() {
                    return (taken, error);
                }
                match handle.produce_with_headers(self.producer.client().native_ptr(), record) {
                    None => taken += 1,
                    error => return (taken, error),
                }
                continue;
            }
            batch.push(message(record));
            if batch.len() == BATCH {
                let (count, error) = handle.produce_batch(&mut batch);
                taken += count;
                if error.is_some() {
                    return (taken, error);
                }
            }
        }
        let (count, error) = handle.produce_batch(&mut batch);
        (taken + count, error)
    }
}

/// A record as `rd_kafka_produce_batch` wants it: pointers into the records, valid as long as these are borrowed.
fn message(record: RecordView<'_>) -> rd::rd_kafka_message_t {
    let (payload, len) = parts(record.value());
    let (key, key_len) = parts(record.key());
    rd::rd_kafka_message_t {
        err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: ANY_PARTITION,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: ptr::null_mut(),
    }
}

/// Null for none; an empty slice has a start that is not null, which tells it from none.
fn parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

impl TopicHandle {
    /// Produces the batch and empties it.
    fn produce_batch(&self, batch: &mut Vec<rd::rd_kafka_message_t>) -> (usize, Option<Code>) {
        if batch.is_empty() {
            return (0, None);
        }
        // SAFETY: the handle is alive; the messages are as many as said, and what they point to is borrowed by the caller and
        // copied before the call returns.
        let good = unsafe {
            let (start, count) = (batch.as_mut_ptr(), batch.len() as i32);
            rd::rd_kafka_produce_batch(self.0.as_ptr(), ANY_PARTITION, rd::RD_KAFKA_MSG_F_COPY, start, count)
        };
        let result = match usize::try_from(good) {
            Ok(good) if good == batch.len() => (good, None),
            _ => {
                // Once the queue is full nothing more of the batch is taken; any other error ends the transaction.
                let failed =
                    |message: &rd::rd_kafka_message_t| message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
                let first = batch.iter().position(failed);
                (first.unwrap_or(batch.len()), first.map(|at| batch[at].err.into()))
            }
        };
        batch.clear();
        result
    }

    fn produce_with_headers(&self, client: *mut rd::rd_kafka_t, record: RecordView<'_>) -> Option<Code> {
        use rd::rd_kafka_vtype_t as vtype;
        let memory = |vtype, bytes| {
            let (ptr, size) = parts(bytes);
            let mem = rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size };
            rd::rd_kafka_vu_t { vtype, u: rd::rd_kafka_vu_s__bindgen_ty_1 { mem } }
        };
        // SAFETY: names and values are borrowed for the call and copied by it, with their lengths.
        let headers = unsafe {
            let headers = rd::rd_kafka_headers_new(record.headers().len());
            for (name, value) in record.headers() {
                let (start, size) = parts(value);
                rd::rd_kafka_header_add(headers, name.as_ptr().cast(), name.len() as isize, start, size as isize);
            }
            headers
        };
        let arguments = [
            rd::rd_kafka_vu_t {
                vtype: vtype::RD_KAFKA_VTYPE_RKT,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.0.as_ptr() },
            },
            rd::rd_kafka_vu_t {
                vtype: vtype::RD_KAFKA_VTYPE_MSGFLAGS,
                u: rd::rd_kafka_vu_s__bindgen_ty_1 { i: rd::RD_KAFKA_MSG_F_COPY },
            },
            memory(vtype::RD_KAFKA_VTYPE_VALUE, record.value()),
            memory(vtype::RD_KAFKA_VTYPE_KEY, record.key()),
            rd::rd_kafka_vu_t { vtype: vtype::RD_KAFKA_VTYPE_HEADERS, u: rd::rd_kafka_vu_s__bindgen_ty_1 { headers } },
        ];
        // SAFETY: every argument has the member that its type names; key and value are copied. The headers belong to
        // librdkafka if the call succeeds, to us if not; the error, if there is one, is ours.
        unsafe {
            let error = rd::rd_kafka_produceva(client, arguments.as_ptr(), arguments.len());
            if error.is_null() {
                return None;
            }
            let code = rd::rd_kafka_error_code(error);
            rd::rd_kafka_error_destroy(error);
            rd::rd_kafka_headers_destroy(headers);
            Some(code.into())
        }
    }
}
