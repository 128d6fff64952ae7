//! Damaged directories: what is wrong is named, and the exit status says so.

use std::fs;

use crate::support::{Pond, flip, millpond};

/// Two starts: so there is a segment of the log that is not the newest.
fn pond() -> Pond {
    let pond = Pond::killed();
    pond.run("second.txt", "that is the question\n", 8);
    pond
}

#[test]
fn a_flipped_byte_in_the_log_is_found_with_segment_and_path() {
    let pond = pond();
    let segments = pond.inspect()["log"]["segments"].as_array().unwrap().clone();
    assert!(segments.len() > 1, "{segments:#?}");
    let path = &pond.files("log", ".log")[0];
    // Up to seven bytes of the last frame only fill it up to a multiple of eight.
    flip(path, segments[0]["used_bytes"].as_u64().unwrap() - 12);

    let path = path.display().to_string();
    pond.verify().failed(1, &["the log is damaged at segment", &path, "is DAMAGED in 1 place"]);
    let found = pond.inspect();
    assert_eq!(found["healthy"], false, "{found:#}");
    assert!(found["log"]["corruption"].as_str().unwrap().contains(&path), "{found:#}");
    let text = millpond(["inspect", &pond.shown()]).succeeded().out;
    assert!(text.contains("NOT HEALTHY") && text.contains("PROBLEM"), "{text}");
}

#[test]
fn a_missing_segment_of_the_log_is_found() {
    let pond = pond();
    pond.run("third.txt", "whether tis nobler\n", 11);
    let segments = pond.files("log", ".log");
    assert!(segments.len() > 2, "{segments:?}");
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    pond.verify().failed(1, &["which is missing"]);
    assert_eq!(pond.inspect()["healthy"], false);
}

#[test]
fn a_flipped_byte_in_a_table_file_is_found_and_the_file_is_not_marked() {
    let pond = pond();
    let table = pond.files("checkpoints/files", ".sst").pop().unwrap();
    flip(&table, fs::metadata(&table).unwrap().len() / 2);
    let before = pond.everything();
    let name = table.file_name().unwrap().to_str().unwrap();
    let ended = pond.verify().failed(1, &[name, "is damaged", "DAMAGED in 1 place"]);
    assert_eq!(ended.out.matches(name).count(), 1, "told once, though several checkpoints share it: {ended:#?}");
    assert!(pond.everything() == before, "verify has changed the directory");
}

#[test]
fn a_missing_table_file_is_found_by_both_and_the_older_checkpoint_counts() {
    let pond = pond();
    let before = pond.inspect();
    let checkpoints = before["checkpoints"].as_array().unwrap();
    assert!(checkpoints.len() > 1, "{before:#}");
    let name = file_that_the_oldest_has_not(&pond);
    fs::remove_file(pond.directory().join("checkpoints/files").join(&name)).unwrap();

    pond.verify().failed(1, &[&name, "is missing"]);
    let found = pond.inspect();
    assert_eq!(found["healthy"], false, "{found:#}");
    let problem = found["checkpoints"].as_array().unwrap().last().unwrap()["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains(&name), "{found:#}");
    assert!(found["snapshot_ms"].as_u64() < before["snapshot_ms"].as_u64(), "{found:#}");
}

/// A file that the newest manifest names and the oldest does not.
fn file_that_the_oldest_has_not(pond: &Pond) -> String {
    let manifests = pond.files("checkpoints/manifests", "");
    let names = |path: &std::path::Path| {
        let manifest = millpond_state::Manifest::decode(&fs::read(path).unwrap()).unwrap();
        manifest.files.into_iter().map(|file| file.name).collect::<Vec<_>>()
    };
    let (oldest, newest) = (names(&manifests[0]), names(&manifests[manifests.len() - 1]));
    newest.into_iter().find(|name| !oldest.contains(name)).expect("state has changed since")
}

#[test]
fn a_flipped_byte_in_a_manifest_is_found_and_the_older_checkpoint_counts() {
    let pond = pond();
    let before = pond.inspect();
    flip(&pond.files("checkpoints/manifests", "").pop().unwrap(), 30);
    pond.verify().failed(1, &["checksum", "checkpoint 2"]);
    let found = pond.inspect();
    assert_eq!(found["healthy"], false, "{found:#}");
    assert!(found["snapshot_ms"].as_u64() < before["snapshot_ms"].as_u64(), "{found:#}");
}

#[test]
fn without_any_readable_checkpoint_it_says_why() {
    let pond = pond();
    for manifest in pond.files("checkpoints/manifests", "") {
        flip(&manifest, 30);
    }
    millpond(["inspect", &pond.shown()]).failed(1, &["no checkpoint can be read", "checksum"]);
    pond.verify().failed(1, &["DAMAGED in"]);
}

#[test]
fn without_the_files_of_any_checkpoint_the_rest_is_still_shown() {
    let pond = pond();
    for file in pond.files("checkpoints/files", "") {
        fs::remove_file(file).unwrap();
    }
    let found = pond.inspect();
    assert_eq!(found["application"], "word-count", "{found:#}");
    assert!(found["problems"].to_string().contains("no checkpoint can be used"), "{found:#}");
    pond.verify().failed(1, &["is missing"]);
}

#[test]
fn a_damaged_cursor_of_a_sink_is_a_problem() {
    let pond = pond();
    flip(&pond.output().join("_millpond/cursor"), 20);
    let found = pond.inspect();
    let problems = found["problems"].to_string();
    assert!(problems.contains("counts-out") && problems.contains("_millpond/cursor"), "{found:#}");
}

#[test]
fn output_of_another_directory_is_a_problem() {
    let (pond, other) = (pond(), pond());
    fs::copy(other.output().join("_millpond/cursor"), pond.output().join("_millpond/cursor")).unwrap();
    let found = pond.inspect();
    assert!(found["problems"].to_string().contains("for another directory"), "{found:#}");
}
