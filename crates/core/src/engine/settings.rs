//! The settings of a context: data, with defaults and limits.

use std::path::PathBuf;
use std::time::Duration;

use millpond_wal::{LogOptions, OnCorruption};

use crate::error::{Error, Result};
use crate::exec::Speculation;
use crate::rate::Backpressure;

/// What a builder collects.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) application: String,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) batch_interval: Duration,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) threads: Option<usize>,
    pub(crate) partitions: Option<usize>,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) waiting_limit_bytes: u64,
    pub(crate) task_attempts: u32,
    pub(crate) recovery_attempts: u32,
    pub(crate) retained_checkpoints: usize,
    pub(crate) max_missed_batches: u64,
    pub(crate) graceful_stop_timeout: Option<Duration>,
    pub(crate) log_segment_bytes: u64,
    pub(crate) keep_log_before_damage: bool,
    pub(crate) verify_in_background: bool,
    pub(crate) accept_changed_program: bool,
    pub(crate) removed: Vec<String>,
    pub(crate) savepoint: Option<PathBuf>,
    pub(crate) taken_over: Vec<String>,
    pub(crate) backpressure: Option<Backpressure>,
    pub(crate) speculation: Option<Speculation>,
    /// For simulations.
    pub(crate) database_in_memory: bool,
}

impl Settings {
    pub(crate) fn new(application: &str) -> Self {
        Settings {
            application: application.to_owned(),
            directory: None,
            batch_interval: Duration::from_secs(1),
            checkpoint_interval: None,
            threads: None,
            partitions: None,
            memory_limit_bytes: 512 << 20,
            waiting_limit_bytes: 512 << 20,
            task_attempts: 4,
            recovery_attempts: 3,
            retained_checkpoints: 10,
            max_missed_batches: 1_000_000,
            graceful_stop_timeout: None,
            log_segment_bytes: 64 << 20,
            keep_log_before_damage: false,
            verify_in_background: true,
            accept_changed_program: false,
            removed: Vec::new(),
            savepoint: None,
            taken_over: Vec::new(),
            backpressure: None,
            speculation: None,
            database_in_memory: false,
        }
    }

    pub(crate) fn interval_ms(&self) -> u64 {
        self.batch_interval.as_millis() as u64
    }

    /// Default: 10 s, rounded up to a multiple of the batch interval.
    pub(crate) fn checkpoint_interval_ms(&self) -> u64 {
        let interval = self.interval_ms();
        self.checkpoint_interval.map_or(10_000_u64.div_ceil(interval) * interval, |chosen| chosen.as_millis() as u64)
    }

    /// Default: 10 batch intervals, at least 10 s.
    pub(crate) fn graceful_stop_timeout(&self) -> Duration {
        self.graceful_stop_timeout.unwrap_or_else(|| (10 * self.batch_interval).max(Duration::from_secs(10)))
    }

    /// Small segments take small frames, and fewer zeros ahead.
    pub(crate) fn log_options(&self) -> LogOptions {
        let (segment_bytes, defaults) = (self.log_segment_bytes, LogOptions::default());
        let on_corruption = if self.keep_log_before_damage { OnCorruption::KeepBefore } else { OnCorruption::Refuse };
        LogOptions {
            on_corruption,
            segment_bytes,
            preallocate_bytes: defaults.preallocate_bytes.min(segment_bytes / 4),
            max_payload_bytes: u64::from(defaults.max_payload_bytes).min(segment_bytes / 2) as u32,
            ..defaults
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let check = |fine: bool, message: String| if fine { Ok(()) } else { Err(Error::configuration(message)) };
        let (interval, checkpoint) = (self.interval_ms(), self.batch_interval.as_nanos() % 1_000_000);
        check(
            interval > 0 && checkpoint == 0,
            format!(
                "the batch interval is {:?}: it must be a whole number of milliseconds, at least 1",
                self.batch_interval
            ),
        )?;
        let checkpoint = self.checkpoint_interval_ms();
        check(
            checkpoint >= interval && checkpoint.is_multiple_of(interval),
            format!(
                "the checkpoint interval of {checkpoint} ms must be a multiple of the batch interval of {interval} ms, and not below it"
            ),
        )?;
        let name = &self.application;
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        check(
            (1..=100).contains(&name.len()) && name.chars().all(fine),
            format!("the application id {name:?}: it must have 1 to 100 letters, digits, '.', '_' or '-'"),
        )?;
        check(self.threads != Some(0), "threads is 0, it must be at least 1".into())?;
        check(
            self.partitions.is_none_or(|n| (1..=1024).contains(&n)),
            format!("partitions is {:?}, it must be 1 to 1024", self.partitions),
        )?;
        self.speculation.map_or(Ok(()), |speculation| speculation.validate())?;
        check(self.task_attempts > 0, "task_attempts is 0, it must be at least 1".into())?;
        check(
            (64 << 10..=1 << 40).contains(&self.log_segment_bytes),
            format!("log_segment_bytes is {}, it must be 64 KiB to 1 TiB", self.log_segment_bytes),
        )?;
        check(self.retained_checkpoints > 0, "retained_checkpoints is 0, it must be at least 1".into())?;
        check(
            self.waiting_limit_bytes >= 1 << 20,
            format!("waiting_limit_bytes is {}, it must be at least 1 MiB", self.waiting_limit_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_takes_every_segment_size_that_the_settings_allow() {
        for bytes in [64 << 10, (64 << 10) + 1, 16 << 20, 64 << 20, 1 << 40] {
            let settings = Settings { log_segment_bytes: bytes, ..Settings::new("app") };
            assert!(settings.validate().is_ok());
            let checked = settings.log_options().validate();
            assert!(checked.is_ok(), "{bytes}: {checked:?}");
        }
        let small = Settings { log_segment_bytes: (64 << 10) - 1, ..Settings::new("app") };
        assert!(small.validate().is_err_and(|error| error.to_string().contains("log_segment_bytes")));
    }
}
