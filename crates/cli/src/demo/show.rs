//! What the demo tells: a line for each life of the worker, and on a terminal a line that moves.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use millpond::Result;

use super::Folders;
use super::input::Input;
use super::life::Life;
use super::readback::Readback;
use super::schedule::Schedule;
use super::worker::{BATCH_MS, CHECKPOINT_EVERY};
use crate::human::{count, counted, duration};
use crate::output::print;

pub(crate) struct Show {
    /// On standard error; hidden where that is no terminal.
    bar: ProgressBar,
}

impl Show {
    pub(crate) fn new() -> Show {
        let style = ProgressStyle::with_template("  {bar:32} {human_pos} of {human_len} words counted  {msg}");
        let bar = ProgressBar::no_length();
        Show { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())) }
    }

    /// Prints lines above the moving one.
    fn say(&self, text: &str) -> Result<()> {
        self.bar.suspend(|| print(text))
    }

    pub(crate) fn begin(&self, input: &Input, schedule: &Schedule, folders: &Folders, kept: bool) -> Result<()> {
        let output = match kept {
            true => folders.output.display().to_string(),
            false => "a temporary directory (--keep DIR keeps it)".into(),
        };
        self.say(&format!(
            "\nA process counts words. It is killed with SIGKILL {}, at random moments, and started again each time.\n\n  \
             input   {}\n  output  files in {output}\n  worker  a batch every {BATCH_MS} ms, a checkpoint every {CHECKPOINT_EVERY} \
             batches\n  seed    {}\n\n  process    first batch after    batches    ended\n",
            counted(schedule.kills.len() as u64, "time", "times"),
            input.description,
            schedule.seed,
        ))
    }

    pub(crate) fn progress(&self, words: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(words);
    }

    /// A life of the worker has ended, the `index`th, counted from 0.
    pub(crate) fn life(&self, index: usize, kills: usize, life: &Life) -> Result<()> {
        let first = life.first_batch_after.map_or("-".into(), duration);
        if let Some(first) = life.first_batch_after.filter(|_| index > 0) {
            self.bar.set_message(format!("last recovery {}", duration(first)));
        }
        let ended = match (life.killed, life.first_batch_after) {
            (true, Some(_)) => format!("kill {} of {kills}, {} after its start", index + 1, duration(life.lasted)),
            (true, None) => format!(
                "kill {} of {kills}, {} after its start, before it had recovered",
                index + 1,
                duration(life.lasted)
            ),
            (false, _) => format!("done, {} after its start", duration(life.lasted)),
        };
        self.say(&format!("  {:>7}    {first:>17}    {:>7}    {ended}\n", index + 1, count(life.batches)))
    }

    pub(crate) fn stopped(&self) -> Result<()> {
        self.bar.finish_and_clear();
        print("\nStopped; nothing was compared.\n")
    }

    pub(crate) fn end(&self, lives: &[Life], counted_words: &Readback, differences: &[String]) -> Result<()> {
        self.bar.finish_and_clear();
        let kills = lives.iter().filter(|life| life.killed).count() as u64;
        let mut recoveries: Vec<Duration> = lives.iter().skip(1).filter_map(|life| life.first_batch_after).collect();
        recoveries.sort_unstable();
        let mut text = format!("\nKilled {}", counted(kills, "time", "times"));
        if let (Some(median), Some(slowest)) = (recoveries.get(recoveries.len() / 2), recoveries.last()) {
            let (median, slowest) = (duration(*median), duration(*slowest));
            text += &format!(
                ". From the start of a process to its first new batch it took {median} (median of {}), at most {slowest}",
                count(recoveries.len() as u64)
            );
        }
        text += &format!(
            ".\n{} in {} were counted; {} different ones.\n",
            counted(counted_words.words, "word", "words"),
            counted(counted_words.batches, "batch", "batches"),
            count(counted_words.different_words())
        );
        if differences.is_empty() {
            text += "Every count equals a straight count of the input, and so does every step on the way to it: \
                     nothing is missing, nothing was counted twice.\n";
        } else {
            text += "WRONG: this differs from a straight count of the input:\n";
            differences.iter().for_each(|line| text += &format!("  {line}\n"));
        }
        print(&text)
    }

    pub(crate) fn kept(&self, folders: &Folders) -> Result<()> {
        print(&format!(
            "\nIn {}: input/, output/ and the application's directory. Look into it:\n  millpond inspect {}\n",
            folders.root.display(),
            folders.pond.display()
        ))
    }
}
