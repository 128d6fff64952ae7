//! How records go to partitions.

/// How the records of a sink go to the partitions of its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitioner {
    /// By the murmur2 hash of the key, as the Java client does it, so that topics stay co-partitioned with other producers';
    /// records without a key stick to one partition for a few milliseconds and then take another.
    #[default]
    Murmur2,
    /// By the CRC-32 of the key, as librdkafka does it by default.
    Crc32,
    /// By the FNV-1a hash of the key, as Go's Sarama does it.
    Fnv1a,
    /// At random, whatever the key.
    Random,
}

impl Partitioner {
    /// What librdkafka calls it.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
            Partitioner::Fnv1a => "fnv1a_random",
            Partitioner::Random => "random",
        }
    }
}
