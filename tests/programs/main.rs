//! The example programs as acceptance drives them: started with their arguments, killed with SIGKILL, started again, stopped
//! with SIGTERM, with a real broker.

mod program;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use millpond_core::inspect::{CommittedFrom, inspect};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer, Record, read_committed};
use program::{Program, path, until};
use tempfile::TempDir;

/// Two topics on the broker and a directory.
struct Place {
    servers: String,
    input: String,
    output: String,
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let broker = KafkaBroker::shared();
        let (input, output) = (unique_name("input"), unique_name("output"));
        for topic in [&input, &output] {
            broker.create_topic(topic, 2, &[]).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        Place { servers: broker.bootstrap_servers().to_owned(), input, output, folder }
    }

    fn start(&self, program: &str) -> Program {
        let directory = self.folder.path().join("pond").display().to_string();
        Program::start(
            program,
            &[
                "--brokers",
                &self.servers,
                "--input",
                &self.input,
                "--output",
                &self.output,
                "--directory",
                &directory,
                "--batch-ms",
                "50",
                "--checkpoint-every",
                "4",
            ],
        )
    }

    fn produce(&self, records: impl IntoIterator<Item = Outgoing>) {
        Producer::new(&self.servers).unwrap().produce(&self.input, records).unwrap();
    }

    /// What a reader sees when there are so many records.
    fn output(&self, count: usize) -> Vec<Record> {
        until(&format!("{count} records"), || {
            let read = read_committed(&self.servers, &self.output).unwrap();
            (read.len() >= count).then_some(read)
        })
    }
}

#[test]
fn kafka_word_count_goes_on_after_sigkill_and_ends_with_status_0_on_sigterm() {
    let place = Place::new();
    let mut program = place.start("kafka_word_count");
    program.await_ready();
    place.produce(["to be or not", "to be"].map(Outgoing::value));
    until("all words", || {
        let counted = read_committed(&place.servers, &place.output).unwrap();
        counted.iter().any(|record| (&*record.key_text(), &*record.value_text()) == ("be", "2")).then_some(())
    });

    // What a look at its directory shows: the sink is Kafka's, so only the process's own note tells what it has committed.
    let found = until("a note beyond the checkpoint", || {
        let found = inspect(&place.folder.path().join("pond")).unwrap();
        (found.committed.batch > found.snapshot).then_some(found)
    });
    assert_eq!(found.committed.from, CommittedFrom::LocalNote, "{found:#?}");
    assert!(found.healthy && found.committed.batch <= found.planned, "{found:#?}");
    assert_eq!(found.sinks[0].description, format!("Kafka topic {}", place.output), "{found:#?}");

    program.kill();
    place.produce([Outgoing::value("be quick")]);
    let mut program = place.start("kafka_word_count");
    program.await_ready();
    until("the new words", || {
        let counted = read_committed(&place.servers, &place.output).unwrap();
        counted.iter().any(|record| record.key_text() == "quick").then_some(())
    });
    assert_eq!(program.stop(), Some(0));

    let mut counts = BTreeMap::new();
    for record in read_committed(&place.servers, &place.output).unwrap() {
        let batch: u64 = record.header("batch").expect("a header").parse().expect("a number");
        let count: u64 = record.value_text().parse().expect("a number");
        counts.entry(record.key_text()).or_insert_with(Vec::new).push((batch, count));
    }
    for (word, steps) in &counts {
        assert!(steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "`{word}`, by batch: {steps:?}");
    }
    let last: Vec<(&str, u64)> = counts.iter().map(|(word, steps)| (word.as_str(), steps[steps.len() - 1].1)).collect();
    assert_eq!(last, [("be", 3), ("not", 1), ("or", 1), ("quick", 1), ("to", 2)]);
}

#[test]
fn kafka_copy_keeps_records_as_they_are_and_numbers_those_of_each_key_through_sigkill() {
    let place = Place::new();
    let record = |key: Option<&str>, value: &str| {
        let record = Outgoing::value(value).header("from", "test").partition(0);
        key.into_iter().fold(record, Outgoing::key)
    };
    let first = [record(Some("a"), "1"), record(None, "2"), record(Some("b"), "3"), record(Some("a"), "4")];
    let mut program = place.start("kafka_copy");
    program.await_ready();
    place.produce(first);
    place.output(4);
    program.kill();
    place.produce([record(Some(""), "5"), record(Some("a"), "6"), Outgoing::tombstone("b").partition(0)]);
    let mut program = place.start("kafka_copy");
    program.await_ready();
    place.output(7);
    assert_eq!(program.stop(), Some(0));

    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let copy = |record: &Record| {
        let n = record.header("n").expect("a header").to_owned();
        (text(&record.key), text(&record.value), n, record.header("from").is_some())
    };
    let mut copies: Vec<_> = read_committed(&place.servers, &place.output).unwrap().iter().map(copy).collect();
    copies.sort();
    let expected = |key: Option<&str>, value: Option<&str>, n: &str| {
        (key.map(String::from), value.map(String::from), n.to_owned(), value.is_some())
    };
    let expected = [
        expected(None, Some("2"), "1"),
        // Records without a key count with those of an empty one.
        expected(Some(""), Some("5"), "2"),
        expected(Some("a"), Some("1"), "1"),
        expected(Some("a"), Some("4"), "2"),
        expected(Some("a"), Some("6"), "3"),
        expected(Some("b"), None, "2"),
        expected(Some("b"), Some("3"), "1"),
    ];
    assert_eq!(copies, expected);
}

#[test]
fn a_broker_that_stays_away_longer_than_allowed_is_told() {
    let place = Place::new();
    let directory = place.folder.path().join("pond").display().to_string();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = ["--brokers", &unused, "--input", "i", "--output", "o", "--directory", &directory];
    let ended = Program::start("kafka_copy", &[&arguments[..], &["--wait-for-broker-seconds", "1"]].concat());
    let (status, said) = ended.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&unused) && said.contains("1s") && !said.contains("ready\n"), "{said}");
}

/// The last count of each word in the output, and whether a count of a word is there twice.
fn counted(output: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(output) else { return counts };
    for batch in entries.map(|entry| entry.unwrap().path()).filter(|path| path.display().to_string().contains("batch-"))
    {
        for part in std::fs::read_dir(batch).unwrap() {
            for line in std::fs::read_to_string(part.unwrap().path()).unwrap().lines() {
                let (word, count) = line.split_once('\t').expect("word, tab, count");
                counts.entry(word.to_owned()).or_default().push(count.parse().expect("a number"));
            }
        }
    }
    counts.values_mut().for_each(|counts| counts.sort_unstable());
    counts
}

#[test]
fn socket_word_count_goes_on_after_sigkill_and_ends_with_status_0_on_sigterm() {
    let place = tempfile::tempdir().unwrap();
    let (output, pond) = (place.path().join("output"), place.path().join("pond"));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let (shown_output, shown_pond) = (output.display().to_string(), pond.display().to_string());
    let start = || {
        let arguments = ["--listen-to", &address, "--output", &shown_output, "--directory", &shown_pond];
        Program::start("socket_word_count", &arguments)
    };
    let until_counted = |word: &str, count: u64| {
        until(word, || {
            counted(&output).get(word).and_then(|counts| counts.last()).filter(|last| **last == count).map(drop)
        });
    };

    let mut program = start();
    let (mut client, _) = server.accept().unwrap();
    program.await_ready();
    client.write_all(b"to be or not\nto be\n").unwrap();
    until_counted("be", 2);
    program.kill();
    let mut program = start();
    let (mut client, _) = server.accept().unwrap();
    program.await_ready();
    client.write_all(b"be quick\n").unwrap();
    until_counted("quick", 1);
    assert_eq!(program.stop(), Some(0));

    let counts = counted(&output);
    assert_eq!(counts["be"].last(), Some(&3), "{counts:?}");
    assert_eq!(counts["to"].last(), Some(&2), "{counts:?}");
    assert!(counts.values().all(|counts| counts.is_sorted_by(|a, b| a < b)), "a count is there twice: {counts:?}");
}

/// What an example prints that needs no server and ends by itself.
fn printed(example: &str, arguments: &[&str]) -> String {
    let ended = std::process::Command::new(path(example)).args(arguments).output().expect("the program can be started");
    let (out, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{example} ended with {}: {said}", ended.status);
    out.into_owned()
}

#[test]
fn trending_hashtags_shows_what_the_last_minute_holds() {
    let place = tempfile::tempdir().unwrap();
    let posts = place.path().join("posts.txt");
    // For 30 s everybody posts about rain, then everybody about sun.
    let text: String = (0..90).map(|second| if second < 30 { "#Rain\n#rain\n" } else { "no tag\n#sun\n" }).collect();
    std::fs::write(&posts, text).unwrap();
    let out = printed("trending_hashtags", &["--posts", &posts.display().to_string(), "--posts-per-second", "2"]);
    let windows: Vec<&str> = out.split("Batch: ").skip(1).collect();
    assert_eq!(windows.len(), 9, "{out}");
    let holds = |window: usize, lines: &[&str]| {
        let found: Vec<&str> = windows[window].lines().filter(|line| line.starts_with('(')).collect();
        assert_eq!(found, lines, "window {window} of {out}");
    };
    holds(0, &[r##"("#rain", 20)"##]);
    holds(5, &[r##"("#rain", 60)"##, r##"("#sun", 30)"##]);
    holds(7, &[r##"("#sun", 50)"##, r##"("#rain", 20)"##]);
    holds(8, &[r##"("#sun", 60)"##]);
}

#[test]
fn a_reader_of_what_is_printed_that_goes_away_harms_no_batch() {
    let mut command = std::process::Command::new(path("trending_hashtags"));
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("the program can be started");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn card_fraud_flags_the_burst_and_the_large_amount_and_forgets_silent_cards() {
    let out = printed("card_fraud", &[]);
    for flag in [
        "card-stolen: five payments within a minute",
        "card-stolen: forgotten",
        "card-1: 2500.00 is far above its average",
    ] {
        assert_eq!(out.matches(flag).count(), 1, "{flag} in {out}");
    }
    assert_eq!(out.lines().count(), 3, "{out}");
}

#[test]
fn enrich_clicks_joins_the_window_with_the_file_of_users() {
    let place = tempfile::tempdir().unwrap();
    let users = place.path().join("users.csv");
    // Half of the users live here, half nowhere that is known.
    std::fs::write(&users, (0..500).map(|n| format!("user-{},Ghana\n", 2 * n)).collect::<String>()).unwrap();
    let out = printed("enrich_clicks", &["--users", &users.display().to_string()]);
    let windows: Vec<&str> = out.split("Batch: ").skip(1).collect();
    assert_eq!(windows.len(), 6, "{out}");
    // 50 clicks a second, every second one of a known user; the window holds 10, 20, then 30 seconds.
    for (window, count) in windows.iter().zip([250, 500, 750, 750, 750, 750]) {
        assert!(window.contains(&format!("(\"Ghana\", {count})")), "not {count} in {window}");
    }
}
