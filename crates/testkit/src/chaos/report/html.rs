//! The report as one page: figures, tables, plots; no script, nothing to fetch.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::plot::Plot;
use super::{Report, Soak};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1a2433; --dim: #5b6b80; --line: #d6dde6; --paper: #fff; --mark: #1f6fb2; --good: #1a7f4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf2; --dim: #94a3b8; --line: #2f3b4c; --paper: #121820; --mark: #63b0ee; --good: #5cc98e; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
p { margin: .3rem 0 .8rem; } .dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.figures div { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; } .figures b { display: block; font-size: 1.35rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--dim); } td.n, th.n { text-align: right; } pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .6rem; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } .grid { stroke: var(--line); } .tick, .axis { fill: var(--dim); font-size: 11px; } .line { fill: none; stroke: var(--mark); stroke-width: 1.5; } .dot { fill: var(--mark); fill-opacity: .55; }
";

pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Millpond under faults</title><style>{STYLE}</style></head><body>\n<h1>Millpond under faults</h1>\n"
    );
    summary(&mut page, report);
    if !report.findings.is_empty() {
        page += "<h2 class=\"bad\">Found</h2>\n";
        for found in &report.findings {
            let (victim, what) = (escape(&found.victim), escape(&found.what));
            let _ = writeln!(page, "<p>{victim}, seed {}</p><pre>{what}</pre>", found.seed);
        }
    }
    recoveries(&mut page, report);
    counts(&mut page, "Faults, by kind", "fault", "times", &report.faults);
    counts(&mut page, "Kills, by the point they came at", "failpoint", "kills", &report.kills);
    victims(&mut page, report);
    controls(&mut page, report);
    if let Some(run) = &report.soak {
        soak(&mut page, run);
    }
    page + "</body></html>\n"
}

/// Text as HTML has it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

fn bytes(value: f64) -> String {
    match value {
        small if small < 1024.0 => format!("{small:.0} B"),
        kib if kib < 1024.0 * 1024.0 => format!("{:.0} KiB", kib / 1024.0),
        mib => format!("{:.0} MiB", mib / 1024.0 / 1024.0),
    }
}

fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn summary(page: &mut String, report: &Report) {
    let verdict = match report.is_clean() {
        true => "<p class=\"good\">Every result was seen exactly once.</p>",
        false => "<p class=\"bad\">Something was found: see below.</p>",
    };
    let _ = writeln!(page, "<p class=\"dim\">Seed {}, {}</p>{verdict}", report.seed, duration(report.took_ms));
    let caught = report.controls.iter().filter(|control| control.caught).count();
    let controls = format!("{caught} of {}", report.controls.len());
    let ms = |share| report.recovery_ms(share).map_or("none".to_owned(), |ms| format!("{ms:.0} ms"));
    let figures = [
        (grouped(report.kill_count()), "kills"),
        (grouped(report.faults.values().sum()), "faults"),
        (grouped(report.runs), "runs"),
        (grouped(report.starts), "starts"),
        (grouped(report.results_judged), "results judged"),
        (grouped(report.duplicates), "duplicates"),
        (grouped(report.losses), "losses"),
        (ms(0.5), "recovery, median"),
        (ms(0.99), "recovery, 99 %"),
        (ms(1.0), "recovery, worst"),
        (controls, "negative controls caught"),
    ];
    *page += "<div class=\"figures\">";
    for (figure, what) in figures {
        let _ = write!(page, "<div><b>{figure}</b>{what}</div>");
    }
    *page += "</div>\n";
}

fn recoveries(page: &mut String, report: &Report) {
    if report.recoveries.is_empty() {
        return;
    }
    *page += "<h2>Recovery: from the start of the process until it is live, over the bytes of its checkpoints</h2>\n";
    let points: Vec<(f64, f64)> =
        report.recoveries.iter().map(|recovery| (recovery.state_bytes as f64, recovery.took_ms)).collect();
    let plot = Plot { points: &points, x: "checkpoints", y: "recovery, ms", line: false, show_x: bytes, show_y: plain };
    let _ = writeln!(page, "<p class=\"dim\">{} recoveries, in ms</p>{}", points.len(), plot.svg());
}

fn counts(page: &mut String, title: &str, what: &str, count: &str, all: &BTreeMap<String, u64>) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(page, "<h2>{title}</h2>\n<table><tr><th>{what}</th><th class=\"n\">{count}</th></tr>");
    for (name, count) in all {
        let _ = writeln!(page, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escape(name), grouped(*count));
    }
    *page += "</table>\n";
}

fn victims(page: &mut String, report: &Report) {
    if report.victims.is_empty() {
        return;
    }
    *page += "<h2>Pipelines</h2>\n<table><tr><th>pipeline</th><th class=\"n\">runs</th><th class=\"n\">starts</th>\
              <th class=\"n\">kills</th><th class=\"n\">results judged</th></tr>\n";
    for (name, victim) in &report.victims {
        let _ = write!(page, "<tr><td>{}</td>", escape(name));
        for count in [victim.runs, victim.starts, victim.kills, victim.results_judged] {
            let _ = write!(page, "<td class=\"n\">{}</td>", grouped(count));
        }
        *page += "</tr>\n";
    }
    *page += "</table>\n";
}

fn controls(page: &mut String, report: &Report) {
    if report.controls.is_empty() {
        return;
    }
    *page += "<h2>Negative controls: programs broken on purpose</h2>\n<table><tr><th>broken</th><th>caught</th>\
              <th class=\"n\">runs</th><th>how it showed</th></tr>\n";
    for control in &report.controls {
        let caught = if control.caught { "<td class=\"good\">yes</td>" } else { "<td class=\"bad\">no</td>" };
        let (name, found) = (escape(&control.name), escape(&control.found));
        let _ = writeln!(page, "<tr><td>{name}</td>{caught}<td class=\"n\">{}</td><td>{found}</td></tr>", control.runs);
    }
    *page += "</table>\n";
}

fn soak(page: &mut String, run: &Soak) {
    let verdict = if run.flat { "<span class=\"good\">flat</span>" } else { "<span class=\"bad\">not flat</span>" };
    let _ = writeln!(
        page,
        "<h2>Long run: {verdict}</h2>\n<p class=\"dim\">{}, {}, {} records, {} kills, {} samples</p>",
        escape(&run.victim),
        duration(run.took_ms),
        grouped(run.records),
        run.kills,
        run.samples.len()
    );
    type Measure = (&'static str, fn(&super::Sample) -> f64, fn(f64) -> String);
    let measures: [Measure; 5] = [
        ("memory", |sample| sample.memory_bytes as f64, bytes),
        ("file handles", |sample| sample.file_handles as f64, plain),
        ("threads", |sample| sample.threads as f64, plain),
        ("disk", |sample| sample.disk_bytes as f64, bytes),
        ("open transactions", |sample| sample.open_transactions as f64, plain),
    ];
    for (name, of, show_y) in measures {
        let points: Vec<(f64, f64)> =
            run.samples.iter().map(|sample| (sample.at_ms as f64 / 60_000.0, of(sample))).collect();
        let verdict = run.verdicts.get(name).map_or("", String::as_str);
        let plot = Plot { points: &points, x: "minutes", y: name, line: true, show_x: plain, show_y };
        let _ = writeln!(page, "<h3>{name}</h3><p class=\"dim\">{}</p>{}", escape(verdict), plot.svg());
    }
}
