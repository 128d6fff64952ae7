//! What a stream comes from: the named parts directly upstream, and the streams whose batches it is made of.
//!
//! How long those are kept goes upstream: what keeps its batches for some time needs those of its parents for as long, and a window for its
//! own length more (dstream-semantics, `remember`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a stream comes from.
#[derive(Clone, Default)]
pub(crate) struct Upstream {
    /// The named operators or sources: for the fingerprint.
    pub(super) names: Vec<Arc<str>>,
    parents: Vec<Arc<Kept>>,
    /// The length of the window that the stream is, if it is one.
    window_ms: u64,
}

impl Upstream {
    /// A source.
    pub(super) fn source(name: Arc<str>) -> Self {
        Upstream { names: vec![name], ..Upstream::default() }
    }

    /// A stream that is made of one other.
    pub(super) fn of(names: Vec<Arc<str>>, parent: Arc<Kept>) -> Self {
        Upstream { names, parents: vec![parent], window_ms: 0 }
    }

    /// One that is made of others too.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.names.extend(other.names);
        self.parents.extend(other.parents);
        self
    }

    /// It is a named operator on these.
    pub(super) fn operator(mut self, name: Arc<str>) -> Self {
        self.names = vec![name];
        self
    }

    /// It is a window of this length.
    pub(super) fn window(mut self, window_ms: u64) -> Self {
        self.window_ms = window_ms;
        self
    }

    /// How long the stream's own batches are kept: for its slide, if it is a window.
    pub(super) fn kept(self, slide_ms: u64) -> Arc<Kept> {
        let Upstream { parents, window_ms, .. } = self;
        let kept = Arc::new(Kept { ms: AtomicU64::new(0), window_ms, parents });
        if window_ms > 0 {
            kept.at_least_ms(slide_ms);
        }
        kept
    }
}

/// How long the batches of a stream have to be kept, if anybody keeps them.
pub(crate) struct Kept {
    ms: AtomicU64,
    window_ms: u64,
    parents: Vec<Arc<Kept>>,
}

impl Kept {
    /// They are needed for so long.
    pub(super) fn at_least(&self, duration: Duration) {
        self.at_least_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    fn at_least_ms(&self, ms: u64) {
        if self.ms.fetch_max(ms, Ordering::Relaxed) < ms {
            self.parents.iter().for_each(|parent| parent.at_least_ms(ms.saturating_add(self.window_ms)));
        }
    }

    /// The longest that was asked for.
    pub(super) fn duration(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::Relaxed))
    }
}
