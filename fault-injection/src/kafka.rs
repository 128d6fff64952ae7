//! A world of topics: lines or records go into one topic, counts or numbered records come out of another.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::chaos::demand;
use millpond_testkit::oracle::{per_key_order, per_key_sequence, running_counts};
use millpond_testkit::{ErrorKind, LiveReader, Outgoing, Producer, Record, read_committed};
use tempfile::TempDir;

use crate::files::{CountReader, state_is_fold};
use crate::victim::{Pipeline, Setup};
use crate::{Dice, Finding, Result, Words, World, stored_counts};

/// Records of input a feeding.
const RECORDS: usize = 60;
/// Keys of a copy.
const KEYS: u64 = 20;
const PARTITIONS: u32 = 2;

/// Topics on a broker and a temporary directory, for one lineage.
pub struct Kafka<'b> {
    broker: &'b KafkaBroker,
    place: TempDir,
    setup: Setup,
    words: Words,
    dice: Dice,
    producer: Producer,
    /// The values given so far.
    fed: Vec<String>,
    live: Option<LiveReader>,
    second: Option<CountReader>,
    judged: u64,
    /// Records seen and given when not all had come yet.
    lacked: Option<(usize, usize)>,
}

impl<'b> Kafka<'b> {
    /// New topics for one of the Kafka pipelines.
    pub fn new(broker: &'b KafkaBroker, pipeline: Pipeline, seed: u64) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let (input, output) = (unique_name("input"), unique_name("output"));
        broker.create_topic(&input, PARTITIONS, &[])?;
        // Records without a key have an order in one partition only.
        broker.create_topic(&output, if pipeline == Pipeline::KafkaCopy { 1 } else { PARTITIONS }, &[])?;
        let second = place.path().join("second");
        let setup = Setup {
            input,
            output: output.clone(),
            second_output: second.display().to_string(),
            brokers: broker.proxied_servers(),
            batch_ms: 50,
            ..Setup::new(pipeline, unique_name("application"), place.path().join("pond"))
        };
        Ok(Kafka {
            broker,
            place,
            setup,
            words: Words::new(seed),
            dice: Dice::new(seed),
            producer: Producer::new(broker.bootstrap_servers())?,
            fed: Vec::new(),
            live: Some(LiveReader::start(broker.bootstrap_servers(), &output)?),
            second: (pipeline == Pipeline::KafkaAndFiles).then(|| CountReader::of(&second)),
            judged: 0,
            lacked: None,
        })
    }

    /// How a victim is told to run here.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Where everything is that is not at the broker.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// The word that only the newest line has.
    ///
    /// # Panics
    /// If nothing was given.
    pub fn newest_line(&self) -> String {
        let line = self.fed.last().expect("something was given");
        line.split_whitespace().last().expect("a word").to_owned()
    }

    /// Notes a line that was given by somebody else.
    pub fn note(&mut self, line: impl Into<String>) {
        self.fed.push(line.into());
    }

    fn is_copy(&self) -> bool {
        self.setup.pipeline == Pipeline::KafkaCopy
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.fed.iter().flat_map(|line| line.split_whitespace())
    }

    /// Gives these lines, without keys.
    pub fn feed_lines(&mut self, lines: Vec<String>) -> Result<()> {
        self.producer.produce(&self.setup.input, lines.iter().map(|line| Outgoing::value(line.clone())))?;
        self.fed.extend(lines);
        Ok(())
    }

    fn live(&self) -> Result<&LiveReader> {
        self.live.as_ref().ok_or_else(|| Finding::new("nobody reads"))
    }

    fn judge_counts(&self, seen: &[Record]) -> Result<()> {
        demand(&running_counts(self.keys(), seen))?;
        state_is_fold(&self.setup.directory, self.keys())
    }

    fn judge_copy(&self, seen: &[Record]) -> Result<()> {
        demand(&per_key_sequence(seen))?;
        let input = read_committed(self.broker.bootstrap_servers(), &self.setup.input)?;
        demand(&per_key_order(&input, seen))?;
        let mut fold: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        input.into_iter().for_each(|record| *fold.entry(record.key.unwrap_or_default()).or_default() += 1);
        let state = stored_counts::<Vec<u8>>(&self.setup.directory, "numbers", "map_with_state")?;
        if fold == state {
            Ok(())
        } else {
            Err(Finding::new(format!("the state is {state:?}, a fold over the input gives {fold:?}")))
        }
    }
}

impl Kafka<'_> {
    /// Gives so many records.
    pub fn feed_records(&mut self, count: usize) -> Result<()> {
        let lines = self.words.lines(count);
        if !self.is_copy() {
            return self.feed_lines(lines);
        }
        // Some records have no key: they count as of one.
        let record = |line: &String| match self.dice.below(KEYS) {
            0 => Outgoing::value(line.clone()).partition(0),
            key => Outgoing::value(line.clone()).key(format!("key{key}")),
        };
        self.producer.produce(&self.setup.input, lines.iter().map(record).collect::<Vec<_>>())?;
        self.fed.extend(lines);
        Ok(())
    }
}

impl World for Kafka<'_> {
    fn feed(&mut self) -> Result<()> {
        self.feed_records(RECORDS)
    }

    fn look(&mut self) -> Result<()> {
        // The live reader of the topic looks all the time.
        self.second.as_mut().map_or(Ok(()), CountReader::look)
    }

    fn is_complete(&mut self) -> Result<bool> {
        self.look()?;
        let words = self.keys().count() as u64;
        let (records, copy) = (self.fed.len(), self.is_copy());
        // Counting takes a while where much has been seen: not again before something new has come.
        let (lacked, seen_before) = (Cell::new(None), self.lacked);
        let complete = |seen: &[Record]| {
            let now = Some((seen.len(), records));
            let complete = now != seen_before && if copy { seen.len() >= records } else { counted(seen) >= words };
            lacked.set(now.filter(|_| !complete));
            complete
        };
        let files = self.second.as_ref().is_none_or(|second| second.counted() >= words);
        let found = self.live()?.wait_for(Duration::ZERO, complete);
        self.lacked = lacked.get();
        match found {
            Ok(()) => Ok(files),
            Err(error) if error.kind() == ErrorKind::Retry => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn judge(&mut self) -> Result<()> {
        let live = self.live.take().ok_or_else(|| Finding::new("nobody reads"))?;
        let reading = live.finish()?;
        self.live = Some(LiveReader::start(self.broker.bootstrap_servers(), &self.setup.output)?);
        if !reading.is_consistent() {
            return Err(Finding::new(reading.to_string()));
        }
        match self.is_copy() {
            true => self.judge_copy(&reading.from_beginning)?,
            false => self.judge_counts(&reading.from_beginning)?,
        }
        if let Some(second) = &self.second {
            demand(&running_counts(self.keys(), &second.from_the_beginning()?)).map_err(|found| found.at("files"))?;
        }
        self.judged = reading.from_beginning.len() as u64;
        Ok(())
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

/// How many words the counts seen add up to.
fn counted(seen: &[Record]) -> u64 {
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    for record in seen {
        let count = record.value_text().parse().unwrap_or(0);
        let newest = counts.entry(record.key.as_deref().unwrap_or_default()).or_default();
        *newest = count.max(*newest);
    }
    counts.values().sum()
}
