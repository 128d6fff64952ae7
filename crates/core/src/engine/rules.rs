//! The rules of recovery: what the log, the checkpoint and the sinks say, and whether they belong together.
//!
//! Pure functions of what was read. Each refusal names both sides and the way out (design.md section 2; hard cases H2, H3, H12).

use crate::error::{Error, ErrorKind, Result};
use crate::log::BatchPlan;
use crate::sink::Cursor;
use crate::stream::Fingerprint;
use crate::time::BatchTime;

use super::manifest::Manifest;

/// What the directory says.
pub(crate) struct Stored<'a> {
    pub(crate) directory: &'a str,
    pub(crate) manifest: &'a Manifest,
    /// Plans after S, oldest first.
    pub(crate) plans: &'a [BatchPlan],
    /// Every run the checkpoint and the log know.
    pub(crate) runs: &'a [[u8; 16]],
}

impl Stored<'_> {
    /// S.
    fn snapshot(&self) -> BatchTime {
        self.manifest.batch
    }

    /// P.
    pub(crate) fn planned(&self) -> BatchTime {
        self.plans.last().map_or(self.snapshot(), |plan| plan.last)
    }

    /// The hash over all plans up to `batch`, if a plan ends there.
    fn plans_at(&self, batch: BatchTime) -> Option<u64> {
        if batch == self.snapshot() {
            return Some(self.manifest.plans);
        }
        self.plans.iter().find(|plan| plan.last == batch).map(|plan| plan.chain)
    }

    /// Whether a sink's cursor belongs to this directory, and to none that came after it (H2). For the cursor read
    /// before fencing and again for the one read after it.
    pub(crate) fn check_cursor(&self, sink: &str, cursor: &Cursor) -> Result<()> {
        let Stored { directory, manifest, .. } = self;
        let refuse = |message: String| Err(Error::new(ErrorKind::Restore, message));
        if cursor.deployment != manifest.deployment {
            return refuse(format!(
                "sink `{sink}` has committed batch {} for another directory than {directory}: application `{}` ran before in a \
                 directory that is not this one. Restore that directory, or start with a new application id",
                cursor.batch, manifest.application
            ));
        }
        if cursor.batch > self.planned() {
            return refuse(format!(
                "sink `{sink}` has committed batch {}, but the log in {directory} ends at {}. The directory is older than the \
                 sink's output (restored from a backup, or copied?). Restore the newer directory, or start with a new application id",
                cursor.batch,
                self.planned()
            ));
        }
        if !self.runs.contains(&cursor.run) {
            return refuse(format!(
                "sink `{sink}` has committed batch {} from a start of the application that {directory} knows nothing of: another \
                 process runs from a copy of this directory, or this is the older copy. Stop the other one, or start this one with a \
                 new application id",
                cursor.batch
            ));
        }
        if cursor.batch < self.snapshot() {
            return refuse(format!(
                "sink `{sink}` has committed batch {} only, but the checkpoint in {directory} is of batch {}: the sink has lost \
                 output that it had committed. Restore the sink's data, or start with a new application id",
                cursor.batch,
                self.snapshot()
            ));
        }
        match self.plans_at(cursor.batch) {
            Some(plans) if plans == cursor.plans => Ok(()),
            _ => refuse(format!(
                "sink `{sink}` has committed batch {} of another plan than the log in {directory} holds: the directory and a copy \
                 of it have both run. Go back to the directory that has run last, or start with a new application id",
                cursor.batch
            )),
        }
    }

    /// As [`check_cursor`](Self::check_cursor), for what was read before fencing. A reader may be behind what is committed as long as the
    /// markers of a transaction are on their way, longest after a broker died: a cursor that is too old, or missing, is judged by
    /// the second reading alone.
    pub(crate) fn check_peeked(&self, sink: &str, cursor: Option<&Cursor>) -> Result<()> {
        match cursor {
            Some(cursor) if cursor.batch >= self.snapshot() || !self.runs.contains(&cursor.run) => {
                self.check_cursor(sink, cursor)
            }
            _ => Ok(()),
        }
    }

    /// What a sink without a cursor is (H3): new, or one whose cursor was lost.
    pub(crate) fn check_no_cursor(&self, sink: &str, introduced: bool) -> Result<()> {
        if !introduced {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restore,
            format!(
                "sink `{sink}` has committed before, but has no cursor any more: what it wrote to was deleted or emptied. Restore \
                 it, or start with a new application id and a new directory instead of {}",
                self.directory
            ),
        ))
    }

    /// The replay has computed what the sink committed (the digest check).
    pub(crate) fn check_digest(&self, sink: &str, cursor: &Cursor, computed: u64) -> Result<()> {
        if cursor.digest == computed {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restore,
            format!(
                "sink `{sink}`: batches {} to {} gave other output when they were computed again than what was committed. Either the \
                 pipeline is not deterministic (a clock, a random number, an order of a hash map in one of its functions), or the \
                 program was changed. Go back to the program that ran before, stop it gracefully and change it then; or accept the \
                 change by name: accept_changed_program()",
                self.snapshot(),
                cursor.batch
            ),
        ))
    }

    /// Whether the program's graph may go on with this directory (H12). `true`: it was changed, and may.
    pub(crate) fn check_fingerprint(&self, now: &Fingerprint, committed: BatchTime, accepted: bool) -> Result<bool> {
        let difference = now.difference(&self.manifest.fingerprint);
        if difference.is_empty() {
            return Ok(false);
        }
        if committed == self.snapshot() || accepted {
            return Ok(true);
        }
        Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the program was changed while batches {} to {committed} have to be replayed from {}: {}. Go back to the program that ran \
                 before and stop it gracefully; or accept the change by name: accept_changed_program(). State is then recomputed by the \
                 new program, and output up to {committed} stays as it is",
                self.snapshot(),
                self.directory,
                difference.join("; ")
            ),
        ))
    }
}

/// Whether the manifest is of this application and can be run with these settings.
pub(crate) fn check_manifest(directory: &str, manifest: &Manifest, application: &str, interval_ms: u64) -> Result<()> {
    if manifest.application != application {
        return Err(Error::configuration(format!(
            "{directory} belongs to application `{}`, not to `{application}`. Choose another directory, or the old name",
            manifest.application
        )));
    }
    if manifest.interval_ms != interval_ms {
        tracing::info!(from_ms = manifest.interval_ms, to_ms = interval_ms, "the batch interval was changed");
    }
    Ok(())
}

/// Each plan in the log names all before it: those after a checkpoint must go on from it. Else the log has lost its beginning, which it
/// cannot know by itself, and a replay would leave batches out.
pub(crate) fn check_plans<'p>(
    directory: &str,
    manifest: &Manifest,
    plans: impl Iterator<Item = &'p BatchPlan>,
) -> Result<()> {
    let mut chain = manifest.plans;
    for plan in plans {
        if plan.chain != plan.chain_from(chain) {
            return Err(Error::new(
                ErrorKind::Restore,
                format!(
                    "the log in {directory} does not go on from the checkpoint of {}: plans before that of {} are missing. Is a file in \
                     its folder `log` gone? Restore the directory, or start with a new one and a new application id",
                    manifest.batch, plan.first
                ),
            ));
        }
        chain = plan.chain;
    }
    Ok(())
}

/// Windows stand on the grid of the batch interval: with another one their slides would not be met (hard case H18).
pub(crate) fn check_interval(windows: &[std::sync::Arc<str>], was_ms: u64, is_ms: u64) -> Result<()> {
    match windows.first() {
        Some(window) if was_ms != is_ms => Err(Error::configuration(format!(
            "the batch interval was {was_ms} ms and is now {is_ms} ms, and window `{window}` stands on it. Keep the old \
             interval, or start with a new directory"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::BlockId;

    const T: fn(u64) -> BatchTime = BatchTime::from_ms;

    fn manifest() -> Manifest {
        Manifest {
            application: "app".into(),
            deployment: [1; 16],
            batch: T(1000),
            zero: T(0),
            interval_ms: 1000,
            fingerprint: Fingerprint([("counts".into(), "update_state_by_key".into())].into()),
            plans: 10,
            log: BlockId([0; 16]),
            runs: vec![[2; 16]],
            sinks: Vec::new(),
            sources: Vec::new(),
            accumulators: Default::default(),
        }
    }

    fn plans() -> Vec<BatchPlan> {
        let plan = |ms, chain| BatchPlan { first: T(ms), last: T(ms), sources: Vec::new(), chain };
        vec![plan(2000, 20), plan(3000, 30)]
    }

    fn cursor() -> Cursor {
        Cursor { deployment: [1; 16], run: [2; 16], batch: T(2000), plans: 20, digest: 5, records: 1 }
    }

    /// What is said of a cursor, `ok` if nothing.
    fn said(cursor: Cursor) -> String {
        let (manifest, plans) = (manifest(), plans());
        let stored = Stored { directory: "dir", manifest: &manifest, plans: &plans, runs: &manifest.runs };
        stored.check_cursor("out", &cursor).map_or_else(|error| error.to_string(), |()| "ok".into())
    }

    #[test]
    fn a_cursor_between_s_and_p_of_a_known_run_and_plan_is_accepted() {
        assert_eq!(said(cursor()), "ok");
        assert_eq!(said(Cursor { batch: T(1000), plans: 10, ..cursor() }), "ok");
        assert_eq!(said(Cursor { batch: T(3000), plans: 30, ..cursor() }), "ok");
    }

    #[test]
    fn h2_a_cursor_of_another_deployment_run_or_plan_or_outside_of_s_and_p_is_refused() {
        let cases = [
            (Cursor { deployment: [9; 16], ..cursor() }, "another directory"),
            (Cursor { run: [9; 16], ..cursor() }, "knows nothing of"),
            (Cursor { plans: 21, ..cursor() }, "another plan"),
            (Cursor { batch: T(4000), plans: 40, ..cursor() }, "ends at 3000 ms"),
            (Cursor { batch: T(500), ..cursor() }, "lost output"),
        ];
        for (cursor, expected) in cases {
            let said = said(cursor);
            assert!(said.contains(expected) && said.contains("`out`"), "{said}");
        }
    }

    #[test]
    fn h2_a_cursor_that_was_peeked_may_be_behind_what_is_committed_and_is_judged_for_its_owner_only() {
        let (manifest, plans) = (manifest(), plans());
        let stored = Stored { directory: "dir", manifest: &manifest, plans: &plans, runs: &manifest.runs };
        let peeked = |cursor| stored.check_peeked("out", Some(&cursor));
        assert!(stored.check_peeked("out", None).is_ok());
        assert!(peeked(Cursor { batch: T(500), ..cursor() }).is_ok());
        assert!(peeked(cursor()).is_ok());
        assert!(peeked(Cursor { plans: 21, ..cursor() }).is_err());
        assert!(peeked(Cursor { batch: T(500), run: [9; 16], ..cursor() }).is_err());
        assert!(peeked(Cursor { deployment: [9; 16], ..cursor() }).is_err());
        assert!(peeked(Cursor { batch: T(4000), plans: 40, ..cursor() }).is_err());
    }

    #[test]
    fn h3_a_sink_that_was_introduced_and_has_no_cursor_is_refused() {
        let (manifest, plans) = (manifest(), plans());
        let stored = Stored { directory: "dir", manifest: &manifest, plans: &plans, runs: &[] };
        assert!(stored.check_no_cursor("out", false).is_ok());
        assert!(stored.check_no_cursor("out", true).is_err());
    }

    #[test]
    fn h12_a_changed_graph_is_accepted_when_nothing_is_to_be_replayed_or_by_name() {
        let (manifest, plans) = (manifest(), plans());
        let stored = Stored { directory: "dir", manifest: &manifest, plans: &plans, runs: &[] };
        let changed = Fingerprint::default();
        assert_eq!(stored.check_fingerprint(&manifest.fingerprint, T(3000), false).ok(), Some(false));
        assert_eq!(stored.check_fingerprint(&changed, T(1000), false).ok(), Some(true));
        assert_eq!(stored.check_fingerprint(&changed, T(3000), true).ok(), Some(true));
        let said = stored.check_fingerprint(&changed, T(3000), false).expect_err("refused").to_string();
        assert!(said.contains("`counts`") && said.contains("3000"), "{said}");
    }

    #[test]
    fn a_replay_that_gives_other_output_is_refused() {
        let (manifest, plans) = (manifest(), plans());
        let stored = Stored { directory: "dir", manifest: &manifest, plans: &plans, runs: &[] };
        assert!(stored.check_digest("out", &cursor(), 5).is_ok());
        let said = stored.check_digest("out", &cursor(), 6).expect_err("refused").to_string();
        assert!(said.contains("not deterministic") && said.contains("2000"), "{said}");
    }
}
