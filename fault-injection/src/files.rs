//! A world of files: lines go in as files or into a spool, counts come out as files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use millpond_testkit::Record;
use millpond_testkit::chaos::demand;
use millpond_testkit::oracle::{counts_follow_input, running_counts};
use tempfile::TempDir;

use crate::line_server::LineServer;
use crate::victim::{Pipeline, Setup};
use crate::{Finding, Result, Words, World, stored_counts};

/// Lines of input a feeding: a few batches.
const LINES: usize = 40;

/// A temporary directory with everything in it, for one lineage.
pub struct Files {
    place: TempDir,
    pipeline: Pipeline,
    directory: PathBuf,
    words: Words,
    fed: Vec<String>,
    files: u32,
    outputs: Vec<CountReader>,
    /// Of [`Pipeline::Receivers`]: what it receives from, and what it pushes from.
    servers: Vec<LineServer>,
    judged: u64,
}

impl Files {
    /// An empty world for a pipeline that needs no broker.
    pub fn new(pipeline: Pipeline, seed: u64) -> Result<Self> {
        let place = tempfile::tempdir()?;
        fs::create_dir(place.path().join("in"))?;
        fs::write(place.path().join("spool"), "")?;
        let mut outputs = vec![CountReader::of(&place.path().join("out"))];
        if pipeline == Pipeline::TwoFileSinks {
            outputs.push(CountReader::of(&place.path().join("second")));
        }
        let directory = place.path().join("pond");
        let servers = match pipeline {
            Pipeline::Receivers => vec![LineServer::start()?, LineServer::start()?],
            _ => Vec::new(),
        };
        let (words, fed) = (Words::new(seed), Vec::new());
        Ok(Files { place, pipeline, directory, words, fed, files: 0, outputs, servers, judged: 0 })
    }

    /// The application's directory is here, in place of `pond`. The one above it is made.
    pub fn with_directory(mut self, inner: &str) -> Result<Self> {
        self.directory = self.place.path().join(inner);
        fs::create_dir_all(self.directory.parent().unwrap_or(self.place.path()))?;
        Ok(self)
    }

    /// How a victim is told to run here.
    pub fn setup(&self) -> Setup {
        let at = |name: &str| self.place.path().join(name).display().to_string();
        let input = match self.pipeline {
            Pipeline::Spool => at("spool"),
            Pipeline::Receivers => self.servers.iter().map(LineServer::address).collect::<Vec<_>>().join(" "),
            _ => at("in"),
        };
        let setup = Setup::new(self.pipeline, "words", &self.directory);
        Setup { input, output: at("out"), second_output: at("second"), ..setup }
    }

    /// Readers begin anew: what they have seen was of a time that did not come to pass.
    pub fn forget(&mut self) {
        self.outputs.iter_mut().for_each(|output| *output = CountReader::of(&output.directory));
    }

    /// Where everything is.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Gives these lines.
    pub fn feed_lines(&mut self, lines: Vec<String>) -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if let [first, second] = &self.servers[..] {
            let (received, pushed) = lines.split_at(lines.len() / 2);
            first.give(received.iter().cloned());
            second.give(pushed.iter().cloned());
        } else if self.pipeline == Pipeline::Spool {
            OpenOptions::new().append(true).open(self.place.path().join("spool"))?.write_all(text.as_bytes())?;
        } else {
            self.files += 1;
            let (aside, name) = (self.place.path().join("aside"), format!("lines-{:06}", self.files));
            fs::write(&aside, text)?;
            fs::rename(&aside, self.place.path().join("in").join(name))?;
        }
        self.fed.extend(lines);
        Ok(())
    }

    /// Compares the state in the newest checkpoint of another directory with a fold over the input.
    pub fn judge_state_in(&self, directory: &Path) -> Result<()> {
        state_is_fold(directory, self.keys())
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.fed.iter().flat_map(|line| line.split_whitespace())
    }
}

impl World for Files {
    fn feed(&mut self) -> Result<()> {
        let lines = self.words.lines(LINES);
        self.feed_lines(lines)
    }

    fn look(&mut self) -> Result<()> {
        self.outputs.iter_mut().try_for_each(CountReader::look)
    }

    fn is_complete(&mut self) -> Result<bool> {
        self.look()?;
        let words = self.keys().count() as u64;
        Ok(self.outputs.iter().all(|output| output.counted() >= words))
    }

    fn judge(&mut self) -> Result<()> {
        let mut judged = 0;
        for output in &self.outputs {
            let seen = output.from_the_beginning()?;
            if seen != output.seen() {
                return Err(Finding::new("read once more from the beginning the output is not what was seen live"));
            }
            demand(&running_counts(self.keys(), &seen))?;
            // What comes on two ways has no order.
            if self.servers.is_empty() {
                demand(&counts_follow_input(self.keys(), &seen))?;
            }
            judged += seen.len() as u64;
        }
        self.judged = judged;
        state_is_fold(&self.directory, self.keys())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

/// Compares the state in the newest checkpoint with a fold over the input.
pub(crate) fn state_is_fold<'a>(directory: &Path, keys: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut fold: BTreeMap<String, u64> = BTreeMap::new();
    keys.for_each(|key| *fold.entry(key.to_owned()).or_default() += 1);
    let state = stored_counts::<String>(directory, "counts", "update_touched_by_key")?;
    let differs = |key: &&String| fold.get(*key) != state.get(*key);
    match fold.keys().chain(state.keys()).find(differs) {
        None => Ok(()),
        Some(key) => Err(Finding::new(format!(
            "the state of key {key:?} is {:?}, a fold over the input gives {:?}",
            state.get(key),
            fold.get(key)
        ))),
    }
}

/// A reader of the directories that a file sink puts in place, looking again and again.
pub struct CountReader {
    directory: PathBuf,
    /// By batch: what its directory held when it was first seen.
    batches: BTreeMap<u64, Vec<(String, String)>>,
}

impl CountReader {
    /// A reader of the output in this directory.
    pub fn of(directory: &Path) -> Self {
        CountReader { directory: directory.to_owned(), batches: BTreeMap::new() }
    }

    /// Looks what is there: what was seen before must be there unchanged, and nothing may appear before it.
    pub fn look(&mut self) -> Result<()> {
        let now = list(&self.directory)?;
        for (batch, path) in &now {
            let newest = self.batches.last_key_value().map_or(0, |(newest, _)| *newest);
            if !self.batches.contains_key(batch) {
                if *batch < newest {
                    return Err(Finding::new(format!("batch {batch} has appeared after batch {newest}")));
                }
                self.batches.insert(*batch, read(path)?);
            }
        }
        match self.batches.keys().find(|batch| !now.contains_key(batch)) {
            Some(batch) => Err(Finding::new(format!("batch {batch} was seen and has gone"))),
            None => Ok(()),
        }
    }

    /// How many words the counts seen so far add up to.
    pub fn counted(&self) -> u64 {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (word, count) in self.batches.values().flatten() {
            counts.insert(word, count.parse().unwrap_or(0));
        }
        counts.values().sum()
    }

    /// What was seen live.
    pub fn seen(&self) -> Vec<Record> {
        records(&self.batches)
    }

    /// What a reader that starts now sees.
    pub fn from_the_beginning(&self) -> Result<Vec<Record>> {
        let batches = list(&self.directory)?.into_iter().map(|(batch, path)| Ok((batch, read(&path)?)));
        Ok(records(&batches.collect::<Result<BTreeMap<_, _>>>()?))
    }
}

/// The directories that readers see, by batch time in ms.
fn list(directory: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return Ok(found) };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(batch) = name.strip_prefix("batch-") {
            let batch = batch.parse().map_err(|_| Finding::new(format!("{name} is no name of a batch")))?;
            found.insert(batch, entry.path());
        }
    }
    Ok(found)
}

fn read(batch: &Path) -> Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    let mut parts: Vec<PathBuf> = fs::read_dir(batch)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    parts.sort();
    for part in parts {
        let text = fs::read_to_string(&part)?;
        if !text.ends_with('\n') {
            return Err(Finding::new(format!("{} ends within a line", part.display())));
        }
        for line in text.lines() {
            let (key, value) = line
                .split_once('\t')
                .ok_or_else(|| Finding::new(format!("{}: no count in {line:?}", part.display())))?;
            lines.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(lines)
}

/// As records of one partition, in the order of their batches.
fn records(batches: &BTreeMap<u64, Vec<(String, String)>>) -> Vec<Record> {
    let lines = batches.iter().flat_map(|(batch, lines)| lines.iter().map(move |line| (batch, line)));
    let record = |(offset, (batch, (key, value))): (usize, (&u64, &(String, String)))| Record {
        partition: 0,
        offset: offset as i64,
        key: Some(key.clone().into_bytes()),
        value: Some(value.clone().into_bytes()),
        headers: vec![("batch".into(), Some(batch.to_string().into_bytes()))],
        timestamp_ms: None,
    };
    lines.enumerate().map(record).collect()
}
