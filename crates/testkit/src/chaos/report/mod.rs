//! What came of runs, in numbers: as JSON, and as a page for people.

mod html;
mod plot;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Finding, Lineage, Result};

/// What came of one run, or of many [together](Report::add).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The seed of all.
    pub seed: u64,
    /// How long it took, in ms.
    pub took_ms: u64,
    /// Lineages: a directory, its processes, and the judgement at the end.
    pub runs: u64,
    /// Processes started.
    pub starts: u64,
    /// Results that were judged.
    pub results_judged: u64,
    /// SIGKILLs by failpoint; `random` at no point.
    pub kills: BTreeMap<String, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// By pipeline.
    pub victims: BTreeMap<String, VictimReport>,
    /// Results that were seen twice, or that no input demands.
    pub duplicates: u64,
    /// Results that were missing.
    pub losses: u64,
    /// What was found. Empty if all is well.
    pub findings: Vec<FoundWhere>,
    /// Every recovery that came to be live.
    pub recoveries: Vec<Recovery>,
    /// Programs broken on purpose, and whether that was found.
    pub controls: Vec<Control>,
    /// A long run under load.
    pub soak: Option<Soak>,
}

/// What was done to one pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VictimReport {
    /// Lineages.
    pub runs: u64,
    /// Processes started.
    pub starts: u64,
    /// Processes killed.
    pub kills: u64,
    /// Results judged.
    pub results_judged: u64,
}

/// A finding, and how to have it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FoundWhere {
    /// The pipeline.
    pub victim: String,
    /// The seed of its run.
    pub seed: u64,
    /// What was found.
    pub what: String,
}

/// A recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The bytes of the checkpoints that the start found.
    pub state_bytes: u64,
    /// From the start of the process until it was live, in ms.
    pub took_ms: f64,
}

/// A negative control: a program broken on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// What is broken.
    pub name: String,
    /// Whether it was found out.
    pub caught: bool,
    /// How many runs that took.
    pub runs: u64,
    /// How it showed.
    #[serde(default)]
    pub found: String,
}

/// A long run: what was measured again and again, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Soak {
    /// The pipeline.
    pub victim: String,
    /// How long it was, in ms.
    pub took_ms: u64,
    /// Processes killed.
    pub kills: u64,
    /// Records given to it.
    pub records: u64,
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// By what was measured: whether it stays flat, and the figures that say so.
    pub verdicts: BTreeMap<String, String>,
    /// Everything stays flat.
    pub flat: bool,
}

/// What a process and its surroundings used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the beginning of the run, in ms.
    pub at_ms: u64,
    /// Since the start of this process, in ms: after each kill a new one begins from nothing.
    pub process_age_ms: u64,
    /// Resident memory of the process.
    pub memory_bytes: u64,
    /// Open files and sockets of the process.
    pub file_handles: u64,
    /// Threads of the process.
    pub threads: u64,
    /// The application's directory.
    pub disk_bytes: u64,
    /// Transactions of the application that are open at the broker.
    pub open_transactions: u64,
}

impl VictimReport {
    fn add(&mut self, other: &VictimReport) {
        self.runs += other.runs;
        self.starts += other.starts;
        self.kills += other.kills;
        self.results_judged += other.results_judged;
    }
}

impl Report {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Report { seed, ..Report::default() }
    }

    /// Whether nothing was found, and every control that was tried was caught.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.controls.iter().all(|control| control.caught)
    }

    /// For tests: stops with all that was found.
    ///
    /// # Panics
    /// If anything was.
    #[track_caller]
    pub fn assert_clean(&self) {
        let found: Vec<String> = self
            .findings
            .iter()
            .map(|found| format!("{} (seed {}): {}", found.victim, found.seed, found.what))
            .collect();
        assert!(self.is_clean(), "found:\n{}", found.join("\n"));
    }

    /// All kills.
    pub fn kill_count(&self) -> u64 {
        self.kills.values().sum()
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.took_ms = time.as_millis() as u64;
    }

    pub(super) fn add_finding(&mut self, victim: &str, seed: u64, finding: &Finding) {
        let (duplicates, losses) = finding.counts();
        (self.duplicates, self.losses) = (self.duplicates + duplicates, self.losses + losses);
        self.findings.push(FoundWhere { victim: victim.to_owned(), seed, what: finding.to_string() });
    }

    pub(super) fn add_lineage(&mut self, victim: &str, lineage: &Lineage, judged: u64) {
        let tally = lineage.tally();
        let (starts, kills) = (u64::from(lineage.starts()), tally.kill_count());
        (self.runs, self.starts) = (self.runs + 1, self.starts + starts);
        self.results_judged += judged;
        for (place, count) in &tally.kills {
            *self.kills.entry(place.clone()).or_default() += count;
        }
        let recovery = |(state_bytes, took): &(u64, Duration)| Recovery {
            state_bytes: *state_bytes,
            took_ms: took.as_secs_f64() * 1000.0,
        };
        self.recoveries.extend(tally.recoveries.iter().map(recovery));
        self.victims.insert(victim.to_owned(), VictimReport { runs: 1, starts, kills, results_judged: judged });
    }

    /// Adds another run, of the pipeline of this name.
    pub fn add(&mut self, victim: &str, mut other: Report) {
        let mut sum = VictimReport::default();
        other.victims.values().for_each(|one| sum.add(one));
        other.victims = BTreeMap::from([(victim.to_owned(), sum)]);
        other.findings.iter_mut().for_each(|found| found.victim = victim.to_owned());
        self.merge(other);
    }

    /// Adds another report, its pipelines under their names.
    pub fn merge(&mut self, other: Report) {
        self.took_ms += other.took_ms;
        self.runs += other.runs;
        self.starts += other.starts;
        self.results_judged += other.results_judged;
        self.duplicates += other.duplicates;
        self.losses += other.losses;
        let add = |to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>| {
            from.into_iter().for_each(|(name, count)| *to.entry(name).or_default() += count);
        };
        add(&mut self.kills, other.kills);
        add(&mut self.faults, other.faults);
        for (name, theirs) in &other.victims {
            self.victims.entry(name.clone()).or_default().add(theirs);
        }
        self.findings.extend(other.findings);
        self.recoveries.extend(other.recoveries);
        self.controls.extend(other.controls);
        self.soak = other.soak.or(self.soak.take());
    }

    /// Adds the outcome of a negative control.
    pub fn add_control(&mut self, control: Control) {
        self.controls.push(control);
    }

    /// The recovery times at these shares of all (0.5 is the median, 1 the worst), in ms; `None` if there was none.
    pub fn recovery_ms(&self, share: f64) -> Option<f64> {
        let mut all: Vec<f64> = self.recoveries.iter().map(|recovery| recovery.took_ms).collect();
        all.sort_by(f64::total_cmp);
        let place = (all.len() as f64 * share).ceil() as usize;
        all.get(place.saturating_sub(1)).copied()
    }

    /// As JSON.
    ///
    /// # Errors
    /// None at present.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// As a page that needs nothing but itself.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes `report.json` and `report.html` into a directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_to(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("report.json"), self.to_json()?)?;
        Ok(std::fs::write(directory.join("report.html"), self.to_html())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(7);
        let recovery = |n: u64| Recovery { state_bytes: n * 1000, took_ms: n as f64 };
        report.recoveries = (1..=100).map(recovery).collect();
        report.kills = BTreeMap::from([("before-commit".into(), 3), ("random".into(), 4)]);
        report
    }

    #[test]
    fn shares_of_recovery_times_are_exact() {
        let shares = [0.5, 0.99, 1.0].map(|share| report().recovery_ms(share));
        assert_eq!(shares, [Some(50.0), Some(99.0), Some(100.0)]);
        assert_eq!(Report::new(1).recovery_ms(0.5), None);
    }

    #[test]
    fn a_control_that_was_not_caught_is_no_clean_report() {
        let mut report = report();
        assert!(report.is_clean());
        report.add_control(Control { name: "x".into(), caught: false, runs: 5, found: String::new() });
        assert!(!report.is_clean());
    }

    #[test]
    fn json_comes_back_and_a_page_escapes_what_was_found() {
        let mut report = report();
        report.add_finding("words", 9, &Finding::new("<b> & \"more\""));
        let json = report.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let html = report.to_html();
        assert!(html.contains("&lt;b&gt; &amp; &quot;more&quot;") && !html.contains("<b> &"), "{html}");
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn runs_of_one_pipeline_add_up() {
        let (mut sum, mut one) = (Report::new(1), report());
        one.victims.insert("words".into(), VictimReport { runs: 1, starts: 8, kills: 7, results_judged: 70 });
        sum.add("words", one.clone());
        sum.add("words", one);
        assert_eq!((sum.kill_count(), sum.recoveries.len()), (14, 200));
        assert_eq!(sum.victims["words"], VictimReport { runs: 2, starts: 16, kills: 14, results_judged: 140 });
    }
}
