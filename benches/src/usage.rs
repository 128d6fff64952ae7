//! What a run takes of the machine: time, processor, memory, disk; of this process or of another.

use std::time::{Duration, Instant};

use crate::Failure;

/// What was taken between two moments.
#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// The largest size in memory during the run.
    pub(crate) max_resident_bytes: u64,
    /// Bytes given to the disk, compactions included.
    pub(crate) bytes_written: u64,
}

/// A moment to measure from.
pub(crate) struct Meter {
    process: String,
    started: Instant,
    cpu: Duration,
    written: u64,
}

impl Meter {
    /// Of this process. The largest size in memory counts from here on.
    pub(crate) fn start() -> Result<Meter, Failure> {
        // 5 resets the high-water mark of the resident set.
        std::fs::write("/proc/self/clear_refs", "5")?;
        Meter::of("self".into())
    }

    /// Of the process of this id; its largest size in memory is that since its start.
    pub(crate) fn of_process(id: u32) -> Result<Meter, Failure> {
        Meter::of(id.to_string())
    }

    fn of(process: String) -> Result<Meter, Failure> {
        let (cpu, written) = (cpu(&process)?, written(&process)?);
        Ok(Meter { process, started: Instant::now(), cpu, written })
    }

    pub(crate) fn used(&self) -> Result<Used, Failure> {
        Ok(Used {
            wall: self.started.elapsed(),
            cpu: cpu(&self.process)?.saturating_sub(self.cpu),
            max_resident_bytes: number(&self.process, "status", "VmHWM:")? * 1024,
            bytes_written: self.written()?,
        })
    }

    /// Bytes given to the disk so far.
    pub(crate) fn written(&self) -> Result<u64, Failure> {
        Ok(written(&self.process)?.saturating_sub(self.written))
    }
}

fn written(process: &str) -> Result<u64, Failure> {
    number(process, "io", "write_bytes:")
}

/// Time on processors, in the user's code and in the kernel's, of all threads.
fn cpu(process: &str) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which is in parentheses and may hold anything: fields 3 and on, of which 14 and 15 are wanted.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let ticks = |field: usize| -> Option<u64> { fields.as_ref()?.get(field - 3)?.parse().ok() };
    let (user, system) = ticks(14).zip(ticks(15)).ok_or("/proc: a stat line of another form")?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

/// The number after `name` in one of the process's files.
fn number(process: &str, file: &str, name: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next()).and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("/proc/{process}/{file} tells no {name}").into())
}
