//! A pipeline made of a seed: what it does as a graph, and the same once more in plain collections.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use millpond::{BatchTime, DStream};
use serde::{Deserialize, Serialize};

use crate::Dice;

/// What a pipeline does with lines of words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// From words to words, one after the other.
    pub narrow: Vec<Narrow>,
    /// From keys and values to keys and values.
    pub keyed: Keyed,
}

/// An operator that looks at one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Narrow {
    /// Words longer than this.
    LongerThan(usize),
    /// Words that end in an even digit.
    Even,
    /// Each word, and the same with a letter more.
    Twice,
    /// The word without its first letter.
    Tail,
    /// All words over again in other partitions.
    Repartition(usize),
}

/// An operator that brings the values of a key together. Windows are measured in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keyed {
    /// The sum within a batch: no state.
    SumOfBatch,
    /// The sum so far.
    SumSoFar,
    /// Each value with its number among those of its key.
    Numbered,
    /// The sum over a window, with an inverse function.
    SumOfWindow {
        /// How many batches it covers.
        length: u32,
        /// From one window to the next.
        slide: u32,
    },
    /// The largest over a window.
    MostOfWindow {
        /// How many batches it covers.
        length: u32,
        /// From one window to the next.
        slide: u32,
    },
}

impl Recipe {
    /// The pipeline of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut narrow = Vec::new();
        for _ in 0..dice.below(4) {
            narrow.push(match dice.below(5) {
                0 => Narrow::LongerThan(dice.below(6) as usize),
                1 => Narrow::Even,
                2 => Narrow::Twice,
                3 => Narrow::Tail,
                _ => Narrow::Repartition(1 + dice.below(4) as usize),
            });
        }
        let slide = 1 + dice.below(3) as u32;
        let length = slide * (1 + dice.below(4) as u32);
        let keyed = match dice.below(5) {
            0 => Keyed::SumOfBatch,
            1 => Keyed::SumSoFar,
            2 => Keyed::Numbered,
            3 => Keyed::SumOfWindow { length, slide },
            _ => Keyed::MostOfWindow { length, slide },
        };
        Recipe { narrow, keyed }
    }

    /// The window with an inverse function that is a victim of its own.
    pub fn window() -> Self {
        Recipe { narrow: vec![Narrow::LongerThan(2)], keyed: Keyed::SumOfWindow { length: 6, slide: 2 } }
    }

    /// The graph.
    pub(crate) fn graph<'g>(&self, lines: DStream<'g, String>, batch_ms: u64) -> DStream<'g, (String, i64)> {
        let words = lines.flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>());
        let words = self.narrow.iter().fold(words, |words, narrow| match *narrow {
            Narrow::LongerThan(length) => words.filter(move |word| word.len() > length),
            Narrow::Even => words.filter(|word| is_even(word)),
            Narrow::Twice => words.flat_map(|word| [format!("{word}x"), word]),
            Narrow::Tail => words.map(|word| tail(&word)),
            Narrow::Repartition(partitions) => words.repartition(partitions),
        });
        let pairs = words.map(|word| pair(&word));
        let batches = |count: u32| Duration::from_millis(batch_ms * u64::from(count));
        match self.keyed {
            Keyed::SumOfBatch => pairs.reduce_by_key(|a, b| a + b),
            Keyed::SumSoFar => {
                pairs.update_touched_by_key("sums", |new, sum: Option<i64>| Some(sum.unwrap_or(0) + new.sum()))
            }
            Keyed::Numbered => pairs.map_with_state("numbers", |_, key: &String, value: Option<i64>, state| {
                let n = state.get().copied().unwrap_or(0) + 1;
                state.update(n);
                value.map(|_| (key.clone(), n))
            }),
            Keyed::SumOfWindow { length, slide } => pairs.reduce_by_key_and_window_filtered(
                "window",
                |a, b| a + b,
                |a, b| a - b,
                |_, sum| *sum != 0,
                batches(length),
                batches(slide),
            ),
            Keyed::MostOfWindow { length, slide } => {
                pairs.reduce_by_key_and_window_without_inverse("window", i64::max, batches(length), batches(slide))
            }
        }
    }

    /// What must come out, by batch and sorted: of these lines by batch, up to the batch `last`.
    pub fn expected(&self, lines: &BTreeMap<u64, Vec<String>>, time: &Times) -> BTreeMap<u64, Vec<(String, i64)>> {
        let pairs: BTreeMap<u64, Vec<(String, i64)>> =
            lines.iter().map(|(batch, lines)| (*batch, self.pairs(lines))).collect();
        let mut out = BTreeMap::new();
        let mut state: HashMap<String, i64> = HashMap::new();
        match self.keyed {
            Keyed::SumOfBatch => {
                for (batch, pairs) in &pairs {
                    out.insert(*batch, fold([pairs], |a, b| a + b));
                }
            }
            Keyed::SumSoFar => {
                for (batch, pairs) in &pairs {
                    let mut sums = fold([pairs], |a, b| a + b);
                    for (key, sum) in &mut sums {
                        let so_far = state.entry(key.clone()).or_default();
                        *so_far += *sum;
                        *sum = *so_far;
                    }
                    out.insert(*batch, sums);
                }
            }
            Keyed::Numbered => {
                for (batch, pairs) in &pairs {
                    let number = |(key, _): &(String, i64)| {
                        let n = state.entry(key.clone()).or_default();
                        *n += 1;
                        (key.clone(), *n)
                    };
                    out.insert(*batch, pairs.iter().map(number).collect());
                }
            }
            Keyed::SumOfWindow { length, slide } => {
                for (at, panes) in windows(&pairs, time, length, slide) {
                    let mut sums = fold(panes, |a, b| a + b);
                    sums.retain(|(_, sum)| *sum != 0);
                    out.insert(at, sums);
                }
            }
            Keyed::MostOfWindow { length, slide } => {
                for (at, panes) in windows(&pairs, time, length, slide) {
                    out.insert(at, fold(panes, i64::max));
                }
            }
        }
        out.retain(|_, pairs| !pairs.is_empty());
        out.values_mut().for_each(|pairs| pairs.sort());
        out
    }

    fn pairs(&self, lines: &[String]) -> Vec<(String, i64)> {
        let mut words: Vec<String> =
            lines.iter().flat_map(|line| line.split_whitespace().map(String::from).collect::<Vec<_>>()).collect();
        for narrow in &self.narrow {
            words = match *narrow {
                Narrow::LongerThan(length) => words.into_iter().filter(|word| word.len() > length).collect(),
                Narrow::Even => words.into_iter().filter(|word| is_even(word)).collect(),
                Narrow::Twice => words.into_iter().flat_map(|word| [format!("{word}x"), word]).collect(),
                Narrow::Tail => words.iter().map(|word| tail(word)).collect(),
                Narrow::Repartition(_) => words,
            };
        }
        words.iter().map(|word| pair(word)).collect()
    }
}

/// When batches are.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The zero time of the directory, in ms.
    pub zero_ms: u64,
    /// The batch interval.
    pub batch_ms: u64,
    /// The last batch.
    pub last_ms: u64,
}

/// Keys and values of one batch.
type Pane = Vec<(String, i64)>;

/// The panes of each window that has one.
fn windows<'a>(pairs: &'a BTreeMap<u64, Pane>, time: &Times, length: u32, slide: u32) -> Vec<(u64, Vec<&'a Pane>)> {
    let (length, slide) = (time.batch_ms * u64::from(length), time.batch_ms * u64::from(slide));
    let mut found = Vec::new();
    let mut at = time.zero_ms + slide;
    while at <= time.last_ms {
        let panes: Vec<_> = pairs.range(at.saturating_sub(length) + 1..=at).map(|(_, pane)| pane).collect();
        if !panes.is_empty() {
            found.push((at, panes));
        }
        at += slide;
    }
    found
}

fn fold<'a>(
    panes: impl IntoIterator<Item = &'a Vec<(String, i64)>>,
    f: impl Fn(i64, i64) -> i64,
) -> Vec<(String, i64)> {
    let mut values: BTreeMap<&str, i64> = BTreeMap::new();
    for (key, value) in panes.into_iter().flatten() {
        values.entry(key).and_modify(|old| *old = f(*old, *value)).or_insert(*value);
    }
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn is_even(word: &str) -> bool {
    word.bytes().last().is_some_and(|last| last.is_ascii_digit() && (last - b'0').is_multiple_of(2))
}

fn tail(word: &str) -> String {
    word.chars().skip(1).collect()
}

/// A word as key and value: some words share a key and differ in value.
fn pair(word: &str) -> (String, i64) {
    let digit = word.bytes().last().filter(u8::is_ascii_digit).map_or(1, |digit| i64::from(digit - b'0') + 1);
    let key: String = word.chars().take(word.chars().count().saturating_sub(1).clamp(1, 5)).collect();
    (key, digit)
}

/// A batch header and a pair, as they go to a sink.
pub(crate) fn encode(
    (key, value): &(String, i64),
    at: BatchTime,
    out: &mut millpond::sink::Records,
) -> Result<(), std::convert::Infallible> {
    out.record().key(key).value(value.to_string()).header("batch", at.as_ms().to_string()).end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_a_window_covers_its_batches_and_no_other() {
        let recipe = Recipe { narrow: vec![], keyed: Keyed::SumOfWindow { length: 2, slide: 1 } };
        let lines = BTreeMap::from([(10, vec!["ab0".to_owned()]), (20, vec!["ab1 ab1".to_owned()])]);
        let time = Times { zero_ms: 0, batch_ms: 10, last_ms: 40 };
        let expected = recipe.expected(&lines, &time);
        let pair = |sum| vec![("ab".to_owned(), sum)];
        assert_eq!(expected, BTreeMap::from([(10, pair(1)), (20, pair(5)), (30, pair(4))]));
    }

    #[test]
    fn seeds_give_every_kind_of_pipeline() {
        let kinds: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| match Recipe::of(seed).keyed {
                Keyed::SumOfBatch => 0,
                Keyed::SumSoFar => 1,
                Keyed::Numbered => 2,
                Keyed::SumOfWindow { .. } => 3,
                Keyed::MostOfWindow { .. } => 4,
            })
            .collect();
        assert_eq!(kinds.len(), 5);
    }
}
