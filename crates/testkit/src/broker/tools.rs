//! What only Kafka's own command-line tools can tell: the ids of topics.

use std::time::Duration;

use super::distribution::{Distribution, missing_or};
use super::process::run_bounded;
use crate::error::{Error, ErrorKind, Result};

const TOOL_LIMIT: Duration = Duration::from_secs(60);
const TOOL_HEAP_LIMIT_MIB: u32 = 128;

pub(crate) fn topic_id(kafka: &Distribution, bootstrap_servers: &str, topic: &str) -> Result<String> {
    let printed = run(
        kafka,
        "org.apache.kafka.tools.TopicCommand",
        &["--bootstrap-server", bootstrap_servers, "--describe", "--topic", topic],
    )?;
    parse_topic_id(&printed).ok_or_else(|| not_understood("TopicCommand --describe", &printed))
}

fn run(kafka: &Distribution, class: &str, arguments: &[&str]) -> Result<String> {
    let mut java = kafka.java(TOOL_HEAP_LIMIT_MIB);
    java.arg(class).args(arguments);
    let output = run_bounded(java, TOOL_LIMIT).map_err(|error| missing_or(error, "Java (java)"))?;
    if !output.status.success() {
        return Err(Error::new(ErrorKind::Failed, format!("{class} failed ({}):\n{}", output.status, output.tail())));
    }
    Ok(output.stdout)
}

fn not_understood(tool: &str, printed: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("cannot read what {tool} printed:\n{printed}"))
}

/// In the first line, `Topic: NAME  TopicId: ID  PartitionCount: ...`.
fn parse_topic_id(printed: &str) -> Option<String> {
    let mut words = printed.split_whitespace();
    words.find(|word| *word == "TopicId:")?;
    words.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_read() {
        let printed = "Topic: in\tTopicId: qyZOlGAiQ9y8OcYuTDSGhA\tPartitionCount: 4\tReplicationFactor: 1\n";
        assert_eq!(parse_topic_id(printed).as_deref(), Some("qyZOlGAiQ9y8OcYuTDSGhA"));
        assert_eq!(parse_topic_id("nothing"), None);
    }
}
