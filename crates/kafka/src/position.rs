//! Where a partition stands, in bytes (docs/formats.md, "Positions of a Kafka source").
//!
//! Offsets alone do not name records: a topic that is deleted and made again has the same offsets with others (hard case
//! H5), and so has another cluster behind the same host names (H4). So both ids go with them.

use millpond_core::bytes::{Reader, Writer};
use millpond_core::source::PartitionPosition;
use millpond_core::{Error, ErrorKind, Result};

const VERSION: u8 = 1;

/// The id of a topic; all zeros if the broker does not give any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TopicId(pub(crate) [u8; 16]);

impl TopicId {
    pub(crate) fn from_bits(most: i64, least: i64) -> Self {
        TopicId((u128::from(most as u64) << 64 | u128::from(least as u64)).to_be_bytes())
    }

    /// Whether both are known and differ: the topic was deleted and made again.
    pub(crate) fn is_another(self, other: TopicId) -> bool {
        let unknown = TopicId::default();
        self != unknown && other != unknown && self != other
    }
}

/// A cluster id as positions keep it: a hash, since every partition of every plan holds one.
pub(crate) fn cluster_hash(cluster_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(cluster_id.as_bytes())
}

/// Where a partition stands: everything before `next` belongs to some batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) cluster: u64,
    pub(crate) topic_id: TopicId,
    pub(crate) next: i64,
    /// False for a starting offset that the partition has not grown to yet: then its end lies before `next` by intent.
    pub(crate) reached: bool,
}

impl Position {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        out.u8(u8::from(self.reached));
        out.u64(self.cluster);
        out.fixed(&self.topic_id.0);
        out.u64(self.next as u64);
        out.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Position> {
        let mut reader = Reader::new("a position of a Kafka source", bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(reader.broken(&format!("version {version}, this program reads version {VERSION}")));
        }
        let reached = reader.u8()? != 0;
        let cluster = reader.u64()?;
        let topic_id = TopicId(reader.fixed()?);
        let next = i64::try_from(reader.u64()?).map_err(|_| reader.broken("an offset beyond 2^63"))?;
        reader.end()?;
        Ok(Position { cluster, topic_id, next, reached })
    }
}

/// `topic/3`.
pub(crate) fn partition_name(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The topic and number of `topic/3`. No topic's name holds a slash.
pub(crate) fn parse_partition_name(name: &str) -> Result<(&str, i32)> {
    name.rsplit_once('/')
        .and_then(|(topic, number)| Some((topic, number.parse().ok()?)))
        .ok_or_else(|| Error::new(ErrorKind::Restore, format!("`{name}` is no partition of a Kafka topic")))
}

/// The positions of a plan or of a restart, decoded.
pub(crate) fn decode_all(positions: &[PartitionPosition]) -> Result<Vec<(String, i32, Position)>> {
    positions
        .iter()
        .map(|position| {
            let (topic, partition) = parse_partition_name(&position.partition)?;
            let decoded = Position::decode(&position.position).map_err(|error| error.context(&position.partition))?;
            Ok((topic.to_owned(), partition, decoded))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_as_written() {
        let position = Position { cluster: 7, topic_id: TopicId([3; 16]), next: 1 << 40, reached: true };
        assert_eq!(Position::decode(&position.encode()).ok(), Some(position));
        for length in 0..position.encode().len() {
            assert!(Position::decode(&position.encode()[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn partition_names_come_back() {
        assert_eq!(parse_partition_name(&partition_name("a.b-c", 12)).ok(), Some(("a.b-c", 12)));
        assert!(parse_partition_name("a").is_err());
        assert!(parse_partition_name("a/b").is_err());
    }

    #[test]
    fn an_unknown_topic_id_is_no_other_topic() {
        let (a, b) = (TopicId([1; 16]), TopicId([2; 16]));
        assert!(a.is_another(b));
        assert!(!a.is_another(a));
        assert!(!a.is_another(TopicId::default()));
    }
}
