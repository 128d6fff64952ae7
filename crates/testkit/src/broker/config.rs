//! The broker's settings: addresses on free loopback ports, and what a one-node Kafka for tests needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// The ports that one broker listens on, all on 127.0.0.1.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) clients: u16,
    pub(crate) controller: u16,
    pub(crate) behind_proxy: u16,
}

impl Ports {
    /// Ports that were free a moment ago; whoever uses them must be ready to find one taken.
    ///
    /// They lie below the range from which the system takes ports for outgoing connections: in that range a client
    /// that keeps connecting to a broker that is down now and then gets the broker's own port, connects to itself
    /// and keeps the broker from coming back.
    pub(crate) fn free() -> Result<Self> {
        const LOWEST: u64 = 10_000;
        const HIGHEST: u64 = 30_000;
        let mut found = Vec::new();
        for try_number in 0..1000_u32 {
            let random = RandomState::new().hash_one(try_number);
            let port = (LOWEST + random % (HIGHEST - LOWEST)) as u16;
            // The listeners are held until all are found, so that they differ.
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                found.push((port, listener));
            }
            if let [(clients, _), (controller, _), (behind_proxy, _)] = &found[..] {
                return Ok(Ports { clients: *clients, controller: *controller, behind_proxy: *behind_proxy });
            }
        }
        Err(Error::new(ErrorKind::Retry, format!("no free port on 127.0.0.1 between {LOWEST} and {HIGHEST}")))
    }

    /// True if each of them can be listened on at this moment.
    pub(crate) fn are_free(&self) -> bool {
        [self.clients, self.controller, self.behind_proxy]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    }
}

/// The text of the broker's configuration file.
pub(crate) fn server_properties(
    ports: &Ports,
    data: &Path,
    proxy: Option<SocketAddr>,
    extra: &BTreeMap<String, String>,
) -> String {
    let Ports { clients, controller, behind_proxy } = ports;
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{clients}");
    if let Some(proxy) = proxy {
        write!(listeners, ",PROXIED://127.0.0.1:{behind_proxy}").unwrap_or_default();
        write!(advertised, ",PROXIED://{proxy}").unwrap_or_default();
    }
    let mut settings = BTreeMap::new();
    let mut set = |key: &str, value: &str| settings.insert(key.to_owned(), value.to_owned());
    set("process.roles", "broker,controller");
    set("node.id", "1");
    set("listeners", &listeners);
    set("advertised.listeners", &advertised);
    set("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT");
    set("controller.listener.names", "CONTROLLER");
    set("inter.broker.listener.name", "PLAINTEXT");
    set("controller.quorum.bootstrap.servers", &format!("127.0.0.1:{controller}"));
    set("log.dirs", &data.display().to_string());
    // There is no second node to replicate to.
    set("offsets.topic.replication.factor", "1");
    set("transaction.state.log.replication.factor", "1");
    set("transaction.state.log.min.isr", "1");
    set("share.coordinator.state.topic.replication.factor", "1");
    set("share.coordinator.state.topic.min.isr", "1");
    // Each partition of these is made at first use, which a test waits for.
    set("offsets.topic.num.partitions", "1");
    set("transaction.state.log.num.partitions", "1");
    set("group.initial.rebalance.delay.ms", "0");
    // A broker that was killed is let in again only when the session of its earlier life has ended: 9 s by default.
    set("broker.session.timeout.ms", "2000");
    set("broker.heartbeat.interval.ms", "300");
    // So that a transaction whose owner is gone ends soon after its timeout, not up to 10 s later.
    set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500");
    // A test that misspells a topic should hear of it.
    set("auto.create.topics.enable", "false");
    // A broker with a topic of many partitions should not hold a gigabyte of sparse index files.
    set("log.index.size.max.bytes", "1048576");
    settings.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));

    settings.iter().fold(String::new(), |mut text, (key, value)| {
        // In a properties file a backslash begins an escape.
        writeln!(text, "{key}={}", value.replace('\\', "\\\\")).unwrap_or_default();
        text
    })
}

/// A new cluster id, in the form that Kafka gives a UUID: 22 characters of URL-safe base64.
pub(crate) fn random_cluster_id() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = u128::from(RandomState::new().hash_one(0)) << 64 | u128::from(RandomState::new().hash_one(1));
    // The first letter is of the lower 32 so that the id is never taken for a command-line option; 22 letters hold 132
    // bits, so that the last one carries only two.
    let mut id = String::with_capacity(22);
    for place in 0..22 {
        let six = if place == 0 { (bits & 0x1f) as usize } else { (bits.rotate_right(6 * place) & 0x3f) as usize };
        let six = if place == 21 { six & 0x30 } else { six };
        id.push(ALPHABET[six] as char);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_settings_win() {
        let ports = Ports { clients: 1, controller: 2, behind_proxy: 3 };
        let extra = BTreeMap::from([("auto.create.topics.enable".to_owned(), "true".to_owned())]);
        let text = server_properties(&ports, Path::new("/data"), None, &extra);
        assert!(text.contains("auto.create.topics.enable=true\n"), "{text}");
        assert!(!text.contains("auto.create.topics.enable=false"), "{text}");
        assert!(!text.contains("PROXIED://"), "{text}");
    }

    #[test]
    fn a_proxy_is_what_its_clients_are_told() {
        let ports = Ports { clients: 1, controller: 2, behind_proxy: 3 };
        let proxy = SocketAddr::from(([127, 0, 0, 1], 9));
        let text = server_properties(&ports, Path::new("/data"), Some(proxy), &BTreeMap::new());
        assert!(text.contains("advertised.listeners=PLAINTEXT://127.0.0.1:1,PROXIED://127.0.0.1:9\n"), "{text}");
        assert!(text.contains("PROXIED://127.0.0.1:3\n"), "{text}");
    }

    #[test]
    fn cluster_ids_are_uuids_and_differ() {
        let (a, b) = (random_cluster_id(), random_cluster_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 22);
        assert!(a.starts_with(|first: char| first.is_ascii_alphanumeric()), "{a}");
    }
}
