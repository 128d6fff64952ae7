//! The pipelines of the victim.

use std::convert::Infallible;
use std::time::Duration;

use millpond::kafka::{OwnedRecord, StartingOffsets};
use millpond::prelude::*;
use millpond::rdd::StorageLevel;
use millpond::sink::Records;
use millpond::source::{Pusher, ReceiverSource};

use super::receivers::Tcp;
use super::spool::Spool;
use super::{Pipeline, Poison, Setup};
use crate::recipe;

/// Describes the pipeline; gives the channel that is to be pushed into, if it has one.
pub(super) fn describe(setup: &Setup, graph: &Graph<'_>) -> millpond::Result<Option<Pusher<String>>> {
    match setup.pipeline {
        Pipeline::Files => {
            count(setup, files(setup, graph)).sink_records("out", FileSink::text(&setup.output), encode_count);
        }
        Pipeline::PersistedFiles => {
            let counts = count(setup, files(setup, graph)).persist(StorageLevel::Disk);
            counts.sink_records("out", FileSink::text(&setup.output), encode_count);
        }
        Pipeline::TwoFileSinks => {
            let counts = count(setup, files(setup, graph));
            counts.clone().sink_records("out", FileSink::text(&setup.output), encode_count);
            counts.sink_records("second", FileSink::text(&setup.second_output), encode_count);
        }
        Pipeline::FloatSums => {
            // Many partitions a batch: the order in which their sums are added shows.
            files(setup, graph)
                .repartition(5)
                .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
                .map(|word| (word.len(), 0.1 * word.bytes().map(f64::from).sum::<f64>()))
                .reduce_by_key(|a, b| a + b)
                .update_touched_by_key("sums", |new, sum| Some(sum.unwrap_or(0.0) + new.sum()))
                .sink_key_value("out", FileSink::text(&setup.output), |(length, sum)| {
                    (length.to_string(), format!("{:016x}", sum.to_bits()))
                });
        }
        Pipeline::Spool => {
            let lines = graph.source("lines", ReceiverSource::new(Spool::of(&setup.input)));
            count(setup, lines).sink_records("out", FileSink::text(&setup.output), encode_count);
        }
        Pipeline::KafkaCount | Pipeline::KafkaContent => {
            count(setup, topic_lines(setup, graph)).sink_records("out", kafka_sink(setup), encode_count);
        }
        Pipeline::KafkaAndFiles => {
            let counts = count(setup, topic_lines(setup, graph));
            counts.clone().sink_records("out", kafka_sink(setup), encode_count);
            counts.sink_records("second", FileSink::text(&setup.second_output), encode_count);
        }
        Pipeline::KafkaCopy => {
            graph
                .source("records", topic(setup).raw())
                .map(|record: OwnedRecord| (record.key.clone().unwrap_or_default(), record))
                .map_with_state("numbers", number)
                .sink_records("out", kafka_sink(setup), encode_numbered);
        }
        Pipeline::KafkaWindow | Pipeline::KafkaRandom => {
            let lines = topic_lines(setup, graph);
            lines.clone().sink_records("echo", kafka_sink_to(setup, &setup.second_output), encode_line);
            setup.recipe.graph(lines, setup.batch_ms).sink_records("out", kafka_sink(setup), recipe::encode);
        }
        Pipeline::Receivers => {
            let first = setup.input.split(' ').next().unwrap_or_default();
            let lines = graph.source("lines", ReceiverSource::new(Tcp::of(first)));
            let (pusher, pushed) = graph.channel("pushed");
            count(setup, lines.union(pushed)).sink_records("out", FileSink::text(&setup.output), encode_count);
            return Ok(Some(pusher));
        }
    }
    Ok(None)
}

fn files<'g>(setup: &Setup, graph: &Graph<'g>) -> DStream<'g, String> {
    let source = FileSource::directory(&setup.input).existing_files(true).batch_limit_bytes(setup.batch_limit_bytes);
    graph.source("lines", source)
}

fn topic(setup: &Setup) -> KafkaSource<millpond::kafka::Raw> {
    let source = KafkaSource::subscribe(&setup.brokers, [&setup.input])
        .wait_for_broker(Duration::from_millis(setup.wait_for_broker_ms));
    let source = match setup.partition_limit_records {
        Some(count) => source.max_records_per_partition(count),
        None => source,
    };
    if setup.from_latest { source.starting_offsets(StartingOffsets::Latest) } else { source }
}

fn topic_lines<'g>(setup: &Setup, graph: &Graph<'g>) -> DStream<'g, String> {
    let source = topic(setup).utf8();
    graph.source("lines", if setup.pipeline == Pipeline::KafkaContent { source.log_content() } else { source })
}

fn kafka_sink(setup: &Setup) -> KafkaSink {
    kafka_sink_to(setup, &setup.output)
}

fn kafka_sink_to(setup: &Setup, topic: &str) -> KafkaSink {
    let sink = KafkaSink::to(&setup.brokers, topic).wait_for_broker(Duration::from_millis(setup.wait_for_broker_ms));
    let sink = match setup.transaction_timeout_ms {
        Some(ms) => sink.setting("transaction.timeout.ms", ms.to_string()),
        None => sink,
    };
    match &setup.transactional_id {
        Some(id) => sink.transactional_id(id),
        None => sink,
    }
}

fn count<'g>(setup: &Setup, lines: DStream<'g, String>) -> DStream<'g, (String, u64)> {
    let poison = setup.poison;
    lines
        .filter(move |line| !line.contains("poison") || bear(poison))
        .flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>())
        .map(|word| (word, 1_u64))
        .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
}

/// Says yes, or dies of it.
fn bear(poison: Poison) -> bool {
    match poison {
        Poison::None => true,
        Poison::Panic => panic!("poison"),
        Poison::Abort => std::process::abort(),
        Poison::StackOverflow => deeper(1) > 0,
    }
}

#[allow(unconditional_recursion, reason = "that is the fault")]
fn deeper(depth: u64) -> u64 {
    // Not a tail call: each one needs its place on the stack.
    let place = std::hint::black_box([depth; 64]);
    deeper(std::hint::black_box(depth + 1)) + place[0]
}

fn encode_count((word, count): &(String, u64), at: BatchTime, out: &mut Records) -> Result<(), Infallible> {
    out.record().key(word).value(count.to_string()).header("batch", at.as_ms().to_string()).end();
    Ok(())
}

fn encode_line(line: &String, at: BatchTime, out: &mut Records) -> Result<(), Infallible> {
    out.record().value(line).header("batch", at.as_ms().to_string()).end();
    Ok(())
}

/// A record and its number among those of its key.
type Numbered = (OwnedRecord, u64);

fn number(_: BatchTime, _: &Vec<u8>, record: Option<OwnedRecord>, state: &mut State<'_, u64>) -> Option<Numbered> {
    let n = state.get().copied().unwrap_or(0) + 1;
    state.update(n);
    record.map(|record| (record, n))
}

fn encode_numbered((record, n): &Numbered, _: BatchTime, out: &mut Records) -> Result<(), Infallible> {
    let mut writer = out.record();
    if let Some(key) = &record.key {
        writer = writer.key(key);
    }
    if let Some(value) = &record.value {
        writer = writer.value(value);
    }
    writer.header("n", n.to_string()).end();
    Ok(())
}
