//! The documents keep to the code: tests that they name exist, messages that they quote stand in the sources, links lead
//! somewhere. (Their Rust blocks are doc tests of `millpond` and `millpond-testkit`, their bytes tests of the crates that write them.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A document of ours and its text.
struct Document {
    path: PathBuf,
    text: String,
}

fn documents() -> Vec<Document> {
    let root = root();
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    paths.extend(files(&root.join("docs"), "md"));
    let document = |path: PathBuf| Document { text: fs::read_to_string(&path).expect("a document"), path };
    paths.into_iter().map(document).collect()
}

/// The files below a directory whose names end so.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn sources() -> Vec<String> {
    let folders = ["crates", "tests", "fault-injection", "benches"];
    let paths = folders.iter().flat_map(|folder| files(&root().join(folder), "rs"));
    paths.map(|path| fs::read_to_string(path).expect("a source")).collect()
}

/// The cells of all columns whose heading is this one.
fn column(text: &str, heading: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut wanted: Option<usize> = None;
    for line in text.lines() {
        if !line.starts_with('|') {
            wanted = None;
            continue;
        }
        let row: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match wanted {
            None => wanted = Some(row.iter().position(|cell| *cell == heading).unwrap_or(usize::MAX)),
            Some(index) => cells.extend(row.get(index).map(|cell| (*cell).to_owned())),
        }
    }
    cells.retain(|cell| !cell.chars().all(|c| matches!(c, '-' | ':')));
    cells
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_tests_that_documents_name_exist() {
    let mut tests = BTreeSet::new();
    for source in sources() {
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
            let name = lines[at..].iter().find_map(|line| line.strip_prefix("fn "));
            tests.extend(name.and_then(|name| name.split('(').next()).map(str::to_owned));
        }
    }
    let mut named = 0;
    for Document { path, text } in documents() {
        for cell in column(&text, "tests") {
            let names = code(&cell);
            assert!(!names.is_empty(), "{}: a promise without a test: {cell}", path.display());
            for name in names {
                named += 1;
                assert!(tests.contains(name), "{}: there is no test `{name}`", path.display());
            }
        }
    }
    assert!(named > 20, "only {named} tests are named: were the tables found?");
}

#[test]
fn the_messages_that_documents_quote_stand_in_the_sources() {
    // As one text, strings that go on in the next line put together.
    let sources: String = sources().join("\n").split("\\\n").map(|part| part.trim_start()).collect();
    let mut quoted = 0;
    for Document { path, text } in documents() {
        for cell in column(&text, "message") {
            for message in code(&cell) {
                for part in message.split('…') {
                    let part = part.trim_matches(|c: char| !c.is_alphanumeric());
                    quoted += 1;
                    assert!(sources.contains(part), "{}: no message says `{part}` ({message})", path.display());
                }
            }
        }
    }
    assert!(quoted > 50, "only {quoted} parts of messages are quoted: were the tables found?");
}

/// Names that documents for newcomers say are here, in tables with a column `here`, are functions or types of ours.
#[test]
fn the_operators_that_documents_name_exist() {
    let sources = sources().join("\n");
    let mut named = 0;
    for Document { path, text } in documents() {
        for cell in column(&text, "here") {
            for name in code(&cell) {
                let last = name.rsplit(['.', ':']).next().unwrap_or(name);
                named += 1;
                let kinds = ["fn", "struct", "trait"];
                let found = kinds.iter().any(|kind| {
                    ["<", "(", " ", ":", "\n"]
                        .iter()
                        .any(|after| sources.contains(&format!("pub {kind} {last}{after}")))
                        || sources.contains(&format!("    {kind} {last}("))
                });
                assert!(found || ["Arc", "clone"].contains(&last), "{}: there is no `{name}`", path.display());
            }
        }
    }
    assert!(named > 80, "only {named} names are told: were the tables found?");
}

/// As GitHub makes the anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_between_documents_lead_somewhere() {
    for Document { path, text } in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !place.is_empty() {
                let text = fs::read_to_string(&target).expect("a document");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == place);
                assert!(found, "{}: {link} leads to no heading", path.display());
            }
        }
    }
}
