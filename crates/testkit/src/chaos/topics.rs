//! The world of a program that reads one topic and writes another.

use std::time::{Duration, Instant};

use super::{Finding, Result, World, demand};
use crate::broker::KafkaBroker;
use crate::oracle::Violations;
use crate::{LiveReader, Outgoing, Producer, Record, read_committed};

/// Records of input a feeding.
const RECORDS: u64 = 60;
/// Asking the oracle reads both topics: not more often than this.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Makes the record of a number.
pub(super) type Make<'a> = Box<dyn FnMut(u64) -> Outgoing + 'a>;
/// Says how an output differs from what the input demands.
pub(super) type Oracle<'a> = Box<dyn Fn(&[Record], &[Record]) -> Violations + 'a>;

pub(super) struct Topics<'a> {
    broker: &'a KafkaBroker,
    input: String,
    output: String,
    make: Make<'a>,
    oracle: Oracle<'a>,
    producer: Producer,
    live: Option<LiveReader>,
    given: u64,
    judged: u64,
    asked: Option<(Instant, usize)>,
}

impl<'a> Topics<'a> {
    pub(super) fn new(
        broker: &'a KafkaBroker,
        input: &str,
        output: &str,
        make: Make<'a>,
        oracle: Oracle<'a>,
    ) -> Result<Self> {
        Ok(Topics {
            broker,
            input: input.to_owned(),
            output: output.to_owned(),
            make,
            oracle,
            producer: Producer::new(broker.bootstrap_servers())?,
            live: Some(LiveReader::start(broker.bootstrap_servers(), output)?),
            given: 0,
            judged: 0,
            asked: None,
        })
    }

    fn read_input(&self) -> Result<Vec<Record>> {
        Ok(read_committed(self.broker.bootstrap_servers(), &self.input)?)
    }
}

impl World for Topics<'_> {
    fn feed(&mut self) -> Result<()> {
        let records: Vec<Outgoing> = (self.given..self.given + RECORDS).map(&mut self.make).collect();
        self.given += RECORDS;
        Ok(self.producer.produce(&self.input, records)?)
    }

    fn look(&mut self) -> Result<()> {
        // The live reader looks all the time.
        Ok(())
    }

    fn is_complete(&mut self) -> Result<bool> {
        let live = self.live.as_ref().ok_or_else(|| Finding::new("nobody reads"))?;
        let seen = live.seen();
        let asked_lately = self.asked.is_some_and(|(at, count)| at.elapsed() < ASK_EVERY || count == seen.len());
        if asked_lately && self.asked.is_some_and(|(at, _)| at.elapsed() < ASK_EVERY * 10) {
            return Ok(false);
        }
        self.asked = Some((Instant::now(), seen.len()));
        Ok((self.oracle)(&self.read_input()?, &seen).is_empty())
    }

    fn judge(&mut self) -> Result<()> {
        let live = self.live.take().ok_or_else(|| Finding::new("nobody reads"))?;
        let reading = live.finish()?;
        self.live = Some(LiveReader::start(self.broker.bootstrap_servers(), &self.output)?);
        if !reading.is_consistent() {
            return Err(Finding::new(reading.to_string()));
        }
        self.judged = reading.from_beginning.len() as u64;
        demand(&(self.oracle)(&self.read_input()?, &reading.from_beginning))
    }

    fn judged(&self) -> u64 {
        self.judged
    }
}
