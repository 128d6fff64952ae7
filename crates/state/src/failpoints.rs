//! The named points at which tests stop or kill the process (feature `failpoints`).

/// After changes have been encoded and marked clean.
pub const STATE_FROZEN: &str = "state-frozen";
/// After frozen changes have reached the database.
pub const STATE_WRITTEN: &str = "state-written";
/// After a checkpoint's files have been hard-linked, before any is in the snapshot store.
pub const CHECKPOINT_LINKED: &str = "checkpoint-linked";
/// After a manifest has been written aside and synced, before it is renamed.
pub const MANIFEST_WRITTEN: &str = "manifest-written";
/// After a manifest has been renamed, before its directory is synced.
pub const MANIFEST_RENAMED: &str = "manifest-renamed";
/// After the manifest of an old snapshot has been deleted, before its files are.
pub const CHECKPOINT_DELETED: &str = "checkpoint-deleted";

/// All of them.
pub const ALL: [&str; 6] =
    [STATE_FROZEN, STATE_WRITTEN, CHECKPOINT_LINKED, MANIFEST_WRITTEN, MANIFEST_RENAMED, CHECKPOINT_DELETED];
