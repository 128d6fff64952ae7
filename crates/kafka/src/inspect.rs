//! What a Kafka source and sink keep in the directory of a pipeline, in words, for tools that show it.

use crate::position::Position;
use crate::sink::Remembered;

/// A position of a partition, as `offset 4711`; `None` if the bytes are none.
pub fn describe_position(bytes: &[u8]) -> Option<String> {
    let position = Position::decode(bytes).ok()?;
    Some(match position.reached {
        true => format!("offset {}", position.next),
        false => format!("offset {}, to which the partition has not grown yet", position.next),
    })
}

/// What a sink remembers of cluster and transactional ids; `None` if the bytes are none of a Kafka sink.
pub fn describe_sink(remembered: &[u8]) -> Option<String> {
    if remembered.is_empty() {
        return None;
    }
    let remembered = Remembered::decode(remembered).ok()?;
    let ids = match remembered.transactional_ids() {
        [] => return None,
        [id] => format!("transactional id {id}"),
        // Which of them is the present one is not kept.
        ids => format!("transactional ids {}", ids.join(", ")),
    };
    Some(format!("{ids}, cluster {}", remembered.cluster_id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_in_offsets_and_other_bytes_not_at_all() {
        let position = |reached| Position { cluster: 1, topic_id: Default::default(), next: 4711, reached }.encode();
        assert_eq!(describe_position(&position(true)).as_deref(), Some("offset 4711"));
        assert!(describe_position(&position(false)).is_some_and(|text| text.contains("not grown")));
        assert_eq!(describe_position(b"garbage"), None);
    }

    #[test]
    fn a_sink_is_told_by_its_ids() {
        let mut remembered = Remembered::default();
        assert_eq!(describe_sink(&remembered.encode()), None);
        remembered.add("cluster", "old");
        remembered.add("cluster", "new");
        let text = describe_sink(&remembered.encode());
        assert_eq!(text.as_deref(), Some("transactional ids old, new, cluster cluster"));
        assert_eq!(describe_sink(b"MPFD\x01/out"), None);
    }
}
