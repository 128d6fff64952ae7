//! The failure matrix names tests: each of them must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The names of all functions marked `#[test]`, by walking the sources.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                tests_in(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for after in text.split("#[test]").skip(1) {
                let name = after.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
                found.extend(name.map(str::to_owned));
            }
            // Inside of `proptest!` the attribute stands before a function with arguments: the same.
        }
    }
}

/// What stands in backticks and looks like the name of a test: lower case with many underscores.
fn named(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_test_that_the_failure_matrix_names_is_there_and_every_hard_case_has_one() {
    let mut found = BTreeSet::new();
    for folder in ["crates", "tests", "fault-injection"] {
        tests_in(&root().join(folder), &mut found);
    }
    let text = fs::read_to_string(root().join("docs/failure-matrix.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 100, "only {} tests are named", named.len());
    let gone: Vec<&&str> = named.iter().filter(|name| !found.contains(**name)).collect();
    assert!(gone.is_empty(), "named, and not there: {gone:#?}");
    for case in 1..=28 {
        let prefix = format!("h{case}_");
        assert!(named.iter().any(|name| name.starts_with(&prefix)), "no test of hard case H{case} is named");
        let unnamed: Vec<&String> =
            found.iter().filter(|name| name.starts_with(&prefix) && !named.contains(&name.as_str())).collect();
        assert!(unnamed.is_empty(), "tests of hard case H{case} that the matrix does not name: {unnamed:#?}");
    }
}

#[test]
fn every_failpoint_that_there_is_is_killed_at() {
    use millpond_fault_injection::points;
    let lists =
        [points::ENGINE, points::RECEIVER, points::SINK, points::FILE_SINK, points::KAFKA_SINK, points::RECOVERY];
    let swept: BTreeSet<&str> = lists.concat().iter().map(|point| point.name).collect();
    let names = millpond_core::failpoints::NAMES.iter().map(|(name, _)| *name);
    let there: BTreeSet<&str> = names.filter(|name| !name.starts_with("break-")).collect();
    assert_eq!(swept, there, "left: in the sweeps; right: in the list of all failpoints");
}
