//! A real one-node Apache Kafka for tests: fetched from Maven Central, started on free loopback ports, killed, paused
//! and restarted at will, gone when its owner is gone.

mod admin;
mod config;
mod distribution;
mod process;
mod tools;
mod transactions;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use self::config::Ports;
pub use self::distribution::KAFKA_VERSION;
use self::distribution::{Distribution, missing_or};
pub(crate) use self::process::wait_until;
use self::process::{Watched, log_tail, run_bounded};
pub use self::transactions::OpenTransaction;
use crate::chaos::Proxy;
use crate::error::{Error, ErrorKind, Result};

const LOG_CONFIG: &str = include_str!("log4j2.properties");
/// So many times new ports are tried when another program was quicker to take one.
const START_TRIES: u32 = 5;
const FORMAT_LIMIT: Duration = Duration::from_secs(60);

/// Fetches the Kafka that [`KafkaBroker`] runs, if it is not there yet, and tells where it is.
///
/// Starting a broker does the same; this is for set-up scripts that want it done early.
///
/// # Errors
///
/// [`ErrorKind::Install`] without Maven; [`ErrorKind::Retry`] when Maven could not fetch it.
pub fn fetch_kafka() -> Result<PathBuf> {
    Ok(Distribution::fetch()?.home().to_path_buf())
}

/// How a [`KafkaBroker`] is to be started; made by [`KafkaBroker::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct KafkaBrokerBuilder {
    settings: BTreeMap<String, String>,
    proxy: Option<SocketAddr>,
    with_proxy: bool,
    heap_limit_mib: u32,
    ready_limit: Duration,
}

impl KafkaBrokerBuilder {
    /// A setting of the broker (`server.properties`); it wins over the launcher's own.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// Adds a listener whose clients are told to come to `proxy` instead of the broker itself.
    ///
    /// The test runs a TCP proxy at that address that forwards to [`KafkaBroker::behind_proxy`]; clients with `proxy` as
    /// their bootstrap server then never get past it. Default: none.
    pub fn proxied_by(mut self, proxy: SocketAddr) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Puts a [`Proxy`] before the broker, which can hold up, cut and repeat what clients of [`KafkaBroker::proxied_servers`] send;
    /// those of [`KafkaBroker::bootstrap_servers`] go past it. Default: none.
    pub fn with_proxy(mut self) -> Self {
        self.with_proxy = true;
        self
    }

    /// Limit of the broker's Java heap. Default: 512 MiB.
    pub fn heap_limit_mib(mut self, limit: u32) -> Self {
        self.heap_limit_mib = limit;
        self
    }

    /// How long a start may take until clients get an answer; also the limit of a graceful stop and of each request
    /// about a topic. Default: 60 s.
    pub fn ready_limit(mut self, limit: Duration) -> Self {
        self.ready_limit = limit;
        self
    }

    /// Starts the broker and waits until clients get an answer from it.
    ///
    /// The first start on a machine fetches Kafka from Maven Central (about 45 MB) into `$MILLPOND_KAFKA_HOME`, by default
    /// `kafka/4.3.1` in cargo's target directory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Install`] without Java or Maven; [`ErrorKind::Retry`] if Kafka could not be fetched or was not ready
    /// within the limit; [`ErrorKind::Failed`] if it ended by itself. The last lines of its log are in the message.
    pub fn start(mut self) -> Result<KafkaBroker> {
        let kafka = Distribution::fetch()?;
        let proxy = if self.with_proxy { Some(Proxy::listen()?) } else { None };
        self.proxy = proxy.as_ref().map(Proxy::address).or(self.proxy);
        let mut tries = 1;
        loop {
            let mut broker = KafkaBroker::prepare(kafka.clone(), &self)?;
            match broker.launch() {
                Err(Launch::PortTaken(_)) if tries < START_TRIES => tries += 1,
                Err(Launch::PortTaken(error) | Launch::Failed(error)) => return Err(error),
                Ok(()) => {
                    if let Some(proxy) = &proxy {
                        proxy.forward_to(broker.behind_proxy());
                    }
                    broker.proxy = proxy;
                    return Ok(broker);
                }
            }
        }
    }
}

/// Why a start did not succeed; a taken port is worth another try.
enum Launch {
    PortTaken(Error),
    Failed(Error),
}

/// A running one-node Apache Kafka.
///
/// It listens on 127.0.0.1 only and keeps its data in a temporary directory. Dropping it kills it and removes the data; so
/// does the death of the process that started it, `SIGKILL` included.
///
/// ```no_run
/// use millpond_testkit::broker::KafkaBroker;
///
/// let broker = KafkaBroker::builder().start()?;
/// broker.create_topic("lines", 4, &[("retention.ms", "-1")])?;
/// println!("clients connect to {}", broker.bootstrap_servers());
/// broker.kill()?;
/// broker.restart()?; // same address, same data
/// # Ok::<(), millpond_testkit::Error>(())
/// ```
#[derive(Debug)]
pub struct KafkaBroker {
    // Before the directory: it is dropped first, so that nothing is written into a directory while it is removed.
    process: Mutex<Option<Watched>>,
    proxy: Option<Proxy>,
    is_shared: bool,
    directory: TempDir,
    kafka: Distribution,
    cluster_id: String,
    ports: Ports,
    bootstrap_servers: String,
    heap_limit_mib: u32,
    ready_limit: Duration,
}

impl KafkaBroker {
    /// A broker with the settings that tests need, to be changed and started.
    pub fn builder() -> KafkaBrokerBuilder {
        KafkaBrokerBuilder {
            settings: BTreeMap::new(),
            proxy: None,
            with_proxy: false,
            heap_limit_mib: 512,
            ready_limit: Duration::from_secs(60),
        }
    }

    /// The one broker that all tests of this process share, started at the first call.
    ///
    /// Use it with topics named by [`unique_name`]. It lives as long as the process: a static is never dropped, but the
    /// broker has a watcher that kills it and removes its data as soon as the process has ended, in whatever way. It
    /// cannot be killed or paused; a test that wants that starts a broker of its own.
    ///
    /// # Panics
    ///
    /// If it cannot be started, with the message of the error, at each call.
    pub fn shared() -> &'static KafkaBroker {
        static SHARED: OnceLock<Result<KafkaBroker>> = OnceLock::new();
        let start = || KafkaBroker::builder().start().map(|broker| KafkaBroker { is_shared: true, ..broker });
        match SHARED.get_or_init(start) {
            Ok(broker) => broker,
            Err(error) => panic!("cannot start the shared Kafka broker: {error}"),
        }
    }

    /// The address for clients, `127.0.0.1:PORT`. It stays the same over restarts.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The same cluster under another name, `localhost:PORT`.
    pub fn other_bootstrap_servers(&self) -> String {
        format!("localhost:{}", self.ports.clients)
    }

    /// Where a proxy named with [`KafkaBrokerBuilder::proxied_by`] has to forward to.
    pub fn behind_proxy(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.behind_proxy))
    }

    /// The proxy before it, if it was started [with one](KafkaBrokerBuilder::with_proxy).
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The address for clients that are to go through the proxy; without one, [`bootstrap_servers`](Self::bootstrap_servers).
    pub fn proxied_servers(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.bootstrap_servers.clone(), |proxy| proxy.address().to_string())
    }

    /// The id of the cluster, as clients see it.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Creates a topic with settings of its own, for example `("cleanup.policy", "compact")`, and waits until clients
    /// see it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the broker refuses (it exists, a setting is wrong), [`ErrorKind::Retry`] at the limit.
    pub fn create_topic(&self, name: &str, partitions: u32, config: &[(&str, &str)]) -> Result<()> {
        admin::create_topic(&self.bootstrap_servers, name, partitions, config, self.ready_limit)
    }

    /// Deletes a topic and waits until clients do not see it any more.
    ///
    /// # Errors
    ///
    /// As [`create_topic`](Self::create_topic).
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        admin::delete_topic(&self.bootstrap_servers, name, self.ready_limit)
    }

    /// The transactions that are neither committed nor aborted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Retry`] without an answer within half a minute, [`ErrorKind::Failed`] if the answer is an error.
    pub fn open_transactions(&self) -> Result<Vec<OpenTransaction>> {
        transactions::open_transactions(SocketAddr::from(([127, 0, 0, 1], self.ports.clients)))
    }

    /// The id of a topic; a topic that is deleted and made again gets another one. Takes a second.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Retry`] at the limit of a minute, [`ErrorKind::Failed`] if there is no such topic.
    pub fn topic_id(&self, topic: &str) -> Result<String> {
        tools::topic_id(&self.kafka, &self.bootstrap_servers, topic)
    }

    /// Kills the broker with `SIGKILL`. What it has acknowledged survives in the page cache. Nothing happens if it is down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for the [shared](Self::shared) one.
    pub fn kill(&self) -> Result<()> {
        self.refuse_if_shared("kill")?;
        *self.process() = None; // its drop kills and reaps
        Ok(())
    }

    /// Stops the broker gracefully (`SIGTERM`). Nothing happens if it is down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Retry`] if it did not end within the limit; it has been killed then.
    pub fn stop(&self) -> Result<()> {
        self.refuse_if_shared("stop")?;
        let Some(mut process) = self.process().take() else { return Ok(()) };
        let ended = process.terminate(self.ready_limit).map_err(|error| self.cannot("stop", error))?;
        if ended { Ok(()) } else { Err(self.timed_out("did not stop")) }
    }

    /// Starts the broker again, at the same address with the same data; kills it first if it is running.
    ///
    /// # Errors
    ///
    /// As [`KafkaBrokerBuilder::start`].
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        // The old process is gone, but a client that connects to a dead broker may hold a port for a moment.
        let free = wait_until(self.ready_limit, || Ok::<_, Error>(self.ports.are_free()))?;
        if !free {
            return Err(Error::new(ErrorKind::Retry, format!("another program has taken a port of {:?}", self.ports)));
        }
        match self.launch() {
            Ok(()) => Ok(()),
            Err(Launch::PortTaken(error) | Launch::Failed(error)) => Err(error),
        }
    }

    /// Freezes the broker (`SIGSTOP`): connections stay, answers do not come.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if it is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal("pause", Signal::STOP)
    }

    /// Lets a paused broker go on (`SIGCONT`).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if it is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal("resume", Signal::CONT)
    }

    /// The broker's log so far, for looking at after a failed test.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.log_path()).map_err(|error| self.cannot("read the log of", error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn process(&self) -> MutexGuard<'_, Option<Watched>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_if_shared(&self, verb: &str) -> Result<()> {
        if self.is_shared {
            let why = format!("cannot {verb} the shared Kafka broker: other tests use it. Start one of your own");
            return Err(Error::new(ErrorKind::Configuration, why));
        }
        Ok(())
    }

    fn signal(&self, verb: &str, signal: Signal) -> Result<()> {
        self.refuse_if_shared(verb)?;
        let result = match &mut *self.process() {
            Some(process) => process.signal(signal),
            None => Err(io::Error::other("it is not running")),
        };
        result.map_err(|error| self.cannot(verb, error))
    }

    /// Everything but the process: directory, ports, configuration, formatted storage.
    fn prepare(kafka: Distribution, builder: &KafkaBrokerBuilder) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("millpond-kafka-").tempdir().map_err(|error| {
            let place = std::env::temp_dir();
            Error::new(ErrorKind::Failed, format!("cannot make a temporary directory in {}", place.display()))
                .because(error)
        })?;
        let ports = Ports::free()?;
        let broker = KafkaBroker {
            process: Mutex::new(None),
            proxy: None,
            is_shared: false,
            kafka,
            cluster_id: config::random_cluster_id(),
            bootstrap_servers: format!("127.0.0.1:{}", ports.clients),
            ports,
            heap_limit_mib: builder.heap_limit_mib,
            ready_limit: builder.ready_limit,
            directory,
        };
        let data = broker.directory.path().join("data");
        let text = config::server_properties(&broker.ports, &data, builder.proxy, &builder.settings);
        broker.write(&broker.config_path(), &text)?;
        broker.write(&broker.log_config_path(), LOG_CONFIG)?;
        broker.format()?;
        Ok(broker)
    }

    fn format(&self) -> Result<()> {
        let mut java = self.java();
        java.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", &self.cluster_id, "-c"]);
        java.arg(self.config_path());
        let output = run_bounded(java, FORMAT_LIMIT).map_err(|error| missing_or(error, "Java (java)"))?;
        if !output.status.success() {
            let why = format!("cannot format the storage of a Kafka broker ({}):\n{}", output.status, output.tail());
            return Err(Error::new(ErrorKind::Failed, why));
        }
        Ok(())
    }

    fn launch(&self) -> Result<(), Launch> {
        let log_start = fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len() as usize);
        let mut java = self.java();
        java.arg("kafka.Kafka").arg(self.config_path());
        let mut process = Watched::start(&java, self.directory.path(), &self.log_path())
            .map_err(|error| Launch::Failed(self.cannot("start", error)))?;

        let ready = wait_until(self.ready_limit, || {
            if let Some(status) = process.ended().map_err(|error| Launch::Failed(self.cannot("watch", error)))? {
                let log = fs::read(self.log_path()).unwrap_or_default();
                let log = String::from_utf8_lossy(log.get(log_start..).unwrap_or_default()).into_owned();
                let why =
                    format!("Kafka at {} ended while starting ({status}):\n{}", self.bootstrap_servers, log_tail(&log));
                let error = Error::new(ErrorKind::Failed, why);
                let port_taken = log.contains("Address already in use");
                return Err(if port_taken { Launch::PortTaken(error) } else { Launch::Failed(error) });
            }
            Ok(admin::answers(&self.bootstrap_servers, self.ready_limit.min(Duration::from_secs(1))))
        })?;
        if !ready {
            return Err(Launch::Failed(self.timed_out("was not ready")));
        }
        *self.process() = Some(process);
        Ok(())
    }

    fn java(&self) -> Command {
        let mut java = self.kafka.java(self.heap_limit_mib);
        // Read by the JVM wherever it stands before the main class, which the caller adds.
        java.arg(format!("-Dlog4j2.configurationFile={}", self.log_config_path().display()));
        java
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("server.properties")
    }

    fn log_config_path(&self) -> PathBuf {
        self.directory.path().join("log4j2.properties")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("broker.log")
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text)
            .map_err(|error| Error::new(ErrorKind::Failed, format!("cannot write {}", path.display())).because(error))
    }

    fn cannot(&self, verb: &str, error: io::Error) -> Error {
        Error::new(ErrorKind::Failed, format!("cannot {verb} the Kafka broker at {}", self.bootstrap_servers))
            .because(error)
    }

    fn timed_out(&self, what: &str) -> Error {
        let log = self.log().unwrap_or_default();
        let (servers, limit) = (&self.bootstrap_servers, self.ready_limit);
        Error::new(ErrorKind::Retry, format!("Kafka at {servers} {what} within {limit:?}:\n{}", log_tail(&log)))
    }
}

/// A name that no other call in this process has got, beginning with `prefix`: for topics, groups and transactional ids
/// on a shared broker.
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_taken_at_the_last_moment_is_told_from_other_failures() {
        let builder = KafkaBroker::builder();
        let broker = KafkaBroker::prepare(Distribution::fetch().unwrap(), &builder).unwrap();
        let thief = TcpListener::bind(("127.0.0.1", broker.ports.clients)).unwrap();
        assert!(!broker.ports.are_free());
        let Err(Launch::PortTaken(error)) = broker.launch() else { panic!("it should have found its port taken") };
        assert!(error.to_string().contains("Address already in use"), "{error}");
        drop(thief);
        assert!(broker.launch().is_ok());
    }

    #[test]
    fn unique_names_differ() {
        assert_ne!(unique_name("a"), unique_name("a"));
    }
}
