//! How sinks find their group: by the cluster's id, whatever name the cluster was given; and whether they fit together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond_core::sink::SinkStart;
use millpond_core::{Error, ErrorKind, Result};

use super::Options;
use super::client::{Cluster, deadline};
use super::cursors::Cursors;
use super::group::Group;
use crate::position::cluster_hash;

/// How long a topic may be unknown that a sink writes to: a broker learns late of topics that were just made.
const UNKNOWN_TOPIC_LIMIT: Duration = Duration::from_secs(10);

/// The groups of one context.
#[derive(Default)]
pub(crate) struct Groups {
    groups: Mutex<Vec<Arc<Group>>>,
}

impl Groups {
    /// The group of the sink's cluster, made by the first sink that asks. Clusters are told apart by id: two names of one
    /// are one (hard case H4).
    pub(crate) fn join(&self, clients: &Arc<dyn Cluster>, options: &Options, start: &SinkStart) -> Result<Arc<Group>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let known = groups.iter().find(|group| group.knows(&options.brokers)).cloned();
        let group = match known {
            Some(group) => group,
            None => {
                let (topic, offsets) =
                    (options.cursor_topic(&start.application), options.offsets_group(&start.application));
                let (cursors, cluster_id) = Cursors::connect(
                    clients,
                    &options.brokers,
                    topic,
                    &offsets,
                    &options.settings,
                    options.wait_for_broker,
                )?;
                match groups.iter().find(|group| group.cluster_id == cluster_id && !cluster_id.is_empty()) {
                    Some(group) => Arc::clone(group),
                    None => {
                        let group = Arc::new(Group::new(clients, cluster_id, cursors, options, start));
                        groups.push(Arc::clone(&group));
                        group
                    }
                }
            }
        };
        group.add(options, start)?;
        Ok(group)
    }
}

impl Group {
    fn new(
        clients: &Arc<dyn Cluster>,
        cluster_id: String,
        cursors: Cursors,
        options: &Options,
        start: &SinkStart,
    ) -> Self {
        Group {
            clients: Arc::clone(clients),
            cluster: cluster_hash(&cluster_id),
            cluster_id,
            transactional_id: options.transactional_id(&start.application),
            offsets_group: options.offsets_group(&start.application),
            brokers: options.brokers.clone(),
            wait_for_broker: options.wait_for_broker,
            cursors,
            state: Mutex::default(),
        }
    }

    fn knows(&self, brokers: &str) -> bool {
        self.brokers == brokers
    }

    /// Adds a sink, checking that it fits the others.
    fn add(&self, options: &Options, start: &SinkStart) -> Result<()> {
        let cluster_id = self.cursors.reconnect()?;
        if cluster_id != self.cluster_id {
            let what = format!("the Kafka cluster at {} was {} and is {cluster_id} now", self.brokers, self.cluster_id);
            return Err(Error::new(ErrorKind::Restore, what));
        }
        let differs = |what: &str, ours: &str, other: &str| {
            Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "{what} is `{other}`, and `{ours}` for another sink that writes to the same cluster: they share one \
                     transaction"
                ),
            ))
        };
        let (id, topic, group) = (
            options.transactional_id(&start.application),
            options.cursor_topic(&start.application),
            options.offsets_group(&start.application),
        );
        if id != self.transactional_id {
            return differs("the transactional id", &self.transactional_id, &id);
        }
        if topic != self.cursors.topic() {
            return differs("the cursor topic", self.cursors.topic(), &topic);
        }
        if group != self.offsets_group {
            return differs("the group for offsets", &self.offsets_group, &group);
        }
        self.check_output(&options.topic)?;
        let mut state = self.state();
        let before = state.settings.clone();
        state.settings.merge(&options.settings)?;
        if let Some(partitioner) = state.topics.insert(options.topic.clone(), options.partitioner)
            && partitioner != options.partitioner
        {
            let (ours, other) = (format!("{partitioner:?}"), format!("{:?}", options.partitioner));
            return differs(&format!("the partitioner of topic {}", options.topic), &ours, &other);
        }
        state.names.insert(start.name.clone());
        // A producer cannot change its settings: the next fence makes another.
        if state.settings != before {
            state.producer = None;
        }
        Ok(())
    }

    fn check_output(&self, topic: &str) -> Result<()> {
        let deadline = deadline(&*self.clients, UNKNOWN_TOPIC_LIMIT.min(self.wait_for_broker));
        while self.cursors.describe(topic)?.is_none() {
            if self.clients.now() >= deadline {
                return Err(Error::new(ErrorKind::Configuration, format!("topic {topic} does not exist: create it")));
            }
            self.clients.sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}
