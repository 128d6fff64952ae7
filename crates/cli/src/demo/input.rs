//! The text that is counted: found, repeated until there is enough of it, and counted straight for the comparison.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use millpond::{Error, ErrorKind, Result};

use super::schedule::Schedule;
use super::spool::Spool;
use super::{Folders, failed};
use crate::human::{count, counted, size};

/// Counted where no other text is found.
const BUILT_IN: &str = include_str!("text.txt");
/// A batch gets at least so much text.
const BATCH_BYTES: u64 = 64 << 10;
/// Files of input are about so long.
const FILE_BYTES: usize = 4 << 20;
/// More text is not taken.
const INPUT_LIMIT_BYTES: u64 = 1 << 30;
/// A file with a longer line is taken for no text.
const LINE_LIMIT_BYTES: usize = 1 << 20;

/// The input of a run, in its folder.
pub(crate) struct Input {
    folder: PathBuf,
    /// What it is, for people.
    pub(crate) description: String,
    /// Bytes a batch takes at most.
    pub(crate) batch_bytes: u64,
    /// How many words; those of a socket are counted as they come.
    words: u64,
    spool: Option<Spool>,
}

/// Text files that were found.
#[derive(Default)]
struct Found {
    text: String,
    files: u64,
    /// Files that are no text.
    passed_over: u64,
    /// There was more than is taken.
    cut: bool,
}

impl Input {
    /// Writes the input for a run with these kills.
    pub(crate) fn from_files(folders: &Folders, given: Option<&Path>, schedule: &Schedule) -> Result<Input> {
        let (mut found, name) = match given {
            Some(path) => (collect(path)?, path.display().to_string()),
            None => docs(),
        };
        if found.text.split_whitespace().next().is_none() {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("{name} holds no text: give --input a text file, or a directory with some"),
            ));
        }
        if !found.text.ends_with('\n') {
            found.text.push('\n');
        }
        let bytes = found.text.len() as u64;
        let copies = (schedule.batches() * BATCH_BYTES).div_ceil(bytes);
        write(&folders.input, &found.text, copies)?;
        let batch_bytes = (bytes * copies).div_ceil(schedule.batches());
        let words = found.text.split_whitespace().count() as u64 * copies;
        let mut description = match found.files {
            0 => name,
            1 if given.is_some() => name,
            files => format!("{} of {name}", counted(files, "text file", "text files")),
        };
        if copies > 1 {
            description += &format!(", {} times over", count(copies));
        }
        description += &format!(": {}, {}", size(bytes * copies), counted(words, "word", "words"));
        if found.passed_over > 0 {
            description +=
                &format!(" ({} passed over)", counted(found.passed_over, "file without text", "files without text"));
        }
        if found.cut {
            description += &format!(" (the first {} only)", size(INPUT_LIMIT_BYTES));
        }
        Ok(Input { folder: folders.input.clone(), description, batch_bytes, words, spool: None })
    }

    /// Takes lines from a server from now on.
    pub(crate) fn from_socket(folders: &Folders, address: String) -> Result<Input> {
        let description = format!("the lines that {address} sends, kept in files as they come");
        let spool = Spool::start(folders, address)?;
        Ok(Input { folder: folders.input.clone(), description, batch_bytes: 64 << 20, words: 0, spool: Some(spool) })
    }

    /// How many words there are so far.
    pub(crate) fn words(&self) -> u64 {
        self.spool.as_ref().map_or(self.words, Spool::words)
    }

    /// No more kills: lines of a socket that come later are not counted.
    pub(crate) fn close(&self) {
        if let Some(spool) = &self.spool {
            spool.close();
        }
    }

    /// All input is in its folder.
    pub(crate) fn is_complete(&self) -> Result<bool> {
        self.spool.as_ref().map_or(Ok(true), Spool::is_complete)
    }

    /// Counts the words of the input in a plain loop.
    pub(crate) fn straight_count(&self) -> Result<HashMap<String, u64>> {
        let mut counts = HashMap::new();
        let failed = |error| failed(&format!("read {}", self.folder.display()), error);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let text = fs::read_to_string(entry.map_err(failed)?.path()).map_err(failed)?;
            for word in text.split_whitespace() {
                match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.to_owned(), 1)),
                }
            }
        }
        Ok(counts)
    }
}

/// The docs of the repository around the working directory, or around this program; else the text in it.
fn docs() -> (Found, String) {
    let program = std::env::current_exe().ok();
    for start in [std::env::current_dir().ok(), program].into_iter().flatten() {
        let Some(root) = start.ancestors().find(|above| above.join("crates/millpond/Cargo.toml").is_file()) else {
            continue;
        };
        let docs = root.join("docs");
        if let Ok(found) = collect(&docs)
            && !found.text.trim().is_empty()
        {
            return (found, docs.display().to_string());
        }
    }
    (Found { text: BUILT_IN.to_owned(), ..Found::default() }, "the text in this program".into())
}

/// The text of a file, or of all files below a directory, those of hidden names left out.
fn collect(path: &Path) -> Result<Found> {
    let mut found = Found::default();
    let metadata = fs::metadata(path).map_err(|error| failed(&format!("read {}", path.display()), error))?;
    if metadata.is_dir() {
        found.add_directory(path)?;
    } else {
        found.add_file(path)?;
    }
    Ok(found)
}

impl Found {
    fn add_directory(&mut self, directory: &Path) -> Result<()> {
        let failed = |error| failed(&format!("list {}", directory.display()), error);
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push((entry.file_type().map_err(failed)?, entry.path()));
            }
        }
        paths.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
        for (kind, path) in paths {
            // Links are not followed: they may lead round in a circle.
            if kind.is_dir() {
                self.add_directory(&path)?;
            } else if kind.is_file() {
                self.add_file(&path)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let failed = |error| failed(&format!("read {}", path.display()), error);
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if self.text.len() as u64 + bytes > INPUT_LIMIT_BYTES {
            self.cut = true;
            return Ok(());
        }
        match String::from_utf8(fs::read(path).map_err(failed)?) {
            Ok(text) if text.lines().all(|line| line.len() <= LINE_LIMIT_BYTES) => {
                if !self.text.is_empty() && !self.text.ends_with('\n') {
                    self.text.push('\n');
                }
                self.text += &text;
                self.files += 1;
            }
            _ => self.passed_over += 1,
        }
        Ok(())
    }
}

/// Writes a text so many times into files of a folder.
fn write(folder: &Path, text: &str, copies: u64) -> Result<()> {
    let a_file = (FILE_BYTES / text.len()).max(1) as u64;
    let (mut left, mut number) = (copies, 1);
    while left > 0 {
        let path = folder.join(format!("text-{number:05}.txt"));
        let written = fs::File::create(&path).and_then(|mut file| {
            for _ in 0..left.min(a_file) {
                file.write_all(text.as_bytes())?;
            }
            Ok(())
        });
        written.map_err(|error| failed(&format!("write {}", path.display()), error))?;
        left = left.saturating_sub(a_file);
        number += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        let folders = Folders {
            root: root.to_owned(),
            input: root.join("input"),
            output: root.join("output"),
            pond: root.join("pond"),
            log: root.join("log"),
        };
        fs::create_dir(&folders.input).expect("a folder");
        folders
    }

    #[test]
    fn text_is_repeated_until_it_makes_enough_batches_and_counted_as_often() {
        let place = tempfile::tempdir().expect("a directory");
        let given = place.path().join("given");
        fs::create_dir_all(given.join("below")).expect("folders");
        fs::write(given.join("a.txt"), "to be or not to be").expect("a file");
        fs::write(given.join("below/b.txt"), "to sleep\n").expect("a file");
        fs::write(given.join("picture"), b"\xff\xfe to be").expect("a file");
        fs::write(given.join(".hidden"), "hidden").expect("a file");
        let schedule = Schedule::new(1, 3);
        let folders = folders(place.path());
        let input = Input::from_files(&folders, Some(&given), &schedule).expect("text is there");
        assert!(
            input.description.contains("2 text files") && input.description.contains("1 file without"),
            "{}",
            input.description
        );

        let counts = input.straight_count().expect("readable");
        let copies = counts["sleep"];
        assert_eq!(counts["to"], 3 * copies);
        assert_eq!(counts["be"], 2 * copies);
        assert!(!counts.contains_key("hidden"));
        assert_eq!(counts.values().sum::<u64>(), input.words());
        let bytes: u64 =
            fs::read_dir(&folders.input).expect("a folder").map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes / input.batch_bytes + 1 >= schedule.batches(), "{bytes} bytes, {} a batch", input.batch_bytes);
    }

    #[test]
    fn input_without_text_is_refused_by_name() {
        let place = tempfile::tempdir().expect("a directory");
        let empty = place.path().join("empty");
        fs::write(&empty, " \n").expect("a file");
        let folders = folders(place.path());
        for path in [empty, place.path().join("missing")] {
            let error = Input::from_files(&folders, Some(&path), &Schedule::new(1, 1)).err().expect("refused");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }
}
