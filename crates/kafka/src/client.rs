//! Clients of a cluster: what librdkafka reports while it works, and the wait for a broker that is away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;

use crate::error::kind_of;
use crate::native;

/// How long one request may take before it is tried again.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a try to reach a broker takes; between tries the client's events are served.
const CONNECT_STEP: Duration = Duration::from_millis(1000);
/// Errors kept until somebody takes them; an unreachable broker makes one a second.
const MAX_KEPT_ERRORS: usize = 64;

/// A consumer that is assigned by hand and joins no group.
pub(crate) type Consumer = BaseConsumer<Reports>;

/// What a client reports beside the results of calls. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Reports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of whom: ``source `lines` ``.
    of: String,
    kept: Mutex<Kept>,
    /// Something was lost on the way to a broker or back: outcomes may be other than they look.
    indefinite: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    errors: Vec<(Code, String)>,
    undelivered: Option<Undelivered>,
}

/// A record that a broker or the client refused: of the first kind of refusal, the largest.
#[derive(Clone, Debug)]
pub(crate) struct Undelivered {
    pub(crate) topic: String,
    pub(crate) bytes: usize,
    pub(crate) code: Code,
}

impl Reports {
    pub(crate) fn new(of: impl Into<String>) -> Self {
        Reports(Arc::new(Inner { of: of.into(), kept: Mutex::default(), indefinite: AtomicBool::new(false) }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self) -> &str {
        &self.0.of
    }

    /// The errors since the last call.
    pub(crate) fn take_errors(&self) -> Vec<(Code, String)> {
        std::mem::take(&mut self.kept().errors)
    }

    /// A record that could not be written since the last call.
    pub(crate) fn take_undelivered(&self) -> Option<Undelivered> {
        self.kept().undelivered.take()
    }

    /// A record could not be written.
    pub(crate) fn set_undelivered(&self, topic: &str, code: Code) {
        self.kept().undelivered = Some(Undelivered { topic: topic.to_owned(), bytes: 0, code });
    }

    /// Whether anything indefinite has happened since the client was made.
    pub(crate) fn is_indefinite(&self) -> bool {
        self.0.indefinite.load(Ordering::Relaxed)
    }

    /// Says that something indefinite has happened.
    pub(crate) fn set_indefinite(&self) {
        self.0.indefinite.store(true, Ordering::Relaxed);
    }

    /// Forgets it: everything that was on its way has been shut out.
    pub(crate) fn clear_indefinite(&self) {
        self.0.indefinite.store(false, Ordering::Relaxed);
    }

    /// The error that no waiting cures, if one was reported: wrong password, wrong certificate.
    fn refusal(&self) -> Option<(Code, String)> {
        self.kept().errors.iter().find(|(code, _)| kind_of(Some(*code)) == ErrorKind::Configuration).cloned()
    }
}

/// Whether what librdkafka says of a connection means that requests on it may have been lost, or still be on their way: it
/// was up. One that could not be made, to a broker that is down, has carried none.
///
/// librdkafka sends a commit again on another connection without a word but this, which it logs, and does not report as an
/// error while only one request was under way.
fn cuts_requests_off(text: &str) -> bool {
    text.contains("in state UP") || text.contains("Timed out")
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let of = &self.0.of;
        if matches!(facility, "FAIL" | "REQTMOUT") && cuts_requests_off(message) {
            self.set_indefinite();
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                // Errors come as errors too, and are reported by whoever gets them.
                tracing::warn!(%of, facility, "{message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(%of, facility, "{message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(%of, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // An event without a code has no bearing on anything.
        let Some(code) = error.rdkafka_error_code() else { return };
        let timed_out = matches!(code, Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut);
        if timed_out || cuts_requests_off(reason) {
            self.set_indefinite();
        }
        let mut kept = self.kept();
        if kept.errors.len() < MAX_KEPT_ERRORS && !kept.errors.iter().any(|(_, text)| text == reason) {
            kept.errors.push((code, reason.to_owned()));
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::debug!(of = %self.0.of, statistics = %String::from_utf8_lossy(statistics), "librdkafka statistics");
    }
}

impl ConsumerContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        // What an abort throws away was not refused by anybody.
        if matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            return;
        }
        // librdkafka goes on with the next sequence number, which the broker refuses even in the next transaction.
        self.set_indefinite();
        let bytes = message.payload_len() + message.key_len();
        let mut kept = self.kept();
        // A broker refuses a whole batch of records for one that is too large: that one is meant.
        let is_larger =
            |known: &Undelivered| known.code == code && known.bytes < bytes && known.topic == message.topic();
        if kept.undelivered.as_ref().is_none_or(is_larger) {
            kept.undelivered = Some(Undelivered { topic: message.topic().to_owned(), bytes, code });
        }
    }
}

/// Waits until a broker of the cluster answers, and gives the cluster's id.
///
/// `serve` handles the client's events. Ends early for what no waiting cures, and when `go_on` says no.
pub(crate) fn wait_for_cluster(
    client: &Client<Reports>,
    brokers: &str,
    limit: Duration,
    serve: impl Fn(),
    go_on: impl Fn() -> bool,
) -> Result<String> {
    let reports = client.context();
    let deadline = Instant::now() + limit;
    let mut told = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let result = native::describe_cluster(client, left.clamp(Duration::from_millis(100), CONNECT_STEP));
        serve();
        let error = match result {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        if let Some((code, reason)) = reports.refusal() {
            let what = format!("{}: the Kafka brokers {brokers} refuse the client: {reason}", reports.of());
            return Err(Error::new(kind_of(Some(code)), what));
        }
        if !go_on() {
            return Err(Error::new(
                ErrorKind::Stopped,
                format!("{}: stopped while waiting for a broker", reports.of()),
            ));
        }
        if Instant::now() >= deadline {
            let reason = reports.take_errors().pop().map_or(String::new(), |(_, reason)| format!(" ({reason})"));
            let what = format!("{}: no Kafka broker of {brokers} answered within {limit:?}{reason}", reports.of());
            return Err(Error::new(ErrorKind::Retry, what).with_source(error));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(of = reports.of(), brokers, ?limit, "waiting for a Kafka broker to answer");
        }
        // A refused connection is answered at once: do not spin.
        std::thread::sleep(Duration::from_millis(50).min(left));
    }
}

/// Handles what a consumer's client has to say. Its messages go to queues of their own, so none is lost here.
pub(crate) fn serve(consumer: &Consumer) {
    while let Some(Err(_)) = consumer.poll(Duration::ZERO) {}
}

/// The time, as a simulation may rule it.
pub(crate) trait Time: Send + Sync {
    fn now(&self) -> Instant;
    fn sleep(&self, time: Duration);
}

/// An error with librdkafka's code.
pub(crate) trait HasCode {
    fn code(&self) -> Option<Code>;
}

impl HasCode for KafkaError {
    fn code(&self) -> Option<Code> {
        self.rdkafka_error_code()
    }
}

/// Calls a request again until it succeeds, fails for good, or the limit is reached.
pub(crate) fn retry<T>(
    limit: Duration,
    request: impl FnMut(Duration) -> Result<T, KafkaError>,
    serve: impl Fn(),
) -> Result<T, KafkaError> {
    retry_by(&crate::sink::Librdkafka, limit, request, serve)
}

/// As [`retry`], by another time.
pub(crate) fn retry_by<T, E: HasCode>(
    time: &(impl Time + ?Sized),
    limit: Duration,
    mut request: impl FnMut(Duration) -> Result<T, E>,
    serve: impl Fn(),
) -> Result<T, E> {
    let deadline = time.now() + limit;
    loop {
        let left = deadline.saturating_duration_since(time.now());
        let result = request(left.clamp(Duration::from_millis(100), REQUEST_LIMIT));
        serve();
        match result {
            Err(error) if kind_of(error.code()) == ErrorKind::Retry && time.now() < deadline => {
                time.sleep(Duration::from_millis(50).min(left));
            }
            done => return done,
        }
    }
}

/// The client of a consumer, for requests.
pub(crate) fn client_of(consumer: &Consumer) -> &Client<Reports> {
    consumer.client()
}
