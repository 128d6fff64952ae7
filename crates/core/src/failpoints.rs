//! Arms failpoints from the environment, so that a test can kill or break a process it has started.
//!
//! `MILLPOND_FAILPOINTS="before-commit=kill@3;break-plan-not-logged=return"`: the process kills itself with SIGKILL when
//! it comes to `before-commit` for the third time, with `panic@3` it panics there, with `stop@3` it freezes (SIGSTOP); `return` makes a point break what it names
//! (a negative control, behind the feature `negative-controls`), `sleep(20)` holds it up for 20 ms each time. A program that wants to be tested
//! so calls [`arm_from_env`] first of all, and is built with the feature `failpoints`. Without the feature no point is in the
//! code. [`NAMES`] lists the points of all crates.

use crate::error::{Error, Result};

/// The variable that [`arm_from_env`] reads.
pub const VARIABLE: &str = "MILLPOND_FAILPOINTS";

/// Another one that it reads: names of negative controls, by spaces; the same as each with `=return` in [`VARIABLE`].
pub const CONTROLS_VARIABLE: &str = "MILLPOND_CONTROLS";

/// Every failpoint of Millpond's crates, with what has happened when a process comes to it.
pub const NAMES: &[(&str, &str)] = &[
    // The log.
    ("log-appended", "the bytes of a group of entries are written to the log, not yet synced"),
    ("log-synced", "a group of entries is synced, nobody has been told"),
    ("log-segment-created", "a segment of the log has its name, durably; nothing is in it"),
    ("log-segment-deleted", "a released segment of the log is gone or renamed, durably"),
    // Blocks of receivers.
    ("block-appended", "a block of received records is about to go to the log"),
    ("block-synced", "a block of received records is durable, the receiver does not know"),
    ("source-acknowledged", "whoever handed the records over has been told that they are durable"),
    // A batch.
    ("plan-appended", "a batch plan is made and about to go to the log"),
    ("plan-synced", "a batch plan is durable, nothing of the batch is computed"),
    ("task-done", "a task has ended, its output has not been handed over"),
    ("transaction-begun", "a Kafka transaction has begun, nothing of the batch is at the broker"),
    ("offsets-sent", "the offsets of the sources are in the Kafka transaction, output and cursor are not"),
    ("output-written", "all output of a batch is with the sink, its cursor is not"),
    ("before-commit", "everything is ready, the commit has not been asked for"),
    ("after-commit", "the sink has committed, the engine does not know"),
    ("files-renamed", "readers see the files of the batch, the engine does not know"),
    ("state-applied", "every sink has committed the batch and the sources know"),
    // Checkpoints.
    ("state-frozen", "changes of state are encoded and marked clean"),
    ("state-written", "changes of state have reached the database"),
    ("checkpoint-linked", "the files of a checkpoint are hard-linked, none is in the snapshot store"),
    ("manifest-written", "a manifest is written aside and synced, not renamed"),
    ("manifest-renamed", "a manifest is renamed, its directory not synced"),
    ("checkpoint-deleted", "the manifest of an old checkpoint is deleted, its files are not"),
    // Recovery.
    ("recovery-checkpoint-found", "the directory is locked and its newest checkpoint found"),
    ("recovery-log-read", "the log is read to its end"),
    ("recovery-run-logged", "the id of this start is durable in the log"),
    ("sink-fenced", "earlier incarnations of a sink are shut out, what they left in doubt is not settled"),
    ("recovery-sinks-fenced", "all sinks have said what they have committed"),
    ("recovery-state-opened", "the state of the checkpoint is open"),
    // Negative controls: rules that are broken where they are armed with `return`; behind the feature `negative-controls`.
    ("break-log-skip-sync", "the log does not sync"),
    ("break-directory-not-synced", "the directories of the log and of the file sink are not synced"),
    ("break-plan-not-logged", "batches are computed and committed without a durable plan"),
    ("break-state-before-plan", "batches are computed and committed before their plan is durable"),
    ("break-acknowledged-before-sync", "givers of records are told that they are durable before the log has them"),
    ("break-checkpoint-before-commit", "a checkpoint does not wait for the sinks"),
    ("break-manifest-before-files", "the manifest of a checkpoint is published before the files it names"),
    ("break-log-cleaned-early", "the log is cleaned up to one batch behind the newest checkpoint"),
    ("break-hash-seeded", "the hash of keys is another one in each process"),
    ("break-map-order", "the buckets of a shuffle are read in the order of a hash map"),
    ("break-cursor-outside-transaction", "the Kafka cursor is committed apart from the output"),
    ("break-fence-skipped", "a start takes another transactional id, and fences nobody"),
    ("break-commit-code-trusted", "a commit that fails is taken for not done: the cursor is not read again"),
    (
        "break-producer-not-renewed",
        "a producer goes on after a commit of which nobody knows whether it is still on its way",
    ),
    ("break-expired-ignored", "a commit that fails because the transaction has expired is taken for done"),
];

/// Arms what the variables `MILLPOND_FAILPOINTS` and `MILLPOND_CONTROLS` name; nothing if they are not set.
///
/// # Errors
/// [`Configuration`](crate::ErrorKind::Configuration): a text that cannot be read, a name that is not in [`NAMES`], or any text in a program built
/// without the feature `failpoints`.
pub fn arm_from_env() -> Result<()> {
    let of = |name| std::env::var(name).unwrap_or_default();
    let controls: String = of(CONTROLS_VARIABLE).split_whitespace().map(|name| format!("{name}=return;")).collect();
    match of(VARIABLE) + ";" + &controls {
        nothing if nothing.trim_matches([';', ' ']).is_empty() => Ok(()),
        text => arm(&text),
    }
}

#[cfg(not(feature = "failpoints"))]
fn arm(_: &str) -> Result<()> {
    Err(Error::configuration(format!("{VARIABLE} is set, but this program was built without the feature `failpoints`")))
}

#[cfg(feature = "failpoints")]
fn arm(text: &str) -> Result<()> {
    let wrong = |item: &str| {
        Error::configuration(format!(
            "{VARIABLE}: cannot read {item:?}, it must be name=kill@N, name=panic@N, name=stop@N, name=return or name=sleep(MS)"
        ))
    };
    for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, action) = item.split_once('=').ok_or_else(|| wrong(item))?;
        if !NAMES.iter().any(|(known, _)| *known == name) {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            let known = known.join(", ");
            return Err(Error::configuration(format!("{VARIABLE}: there is no failpoint {name:?}; there are {known}")));
        }
        if name.starts_with("break-") && !cfg!(feature = "negative-controls") {
            return Err(Error::configuration(format!(
                "{VARIABLE}: {name} needs a program that is built with the feature `negative-controls` of millpond-core and millpond-kafka"
            )));
        }
        match action.split_once('@') {
            Some((what @ ("kill" | "panic" | "stop"), hit)) => {
                let hit = hit.parse().ok().filter(|&hit| hit > 0).ok_or_else(|| wrong(item))?;
                let die = match what {
                    "kill" => kill,
                    "stop" => stop,
                    _ => || panic!("a failpoint told this thread to panic"),
                };
                fail::cfg_callback(name, at_hit(hit, die)).map_err(|_| wrong(item))?;
            }
            None if action == "return" || action.starts_with("sleep(") => {
                fail::cfg(name, action).map_err(|_| wrong(item))?
            }
            _ => return Err(wrong(item)),
        }
    }
    Ok(())
}

/// What calls `die` when it is called for the `hit`th time, counted from 1.
#[cfg(feature = "failpoints")]
fn at_hit(hit: u64, die: fn()) -> impl Fn() + Send + Sync + 'static {
    use std::sync::atomic::{AtomicU64, Ordering};
    let calls = AtomicU64::new(0);
    move || {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == hit {
            die();
        }
    }
}

/// Kills this process.
#[cfg(feature = "failpoints")]
fn kill() {
    // Fails for no signal that exists; nothing after it runs.
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
}

/// Freezes this process until it gets a SIGCONT.
#[cfg(feature = "failpoints")]
fn stop() {
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGSTOP);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_failpoint_of_the_crates_is_in_the_list_and_the_other_way_round() {
        let listed: BTreeSet<String> = NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed.len(), NAMES.len(), "a name is listed twice");
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the crates");
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(crates).expect("the folder of the crates") {
            let sources = entry.expect("a crate").path().join("src");
            if sources.is_dir() {
                found.append(&mut points_in(&sources));
            }
        }
        assert_eq!(found, listed, "left: in the sources; right: in NAMES");
    }

    /// The names of the failpoints in the sources of a crate, constants looked up.
    fn points_in(sources: &Path) -> BTreeSet<String> {
        let (mut constants, mut points) = (BTreeMap::new(), Vec::new());
        for file in rust_files(sources) {
            let text = fs::read_to_string(&file).expect("a source file");
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            for line in &code {
                if let Some((name, value)) =
                    line.split_once("const ").and_then(|(_, rest)| rest.split_once(": &str = \""))
                {
                    constants.insert(name.to_owned(), value.split('"').next().unwrap_or_default().to_owned());
                }
            }
            // In two parts, so that this line is none itself.
            for call in [concat!("fail_", "point!("), concat!("controls::", "broken(")] {
                let code = code.join("\n");
                points.extend(code.split(call).skip(1).filter_map(|after| {
                    let argument = after.split([',', ')']).next()?.trim().to_owned();
                    Some((file.clone(), argument))
                }));
            }
        }
        let name = |(file, argument): (PathBuf, String)| match argument.strip_prefix('"') {
            Some(literal) => literal.trim_end_matches('"').to_owned(),
            None => {
                let constant = argument.rsplit("::").next().unwrap_or_default();
                let known = constants.get(constant);
                known.unwrap_or_else(|| panic!("{}: what is the failpoint {argument}?", file.display())).clone()
            }
        };
        points.into_iter().map(name).collect()
    }

    fn rust_files(directory: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files.append(&mut rust_files(&path));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
        files
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn what_cannot_be_read_is_refused_and_named() {
        for text in
            ["before-commit", "before-commit=kill", "before-commit=kill@0", "before-commit=kill@x", "task-done=sleep"]
        {
            let said = arm(text).map_or_else(|error| error.to_string(), |()| "armed".into());
            assert!(said.contains(text) && said.contains(VARIABLE), "{said}");
        }
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let said = arm("before-comit=kill@1").map_or_else(|error| error.to_string(), |()| "armed".into());
        assert!(said.contains("before-comit") && said.contains("before-commit, after-commit"), "{said}");
    }

    #[cfg(all(feature = "failpoints", not(feature = "negative-controls")))]
    #[test]
    fn a_program_without_negative_controls_refuses_to_be_broken() {
        let said = arm("break-map-order=return").map_or_else(|error| error.to_string(), |()| "armed".into());
        assert!(said.contains("break-map-order needs") && said.contains("negative-controls"), "{said}");
    }

    /// Points that no test of this crate comes to.
    #[cfg(feature = "negative-controls")]
    #[test]
    fn an_armed_point_takes_its_way_out_at_the_hit_that_was_named() {
        assert!(arm(" break-expired-ignored=return ; offsets-sent=panic@2").is_ok());
        // By another name, so that this is no failpoint of the sources.
        use fail::eval as hit;
        let eval = |name: &str| std::panic::catch_unwind(|| hit(name, |_| ()));
        assert!(eval(NAMES[NAMES.len() - 1].0).is_ok_and(|out| out.is_some()));
        let offsets_sent = NAMES.iter().find(|(name, _)| name.starts_with("offsets")).expect("listed").0;
        assert!(eval(offsets_sent).is_ok());
        assert!(eval(offsets_sent).is_err());
        assert!(eval(offsets_sent).is_ok());
    }

    #[cfg(not(feature = "failpoints"))]
    #[test]
    fn a_program_without_failpoints_refuses_to_be_armed() {
        assert!(arm("before-commit=kill@1").is_err_and(|error| error.to_string().contains("without the feature")));
    }
}
