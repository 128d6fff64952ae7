//! `millpond verify DIR`.

use std::path::Path;
use std::process::ExitCode;

use millpond::Result;
use millpond::inspect::{Verification, verify};

use crate::human::{counted, size};
use crate::output::print;

pub(crate) fn run(directory: &Path) -> Result<ExitCode> {
    let found = verify(directory)?;
    print(&text(directory, &found))?;
    Ok(if found.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(directory: &Path, found: &Verification) -> String {
    let mut text = format!(
        "checkpoints  {}, {} of {} as they were written\n",
        found.checkpoints,
        counted(found.files, "file", "files"),
        size(found.file_bytes),
    );
    text += &format!(
        "log          {}, {} of {} as they were written\n",
        counted(found.segments, "segment", "segments"),
        counted(found.entries, "entry", "entries"),
        size(found.entry_bytes),
    );
    for damage in &found.damage {
        text += &format!("damaged      {damage}\n");
    }
    text += &match found.damage.len() as u64 {
        0 => format!("{} is sound: every checksum fits.\n", directory.display()),
        places => format!(
            "{} is DAMAGED in {}. A damaged checkpoint is passed over by the next start if an older one is sound; for all else \
             restore the directory from a backup.\n",
            directory.display(),
            counted(places, "place", "places")
        ),
    };
    text
}
