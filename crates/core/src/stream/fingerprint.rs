//! What a checkpoint holds of a program's graph, so that a changed one is noticed.

use std::collections::BTreeMap;

/// The named parts of a graph with their kinds, parameters and what is upstream of them, by name. What a checkpoint
/// holds of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) BTreeMap<String, String>);

impl Fingerprint {
    /// What is different from `earlier`, a line each; empty if nothing is.
    pub(crate) fn difference(&self, earlier: &Fingerprint) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, was) in &earlier.0 {
            match self.0.get(name) {
                None => lines.push(format!("`{name}` ({was}) was removed")),
                Some(is) if is != was => lines.push(format!("`{name}` was {was}, is now {is}")),
                Some(_) => {}
            }
        }
        let added = self.0.iter().filter(|(name, _)| !earlier.0.contains_key(*name));
        lines.extend(added.map(|(name, is)| format!("`{name}` ({is}) was added")));
        lines
    }
}
