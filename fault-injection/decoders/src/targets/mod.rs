//! The targets.

mod codec;
mod cursors;
mod kafka;
mod log;
mod manifests;
mod object_files;
mod sources;

/// A decoder, or a few that belong together; the first byte of the input chooses among them.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Tries it on any bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "log-segments", run: log::segments },
    Target { name: "log-entries", run: log::entries },
    Target { name: "state-manifest", run: manifests::state },
    Target { name: "engine-manifest", run: manifests::engine },
    Target { name: "cursors", run: cursors::run },
    Target { name: "codec", run: codec::run },
    Target { name: "object-files", run: object_files::run },
    Target { name: "file-source", run: sources::files },
    Target { name: "receivers", run: sources::receivers },
    Target { name: "kafka", run: kafka::run },
];

/// The target of a name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    let known = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target `{name}`: {}", known()))
}
