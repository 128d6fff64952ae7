//! A copy of the running machine: directory, log and all, that runs on beside the original.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond_core::ContextState;
use millpond_wal::fs::fault::FaultFileSystem;

use super::log::Acknowledged;
use super::world::{SINKS, World, snapshot_ms};

/// A directory with its log, and what was acknowledged in it.
pub(super) struct Home {
    pub(super) pond: PathBuf,
    pub(super) disk: FaultFileSystem,
    pub(super) acknowledged: Arc<Mutex<Acknowledged>>,
}

impl Home {
    /// What a copy of the running machine would have.
    fn image(&self, pond: PathBuf) -> std::io::Result<Home> {
        copy_directory(&self.pond, &pond)?;
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Home { pond, disk: self.disk.image(), acknowledged: Arc::new(Mutex::new(acknowledged)) })
    }

    pub(super) fn planned_ms(&self) -> u64 {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).planned_ms
    }
}

fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

impl World {
    pub(super) fn take_home(&mut self, home: Home) {
        self.home = home;
        // Its newest checkpoint is another.
        self.snapshot = (u64::MAX, None);
    }

    /// The machine is copied while the application runs, and both run on: the one that the other has shut out, or whose batches the
    /// other has committed, must stop, and readers must see nothing of it.
    pub(super) fn run_a_copy(&mut self) -> Result<(), String> {
        let Some((process, running)) = self.process.clone() else { return Ok(()) };
        if running.state() != ContextState::Active || self.other.is_some() {
            return Ok(());
        }
        self.outcome.starts += 1;
        self.outcome.faults += 1;
        let twin = self.outcome.starts as u32;
        let pond = self.directory.path().join(format!("pond-{twin}"));
        let home = self.home.image(pond).map_err(|error| format!("cannot copy the directory: {error}"))?;
        self.scheduler.note(|| format!("process {twin} starts from a copy of the directory of process {process}"));
        self.scheduler.begin_process(twin);
        let copied = self.open(&home).map_err(|error| format!("cannot open a copy: {error}"))?;
        for _ in 0..100 + self.scheduler.below(200) {
            match self.scheduler.below(20) {
                0 | 1 => self.feed(),
                2 => self.outside.turn(),
                _ => drop(self.scheduler.run_one(None)),
            }
            if let Some(finding) = self.scheduler.finding() {
                return Err(finding);
            }
            for (home, name) in [(&self.home, "the original"), (&home, "the copy")] {
                let Some(snapshot) = snapshot_ms(&home.pond) else { continue };
                for sink in SINKS {
                    let Some(cursor) = self.outside.cursor(sink) else { continue };
                    if snapshot > cursor.batch.as_ms() {
                        return Err(format!(
                            "S > C: {name} has a checkpoint of {snapshot} ms, sink `{sink}` {}",
                            cursor.batch
                        ));
                    }
                }
            }
        }
        let said = [&running, &copied].map(|one| {
            let error = one.await_termination_for(Duration::ZERO).err();
            format!("{:?} {}", one.state(), error.map_or(String::new(), |error| self.without_path(&error)))
        });
        self.scheduler.note(|| format!("original: {}; copy: {}", said[0], said[1]));
        // Nobody tells an operator which of the two is the right one.
        self.scheduler.kill(process);
        self.scheduler.kill(twin);
        self.scheduler.bury(None);
        self.process = None;
        if self.scheduler.one_in(2) {
            let original = std::mem::replace(&mut self.home, home);
            self.other = Some(original);
            self.snapshot = (u64::MAX, None);
        } else {
            self.other = Some(home);
        }
        Ok(())
    }
}
