//! Sources without their types, as the engine drives them, and the streams they give.

use std::any::Any;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{DStream, Graph, Upstream};
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{Rdd, SourceRdd};
use crate::source::{
    FedRecord, Plan, PlanRequest, Pusher, RefusedRecord, Replay, Source, SourcePartition, SourceStart,
};
use crate::time::BatchTime;

/// What a source gives to a batch, without its type.
pub(crate) type Input = Arc<dyn Any + Send + Sync>;

/// The type behind an [`Input`].
type Partitions<T> = Vec<Arc<dyn SourcePartition<T>>>;

/// A source without its type.
pub(crate) trait AnySource: Send {
    fn name(&self) -> &Arc<str>;
    fn kind(&self) -> &'static str;
    fn replay(&self) -> Replay;
    fn start(&mut self, start: SourceStart) -> Result<()>;
    fn plan(&mut self, request: &PlanRequest) -> Result<Plan>;
    /// The planned records; `None` for a batch without input.
    fn read(&mut self, plan: Option<&Plan>) -> Result<Input>;
    fn release(&mut self, committed: BatchTime);
    fn stop_receiving(&mut self, limit: Duration) -> Result<()>;
    fn has_waiting(&self) -> bool;
    fn stop(&mut self);
    /// Records fed by a test, through the source's own decoder.
    fn feed(&self, records: Vec<FedRecord>) -> Result<Input>;
}

struct Typed<S: Source> {
    name: Arc<str>,
    source: S,
}

impl<S: Source> AnySource for Typed<S> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn kind(&self) -> &'static str {
        self.source.kind()
    }
    fn replay(&self) -> Replay {
        self.source.replay()
    }
    fn start(&mut self, start: SourceStart) -> Result<()> {
        self.source.start(start)
    }
    fn plan(&mut self, request: &PlanRequest) -> Result<Plan> {
        self.source.plan(request)
    }
    fn read(&mut self, plan: Option<&Plan>) -> Result<Input> {
        let partitions: Partitions<S::Item> = match plan {
            Some(plan) => self.source.read(plan)?,
            None => Vec::new(),
        };
        Ok(Arc::new(partitions))
    }
    fn release(&mut self, committed: BatchTime) {
        self.source.release(committed);
    }
    fn stop_receiving(&mut self, limit: Duration) -> Result<()> {
        self.source.stop_receiving(limit)
    }
    fn has_waiting(&self) -> bool {
        self.source.has_waiting()
    }
    fn stop(&mut self) {
        self.source.stop();
    }
    fn feed(&self, records: Vec<FedRecord>) -> Result<Input> {
        let partitions: Partitions<S::Item> = vec![self.source.feed(records)?];
        Ok(Arc::new(partitions))
    }
}

impl<'g> Graph<'g> {
    /// A stream of what a source receives. The name is the source's place in the checkpoint.
    ///
    /// Nothing is connected yet: a wrong address shows when the context is opened.
    pub fn source<S: Source>(&self, name: &str, source: S) -> DStream<'g, S::Item> {
        let name = self.name_source(name, source.kind(), &source.identity());
        let (number, refused) = self.add_source(Box::new(Typed { name: name.clone(), source }));
        let label = name.clone();
        let mut stream = DStream::new(self.clone(), name.clone(), Upstream::source(name), move |run| {
            let input = run.inputs[number].downcast_ref::<Partitions<S::Item>>().ok_or_else(|| {
                Error::new(ErrorKind::Restart, format!("source `{label}` was given input of another type"))
            })?;
            let refused = refused.get().map(|memo| run.once(*memo, || Ok(Arc::default()))).transpose()?;
            Ok(Rdd::new(run.env.clone(), SourceRdd { label: label.clone(), partitions: input.clone(), refused }))
        });
        stream.source = Some(number);
        stream
    }
}

impl<'g> Graph<'g> {
    /// A stream of what the program itself pushes: a push is ready when its record is in the log, and from then on counts
    /// exactly once, whatever dies. Hand the pusher out of the description with
    /// [`open_with`](crate::Builder::open_with).
    ///
    /// ```
    /// # use millpond_core::{StreamingContext, sink::FileSink};
    /// # fn main() -> millpond_core::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (pond, output) = (place.path().join("pond"), place.path().join("out"));
    /// let (context, pusher) = StreamingContext::builder("audit").directory(pond).open_with(|graph| {
    ///     let (pusher, events) = graph.channel::<String>("events");
    ///     events.sink_text("out", FileSink::text(&output));
    ///     Ok(pusher)
    /// })?;
    /// let running = context.start()?;
    /// pusher.push_blocking("logged in".into())?; // or `pusher.push(..).await`
    /// running.stop_gracefully()
    /// # }
    /// ```
    pub fn channel<T>(&self, name: &str) -> (Pusher<T>, DStream<'g, T>)
    where
        T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let (pusher, source) = crate::source::channel();
        (pusher, self.source(name, source))
    }
}

impl<'g, T: Send + 'static> DStream<'g, T> {
    /// The stream of a source, and the records that its decoder refused as a second stream: send that to a dead-letter
    /// topic, which then gets each of them exactly once. Without this a refused record stops the context, unless the
    /// source is told to skip it.
    ///
    /// Has to be called on what [`Graph::source`] returned: opening the context fails else.
    pub fn split_refused(self) -> (DStream<'g, T>, DStream<'g, RefusedRecord>) {
        let Some(refused) = self.source.and_then(|number| self.graph.split_refused(number)) else {
            self.graph.fail(format!(
                "split_refused() on `{}`: it has to be called once, on what graph.source() returned",
                self.label
            ));
            let none = DStream::new(self.graph.clone(), self.label.clone(), self.as_upstream(), |run| {
                Ok(Rdd::of_partitions(run.env.clone(), Vec::new()))
            });
            return (self, none);
        };
        // Both streams come out of one pass over the records, kept until both have been read.
        let node = self.node();
        let kept = self.graph.next_memo();
        let read = move |run: &Arc<super::BatchRun>| run.once(kept, || Ok(node.rdd(run)?.keep()));
        let read = Arc::new(read);
        let accepted = {
            let read = read.clone();
            DStream::new(self.graph.clone(), self.label.clone(), self.as_upstream(), move |run| {
                Ok(Rdd::kept(run.env.clone(), read(run)?))
            })
        };
        let label: Arc<str> = format!("{}.refused", self.label).into();
        let upstream = self.as_upstream();
        let refused = DStream::new(self.graph, label, upstream, move |run| {
            let kept = read(run)?;
            let refused: Arc<crate::rdd::Refused> = run.once(refused, || Ok(Arc::default()))?;
            Ok(Rdd::refused(run.env.clone(), kept, refused))
        });
        (accepted, refused)
    }
}

impl crate::rdd::Refused {
    /// The refused records in the order of the source's partitions.
    pub(crate) fn in_order(&self) -> Vec<RefusedRecord> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        partitions.sort_by_key(|(partition, _)| *partition);
        partitions.into_iter().flat_map(|(_, records)| records).collect()
    }
}
