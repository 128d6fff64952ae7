//! Directories that are something else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Pond, millpond};

/// Both commands end with status 1 and say this.
#[track_caller]
fn refused(path: &Path, says: &str) {
    let shown = path.display().to_string();
    for command in ["inspect", "verify"] {
        millpond([command, &shown]).failed(1, &[&shown, says]);
    }
}

#[test]
fn what_is_no_directory_of_an_application_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    refused(&place.path().join("missing"), "there is no directory");
    let file = place.path().join("file");
    fs::write(&file, "text").unwrap();
    refused(&file, "is a file");
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&empty, "is not the directory of an application");
    let other = place.path().join("other");
    fs::create_dir_all(other.join("checkpoints")).unwrap();
    fs::write(other.join("checkpoints/model.bin"), "weights").unwrap();
    refused(&other, "none of Millpond's");
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let pond = Pond::killed();
    fs::write(pond.directory().join("checkpoints/FORMAT"), "millpond snapshots 2\n").unwrap();
    refused(&pond.directory(), "use a newer one");
}

#[test]
fn a_log_without_checkpoints_is_told() {
    let pond = Pond::killed();
    fs::remove_dir_all(pond.directory().join("checkpoints")).unwrap();
    refused(&pond.directory(), "holds a log but no checkpoints");
}

#[test]
fn a_directory_whose_process_died_while_it_was_made_is_told() {
    let place = tempfile::tempdir().unwrap();
    let checkpoints = place.path().join("checkpoints");
    for folder in ["files", "manifests", "bad"] {
        fs::create_dir_all(checkpoints.join(folder)).unwrap();
    }
    fs::write(checkpoints.join("FORMAT"), "millpond snapshots 1\n").unwrap();
    millpond(["inspect", &place.path().display().to_string()]).failed(1, &["The next start takes it for new"]);
}

#[test]
fn a_directory_that_may_not_be_read_is_told() {
    let place = tempfile::tempdir().unwrap();
    let locked = place.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything; there is nothing to be seen then.
    if fs::read_dir(&locked).is_err() {
        refused(&locked, "cannot look at");
    }
}
