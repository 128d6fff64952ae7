//! A world of topics for pipelines whose output depends on which batch a record fell into: they put out each line with its batch as well,
//! in the same transaction, and the output is recomputed from that in plain collections.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::oracle::exactly_once;
use millpond_testkit::{ErrorKind, LiveReader, Outgoing, Producer, Record};
use tempfile::TempDir;

use crate::recipe::{Recipe, Times};
use crate::victim::{Pipeline, Setup};
use crate::{Dice, Finding, Result, Words, World};

/// Lines of input a feeding.
const LINES: usize = 40;
const PARTITIONS: u32 = 2;

/// Topics on a broker and a temporary directory, for one lineage.
pub struct Echoed {
    place: TempDir,
    setup: Setup,
    words: Words,
    brokers: String,
    producer: Producer,
    fed: Vec<String>,
    /// Of the lines and of what is made of them.
    live: Option<[LiveReader; 2]>,
    judged: u64,
}

impl Echoed {
    /// New topics for [`Pipeline::KafkaWindow`] or [`Pipeline::KafkaRandom`].
    pub fn new(broker: &KafkaBroker, pipeline: Pipeline, seed: u64) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let topics = [unique_name("input"), unique_name("output"), unique_name("echo")];
        topics.iter().try_for_each(|topic| broker.create_topic(topic, PARTITIONS, &[]))?;
        let [input, output, echo] = topics;
        let mut dice = Dice::new(seed);
        let setup = Setup {
            input,
            output,
            second_output: echo,
            brokers: broker.proxied_servers(),
            batch_ms: 50,
            recipe: Recipe::window(),
            ..Setup::new(pipeline, unique_name("application"), place.path().join("pond"))
        };
        let setup = match pipeline {
            Pipeline::KafkaRandom => Setup {
                recipe: Recipe::of(seed),
                batch_ms: 20 + 10 * dice.below(8),
                checkpoint_every: 1 + dice.below(6),
                threads: 1 + dice.below(3) as usize,
                partitions: 1 + dice.below(5) as usize,
                ..setup
            },
            _ => setup,
        };
        let live = Some(Self::readers(broker.bootstrap_servers(), &setup)?);
        let (words, producer) = (Words::new(seed), Producer::new(broker.bootstrap_servers())?);
        let brokers = broker.bootstrap_servers().to_owned();
        Ok(Echoed { place, setup, words, brokers, producer, fed: Vec::new(), live, judged: 0 })
    }

    fn readers(brokers: &str, setup: &Setup) -> Result<[LiveReader; 2]> {
        Ok([LiveReader::start(brokers, &setup.second_output)?, LiveReader::start(brokers, &setup.output)?])
    }

    /// How a victim is told to run here.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Where everything is that is not at the broker.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    fn times(&self) -> Result<Times> {
        let found = millpond::inspect::inspect(&self.setup.directory)?;
        Ok(Times {
            zero_ms: found.zero.as_ms(),
            batch_ms: self.setup.batch_ms,
            // After a graceful stop it is the same for all three cursors.
            last_ms: found.snapshot.as_ms(),
        })
    }
}

impl World for Echoed {
    fn feed(&mut self) -> Result<()> {
        let lines = self.words.lines(LINES);
        self.producer.produce(&self.setup.input, lines.iter().map(|line| Outgoing::value(line.clone())))?;
        self.fed.extend(lines);
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        // The live readers look all the time.
        Ok(())
    }

    fn is_complete(&mut self) -> Result<bool> {
        let [echo, _] = self.live.as_ref().ok_or_else(|| Finding::new("nobody reads"))?;
        match echo.wait_for(Duration::ZERO, |seen| seen.len() >= self.fed.len()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Retry => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn judge(&mut self) -> Result<()> {
        let live = self.live.take().ok_or_else(|| Finding::new("nobody reads"))?;
        let mut seen = Vec::new();
        for reader in live {
            let reading = reader.finish()?;
            if !reading.is_consistent() {
                return Err(Finding::new(reading.to_string()));
            }
            seen.push(reading.from_beginning);
        }
        self.live = Some(Self::readers(&self.brokers, &self.setup)?);
        let (echo, out) = (&seen[0], &seen[1]);
        self.judged = (echo.len() + out.len()) as u64;
        let lines = exactly_once(self.fed.iter().cloned(), echo.iter().map(Record::value_text));
        if !lines.holds() {
            let (duplicates, losses) = (lines.duplicated.len() + lines.unexpected.len(), lines.missing.len());
            return Err(Finding::new(lines.to_string()).counting(duplicates as u64, losses as u64));
        }
        let lines = by_batch(echo, Record::value_text)?;
        let expected = self.setup.recipe.expected(&lines, &self.times()?);
        let mut found = by_batch(out, |record| (record.key_text(), record.value_text().parse().unwrap_or(i64::MIN)))?;
        found.values_mut().for_each(|pairs| pairs.sort());
        compare(&self.setup.recipe, &expected, &found)
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}

/// Records by the batch in their header.
fn by_batch<T>(records: &[Record], what: impl Fn(&Record) -> T) -> Result<BTreeMap<u64, Vec<T>>> {
    let mut batches: BTreeMap<u64, Vec<T>> = BTreeMap::new();
    for record in records {
        let batch = record.header("batch").and_then(|batch| batch.parse().ok());
        let batch = batch.ok_or_else(|| Finding::new(format!("no batch in {record:?}")))?;
        batches.entry(batch).or_default().push(what(record));
    }
    Ok(batches)
}

type Pairs = BTreeMap<u64, Vec<(String, i64)>>;

fn compare(recipe: &Recipe, expected: &Pairs, found: &Pairs) -> Result<()> {
    let batches = expected.keys().chain(found.keys());
    let Some(batch) = batches.copied().find(|batch| expected.get(batch) != found.get(batch)) else { return Ok(()) };
    let of = |pairs: &Pairs| pairs.get(&batch).cloned().unwrap_or_default();
    let differs = exactly_once(of(expected), of(found));
    let (duplicates, losses) = (differs.duplicated.len() + differs.unexpected.len(), differs.missing.len());
    Err(Finding::new(format!("{recipe:?}: batch {batch} is not what its input demands: {differs}"))
        .counting(duplicates as u64, losses as u64))
}
