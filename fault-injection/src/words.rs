//! Lines of words from a small vocabulary, always the same for a seed.

use crate::Dice;

/// An endless text.
#[derive(Debug)]
pub struct Words {
    dice: Dice,
    line: u64,
}

impl Words {
    /// The text of this seed.
    pub fn new(seed: u64) -> Self {
        Words { dice: Dice::new(seed), line: 0 }
    }

    /// The next lines: one to eight words each, common ones and rare ones.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    fn line(&mut self) -> String {
        self.line += 1;
        let words = 1 + self.dice.below(8);
        let mut line: Vec<String> = (0..words)
            .map(|_| match self.dice.below(4) {
                0 => format!("rare{}", self.dice.below(300)),
                _ => format!("word{}", self.dice.below(12)),
            })
            .collect();
        // One word of each line is in no other: a line lost or doubled cannot hide.
        line.push(format!("line{}", self.line));
        line.join(" ")
    }
}
