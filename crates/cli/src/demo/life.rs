//! The lives of the worker: started, watched from outside, killed; at last allowed to finish.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millpond::inspect::committed_to_files;
use millpond::{BatchTime, Error, ErrorKind, Result};

use super::Folders;
use super::input::Input;
use super::readback::Readback;
use super::schedule::{Kill, Schedule};
use super::show::Show;
use super::worker::{Worker, last_words};

/// How often the output is looked at for a new batch.
const LOOK: Duration = Duration::from_millis(1);
/// How often it is read, for the progress line.
const READ: Duration = Duration::from_millis(50);
/// A worker that commits nothing for so long will not do it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run of the demo works with.
pub(crate) struct Demo<'a> {
    pub(crate) folders: &'a Folders,
    pub(crate) input: &'a Input,
    pub(crate) show: &'a Show,
    /// Somebody wants the demo to end.
    pub(crate) stop: &'a AtomicBool,
}

/// One life of the worker.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// From the start of the process to the first batch that it committed.
    pub(crate) first_batch_after: Option<Duration>,
    /// Batches that it committed with certainty: more may have been between two looks.
    pub(crate) batches: u64,
    pub(crate) lasted: Duration,
    pub(crate) killed: bool,
}

impl Demo<'_> {
    /// Lets the worker be killed as the schedule says, and then finish.
    pub(crate) fn run(&self, schedule: &Schedule) -> Result<Vec<Life>> {
        let mut readback = Readback::new(&self.folders.output);
        let mut lives = Vec::new();
        for kill in &schedule.kills {
            let mut watched = self.start(&mut readback)?;
            match *kill {
                Kill::AfterStart(delay) => while watched.since.elapsed() < delay && watched.goes_on(None)? {},
                Kill::AfterBatches(batches, delay) => {
                    // When a server has sent all too soon, there is nothing left to be waited for.
                    while watched.batches < u64::from(batches)
                        && !watched.is_all_counted()?
                        && watched.goes_on(Some(PATIENCE))?
                    {}
                    let reached = Instant::now();
                    while reached.elapsed() < delay && watched.goes_on(None)? {}
                }
            }
            let life = watched.kill()?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(lives);
            }
            self.show.life(lives.len(), schedule.kills.len(), &life)?;
            lives.push(life);
        }
        self.input.close();
        let mut watched = self.start(&mut readback)?;
        let mut silent_since = Instant::now();
        let mut words = 0;
        // All may be counted already: but this last process is to recover like the others. If words are lost, none come any more.
        while !(watched.is_all_counted()? && watched.first_batch_after.is_some()) && silent_since.elapsed() < PATIENCE {
            if !watched.goes_on(None)? {
                break;
            }
            if watched.readback.words != words {
                words = watched.readback.words;
                silent_since = Instant::now();
            }
        }
        let life = watched.finish()?;
        if !self.stop.load(Ordering::Relaxed) {
            self.show.life(lives.len(), schedule.kills.len(), &life)?;
        }
        lives.push(life);
        Ok(lives)
    }

    fn start<'d>(&'d self, readback: &'d mut Readback) -> Result<Watched<'d>> {
        let before = self.committed()?;
        Ok(Watched {
            demo: self,
            readback,
            since: Instant::now(),
            worker: Worker::start(self.folders, self.input.batch_bytes)?,
            newest: before,
            newest_at: Instant::now(),
            first_batch_after: None,
            batches: 0,
            read_at: Instant::now(),
        })
    }

    /// C, as the sink's cursor says.
    fn committed(&self) -> Result<Option<BatchTime>> {
        Ok(committed_to_files(&self.folders.output)?.map(|cursor| cursor.batch))
    }
}

/// A worker that is being watched.
struct Watched<'d> {
    demo: &'d Demo<'d>,
    readback: &'d mut Readback,
    worker: Worker,
    since: Instant,
    newest: Option<BatchTime>,
    newest_at: Instant,
    first_batch_after: Option<Duration>,
    batches: u64,
    read_at: Instant,
}

impl Watched<'_> {
    /// Waits a little and looks; false if the demo is to end. An error if the worker has ended by itself, or has committed
    /// nothing for so long.
    fn goes_on(&mut self, patience: Option<Duration>) -> Result<bool> {
        thread::sleep(LOOK);
        if self.demo.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.worker.check(self.demo.folders)?;
        let committed = self.demo.committed()?;
        // The first cursor of all comes before the first batch: it only says that the sink is there.
        if committed > self.newest && self.newest.is_some() {
            self.first_batch_after.get_or_insert_with(|| self.since.elapsed());
            self.batches += 1;
            self.newest_at = Instant::now();
        }
        self.newest = committed.max(self.newest);
        if self.read_at.elapsed() >= READ {
            self.read()?;
        }
        if patience.is_some_and(|patience| self.newest_at.elapsed() > patience) {
            return Err(Error::new(
                ErrorKind::Program,
                format!(
                    "the worker has committed nothing for {PATIENCE:?}; it said:\n{}",
                    last_words(self.demo.folders)
                ),
            ));
        }
        Ok(true)
    }

    /// All input is there, and its words are in the output.
    fn is_all_counted(&self) -> Result<bool> {
        Ok(self.demo.input.is_complete()? && self.readback.words >= self.demo.input.words())
    }

    fn read(&mut self) -> Result<()> {
        self.read_at = Instant::now();
        self.readback.advance()?;
        if self.readback.words >= self.demo.input.words() {
            // Nothing to do: nobody needs patience.
            self.newest_at = Instant::now();
        }
        self.demo.show.progress(self.readback.words, self.demo.input.words());
        Ok(())
    }

    fn life(&self, killed: bool) -> Life {
        Life { first_batch_after: self.first_batch_after, batches: self.batches, lasted: self.since.elapsed(), killed }
    }

    fn kill(self) -> Result<Life> {
        let life = self.life(true);
        self.worker.kill()?;
        Ok(life)
    }

    /// Stops the worker gracefully.
    fn finish(self) -> Result<Life> {
        let life = self.life(false);
        let (folders, asked) = (self.demo.folders, Instant::now());
        let status = self.worker.stop(|| {
            thread::sleep(LOOK);
            asked.elapsed() < PATIENCE
        })?;
        match status {
            Some(status) if status.success() => Ok(life),
            Some(status) => Err(Error::new(
                ErrorKind::Program,
                format!("the worker did not stop as it should ({status}); it said:\n{}", last_words(folders)),
            )),
            None => Err(Error::new(
                ErrorKind::Program,
                format!("the worker did not stop for {PATIENCE:?}; it said:\n{}", last_words(folders)),
            )),
        }
    }
}
