//! `millpond inspect DIR`: for people, and as JSON.

use std::path::Path;
use std::process::ExitCode;

use millpond::inspect::{CommittedFrom, InspectedSink, InspectedSource, Inspection, Position, inspect};
use millpond::{BatchTime, Error, ErrorKind, Result, kafka};

use crate::human::{count, counted, date_and_time, size};
use crate::output::print;

/// Partitions of a source that are listed one by one.
const LISTED_PARTITIONS: usize = 8;

pub(crate) fn run(directory: &Path, json: bool) -> Result<ExitCode> {
    let mut found = inspect(directory)?;
    tell_of_kafka(&mut found);
    if json {
        let text = serde_json::to_string_pretty(&found);
        let text = text.map_err(|error| Error::new(ErrorKind::Program, "cannot make JSON of it").with_source(error))?;
        print(&(text + "\n"))?;
    } else {
        print(&text(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Kafka's positions and sinks in words: the engine does not know what they mean.
fn tell_of_kafka(found: &mut Inspection) {
    for source in found.sources.iter_mut().filter(|source| source.description.starts_with("kafka ")) {
        for position in source.at_snapshot.iter_mut().chain(&mut source.at_planned) {
            if let Some(text) = kafka::inspect::describe_position(&position.bytes) {
                position.position = text;
            }
        }
    }
    for sink in &mut found.sinks {
        if let Some(ids) = kafka::inspect::describe_sink(&sink.remembered) {
            // A sink that was given its transactional id by name has it in its description.
            let kind = sink.description.split(", transactional id").next().filter(|kind| !kind.is_empty());
            sink.description = format!("{}, {ids}", kind.unwrap_or("Kafka"));
        }
    }
}

/// Lines of a label and what belongs to it.
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: impl AsRef<str>) {
        self.0 += &format!("{label:<12} {}\n", text.as_ref());
    }
}

fn text(found: &Inspection) -> String {
    let mut lines = Lines(String::new());
    lines.add(&found.application, summary(found));
    for problem in &found.problems {
        lines.add("PROBLEM", problem);
    }
    lines.add(
        "committed",
        match found.committed.from {
            CommittedFrom::Sinks => "as the sinks' own cursors say",
            CommittedFrom::LocalNote => "by the local note, which may be a batch behind: a start asks the sinks",
            _ => "or later: nothing here says more than the checkpoint; a start asks the sinks",
        },
    );
    lines.add(
        "process",
        match &found.process {
            Some(process) if process.running => format!("{} has it open since {}", process.pid, process.since),
            Some(process) => format!("none; {} was the last, and did not end by itself", process.pid),
            None => "none".into(),
        },
    );
    for operator in &found.operators {
        lines.add(
            "state",
            format!(
                "{}   {}   {}   {} of {} (schema {})",
                operator.name,
                counted(operator.keys, "key", "keys"),
                size(operator.table_bytes),
                operator.kind,
                operator.schema,
                operator.schema_version
            ),
        );
    }
    for source in &found.sources {
        add_source(&mut lines, source);
    }
    for sink in &found.sinks {
        lines.add("sink", sink_text(sink));
    }
    let (mut good, newest) = (found.checkpoints.iter().filter(|one| one.problem.is_none()), found.checkpoints.last());
    let newest = newest.map_or(String::new(), |newest| {
        let files = counted(newest.files as u64, "file", "files");
        format!("; the newest has {files} of {}", size(newest.bytes))
    });
    let oldest = good.next().map_or(String::new(), |oldest| format!(", back to {}", oldest.batch));
    lines.add("checkpoints", format!("{}{oldest}{newest}", found.checkpoints.len()));
    let log = &found.log;
    lines.add(
        "log",
        format!(
            "{}, {} on disk; {} of {}: {}, {}{}",
            counted(log.segments.len() as u64, "segment", "segments"),
            size(log.file_bytes),
            counted(log.entries, "entry", "entries"),
            size(log.payload_bytes),
            counted(log.plans, "plan", "plans"),
            counted(log.blocks, "block", "blocks"),
            match log.unplanned_blocks {
                0 => String::new(),
                blocks => format!(", {} for the next batch", count(blocks)),
            }
        ),
    );
    lines.add(
        "directory",
        format!(
            "deployment {}, made {} UTC, a batch every {} ms",
            found.deployment, found.zero, found.batch_interval_ms
        ),
    );
    lines.0
}

/// The three cursors and the verdict.
fn summary(found: &Inspection) -> String {
    let cursors = [found.snapshot, found.committed.batch, found.planned];
    let dates: Vec<String> = cursors.iter().map(|cursor| date_and_time(*cursor).0).collect();
    // The date is told once where it is the same.
    let same = dates.iter().all(|date| *date == dates[0]);
    let shown = |time: BatchTime| if same { date_and_time(time).1 } else { time.to_string() };
    let [snapshot, committed, planned] = cursors.map(shown);
    let verdict = if found.healthy { "healthy" } else { "NOT HEALTHY" };
    let replay = match found.batches_to_replay {
        0 => "nothing to replay after a crash".into(),
        batches => format!("{} to replay after a crash", counted(batches, "batch", "batches")),
    };
    let date = if same { format!("{} UTC   ", dates[0]).trim_start().to_owned() } else { "UTC   ".to_owned() };
    format!("  {date}checkpoint {snapshot}   committed {committed}   planned {planned}     {verdict}, {replay}")
}

fn sink_text(sink: &InspectedSink) -> String {
    let committed = sink.committed.map_or(String::new(), |batch| format!("   committed {}", date_and_time(batch).1));
    let description = if sink.description.is_empty() { "nothing is known of it yet" } else { &sink.description };
    format!("{}   {description}{committed}", sink.name)
}

/// A source and its partitions after P; sources with many partitions get a summary.
fn add_source(lines: &mut Lines, source: &InspectedSource) {
    let positions = &source.at_planned;
    let description = source.description.replacen(" source ", " ", 1);
    if positions.is_empty() {
        return lines.add("source", format!("{}   {description}   no positions", source.name));
    }
    lines.add("source", format!("{}   {description}", source.name));
    // The newest are the last: of files those that were taken last.
    let hidden = positions.len().saturating_sub(LISTED_PARTITIONS);
    let name = |position: &Position| {
        if position.partition == "." { String::new() } else { format!("{}   ", position.partition) }
    };
    for position in &positions[hidden..] {
        lines.add("", format!("    {}{}", name(position), position.position));
    }
    if hidden > 0 {
        lines.add("", format!("    and {} more (all with --json)", count(hidden as u64)));
    }
}
