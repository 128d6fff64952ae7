//! `millpond savepoint DIR TARGET`.

use std::path::Path;
use std::process::ExitCode;

use millpond::Result;
use millpond::inspect::savepoint;

use crate::human::{counted, size};
use crate::output::print;

pub(crate) fn run(directory: &Path, target: &Path) -> Result<ExitCode> {
    let copied = savepoint(directory, target)?;
    let files = counted(copied.files, "file", "files");
    print(&format!(
        "{}: checkpoint of batch {}, {files} of {}, every checksum compared. Start from it with .from_savepoint(path) and a directory \
         of its own.\n",
        target.display(),
        copied.batch,
        size(copied.bytes),
    ))?;
    Ok(ExitCode::SUCCESS)
}
