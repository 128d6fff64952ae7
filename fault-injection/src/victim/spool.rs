//! A reliable receiver: the lines of a file that only grows, a few at a time, each time with its own position. Like a server whose queue
//! they come from, it never gives again what it was told is durable.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond::source::{Receiver, ReceiverHandle};

/// Lines that are stored together.
const GROUP: usize = 3;

/// How often it looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Receives the lines of one file.
pub(super) struct Spool {
    path: PathBuf,
}

impl Spool {
    pub(super) fn of(path: impl AsRef<Path>) -> Self {
        Spool { path: path.as_ref().to_owned() }
    }
}

impl Receiver for Spool {
    type Item = String;

    fn on_start(&mut self, handle: ReceiverHandle<String>) {
        let path = self.path.clone();
        std::thread::spawn(move || {
            if let Err(error) = receive(&path, &handle) {
                handle.restart(error);
            }
        });
    }

    fn on_stop(&mut self) {}
}

fn receive(path: &Path, handle: &ReceiverHandle<String>) -> Result<(), Box<dyn std::error::Error>> {
    let position = handle.last_position().and_then(|bytes| bytes.try_into().ok());
    // Beside the spool, where neither a crash nor a power failure of the application takes anything.
    let noted = path.with_extension("acknowledged");
    let acknowledged = std::fs::read(&noted).ok().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mut position = position.map_or(0, u64::from_le_bytes).max(acknowledged);
    let mut file = File::open(path)?;
    while !handle.is_stopped() {
        let mut text = String::new();
        file.seek(SeekFrom::Start(position))?;
        file.read_to_string(&mut text)?;
        // The last line may still be being written.
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        for group in lines.chunks(GROUP) {
            let records: Vec<String> = group.iter().map(|line| line.trim_end().to_owned()).collect();
            position += group.iter().map(|line| line.len() as u64).sum::<u64>();
            handle.store_group_at(&records, &position.to_le_bytes())?;
            let aside = path.with_extension("acknowledged.new");
            std::fs::write(&aside, position.to_le_bytes())?;
            std::fs::rename(&aside, &noted)?;
        }
        if lines.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}
