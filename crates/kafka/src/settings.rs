//! Settings of librdkafka's clients: what we set, what a program may pass through, and what is refused with the reason.

use millpond_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// The settings that a program has passed through, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings(Vec<(String, String)>);

const ADDRESS: &str = "it is the first argument of the source or sink";
const BY_OFFSET: &str = "the offset of every partition is kept by the engine, which alone says where reading goes on";
const NO_GROUP: &str =
    "partitions are assigned by the source itself; it joins no group, so that a restart waits for nobody";

/// Settings that a source refuses, with the reason.
const SOURCE: &[(&str, &str)] = &[
    ("bootstrap.servers", ADDRESS),
    ("metadata.broker.list", ADDRESS),
    ("isolation.level", "use read_uncommitted() on the source; the default is read_committed"),
    ("auto.offset.reset", "use starting_offsets() on the source; later a lost range must be told, not jumped over"),
    ("enable.auto.commit", BY_OFFSET),
    ("auto.commit.enable", BY_OFFSET),
    ("auto.commit.interval.ms", BY_OFFSET),
    ("enable.auto.offset.store", BY_OFFSET),
    ("offset.store.method", BY_OFFSET),
    ("offset.store.path", BY_OFFSET),
    ("offset.store.sync.interval.ms", BY_OFFSET),
    ("group.id", NO_GROUP),
    ("group.instance.id", NO_GROUP),
    ("group.protocol", NO_GROUP),
    ("group.protocol.type", NO_GROUP),
    ("group.remote.assignor", NO_GROUP),
    ("partition.assignment.strategy", NO_GROUP),
    ("session.timeout.ms", NO_GROUP),
    ("heartbeat.interval.ms", NO_GROUP),
    ("max.poll.interval.ms", NO_GROUP),
    ("enable.partition.eof", "the source needs the ends of partitions to know that a replay is complete"),
    ("allow.auto.create.topics", "a source that creates the topic it should read hides a misspelt name"),
    ("enabled_events", "the events of the client are the source's own"),
    ("log.queue", "the log of the client goes to `tracing`"),
];

const ORDER: &str =
    "exactly-once needs the idempotent producer with acknowledgements of all replicas and retries in order";

/// Settings that a sink refuses, with the reason.
const SINK: &[(&str, &str)] = &[
    ("bootstrap.servers", ADDRESS),
    ("metadata.broker.list", ADDRESS),
    ("transactional.id", "use transactional_id() on the sink; the default is the application's name"),
    ("enable.idempotence", ORDER),
    ("acks", ORDER),
    ("request.required.acks", ORDER),
    ("retries", ORDER),
    ("message.send.max.retries", ORDER),
    ("max.in.flight", ORDER),
    ("max.in.flight.requests.per.connection", ORDER),
    ("queuing.strategy", ORDER),
    ("enable.gapless.guarantee", ORDER),
    ("delivery.report.only.error", "the sink must hear of every record that could not be written, and of nothing else"),
    ("partitioner", "use partitioner() on the sink; the default is that of the Java client"),
    ("log.connection.close", "a lost connection must be heard of: what was on its way must be shut out"),
    ("isolation.level", "the sink's own readers of the cursor need what they set"),
    ("group.id", "use offsets_group() on the sink"),
    ("enabled_events", "the events of the client are the sink's own"),
    ("log.queue", "the log of the client goes to `tracing`"),
];

impl Settings {
    pub(crate) fn set(&mut self, key: String, value: String) {
        self.0.push((key, value));
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(set, _)| set == key).map(|(_, value)| &**value)
    }

    /// Refuses what would break a source.
    pub(crate) fn check_source(&self) -> Result<()> {
        self.check(SOURCE)
    }

    /// Refuses what would break a sink.
    pub(crate) fn check_sink(&self) -> Result<()> {
        self.check(SINK)
    }

    fn check(&self, refused: &[(&str, &str)]) -> Result<()> {
        for (key, value) in &self.0 {
            let refuse = |why: &str| {
                Err(Error::new(ErrorKind::Configuration, format!("the Kafka setting `{key}` cannot be set: {why}")))
            };
            if let Some((_, why)) = refused.iter().find(|(name, _)| name == key) {
                return refuse(why);
            }
            let protected = key.starts_with("ssl.")
                || (key == "security.protocol" && value.to_ascii_lowercase().contains("ssl"))
                || (matches!(&**key, "sasl.mechanism" | "sasl.mechanisms") && !value.eq_ignore_ascii_case("PLAIN"));
            if protected && !cfg!(feature = "tls") {
                return refuse(
                    "this build has no TLS; build with the feature `tls` (only SASL PLAIN without encryption works without it)",
                );
            }
            if matches!(&**key, "sasl.mechanism" | "sasl.mechanisms") && value.eq_ignore_ascii_case("GSSAPI") {
                return refuse(
                    "Kerberos (GSSAPI) is not supported; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are",
                );
            }
        }
        Ok(())
    }

    /// Adds other settings; the error names one that is given twice with different values.
    pub(crate) fn merge(&mut self, other: &Settings) -> Result<()> {
        for (key, value) in &other.0 {
            match self.get(key) {
                None => self.set(key.clone(), value.clone()),
                Some(set) if set == value => {}
                Some(set) => {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!(
                            "the Kafka setting `{key}` is `{set}` for one sink and `{value}` for another of the same \
                                 cluster: they share one producer"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The settings of a client: ours, over them the program's, over them those that must be.
    pub(crate) fn client(&self, brokers: &str, ours: &[(&str, &str)], must: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("client.id", "millpond");
        // A broker that comes back is found again within a second, not ten.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
        for (key, value) in ours {
            config.set(*key, *value);
        }
        for (key, value) in &self.0 {
            config.set(key, value);
        }
        config.set("bootstrap.servers", brokers);
        for (key, value) in must {
            config.set(*key, *value);
        }
        config
    }

    /// The program's settings that a client of another type understands too: addresses, security, sockets.
    pub(crate) fn common(&self) -> Settings {
        const PREFIXES: &[&str] = &[
            "security.",
            "sasl.",
            "ssl.",
            "socket.",
            "broker.",
            "client.",
            "enable.ssl.",
            "https.",
            "reconnect.",
            "metadata.",
            "topic.metadata.",
            "debug",
            "log",
            "connections.",
            "enable.sasl.",
            "api.version.",
        ];
        let is_common = |key: &str| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        Settings(self.0.iter().filter(|(key, _)| is_common(key)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, value: &str) -> Settings {
        let mut settings = Settings::default();
        settings.set(key.into(), value.into());
        settings
    }

    #[test]
    fn what_breaks_exactly_once_is_refused_by_name() {
        for (key, _) in SOURCE {
            let error = settings(key, "x").check_source().expect_err(key);
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
        for (key, _) in SINK {
            let error = settings(key, "x").check_sink().expect_err(key);
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn what_does_no_harm_passes() {
        assert!(settings("fetch.min.bytes", "10").check_source().is_ok());
        assert!(settings("linger.ms", "20").check_sink().is_ok());
        assert!(settings("security.protocol", "sasl_plaintext").check_sink().is_ok());
        assert!(settings("sasl.mechanism", "PLAIN").check_source().is_ok());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn encryption_without_the_feature_is_refused_with_the_way_out() {
        for (key, value) in
            [("security.protocol", "SASL_SSL"), ("ssl.ca.location", "ca.pem"), ("sasl.mechanism", "SCRAM-SHA-256")]
        {
            let error = settings(key, value).check_sink().expect_err(key);
            assert!(error.to_string().contains("feature `tls`"), "{error}");
        }
    }

    #[test]
    fn sinks_of_one_cluster_must_agree() {
        let mut merged = settings("linger.ms", "20");
        assert!(merged.merge(&settings("linger.ms", "20")).is_ok());
        assert!(merged.merge(&settings("compression.type", "lz4")).is_ok());
        let error = merged.merge(&settings("linger.ms", "5")).expect_err("two values");
        assert!(error.to_string().contains("`linger.ms`"), "{error}");
    }
}
