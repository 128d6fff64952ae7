//! `millpond demo`, without a terminal.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::{command, ended, millpond, signal, until};

const RIGHT: &str = "nothing is missing, nothing was counted twice";

/// The sums of the steps in the output, read without help of the demo.
fn sums(output: &Path) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    for batch in fs::read_dir(output).unwrap().map(|batch| batch.unwrap().path()) {
        if !batch.file_name().unwrap().to_str().unwrap().starts_with("batch-") {
            continue;
        }
        for part in fs::read_dir(&batch).unwrap() {
            for line in fs::read_to_string(part.unwrap().path()).unwrap().lines() {
                let fields: Vec<&str> = line.split('\t').collect();
                let [word, _, new] = fields[..] else { panic!("{line:?} in {batch:?}") };
                *sums.entry(word.to_owned()).or_default() += new.trim_start_matches('+').parse::<u64>().unwrap();
            }
        }
    }
    sums
}

#[test]
fn words_are_counted_once_however_often_the_worker_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let (text, keep) = (place.path().join("hamlet.txt"), place.path().join("kept"));
    fs::write(&text, "to be or not to be\nthat is the question\n").unwrap();
    let demo = millpond([
        "demo",
        "--kills",
        "4",
        "--seed",
        "7",
        "--input",
        text.to_str().unwrap(),
        "--keep",
        keep.to_str().unwrap(),
    ])
    .succeeded();
    for part in ["hamlet.txt", "times over", "seed    7", "kill 4 of 4", "Killed 4 times", RIGHT, "millpond inspect"] {
        assert!(demo.out.contains(part), "no {part:?} in {demo:#?}");
    }
    assert!(!demo.out.contains('\x1b') && demo.err.is_empty(), "lines for a terminal where there is none: {demo:#?}");

    let sums = sums(&keep.join("output"));
    assert_eq!(sums["to"], 2 * sums["question"], "{sums:?}");
    let input: u64 = fs::read_dir(keep.join("input"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap().split_whitespace().count() as u64)
        .sum();
    assert_eq!(sums.values().sum::<u64>(), input);

    let pond = keep.join("word-count.pond").display().to_string();
    let found = millpond(["inspect", "--json", &pond]).json();
    assert_eq!(found["healthy"], true, "{found:#}");
    assert_eq!(found["batches_to_replay"], 0, "{found:#}");
    assert_eq!(found["operators"][0]["keys"], 8, "{found:#}");
    millpond(["verify", &pond]).succeeded();
}

#[test]
fn without_arguments_text_is_found_and_outside_of_a_repository_there_is_some_in_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut inside = command(["demo", "--kills", "1"]);
    let inside = ended(inside.current_dir(root)).succeeded();
    assert!(inside.out.contains("docs") && inside.out.contains(RIGHT), "{inside:#?}");

    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("millpond");
    let original = env!("CARGO_BIN_EXE_millpond");
    fs::hard_link(original, &program).or_else(|_| fs::copy(original, &program).map(drop)).unwrap();
    let mut outside = std::process::Command::new(&program);
    outside.args(["demo", "--kills", "0"]).current_dir(place.path()).stdin(Stdio::null());
    let outside = ended(&mut outside).succeeded();
    assert!(outside.out.contains("the text in this program") && outside.out.contains(RIGHT), "{outside:#?}");
}

#[test]
fn a_server_that_closes_the_connection_has_all_its_lines_counted() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let serving = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        client.write_all("one line\n".repeat(1000).as_bytes()).unwrap();
        client.write_all("the last one has no end".as_bytes()).unwrap();
    });
    let place = tempfile::tempdir().unwrap();
    let keep = place.path().join("kept");
    let demo = millpond(["demo", "--socket", &address, "--kills", "3", "--keep", keep.to_str().unwrap()]).succeeded();
    serving.join().unwrap();
    assert!(demo.out.contains(RIGHT), "{demo:#?}");
    let sums = sums(&keep.join("output"));
    assert_eq!((sums["one"], sums["line"], sums["end"]), (1001, 1000, 1), "{demo:#?}");
}

#[test]
fn lines_of_a_server_that_goes_on_are_counted_until_the_last_kill() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    // The pace of the lines is part of the input; nothing waits for it to be so.
    let serving = thread::spawn(move || {
        let (mut client, _) = server.accept().unwrap();
        let mut line = 0;
        while writeln!(client, "line {line} of all lines").is_ok() {
            line += 1;
            thread::sleep(Duration::from_millis(2));
        }
    });
    let place = tempfile::tempdir().unwrap();
    let keep = place.path().join("kept");
    let demo = millpond(["demo", "--socket", &address, "--kills", "2", "--keep", keep.to_str().unwrap()]).succeeded();
    serving.join().unwrap();
    assert!(demo.out.contains(&address) && demo.out.contains(RIGHT), "{demo:#?}");
    let sums = sums(&keep.join("output"));
    assert!(!sums.is_empty(), "{demo:#?}");
    assert_eq!(sums.get("line"), sums.get("lines"), "{sums:?}");
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("missing").display().to_string();
    millpond(["demo", "--input", &missing]).failed(1, &["cannot read", &missing]);

    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine.txt"), "mine").unwrap();
    let shown = full.display().to_string();
    millpond(["demo", "--keep", &shown]).failed(1, &[&shown, "is not empty"]);
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);

    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    millpond(["demo", "--socket", &unused]).failed(1, &["cannot connect to", &unused]);
}

/// The worker of a demo in this folder runs, or does not.
fn is_running(kept: &Path) -> Option<bool> {
    let found = millpond(["inspect", "--json", &kept.join("word-count.pond").display().to_string()]);
    let found: serde_json::Value = serde_json::from_str(&found.out).ok()?;
    Some(found["process"]["running"] == true)
}

#[test]
fn a_demo_that_is_stopped_or_killed_leaves_no_worker_behind() {
    for how in ["TERM", "INT", "KILL"] {
        let place = tempfile::tempdir().unwrap();
        let keep = place.path().join("kept");
        let mut demo = command(["demo", "--kills", "1000", "--keep", keep.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("the worker to run", || is_running(&keep).filter(|running| *running));
        signal(&demo, how);
        let status = until("the demo to end", || demo.try_wait().unwrap());
        if how != "KILL" {
            assert_eq!(status.code(), Some(130), "{how}: {:?}", demo.wait_with_output());
        }
        until("the worker to end", || is_running(&keep).filter(|running| !*running));
    }
}
