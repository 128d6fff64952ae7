//! Where the givers of a source's records stand: one giver's own position, or a number for each of many, by which a push
//! whose fate is in doubt can be made again without counting twice (hard case H26).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ticket::Ticket;
use crate::bytes::{Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::source::PartitionPosition;

/// The one partition of a receiver: where its giver stands.
const RECEIVER: &str = "receiver";
/// All of them stand in every plan.
const MAX_PRODUCERS: usize = 10_000;
const MAX_PRODUCER_BYTES: usize = 200;

/// The givers' positions after the newest planned block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Givers {
    /// What one giver has stored with its records, in its own words; empty for nothing.
    One(Vec<u8>),
    /// The last number of each producer.
    Many(BTreeMap<String, u64>),
}

impl Givers {
    /// Goes on from the positions of a plan.
    pub(crate) fn recover(&mut self, positions: &[PartitionPosition]) -> Result<()> {
        match self {
            Givers::One(position) => {
                *position = positions.first().map(|first| first.position.clone()).unwrap_or_default();
            }
            Givers::Many(numbers) => {
                numbers.clear();
                for of in positions.iter().filter(|of| !of.position.is_empty()) {
                    let mut bytes = Reader::new("the position of a producer", &of.position);
                    numbers.insert(of.partition.clone(), bytes.u64()?);
                    bytes.end()?;
                }
            }
        }
        Ok(())
    }

    /// Goes behind a block with this position.
    pub(crate) fn pass(&mut self, of_block: Vec<u8>) -> Result<()> {
        match self {
            _ if of_block.is_empty() => {}
            Givers::One(position) => *position = of_block,
            Givers::Many(numbers) => numbers.extend(decode(&of_block)?),
        }
        Ok(())
    }

    pub(crate) fn positions(&self) -> Vec<PartitionPosition> {
        let one = |partition: &str, position: Vec<u8>| PartitionPosition { partition: partition.into(), position };
        match self {
            Givers::One(position) => vec![one(RECEIVER, position.clone())],
            Givers::Many(numbers) if numbers.is_empty() => vec![one(RECEIVER, Vec::new())],
            Givers::Many(numbers) => {
                numbers.iter().map(|(producer, number)| one(producer, number.to_le_bytes().to_vec())).collect()
            }
        }
    }
}

/// The numbers in a block, as its position in the log.
pub(crate) fn encode(numbers: &BTreeMap<String, u64>) -> Vec<u8> {
    let mut out = Writer::new();
    out.list(&numbers.iter().collect::<Vec<_>>(), |out, (producer, number)| {
        out.text(producer);
        out.u64(**number);
    });
    out.into_bytes()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<BTreeMap<String, u64>> {
    let mut bytes = Reader::new("the numbers of a block of pushed records", bytes);
    let numbers = bytes.list(|bytes| Ok((bytes.text()?, bytes.u64()?)))?;
    bytes.end()?;
    Ok(numbers.into_iter().collect())
}

/// What is to be done with a push of a number.
pub(super) enum Push {
    New,
    /// It is in the log.
    Logged,
    /// It is in a block that is not in the log yet.
    UnderWay(Arc<Ticket>),
    /// Another number of the producer is in an earlier block, which may yet fail: a later number in the log would say that
    /// the earlier one is there too.
    After(Arc<Ticket>),
}

/// The numbers of all producers, durable and under way.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    logged: BTreeMap<String, u64>,
    under_way: HashMap<String, (u64, Arc<Ticket>)>,
}

impl Sequences {
    /// Blocks with these numbers are in the log.
    pub(crate) fn are_logged(&mut self, numbers: BTreeMap<String, u64>) {
        for (producer, number) in numbers {
            if self.under_way.get(&producer).is_some_and(|(newest, _)| *newest <= number) {
                self.under_way.remove(&producer);
            }
            self.logged.insert(producer, number);
        }
    }

    /// A block with these numbers will never be in the log.
    pub(crate) fn are_lost(&mut self, numbers: &BTreeMap<String, u64>) {
        numbers.keys().for_each(|producer| drop(self.under_way.remove(producer)));
    }

    pub(crate) fn last(&self, producer: &str) -> Option<u64> {
        self.logged.get(producer).copied()
    }

    /// What a push is; `building`: the block that it would join.
    pub(crate) fn look(&self, producer: &str, number: u64, building: Option<&Arc<Ticket>>) -> Result<Push> {
        if self.last(producer).is_some_and(|last| number <= last) {
            return Ok(Push::Logged);
        }
        match self.under_way.get(producer) {
            Some((newest, ticket)) if number <= *newest => Ok(Push::UnderWay(ticket.clone())),
            Some((_, ticket)) if building.is_none_or(|building| !Arc::ptr_eq(building, ticket)) => {
                Ok(Push::After(ticket.clone()))
            }
            Some(_) => Ok(Push::New),
            None => self.check_new(producer).map(|()| Push::New),
        }
    }

    fn check_new(&self, producer: &str) -> Result<()> {
        let problem = match producer.len() {
            0 => "a producer needs a name".to_owned(),
            bytes if bytes > MAX_PRODUCER_BYTES => {
                format!("the name of a producer has {bytes} bytes, the limit is {MAX_PRODUCER_BYTES}")
            }
            _ if !self.logged.contains_key(producer) && self.logged.len() + self.under_way.len() >= MAX_PRODUCERS => {
                format!("more than {MAX_PRODUCERS} producers push with numbers: `{producer}` is one too many")
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Configuration, problem))
    }

    /// A push was added to the block of this ticket.
    pub(crate) fn add(&mut self, producer: &str, number: u64, ticket: Arc<Ticket>) {
        self.under_way.insert(producer.to_owned(), (number, ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(producer, number)| ((*producer).to_owned(), *number)).collect()
    }

    #[test]
    fn h26_numbers_of_a_block_and_positions_of_a_plan_come_back() {
        let given = numbers(&[("a", 7), ("b", u64::MAX)]);
        assert_eq!(decode(&encode(&given)).ok(), Some(given.clone()));
        let mut givers = Givers::Many(BTreeMap::new());
        assert_eq!(givers.positions()[0].partition, RECEIVER, "an idle source has a position too");
        givers.pass(encode(&given)).unwrap();
        givers.pass(Vec::new()).unwrap();
        givers.pass(encode(&numbers(&[("a", 8)]))).unwrap();
        let mut found = Givers::Many(BTreeMap::new());
        found.recover(&givers.positions()).unwrap();
        assert_eq!(found, Givers::Many(numbers(&[("a", 8), ("b", u64::MAX)])));
    }

    #[test]
    fn h26_a_number_waits_for_the_block_before_it_and_one_that_failed_is_new_again() {
        let (first, second) = (Arc::new(Ticket::default()), Arc::new(Ticket::default()));
        let mut sequences = Sequences::default();
        assert!(matches!(sequences.look("a", 1, None), Ok(Push::New)));
        sequences.add("a", 1, first.clone());
        assert!(matches!(sequences.look("a", 1, Some(&first)), Ok(Push::UnderWay(_))));
        assert!(matches!(sequences.look("a", 2, Some(&first)), Ok(Push::New)), "one block, one fate");
        assert!(matches!(sequences.look("a", 2, Some(&second)), Ok(Push::After(_))));
        assert!(matches!(sequences.look("b", 2, Some(&second)), Ok(Push::New)));
        sequences.are_lost(&numbers(&[("a", 1)]));
        assert!(matches!(sequences.look("a", 1, Some(&second)), Ok(Push::New)));
        sequences.add("a", 1, second);
        sequences.are_logged(numbers(&[("a", 1)]));
        assert!(matches!(sequences.look("a", 1, None), Ok(Push::Logged)));
        assert!(matches!(sequences.look("a", 2, None), Ok(Push::New)));
    }

    #[test]
    fn names_and_numbers_of_producers_have_limits() {
        let mut sequences = Sequences::default();
        assert!(sequences.look("", 1, None).is_err());
        assert!(sequences.look(&"x".repeat(201), 1, None).is_err());
        sequences.are_logged((0..MAX_PRODUCERS).map(|n| (n.to_string(), 1)).collect());
        assert!(sequences.look("7", 2, None).is_ok());
        assert!(sequences.look("one more", 1, None).is_err());
    }
}
