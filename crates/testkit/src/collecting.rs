//! A sink that collects what is committed to it, in memory: transactional, and it outlives the crash of the context.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millpond::sink::{Cursor, Guarantee, Records, Sink, SinkStart, SourcePositions};
use millpond::{BatchTime, Error, ErrorKind, Result};

/// What one batch committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// The batch.
    pub batch: BatchTime,
    /// The values before the encoder, as JSON, where the sink replaces one in a test.
    pub values: Vec<serde_json::Value>,
    /// The records after the encoder.
    pub records: Vec<CollectedRecord>,
}

/// A record as it was committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CollectedRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Where [`CollectingSink`]s commit to, by name. Clones share it: keep one to read, and across a crash.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    sinks: Arc<Mutex<BTreeMap<String, Place>>>,
}

#[derive(Debug, Default)]
struct Place {
    committed: Vec<Collected>,
    cursor: Option<Cursor>,
    /// Counts fences: a sink of an earlier incarnation is refused.
    epoch: u64,
    next_commit_fails: bool,
    /// What readers see in place of the cursor, until the next fence.
    shown: Option<Option<Cursor>>,
}

impl Collection {
    /// Nothing committed yet.
    pub fn new() -> Self {
        Collection::default()
    }

    /// A sink that commits here.
    pub fn sink(&self) -> CollectingSink {
        CollectingSink { collection: self.clone(), name: String::new(), epoch: 0, begun: None, staged: None }
    }

    /// What the sink of this name has committed, batch by batch, batches without output left out.
    pub fn committed(&self, name: &str) -> Vec<Collected> {
        self.lock().get(name).map_or_else(Vec::new, |place| place.committed.clone())
    }

    /// The committed cursor of the sink of this name.
    pub fn cursor(&self, name: &str) -> Option<Cursor> {
        self.lock().get(name)?.cursor.clone()
    }

    /// Puts the sink of this name back as if it had never committed: what an operator does who deletes a topic.
    pub fn lose(&self, name: &str) {
        self.lock().remove(name);
    }

    /// The next commit of the sink of this name fails, and commits nothing: as when a server goes away.
    pub fn fail_next_commit(&self, name: &str) {
        self.lock().entry(name.to_owned()).or_default().next_commit_fails = true;
    }

    /// Readers of the sink of this name see this cursor, until the sink is fenced: as with a broker that has decided a transaction and not
    /// yet written its markers.
    pub fn show_until_fenced(&self, name: &str, cursor: Option<Cursor>) {
        self.lock().entry(name.to_owned()).or_default().shown = Some(cursor);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transactional sink in memory.
#[derive(Debug)]
pub struct CollectingSink {
    collection: Collection,
    name: String,
    epoch: u64,
    begun: Option<Collected>,
    staged: Option<Cursor>,
}

impl CollectingSink {
    fn check_epoch(&self) -> Result<()> {
        match self.collection.lock().get(&self.name) {
            Some(place) if place.epoch != self.epoch => Err(Error::new(
                ErrorKind::Restore,
                format!("sink `{}` was fenced: a newer incarnation commits to the collection", self.name),
            )),
            _ => Ok(()),
        }
    }
}

impl Sink for CollectingSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Transactional
    }

    fn describe(&self) -> String {
        "a collection in memory".into()
    }

    fn peek(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.name.clone_from(&start.name);
        let shown = self.collection.lock().get(&start.name).and_then(|place| place.shown.clone());
        Ok(shown.unwrap_or_else(|| self.collection.cursor(&start.name)))
    }

    fn fence(&mut self, start: &SinkStart) -> Result<Option<Cursor>> {
        self.name.clone_from(&start.name);
        let mut sinks = self.collection.lock();
        let place = sinks.entry(start.name.clone()).or_default();
        place.epoch += 1;
        place.shown = None;
        self.epoch = place.epoch;
        (self.begun, self.staged) = (None, None);
        Ok(place.cursor.clone())
    }

    fn begin(&mut self, batch: BatchTime, _: &[SourcePositions]) -> Result<()> {
        self.check_epoch()?;
        self.begun = Some(Collected { batch, values: Vec::new(), records: Vec::new() });
        Ok(())
    }

    fn write(&mut self, records: Records) -> Result<()> {
        let begun = self.begun.as_mut().ok_or_else(|| Error::new(ErrorKind::Restart, "write comes after begin"))?;
        begun.values.extend_from_slice(records.values());
        begun.records.extend(records.iter().map(|record| CollectedRecord {
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        }));
        Ok(())
    }

    fn prepare(&mut self, cursor: &Cursor) -> Result<()> {
        self.staged = Some(cursor.clone());
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.check_epoch()?;
        let (Some(begun), Some(cursor)) = (self.begun.take(), self.staged.take()) else {
            return Err(Error::new(ErrorKind::Restart, "commit comes after begin and prepare"));
        };
        let mut sinks = self.collection.lock();
        let place = sinks.entry(self.name.clone()).or_default();
        if std::mem::take(&mut place.next_commit_fails) {
            return Err(Error::new(ErrorKind::Retry, "the commit fails, as the test wants it"));
        }
        if !begun.records.is_empty() {
            place.committed.push(begun);
        }
        place.cursor = Some(cursor);
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        (self.begun, self.staged) = (None, None);
        Ok(())
    }
}
