//! `inspect` and `verify` on directories that are sound: of running, killed and stopped applications.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Pond, command, ended, millpond};

/// S, C and P.
fn cursors(found: &Value) -> [u64; 3] {
    [&found["snapshot_ms"], &found["committed"]["batch_ms"], &found["planned_ms"]]
        .map(|cursor| cursor.as_u64().unwrap_or_else(|| panic!("no number in {found:#}")))
}

#[test]
fn a_running_application_is_shown_as_it_is() {
    let pond = Pond::new();
    let mut application = pond.start();
    pond.feed("first.txt", "to be or not to be\n");
    let found = application.wait_for(&pond, "a checkpoint of all words", |found| found["operators"][0]["keys"] == 4);

    assert_eq!(found["application"], "word-count", "{found:#}");
    assert_eq!(found["healthy"], true, "{found:#}");
    assert_eq!(found["problems"], json!([]), "{found:#}");
    assert_eq!(found["process"]["pid"], application.pid(), "{found:#}");
    assert_eq!(found["process"]["running"], true, "{found:#}");
    assert_eq!(found["committed"]["from"], "sinks", "{found:#}");
    assert!(cursors(&found).is_sorted(), "{found:#}");
    assert_eq!(found["operators"][0]["name"], "counts", "{found:#}");
    assert_eq!(found["operators"][0]["kind"], "update_touched_by_key", "{found:#}");
    let sink = &found["sinks"][0];
    assert_eq!(sink["name"], "counts-out", "{found:#}");
    assert_eq!(sink["description"], format!("text files in {}", pond.output().display()), "{found:#}");
    let file = &found["sources"][0]["at_planned"][1];
    assert_eq!(file["partition"], pond.input().join("first.txt").display().to_string(), "{found:#}");
    assert_eq!(file["position"], "all 19 bytes", "{found:#}");
    assert!(found["log"]["plans"].as_u64() > Some(0), "{found:#}");

    let text = millpond(["inspect", &pond.shown()]).succeeded().out;
    let running = format!("{} has it open since 2", application.pid());
    let parts =
        ["word-count ", "   checkpoint ", "   committed ", "   planned ", "healthy, ", "counts   4 keys   ", &running];
    for part in
        parts.iter().chain(&["as the sinks' own cursors say", "lines   files directory", "counts-out   text files in"])
    {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_live_directory_is_never_taken_for_a_damaged_one() {
    let pond = Pond::new();
    let mut application = pond.start();
    pond.feed("first.txt", &"to be or not to be\n".repeat(2000));
    let oldest = |found: &Value| found["checkpoints"][0]["batch_ms"].as_u64();
    let first = oldest(&application.wait_for(&pond, "checkpoints", |found| found["checkpoints"][2].is_object()));
    // Until checkpoints have been deleted and the log cleaned under our hands.
    loop {
        pond.verify().succeeded();
        let found = pond.inspect();
        assert_eq!(found["healthy"], true, "{found:#}");
        assert!(cursors(&found).is_sorted(), "{found:#}");
        if oldest(&found) > first {
            break;
        }
        application.wait_for(&pond, "any answer", |_| true);
    }
}

#[test]
fn a_killed_application_is_shown_and_left_byte_for_byte_as_it_was() {
    let pond = Pond::killed();
    let before = pond.everything();
    let found = pond.inspect();
    let text = millpond(["inspect", &pond.shown()]).succeeded().out;
    let verified = pond.verify().succeeded().out;
    let after = pond.everything();
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");

    assert_eq!(found["process"]["running"], false, "{found:#}");
    assert_eq!(found["healthy"], true, "{found:#}");
    assert!(cursors(&found).is_sorted(), "{found:#}");
    assert!(text.contains("was the last, and did not end by itself"), "{text}");
    assert!(verified.contains("every checksum fits"), "{verified}");
    assert!(verified.contains("entries of") && verified.contains("files of"), "{verified}");
}

#[test]
fn a_savepoint_is_copied_out_of_running_and_killed_applications() {
    let pond = Pond::new();
    let mut application = pond.start();
    pond.feed("first.txt", "to be or not to be\n");
    application.wait_for(&pond, "a checkpoint of all words", |found| found["operators"][0]["keys"] == 4);
    let target = |name: &str| pond.directory().with_file_name(name).display().to_string();
    let copied = millpond(["savepoint", &pond.shown(), &target("saved-live")]).succeeded().out;
    assert!(copied.contains("every checksum compared"), "{copied}");
    application.kill();
    let before = pond.everything();
    millpond(["savepoint", &pond.shown(), &target("saved-dead")]).succeeded();
    assert!(before == pond.everything(), "the original is as it was");
    // A savepoint can be verified like a directory.
    millpond(["verify", &target("saved-dead")]).succeeded();
    millpond(["savepoint", &pond.shown(), &target("saved-dead")]).failed(1, &["not empty"]);
    millpond(["savepoint", &target("nowhere"), &target("saved-other")]).failed(1, &["there is no directory"]);
}

#[test]
fn a_stopped_application_has_nothing_to_replay() {
    let pond = Pond::new();
    let mut application = pond.start();
    pond.feed("first.txt", "to be or not to be\n");
    application.wait_for(&pond, "all words", |found| found["sources"][0]["at_planned"][1].is_object());
    application.stop();
    let found = pond.inspect();
    let [snapshot, committed, planned] = cursors(&found);
    assert_eq!((snapshot, committed), (planned, planned), "{found:#}");
    assert_eq!(found["batches_to_replay"], 0, "{found:#}");
    assert_eq!(found["process"], Value::Null, "{found:#}");
    assert_eq!(found["operators"][0]["keys"], 4, "{found:#}");
    let text = millpond(["inspect", &pond.shown()]).succeeded().out;
    assert!(text.contains("healthy, nothing to replay after a crash"), "{text}");
}

#[test]
fn where_the_sinks_cannot_be_asked_committed_is_the_local_note_and_marked_so() {
    let pond = Pond::killed();
    let by_sinks = pond.inspect();
    // Without what the sink remembers nobody here knows where its cursor is: as with a sink of Kafka's.
    std::fs::rename(pond.output(), pond.output().with_extension("moved")).unwrap();
    let found = pond.inspect();
    assert_eq!(found["committed"]["from"], "local_note", "{found:#}");
    // The process may have been killed between the sink's commit and its note.
    let [snapshot, noted, _] = cursors(&found);
    assert!(snapshot <= noted && noted <= cursors(&by_sinks)[1], "{found:#}\n{by_sinks:#}");
    let text = millpond(["inspect", &pond.shown()]).succeeded().out;
    assert!(text.contains("by the local note, which may be a batch behind"), "{text}");

    // A sink that has lost its output would keep the application from starting.
    assert_eq!(found["healthy"], false, "{found:#}");
    assert!(text.contains("NOT HEALTHY") && text.contains("sink `counts-out` has committed before"), "{text}");

    std::fs::remove_file(pond.directory().join("note")).unwrap();
    let found = pond.inspect();
    assert_eq!(found["committed"], json!({ "batch_ms": found["snapshot_ms"], "from": "checkpoint" }), "{found:#}");
}

#[test]
fn an_application_starts_with_or_without_its_note_and_makes_a_new_one() {
    let pond = Pond::killed();
    let note = pond.directory().join("note");
    std::fs::write(&note, "garbage").unwrap();
    pond.run("second.txt", "that is the question\n", 8);
    assert_ne!(std::fs::read(&note).unwrap(), b"garbage");
    std::fs::remove_file(&note).unwrap();
    pond.run("third.txt", "whether tis nobler\n", 11);
    assert!(note.is_file());
}

#[test]
fn a_reader_of_the_output_that_goes_away_is_no_failure() {
    let pond = Pond::killed();
    let mut child =
        command(["inspect", "--json", &pond.shown()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_directory_may_be_given_by_a_relative_path() {
    let pond = Pond::killed();
    let directory = pond.directory();
    let mut inspect = command(["inspect", "word-count.pond"]);
    ended(inspect.current_dir(directory.parent().unwrap())).succeeded();
}
