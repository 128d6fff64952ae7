//! What a program opens: the builder with its settings, and the context before it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::actor::Runtime;
use super::directory::Directory;
use super::driver::Message;
use super::manifest::Manifest;
use super::observe::Observer;
use super::running::Running;
use super::settings::Settings;
use super::simulated::Simulated;
use super::status::{ContextState, Status};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Speculation;
use crate::listen::{Bus, StreamingListener};
use crate::log::{BatchLog, LocalBatchLog};
use crate::rate::Backpressure;
use crate::simulation::Simulator;
use crate::sink::{Guarantee, refuse_at_least_once};
use crate::source::Replay;
use crate::stream::{Graph, GraphParts, Replace};
use crate::testing::TestHooks;
use crate::time::BatchTime;

/// Collects the settings of a context.
///
/// ```
/// use millpond_core::{StreamingContext, seconds, sink::FileSink, source::FileSource};
/// # fn main() -> millpond_core::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (input, output, pond) = (place.path().join("in"), place.path().join("out"), place.path().join("words.pond"));
/// # std::fs::create_dir(&input).unwrap();
/// let context = StreamingContext::builder("words").directory(pond).batch_interval(seconds(1)).open(|graph| {
///     graph
///         .source("lines", FileSource::directory(&input))
///         .flat_map(|line: String| line.split_whitespace().map(String::from).collect::<Vec<_>>())
///         .map(|word| (word, 1_u64))
///         .update_touched_by_key("counts", |ones, total| Some(total.unwrap_or(0) + ones.sum()))
///         .sink_key_value("counts-out", FileSink::text(&output), |(word, n)| (word.clone(), n.to_string()));
///     Ok(())
/// })?;
/// let running = context.start()?;
/// running.stop_gracefully()
/// # }
/// ```
#[must_use = "a builder does nothing before `open`"]
pub struct Builder {
    settings: Settings,
    clock: Option<Arc<dyn Clock>>,
    hooks: TestHooks,
    listeners: Vec<Box<dyn StreamingListener>>,
    runtime: Runtime,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl Builder {
    /// The directory that holds log, checkpoints and state; made if it is missing. One context has it at a time.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.directory = Some(directory.into());
        self
    }

    /// How often a batch is cut; whole milliseconds, default 1 s. Shorter means results sooner and more work per record.
    pub fn batch_interval(mut self, interval: Duration) -> Self {
        self.settings.batch_interval = interval;
        self
    }

    /// How often a checkpoint is written: a multiple of the batch interval; default 10 s rounded up to one. Shorter means
    /// less to replay after a crash.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.settings.checkpoint_interval = Some(interval);
        self
    }

    /// Threads that compute; default one a core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// Partitions of a shuffle, and tasks of a stateful operator: 1 to 1024, default 16. Fixed when the directory is created.
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.settings.partitions = Some(partitions);
        self
    }

    /// Bytes of decoded state kept in memory, all operators together; default 512 MiB. What is over stays on disk.
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.settings.memory_limit_bytes = bytes;
        self
    }

    /// Bytes of received records that wait for a batch, all sources together; default 512 MiB, at least 1 MiB. When it is
    /// reached sources wait.
    pub fn waiting_limit_bytes(mut self, bytes: u64) -> Self {
        self.settings.waiting_limit_bytes = bytes;
        self
    }

    /// How often a task is tried before its batch has failed for good; default 4.
    pub fn task_attempts(mut self, attempts: u32) -> Self {
        self.settings.task_attempts = attempts;
        self
    }

    /// Gives a task that runs far longer than the others of its stage a second attempt beside it; the first to end counts. Default: off.
    /// For stages without keyed state in their lineage: a task that changes state is never computed twice at a time.
    pub fn speculation(mut self, speculation: Speculation) -> Self {
        self.settings.speculation = Some(speculation);
        self
    }

    /// How often in a row the context recovers inside of the process, without a commit in between, before it stops; default 3.
    pub fn recovery_attempts(mut self, attempts: u32) -> Self {
        self.settings.recovery_attempts = attempts;
        self
    }

    /// Checkpoints kept; default 10. A restart goes back to an older one if the newest is damaged.
    pub fn retained_checkpoints(mut self, checkpoints: usize) -> Self {
        self.settings.retained_checkpoints = checkpoints;
        self
    }

    /// The size of a segment of the log in bytes; default 64 MiB, at least 64 KiB. Smaller ones give disk space back sooner; a
    /// block or a plan takes at most half of one, and never more than 16 MiB.
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.settings.log_segment_bytes = bytes;
        self
    }

    /// Says that what stands in a damaged log behind the damage may be given up. Without it a log with bytes that were safely on
    /// disk and have changed is refused, naming segment and offset. Received blocks behind the damage are lost; where a sink
    /// has committed a batch whose plan is lost, the start is refused all the same.
    pub fn keep_log_before_damage(mut self) -> Self {
        self.settings.keep_log_before_damage = true;
        self
    }

    /// The most batches missed while the process was down that are computed at its start; default 1,000,000. Above it `start`
    /// fails, where the pipeline computes each batch, also an empty one.
    pub fn max_missed_batches(mut self, batches: u64) -> Self {
        self.settings.max_missed_batches = batches;
        self
    }

    /// How long a graceful stop may take; default 10 batch intervals, at least 10 s.
    pub fn graceful_stop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.graceful_stop_timeout = Some(timeout);
        self
    }

    /// Whether every checksum of the checkpoint is read after a start, beside the batches; default yes.
    pub fn verify_in_background(mut self, verify: bool) -> Self {
        self.settings.verify_in_background = verify;
        self
    }

    /// Says that the program was changed on purpose although batches have to be replayed: state is computed by the new
    /// program, output that is committed stays as it is.
    pub fn accept_changed_program(mut self) -> Self {
        self.settings.accept_changed_program = true;
        self
    }

    /// Says that the stateful operator or sink of this name was removed from the program on purpose: its state is dropped.
    pub fn removed(mut self, name: impl Into<String>) -> Self {
        self.settings.removed.push(name.into());
        self
    }

    /// Starts a new directory from the savepoint at this path (`millpond savepoint`): with its state, at its positions in
    /// the sources. A directory that exists already goes on from what it holds.
    ///
    /// It is a new deployment, also under the same application id: sinks must have no cursor of this application yet, so give it
    /// an id or outputs of its own, or name the sinks with [`take_over_sink`](Builder::take_over_sink). What a receiver had logged
    /// after the savepoint's batch is not in it.
    pub fn from_savepoint(mut self, savepoint: impl Into<PathBuf>) -> Self {
        self.settings.savepoint = Some(savepoint.into());
        self
    }

    /// Says that the sink of this name may go back to the savepoint's batch, although another deployment has committed to it: what that
    /// one wrote after the savepoint is written once more. The other deployment can never commit to the sink again.
    pub fn take_over_sink(mut self, name: impl Into<String>) -> Self {
        self.settings.taken_over.push(name.into());
        self
    }

    /// Rate control: how much each input may bring follows how quickly batches are computed and committed. Default: off, and
    /// an input brings what its own maximum allows.
    pub fn backpressure(mut self, control: Backpressure) -> Self {
        self.settings.backpressure = Some(control);
        self
    }

    /// Adds a listener, which hears everything from the start on. See also [`Running::add_listener`].
    pub fn listener(mut self, listener: impl StreamingListener) -> Self {
        self.listeners.push(Box::new(listener));
        self
    }

    /// The clock; default the system's. For tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How a test replaces sources and sinks; see the testkit.
    pub fn test_hooks(mut self, hooks: TestHooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// See [`crate::simulation`].
    pub(crate) fn simulated(mut self, simulator: Arc<dyn Simulator>, database_in_memory: bool) -> Self {
        self.runtime = Runtime(Some(simulator));
        self.settings.database_in_memory = database_in_memory;
        self.settings.verify_in_background = false;
        self.threads(1)
    }

    /// Describes the pipeline, and opens the directory or creates it. `describe` runs once, now; it runs again at every start
    /// of the program, since functions are never stored.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration): settings, names, an output that cannot be kept exactly once, a directory that is in use or of another
    /// application. [`Restore`](ErrorKind::Restore): a damaged directory.
    pub fn open(self, describe: impl FnOnce(&Graph<'_>) -> Result<()>) -> Result<StreamingContext> {
        Ok(self.open_with(describe)?.0)
    }

    /// As [`open`](Builder::open); what `describe` returns comes out beside the context.
    pub fn open_with<R>(self, describe: impl FnOnce(&Graph<'_>) -> Result<R>) -> Result<(StreamingContext, R)> {
        let Builder { mut settings, clock, mut hooks, listeners, runtime } = self;
        settings.validate()?;
        let log = hooks.log.take();
        let graph = Graph::new(Replace::of(hooks), settings.batch_interval);
        let returned = describe(&graph)?;
        let parts = graph.finish()?;
        check_guarantees(&parts)?;
        let asked_ms = parts.checkpoint_interval.map(|interval| interval.as_millis() as u64);
        if asked_ms.is_some_and(|asked_ms| asked_ms < settings.checkpoint_interval_ms()) {
            settings.checkpoint_interval = parts.checkpoint_interval;
        }
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let zero = BatchTime::from_ms(clock.now_ms()).floor(settings.batch_interval);
        if settings.directory.is_none() {
            let keepers: Vec<String> = parts
                .operators
                .iter()
                .map(|operator| operator.name())
                .filter(|name| !name.contains('/'))
                .map(|name| format!("`{name}`"))
                .collect();
            let keepers =
                if keepers.is_empty() { "the log".to_owned() } else { format!("the state of {}", keepers.join(", ")) };
            return Err(Error::configuration(format!(
                "no directory set: {keepers} needs one. Call .directory(path) on the builder"
            )));
        }
        let (directory, manifest) = Directory::open(&settings, &runtime, zero)?;
        let log = log.unwrap_or_else(|| Arc::new(LocalBatchLog::new(&directory.log_path(), settings.log_options())));
        let status = Arc::new(Status::new());
        // A little more than the driver's own limit, whose error says more.
        status.update(|shown| shown.stop_limit = settings.graceful_stop_timeout() + Duration::from_millis(500));
        let bus = Arc::new(Bus::default());
        listeners.into_iter().try_for_each(|listener| bus.add(listener))?;
        let observer =
            Observer::new(bus.clone(), &parts.sources, settings.backpressure.as_ref(), settings.batch_interval)?;
        let context =
            StreamingContext { runtime, settings, parts, directory, manifest, log, clock, status, bus, observer };
        Ok((context, returned))
    }
}

/// Admission: what is asked for must be something the parts can keep.
fn check_guarantees(parts: &GraphParts) -> Result<()> {
    for entry in &parts.sinks {
        if entry.sink.guarantee() == Guarantee::AtLeastOnce && !entry.at_least_once {
            return Err(refuse_at_least_once(&entry.name));
        }
    }
    let exact = parts.sinks.iter().find(|entry| !entry.at_least_once);
    let forgetful = parts.sources.iter().find(|source| source.replay() == Replay::None);
    match (exact, forgetful) {
        (Some(sink), Some(source)) => Err(Error::configuration(format!(
            "source `{}` cannot hand its records out again after a crash, so sink `{}` cannot have them exactly once. Use a source that \
             can, or accept losses by name: at_least_once(sink)",
            source.name(),
            sink.name
        ))),
        _ => Ok(()),
    }
}

/// A context: a pipeline and its directory, opened and not started.
#[must_use = "a context does nothing before `start`"]
pub struct StreamingContext {
    pub(super) runtime: Runtime,
    pub(super) settings: Settings,
    pub(super) parts: GraphParts,
    pub(super) directory: Directory,
    pub(super) manifest: Manifest,
    pub(super) log: Arc<dyn BatchLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) status: Arc<Status>,
    pub(super) bus: Arc<Bus>,
    pub(super) observer: Observer,
}

impl std::fmt::Debug for StreamingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamingContext({}, {})", self.settings.application, self.directory.name())
    }
}

impl StreamingContext {
    /// Settings for the application of this id: 1 to 100 letters, digits, `.`, `_` or `-`. The id names the application to its
    /// sinks (as Kafka's `application.id`): it must not change from one start to the next.
    pub fn builder(application: &str) -> Builder {
        Builder {
            settings: Settings::new(application),
            clock: None,
            hooks: TestHooks::default(),
            listeners: Vec::new(),
            runtime: Runtime::default(),
        }
    }

    /// Recovers what an earlier process left, and goes live: batches run on threads of the library. Returns when the
    /// context is live; that includes waiting for a broker that is away.
    ///
    /// A context starts once: to start again, open the directory again.
    ///
    /// ```compile_fail
    /// # fn twice(context: millpond_core::StreamingContext) -> millpond_core::Result<()> {
    /// let running = context.start()?;
    /// running.stop()?;
    /// context.start()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Whatever keeps it from going live; directory and sinks are as they were before.
    pub fn start(self) -> Result<Running> {
        let running = self.spawn()?;
        let state = |shown: &super::status::Shown| match shown.state {
            ContextState::Initialized => None,
            ContextState::Active => Some(Ok(())),
            ContextState::Stopped => Some(shown.error().map_or(Ok(()), Err)),
        };
        running.status.wait(None, state).unwrap_or(Ok(()))?;
        Ok(running)
    }

    /// As [`start`](StreamingContext::start) without waiting for the recovery.
    pub(crate) fn spawn(self) -> Result<Running> {
        super::meters::describe();
        let (outbox, inbox) = unbounded();
        let running = Running {
            status: self.status.clone(),
            outbox: outbox.clone(),
            clock: self.clock.clone(),
            bus: self.bus.clone(),
            accumulators: self.parts.accumulators.clone().into(),
        };
        let wake = outbox.clone();
        self.clock.on_change(Box::new(move || drop(wake.send(Message::Wake))));
        let name = format!("{}-driver", self.settings.application);
        if let Some(simulator) = self.runtime.0.clone() {
            simulator.add(&name, Box::new(Simulated::Opened(Box::new(self), inbox, outbox)));
            return Ok(running);
        }
        let status = self.status.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // A panic in here is a mistake of ours: nobody may wait for ever because of it.
            let guard = StopOnPanic(status);
            if let Some(driver) = self.recover(inbox, outbox) {
                driver.run();
            }
            drop(guard);
        });
        thread.map_err(|error| Error::new(ErrorKind::Retry, "cannot start the context's thread").with_source(error))?;
        Ok(running)
    }

    /// Starts, and runs until SIGTERM or SIGINT, which stop it gracefully, or until it fails.
    ///
    /// # Errors
    /// What stopped it, other than a signal.
    pub fn run_until_signal(self) -> Result<()> {
        self.run_until_signal_with(|_| ())
    }

    /// As [`run_until_signal`](StreamingContext::run_until_signal); `ready` is called once, when the context is live and the positions of
    /// all input are durable: what is produced from then on cannot be missed.
    pub fn run_until_signal_with(self, ready: impl FnOnce(&Running)) -> Result<()> {
        let signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT]);
        let mut signals =
            signals.map_err(|error| Error::new(ErrorKind::Retry, "cannot listen for signals").with_source(error))?;
        let running = self.spawn()?;
        let handle = signals.handle();
        let stopper = running.clone();
        let listener = std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                stopper.ask_to_stop();
            }
        });
        let is_ready = running.status.wait(None, |shown| match shown.state {
            ContextState::Stopped => Some(false),
            _ => (shown.ready && shown.state == ContextState::Active || shown.stopping).then_some(shown.ready),
        });
        if is_ready == Some(true) {
            ready(&running);
        }
        let outcome = running.await_stop_or_abandon();
        handle.close();
        let _ = listener.join();
        outcome
    }
}

/// Marks the context as stopped if its driver panics.
struct StopOnPanic(Arc<Status>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.update(|shown| {
                shown.state = ContextState::Stopped;
                let text = "the engine panicked: a mistake in Millpond. The directory is as after a crash: start again, and report it";
                shown.failure = Some((ErrorKind::Restart, text.into()));
            });
        }
    }
}
