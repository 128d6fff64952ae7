//! What has been committed to the output, read as any reader would, and compared with what it should be.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use millpond::{Error, ErrorKind, Result};

use super::failed;
use crate::human::count;

/// Differences that are told one by one.
const TOLD: usize = 5;

/// A reader of the output, batch after batch.
pub(crate) struct Readback {
    output: PathBuf,
    /// The name of the newest batch that was read.
    newest: String,
    counts: HashMap<String, u64>,
    /// Batches with output.
    pub(crate) batches: u64,
    /// The sum of all steps: words that have been counted.
    pub(crate) words: u64,
    /// Steps that do not follow from the one before: something is missing, or there twice.
    broken: Vec<String>,
    broken_steps: u64,
}

impl Readback {
    pub(crate) fn new(output: &Path) -> Readback {
        Readback {
            output: output.to_owned(),
            newest: String::new(),
            counts: HashMap::new(),
            batches: 0,
            words: 0,
            broken: Vec::new(),
            broken_steps: 0,
        }
    }

    /// How many different words there are.
    pub(crate) fn different_words(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Reads the batches that have appeared since the last call.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let failed = |error| failed(&format!("read {}", self.output.display()), error);
        let entries = match fs::read_dir(&self.output) {
            Ok(entries) => entries,
            // The worker has not come so far.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.starts_with("batch-") && name > self.newest {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            self.read_batch(&name)?;
            self.newest = name;
        }
        Ok(())
    }

    fn read_batch(&mut self, name: &str) -> Result<()> {
        let folder = self.output.join(name);
        let cannot = |error| failed(&format!("read {}", folder.display()), error);
        for part in fs::read_dir(&folder).map_err(cannot)? {
            let text = fs::read_to_string(part.map_err(cannot)?.path()).map_err(cannot)?;
            for line in text.lines() {
                let (word, total, new) = parse(line).ok_or_else(|| {
                    Error::new(ErrorKind::Restore, format!("{}: {line:?} is no count of a word", folder.display()))
                })?;
                self.words += new;
                let before = match self.counts.get_mut(word) {
                    Some(count) => std::mem::replace(count, total),
                    None => self.counts.insert(word.to_owned(), total).unwrap_or(0),
                };
                if before + new != total {
                    self.broken_steps += 1;
                    if self.broken.len() < TOLD {
                        let (before, total) = (count(before), count(total));
                        self.broken.push(format!("{name}: `{word}` goes from {before} to {total}, by {new}"));
                    }
                }
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// What is wrong, a line each; nothing if all is as it should be.
    pub(crate) fn differences(&self, straight: &HashMap<String, u64>) -> Vec<String> {
        let mut lines = self.broken.clone();
        if self.broken_steps > lines.len() as u64 {
            lines.push(format!("and {} more steps like these", count(self.broken_steps - lines.len() as u64)));
        }
        let words = straight.keys().chain(self.counts.keys().filter(|word| !straight.contains_key(*word)));
        let of = |counts: &HashMap<String, u64>, word: &str| counts.get(word).copied().unwrap_or(0);
        let mut wrong: Vec<&String> = words.filter(|word| of(straight, word) != of(&self.counts, word)).collect();
        wrong.sort_unstable();
        for word in wrong.iter().take(TOLD) {
            let (counted, there) = (count(of(&self.counts, word)), count(of(straight, word)));
            lines.push(format!("`{word}`: counted {counted} times, in the input {there} times"));
        }
        if wrong.len() > TOLD {
            lines.push(format!("and {} more words like these", count((wrong.len() - TOLD) as u64)));
        }
        lines
    }
}

/// `word`, count so far, and how many of it are new, from `word<TAB>17<TAB>+3`.
fn parse(line: &str) -> Option<(&str, u64, u64)> {
    let (rest, new) = line.rsplit_once("\t+")?;
    let (word, total) = rest.rsplit_once('\t')?;
    Some((word, total.parse().ok()?, new.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(batches: &[&str], straight: &[(&str, u64)]) -> Vec<String> {
        let output = tempfile::tempdir().expect("a directory");
        for (index, lines) in batches.iter().enumerate() {
            let folder = output.path().join(format!("batch-{index:013}"));
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join("part-00000"), lines).expect("a file");
        }
        fs::create_dir(output.path().join("_millpond")).expect("a folder");
        let mut readback = Readback::new(output.path());
        readback.advance().expect("readable");
        readback.differences(&straight.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect())
    }

    #[test]
    fn output_that_is_right_has_no_differences() {
        assert!(differences(&["a\t2\t+2\nb\t1\t+1\n", "a\t3\t+1\n"], &[("a", 3), ("b", 1)]).is_empty());
        assert!(differences(&[], &[]).is_empty());
    }

    #[test]
    fn a_batch_that_is_missing_or_there_twice_is_seen_though_the_last_counts_are_right() {
        let missing = differences(&["a\t1\t+1\n", "a\t3\t+1\n"], &[("a", 3)]);
        assert_eq!(missing, ["batch-0000000000001: `a` goes from 1 to 3, by 1"]);
        let twice = differences(&["a\t1\t+1\n", "a\t1\t+1\n"], &[("a", 1)]);
        assert_eq!(twice, ["batch-0000000000001: `a` goes from 1 to 1, by 1"]);
    }

    #[test]
    fn counts_that_are_wrong_words_that_are_missing_and_strange_ones_are_told() {
        let lines = differences(&["a\t2\t+2\nc\t1\t+1\n"], &[("a", 3), ("b", 1)]);
        assert_eq!(
            lines,
            [
                "`a`: counted 2 times, in the input 3 times",
                "`b`: counted 0 times, in the input 1 times",
                "`c`: counted 1 times, in the input 0 times"
            ]
        );
        let many: String = (0..20).map(|n| format!("w{n:02}\t1\t+1\n")).collect();
        let lines = differences(&[&many], &[]);
        assert_eq!(lines.len(), TOLD + 1);
        assert_eq!(lines[TOLD], "and 15 more words like these");
    }
}
