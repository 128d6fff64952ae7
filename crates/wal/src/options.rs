//! The settings of a log, with their defaults and limits.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{DATA_START, frame_bytes};

/// What opening does when bytes that were safely on disk have changed or are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorruption {
    /// Fail, with the segment and the offset in the error. The default.
    #[default]
    Refuse,
    /// Keep every frame before the damage. The damaged segment stays as it is, later ones are renamed to `*.discarded`; what
    /// was given up stands in [`Log::recovery`](crate::Log::recovery). For an operator who was asked and said so.
    KeepBefore,
}

/// Settings of a [`Log`](crate::Log). All of them may differ from one opening to the next.
///
/// ```
/// use millpond_wal::LogOptions;
/// let options = LogOptions { segment_bytes: 32 << 20, ..LogOptions::default() };
/// options.validate().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The size at which a segment ends and the next begins, in bytes; default 64 MiB, at least 8 KiB, at most 1 TiB. Smaller
    /// segments free disk space sooner, larger ones make fewer files.
    pub segment_bytes: u64,
    /// How far zeros are written ahead of small appends at most, in bytes; default 4 MiB. A sync of bytes that
    /// have their place on disk already is much cheaper than one that makes the file longer.
    pub preallocate_bytes: u64,
    /// The largest payload of a frame, in bytes; default 16 MiB. It must fit into a segment.
    pub max_payload_bytes: u32,
    /// The most bytes that one sync covers; default 8 MiB. A single request larger than this is still written.
    pub group_bytes: u64,
    /// The most bytes that may wait in [`submit`](crate::Log::submit)'s queue; default 64 MiB.
    pub queue_bytes: u64,
    /// How long `submit` waits for room in the queue, and `close` for a write under way, before they fail with
    /// [`Busy`](ErrorKind::Busy); default 60 s.
    pub wait_limit: Duration,
    /// How many released segments are kept to be written again instead of deleted; default 2.
    pub recycled_segments: usize,
    /// What opening does with damage; default: refuse.
    pub on_corruption: OnCorruption,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            preallocate_bytes: 4 << 20,
            max_payload_bytes: 16 << 20,
            group_bytes: 8 << 20,
            queue_bytes: 64 << 20,
            wait_limit: Duration::from_secs(60),
            recycled_segments: 2,
            on_corruption: OnCorruption::Refuse,
        }
    }
}

impl LogOptions {
    /// Checks the settings against their limits and one another.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), with the setting's name, its value and its limit.
    pub fn validate(&self) -> Result<()> {
        let check = |fine: bool, message: String| match fine {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::InvalidInput, message)),
        };
        check(
            (2 * DATA_START..=1 << 40).contains(&self.segment_bytes),
            format!("segment_bytes is {}, it must be 8 KiB to 1 TiB", self.segment_bytes),
        )?;
        check(
            (4096..=self.segment_bytes).contains(&self.preallocate_bytes),
            format!(
                "preallocate_bytes is {}, it must be 4096 to segment_bytes ({})",
                self.preallocate_bytes, self.segment_bytes
            ),
        )?;
        check(
            self.max_payload_bytes > 0 && frame_bytes(self.max_payload_bytes as usize) <= self.capacity(),
            format!(
                "max_payload_bytes is {}, it must be at least 1 and fit with its header into a segment ({} bytes)",
                self.max_payload_bytes,
                self.capacity()
            ),
        )?;
        check(self.group_bytes > 0, "group_bytes is 0, it must be at least 1".into())?;
        check(
            self.queue_bytes >= u64::from(self.max_payload_bytes),
            format!(
                "queue_bytes is {}, it must be at least max_payload_bytes ({})",
                self.queue_bytes, self.max_payload_bytes
            ),
        )
    }

    /// Bytes of frames that fit into one segment.
    pub(crate) fn capacity(&self) -> u64 {
        self.segment_bytes - DATA_START
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        LogOptions::default().validate().unwrap();
    }

    #[test]
    fn a_setting_out_of_bounds_is_refused_by_name() {
        type Change = fn(&mut LogOptions);
        let cases: [(&str, Change); 6] = [
            ("segment_bytes", |o| o.segment_bytes = 4096),
            ("preallocate_bytes", |o| o.preallocate_bytes = 0),
            ("preallocate_bytes", |o| o.preallocate_bytes = o.segment_bytes + 1),
            ("max_payload_bytes", |o| o.max_payload_bytes = 64 << 20),
            ("group_bytes", |o| o.group_bytes = 0),
            ("queue_bytes", |o| o.queue_bytes = 1),
        ];
        for (name, change) in cases {
            let mut options = LogOptions::default();
            change(&mut options);
            let error = options.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
