//! The graph of a pipeline while it is described, and what the engine gets of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use super::{AnyOperator, AnySource, Fingerprint, Output};
use crate::batch::{BatchContext, Identities};
use crate::error::{Error, Result};
use crate::exec::Accumulator;
use crate::sink::{IntoSink, Sink};

/// The most accumulators of a pipeline.
const MAX_ACCUMULATORS: usize = 1000;

/// Where a pipeline is described. Given to the function that `open` calls, on every start: closures are never stored.
///
/// The lifetime is its brand: streams of two graphs do not mix, and none leaves its function. Nor does the graph, so that no input and no
/// output can be added to a context that was opened (case J11):
///
/// ```compile_fail
/// use millpond_core::{StreamingContext, source::{Queue, QueueSource}};
/// let queue = Queue::<u64>::new();
/// let mut kept = None;
/// let context = StreamingContext::builder("late").open(|graph| {
///     graph.source("numbers", QueueSource::one_at_a_time(&queue)).print(10);
///     kept = Some(graph.clone());
///     Ok(())
/// });
/// let running = context.unwrap().start().unwrap();
/// kept.unwrap().source("more", QueueSource::one_at_a_time(&queue)).print(10);
/// ```
#[derive(Clone)]
pub struct Graph<'g> {
    described: Rc<Described>,
    brand: PhantomData<fn(&'g ()) -> &'g ()>,
}

struct Described {
    parts: RefCell<GraphParts>,
    errors: RefCell<Vec<String>>,
    memos: Cell<usize>,
    /// For each source: the memo of its refused records, if the program reads them.
    refused: RefCell<Vec<Arc<OnceLock<usize>>>>,
    replace: Replace,
    /// The batch interval: the slide of every stream that has no other.
    interval_ms: u64,
    /// The slide of what is named, in milliseconds.
    slides: RefCell<HashMap<Arc<str>, u64>>,
    /// The data sets that were read, with what tells their content (hard case H17).
    data_sets: Identities,
}

/// What stands in for a source.
pub(crate) type ReplaceSource = Box<dyn Fn(Box<dyn AnySource>) -> Box<dyn AnySource> + Send>;

/// What stands in for the sink of a name.
pub(crate) type ReplaceSink = Box<dyn Fn(&str, Box<dyn Sink>) -> Box<dyn Sink> + Send>;

/// How a test replaces sources and sinks; does nothing in a service.
#[derive(Default)]
pub(crate) struct Replace {
    pub(crate) source: Option<ReplaceSource>,
    pub(crate) sink: Option<ReplaceSink>,
    /// Sinks get the values before the encoder too.
    pub(crate) keep_values: bool,
}

/// What the engine gets of a graph.
#[derive(Default)]
pub(crate) struct GraphParts {
    pub(crate) sources: Vec<Box<dyn AnySource>>,
    pub(crate) operators: Vec<Arc<dyn AnyOperator>>,
    pub(crate) sinks: Vec<SinkEntry>,
    /// In the order of registration.
    pub(crate) outputs: Vec<Box<dyn Output>>,
    /// What windows do in each batch after the outputs, whether those have asked for them or not: each window before those it stands on.
    pub(crate) upkeep: Vec<Box<dyn Output>>,
    /// The windows by name: they stand on the batch interval.
    pub(crate) windows: Vec<Arc<str>>,
    pub(crate) accumulators: Vec<Accumulator>,
    pub(crate) fingerprint: Fingerprint,
    /// Whether some operator has to be called for every batch, also of a stretch without input.
    pub(crate) needs_every_batch: bool,
    /// The shortest checkpoint interval that a stream asks for.
    pub(crate) checkpoint_interval: Option<Duration>,
}

/// A sink of the graph.
pub(crate) struct SinkEntry {
    pub(crate) name: Arc<str>,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) at_least_once: bool,
}

impl Graph<'_> {
    pub(crate) fn new(replace: Replace, interval: Duration) -> Self {
        let described = Described {
            parts: RefCell::default(),
            errors: RefCell::default(),
            memos: Cell::new(0),
            refused: RefCell::default(),
            replace,
            interval_ms: interval.as_millis() as u64,
            slides: RefCell::default(),
            data_sets: Identities::default(),
        };
        Graph { described: Rc::new(described), brand: PhantomData }
    }

    /// The description is complete: the parts, or everything that is wrong with it.
    pub(crate) fn finish(self) -> Result<GraphParts> {
        let errors = self.described.errors.take();
        if !errors.is_empty() {
            return Err(Error::configuration(errors.join("; ")));
        }
        let mut parts = self.described.parts.take();
        for (name, content) in self.described.data_sets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            parts.fingerprint.0.insert(name, content);
        }
        if parts.outputs.is_empty() {
            return Err(Error::configuration(
                "no output operations registered: a stream is computed only where it ends in a sink, for_each_rdd or print",
            ));
        }
        Ok(parts)
    }

    /// Data sets for this pipeline: [`Rdd`](crate::Rdd)s of files and collections, to be joined with its batches.
    ///
    /// What is read here is read again at every start. A hash of its content stands in the checkpoint: where it has changed while
    /// batches have to be replayed, the start is refused and names the data set, since the replay would give other output.
    ///
    /// ```
    /// # use millpond_core::{StreamingContext, source::{Queue, QueueSource}, sink::FileSink};
    /// # fn main() -> millpond_core::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (users, output, pond) = (place.path().join("users.csv"), place.path().join("out"), place.path().join("pond"));
    /// # std::fs::write(&users, "1,Ada\n2,Brook\n").unwrap();
    /// # let queue = Queue::<u64>::new();
    /// # let clicks = QueueSource::one_at_a_time(&queue).replayable();
    /// let context = StreamingContext::builder("clicks").directory(pond).open(|graph| {
    ///     let users = graph.batch().text_file(&users)?;
    ///     let users = users
    ///         .flat_map(|line| line.split_once(',').and_then(|(id, name)| Some((id.parse::<u64>().ok()?, name.to_owned()))))
    ///         .cache();
    ///     graph
    ///         .source("clicks", clicks)
    ///         .map(|user| (user, ()))
    ///         .transform(move |clicks, _at| clicks.join(&users))
    ///         .sink_value("names", FileSink::text(&output), |(_, (_, name))| name.clone());
    ///     Ok(())
    /// })?;
    /// # drop(context);
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> BatchContext {
        BatchContext::of_graph(self.described.data_sets.clone())
    }

    /// Notes something wrong with the description; opening the context then fails.
    pub(crate) fn fail(&self, message: String) {
        self.described.errors.borrow_mut().push(message);
    }

    pub(crate) fn next_memo(&self) -> usize {
        self.described.memos.replace(self.described.memos.get() + 1)
    }

    /// The slide of a stream that comes from the named parts `upstream`. Where theirs differ the description is wrong:
    /// there is no batch time at which all of them have something, or another one.
    pub(crate) fn slide_ms_of(&self, label: &str, upstream: &[Arc<str>]) -> u64 {
        let slides = self.described.slides.borrow();
        let slide = |name: &Arc<str>| slides.get(name).copied().unwrap_or(self.described.interval_ms);
        let Some(first) = upstream.first() else { return self.described.interval_ms };
        if let Some(other) = upstream.iter().find(|name| slide(name) != slide(first)) {
            let shown = |name| format!("`{name}` has a slide of {:?}", Duration::from_millis(slide(name)));
            self.fail(format!(
                "`{label}` brings streams of different slides together: {}, {}. Give them the same, with a window where one has none",
                shown(first),
                shown(other)
            ));
        }
        slide(first)
    }

    /// Says that the stream of this name has a slide of its own.
    pub(crate) fn set_slide_ms(&self, name: &Arc<str>, slide_ms: u64) {
        self.described.slides.borrow_mut().insert(name.clone(), slide_ms);
    }

    /// Registers a name with what stands behind it.
    pub(crate) fn name(&self, name: &str, kind: &str, parameters: &str, upstream: &[Arc<str>]) -> Arc<str> {
        let slide_ms = self.slide_ms_of(name, upstream);
        let problem = match name.len() {
            0 => Some("a name is empty".to_owned()),
            1..=100 if !name.contains(|c: char| c.is_control() || c == '/' || c == '`') => None,
            1..=100 => Some(format!("the name {name:?} holds a slash, a backtick or a control character")),
            length => Some(format!("the name {name:?} of a {kind} has {length} bytes, the limit is 100")),
        };
        if let Some(problem) = problem {
            self.fail(problem);
        }
        let mut described = kind.to_owned();
        if !parameters.is_empty() {
            described += &format!(" {parameters}");
        }
        if !upstream.is_empty() {
            described += &format!(" of {}", upstream.join(", "));
        }
        let mut parts = self.described.parts.borrow_mut();
        if let Some(other) = parts.fingerprint.0.insert(name.to_owned(), described) {
            self.fail(format!(
                "two parts are named `{name}`: a {kind} and {other}. Names must differ: they are keys of the checkpoint"
            ));
        }
        let name: Arc<str> = name.into();
        self.set_slide_ms(&name, slide_ms);
        name
    }

    /// Adds a parameter to the description of an operator, after its kind.
    pub(crate) fn add_parameter(&self, name: &str, kind: &str, parameter: &str) {
        let mut parts = self.described.parts.borrow_mut();
        if let Some(described) = parts.fingerprint.0.get_mut(name) {
            *described = described.replacen(kind, &format!("{kind} {parameter}"), 1);
        }
    }

    pub(crate) fn name_source(&self, name: &str, kind: &str, identity: &str) -> Arc<str> {
        self.name(name, &format!("{kind} source"), identity, &[])
    }

    /// Adds a source; returns its number and where the memo of its refused records will stand.
    pub(crate) fn add_source(&self, source: Box<dyn AnySource>) -> (usize, Arc<OnceLock<usize>>) {
        let source = match &self.described.replace.source {
            Some(replace) => replace(source),
            None => source,
        };
        let mut parts = self.described.parts.borrow_mut();
        parts.sources.push(source);
        let refused = Arc::new(OnceLock::new());
        self.described.refused.borrow_mut().push(refused.clone());
        (parts.sources.len() - 1, refused)
    }

    /// The memo for the refused records of a source; `None` if they are split off already.
    pub(crate) fn split_refused(&self, source: usize) -> Option<usize> {
        let memo = self.next_memo();
        self.described.refused.borrow().get(source)?.set(memo).ok()?;
        Some(memo)
    }

    /// A named sum that functions of this pipeline add to: counted exactly once a committed batch, kept over restarts. Move clones of it
    /// into the functions, and read it with [`value`](Accumulator::value) or
    /// [`Running::accumulators`](crate::Running::accumulators).
    ///
    /// ```
    /// # use millpond_core::{StreamingContext, sink::FileSink, source::{Queue, QueueSource}};
    /// # fn main() -> millpond_core::Result<()> {
    /// # let place = tempfile::tempdir().unwrap();
    /// # let (pond, output) = (place.path().join("pond"), place.path().join("out"));
    /// # let queue = Queue::new();
    /// # queue.push(vec!["a".to_owned(), "".into(), "b".into()]);
    /// let (context, blank) = StreamingContext::builder("lines").directory(pond).open_with(|graph| {
    ///     let blank = graph.accumulator("blank-lines");
    ///     let counted = blank.clone();
    ///     let lines = graph.source("lines", QueueSource::one_at_a_time(&queue).replayable());
    ///     let lines = lines.filter(move |line| {
    ///         counted.add(i64::from(line.is_empty()));
    ///         !line.is_empty()
    ///     });
    ///     lines.sink_text("out", FileSink::text(&output));
    ///     Ok(blank)
    /// })?;
    /// context.start()?.stop_gracefully()?;
    /// assert_eq!(blank.value(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn accumulator(&self, name: &str) -> Accumulator {
        let accumulator = Accumulator::new(name.into());
        let mut parts = self.described.parts.borrow_mut();
        if name.is_empty() || name.len() > 100 {
            self.fail(format!("the name {name:?} of an accumulator: it must have 1 to 100 bytes"));
        }
        if parts.accumulators.iter().any(|other| **other.name() == *name) {
            self.fail(format!("two accumulators are named `{name}`: clone the first one to add to it in two places"));
        }
        if parts.accumulators.len() == MAX_ACCUMULATORS {
            self.fail(format!("`{name}` is one accumulator more than {MAX_ACCUMULATORS}"));
        } else {
            parts.accumulators.push(accumulator.clone());
        }
        accumulator
    }

    pub(crate) fn add_operator(&self, operator: Arc<dyn AnyOperator>) {
        self.described.parts.borrow_mut().operators.push(operator);
    }

    pub(crate) fn needs_every_batch(&self) {
        self.described.parts.borrow_mut().needs_every_batch = true;
    }

    /// A stream asks for checkpoints this often.
    pub(crate) fn checkpoint_every(&self, interval: Duration) {
        let shortest = &mut self.described.parts.borrow_mut().checkpoint_interval;
        *shortest = Some(shortest.map_or(interval, |shorter| shorter.min(interval)));
    }

    /// Adds a sink; returns its name, its number and whether it wants the values before the encoder.
    pub(crate) fn add_sink(&self, name: &str, sink: impl IntoSink, upstream: &[Arc<str>]) -> (Arc<str>, usize, bool) {
        let name = self.name(name, "sink", "", upstream);
        let (sink, at_least_once) = sink.into_sink();
        let sink = match &self.described.replace.sink {
            Some(replace) => replace(&name, sink),
            None => sink,
        };
        let mut parts = self.described.parts.borrow_mut();
        parts.sinks.push(SinkEntry { name: name.clone(), sink, at_least_once });
        (name, parts.sinks.len() - 1, self.described.replace.keep_values)
    }

    /// Adds a window's share of each batch: see [`GraphParts::upkeep`].
    pub(crate) fn add_window(&self, name: &Arc<str>, upkeep: Box<dyn Output>) {
        let mut parts = self.described.parts.borrow_mut();
        parts.windows.push(name.clone());
        // Before those upstream of it: what it asks for itself has their panes taken in with it, and must not find them taken in already.
        parts.upkeep.insert(0, upkeep);
        parts.needs_every_batch = true;
    }

    pub(crate) fn add_output(&self, output: Box<dyn Output>) {
        self.described.parts.borrow_mut().outputs.push(output);
    }
}

impl fmt::Debug for Graph<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.described.parts.borrow().fingerprint.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_was_removed_changed_and_added() {
        let of = |parts: &[(&str, &str)]| {
            Fingerprint(parts.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect())
        };
        let was = of(&[("a", "kafka source"), ("b", "sink of a"), ("c", "sink of a")]);
        let is = of(&[("a", "kafka source"), ("b", "sink of d"), ("d", "queue source")]);
        let difference = is.difference(&was).join("\n");
        assert_eq!(
            difference,
            "`b` was sink of a, is now sink of d\n`c` (sink of a) was removed\n`d` (queue source) was added"
        );
        assert!(is.difference(&is).is_empty());
    }
}
