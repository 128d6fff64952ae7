//! What only Kafka's own command-line tools can tell: open transactions, topic ids, the cluster's id.

use std::time::Duration;

use super::distribution::{Distribution, missing_or};
use super::process::run_bounded;
use crate::error::{Error, ErrorKind, Result};

const TOOL_LIMIT: Duration = Duration::from_secs(60);
const TOOL_HEAP_LIMIT_MIB: u32 = 128;

/// A transaction that the broker knows of and that is neither committed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// The transactional id of its producer.
    pub transactional_id: String,
    /// The id that the broker gave the producer.
    pub producer_id: i64,
    /// `Ongoing`, `PrepareCommit` or `PrepareAbort`.
    pub state: String,
}

pub(crate) fn open_transactions(kafka: &Distribution, bootstrap_servers: &str) -> Result<Vec<OpenTransaction>> {
    let printed =
        run(kafka, "org.apache.kafka.tools.TransactionsCommand", &["--bootstrap-server", bootstrap_servers, "list"])?;
    let rows = parse_transactions(&printed).ok_or_else(|| not_understood("TransactionsCommand list", &printed))?;
    Ok(rows.into_iter().filter(|row| matches!(&row.state[..], "Ongoing" | "PrepareCommit" | "PrepareAbort")).collect())
}

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

/// A table with a heading: `TransactionalId Coordinator ProducerId TransactionState`. `None` without the heading.
fn parse_transactions(printed: &str) -> Option<Vec<OpenTransaction>> {
    let mut lines = printed.lines().skip_while(|line| !line.starts_with("TransactionalId"));
    lines.next()?;
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            // From the right: an id may hold spaces.
            let mut columns = line.split_whitespace().rev();
            let (state, producer_id, coordinator) = (columns.next()?, columns.next()?, columns.next()?);
            let id_end = line.trim_end().strip_suffix(state)?.trim_end().strip_suffix(producer_id)?.trim_end();
            Some(OpenTransaction {
                transactional_id: id_end.strip_suffix(coordinator)?.trim_end().to_owned(),
                producer_id: producer_id.parse().ok()?,
                state: state.to_owned(),
            })
        })
        .collect()
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
    fn a_table_of_transactions_is_read() {
        let printed = "TransactionalId\tCoordinator\tProducerId\tTransactionState\nword count\t1          \t4          \tOngoing\nb\t1\t5\tCompleteAbort\n";
        let rows = parse_transactions(printed).expect("a heading");
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[0],
            OpenTransaction { transactional_id: "word count".into(), producer_id: 4, state: "Ongoing".into() }
        );
        assert_eq!(rows[1].state, "CompleteAbort");
        assert_eq!(parse_transactions("Error: no broker\n"), None);
    }

    #[test]
    fn a_topic_id_is_read() {
        let printed = "Topic: in\tTopicId: qyZOlGAiQ9y8OcYuTDSGhA\tPartitionCount: 4\tReplicationFactor: 1\n";
        assert_eq!(parse_topic_id(printed).as_deref(), Some("qyZOlGAiQ9y8OcYuTDSGhA"));
        assert_eq!(parse_topic_id("nothing"), None);
    }
}
