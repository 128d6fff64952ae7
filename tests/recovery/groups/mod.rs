//! One replayable source, every operator that keeps something, and SIGKILL at random: case I15 with real processes, and the
//! outputs of each operator compared, batch by batch, with those of a process that nobody killed. Accumulators too.

mod source;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millpond_core::sink::FileSink;
use millpond_core::{BatchTime, DStream, Graph, Result, State, StreamingContext, milliseconds};
use millpond_fault_injection::Dice;
use serde::Serialize;
use serde_json::Value;

use source::{GROUPS, Groups, Member, group};

const BATCH_MS: u64 = 200;
/// Batches that are compared: those with a group, and as many after them as the longest window and the timeout last.
const BATCHES: u64 = GROUPS + 8;
const LIMIT: Duration = Duration::from_secs(120);
/// Makes a victim of this test program: the directory it works in.
const VARIABLE: &str = "MILLPOND_GROUPS";

/// Not a test: what the processes run that are killed.
#[test]
fn groups_victim() {
    let Ok(place) = std::env::var(VARIABLE) else { return };
    if let Err(error) = run(Path::new(&place)) {
        eprintln!("Error: {error}");
        std::process::exit(1);
    }
}

fn run(place: &Path) -> Result<()> {
    let (context, counted) = StreamingContext::builder("groups")
        .directory(place.join("pond"))
        .batch_interval(milliseconds(BATCH_MS))
        .checkpoint_interval(milliseconds(4 * BATCH_MS))
        .partitions(2)
        .threads(2)
        .graceful_stop_timeout(LIMIT / 2)
        .open_with(|graph| {
            let counted = graph.accumulator("members");
            let add = counted.clone();
            let failed = AtomicBool::new(false);
            let members = graph.source("in", Groups::default()).map(move |member: Member| {
                add.add(1);
                // In each process one task fails when it has counted already, and is tried again.
                assert!(member.1 != 3 || failed.swap(true, Ordering::Relaxed), "fails once");
                member
            });
            operators(graph, members, &place.join("out"));
            Ok(counted)
        })?;
    context.run_until_signal_with(|_| eprintln!("ready"))?;
    // A graceful stop has committed everything, and written it into the last checkpoint.
    eprintln!("counted {}", counted.value());
    Ok(())
}

/// A sink of its own for every operator with state, every window, and some without.
fn operators<'g>(_: &Graph<'g>, members: DStream<'g, Member>, out: &Path) {
    let (length, slide) = (milliseconds(3 * BATCH_MS), milliseconds(BATCH_MS));
    let wide = milliseconds(2 * BATCH_MS);
    let keyed = || members.clone().map(|(group, number, key)| (key, (group * 100 + number) as i64));

    put(out, "groups", members.clone().filter(|(_, number, _)| *number == 0).map(|(group, ..)| group));
    let ones = members.clone().map(|_| ("a".to_owned(), 1_u64));
    put(out, "counts", ones.update_state_by_key("count", |new, old| Some(old.unwrap_or(0) + new.sum())));

    put(out, "batch-count", members.clone().count());
    put(out, "reduce-by-key", keyed().reduce_by_key(|a, b| a + b));
    put(out, "join", keyed().reduce_by_key(|a, b| a.max(b)).full_outer_join(keyed().filter(|(_, n)| n % 2 == 0)));
    put(out, "touched", keyed().update_touched_by_key("touch", |new, old| Some(old.unwrap_or(0) + new.sum())));
    let forgetting = |new: millpond_core::Values<'_, i64>, old: Option<i64>| {
        let sum = old.unwrap_or(0) / 2 + new.sum();
        (sum != 0).then_some(sum)
    };
    put(out, "halving", keyed().update_state_by_key("halve", forgetting).initial_state([("z".to_owned(), 1000_i64)]));
    let last = keyed().filter(|(key, n)| *n % 7 != 0 || key == "a").map_with_state("last", velocity);
    put(out, "timeouts", last.timeout(milliseconds(2 * BATCH_MS)).initial_state([("y".to_owned(), 5_i64)]));
    put(out, "window", keyed().window("w", length, wide));
    put(out, "group-window", keyed().group_by_key_and_window("g", length, slide));
    put(out, "inverse", keyed().reduce_by_key_and_window("i", |a, b| a + b, |a, b| a - b, length, slide));
    let filtered =
        keyed().reduce_by_key_and_window_filtered("f", |a, b| a + b, |a, b| a - b, |_, n| *n > 0, length, wide);
    put(out, "filtered", filtered);
    put(out, "highest", keyed().reduce_by_key_and_window_without_inverse("h", |a, b| a.max(b), length, slide));
    put(out, "count-window", members.clone().count_by_window("c", length, slide));
    put(out, "values", keyed().map(|(key, _)| key).count_by_value_and_window("v", length, slide));
    put(out, "last-of-window", keyed().map(|(_, n)| n).reduce_by_window_without_inverse("l", |_, b| b, length, slide));
    let recent = keyed().window("recent", length, slide).reduce_by_key(|a, b| a + b);
    put(out, "window-join", keyed().reduce_by_key(|a, b| a.min(b)).left_outer_join(recent));
}

#[expect(clippy::ptr_arg, reason = "the function is given a reference to the key, a String")]
fn velocity(_: BatchTime, key: &String, n: Option<i64>, seen: &mut State<'_, i64>) -> Option<(String, i64)> {
    let Some(n) = n else { return Some((key.clone(), -seen.get().copied().unwrap_or(0))) };
    let total = seen.get().copied().unwrap_or(0) + n;
    if total % 11 == 0 {
        seen.remove()
    } else {
        seen.update(total)
    }
    Some((key.clone(), total))
}

/// Each record with the batch it is of, for a batch of a stretch has no directory of its own.
fn put<T: Serialize + Clone + Send + 'static>(out: &Path, name: &str, stream: DStream<'_, T>) {
    let timed = stream.transform(|rdd, time| rdd.map(move |record| (time.as_ms(), record)));
    timed.sink_json(name, FileSink::text(out.join(name)));
}

/// What each sink put out: by the number of the batch, from 1, its records.
type Outputs = BTreeMap<String, BTreeMap<u64, Vec<String>>>;

struct Done {
    outputs: Outputs,
    kills: u32,
    /// What the accumulator counted.
    counted: u64,
}

fn start(place: &Path) -> Child {
    let log = File::create(place.join("stderr")).expect("a file");
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "groups::groups_victim", "--nocapture"])
        .env(VARIABLE, place)
        // A task panics on purpose, and to look the names of a backtrace up takes long.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("a process")
}

/// Runs processes one after the other until all batches have come: each killed after a time that the dice say, mostly since it went
/// live, now and then since it was started; the last one stopped gracefully.
fn run_processes(place: &Path, mut dice: Option<Dice>) -> Done {
    let mut kills = 0;
    let said = || std::fs::read_to_string(place.join("stderr")).unwrap_or_default();
    loop {
        let mut child = start(place);
        let started = Instant::now();
        let (life, mut lives_since) = match &mut dice {
            None => (LIMIT, Some(started)),
            Some(dice) => (Duration::from_millis(dice.below(1500)), (dice.below(3) == 0).then_some(started)),
        };
        let complete = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("the process ended, {status}: {}", said());
            }
            if has_all(&place.join("out")) {
                break true;
            }
            if lives_since.is_none() && said().lines().any(|line| line == "ready") {
                lives_since = Some(Instant::now());
            }
            if lives_since.is_some_and(|since| since.elapsed() >= life) {
                break false;
            }
            assert!(started.elapsed() < LIMIT, "the process was not ready within {LIMIT:?}: {}", said());
            std::thread::sleep(Duration::from_millis(5));
        };
        if !complete {
            assert!(dice.is_some(), "the output did not come: {}", said());
            child.kill().expect("killed");
            child.wait().expect("dead");
            kills += 1;
            assert!(kills < 200, "killed so often, and no end");
            continue;
        }
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("a signal");
        assert!(asked.success());
        let ended = child.wait().expect("an end");
        assert!(ended.success(), "{ended}: {}", said());
        let said = said();
        let counted = said.lines().find_map(|line| line.strip_prefix("counted ")).expect("it says what it counted");
        return Done { outputs: outputs(&place.join("out")), kills, counted: counted.parse().expect("a number") };
    }
}

/// The newest batch that puts out something in every batch tells how far all are: its sink is not the last one, and a batch
/// more is waited for.
fn has_all(out: &Path) -> bool {
    let times = times(&out.join("batch-count"));
    times.first().zip(times.last()).is_some_and(|(first, last)| (last - first) / BATCH_MS > BATCHES)
}

fn times(sink: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(sink) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut times: Vec<u64> =
        entries.filter_map(name).filter_map(|name| name.strip_prefix("batch-")?.parse().ok()).collect();
    times.sort_unstable();
    times
}

/// The lines of a batch's directory.
fn lines(batch: &Path) -> Vec<String> {
    let mut parts: Vec<PathBuf> =
        std::fs::read_dir(batch).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    parts.retain(|part| part.file_name().is_some_and(|name| !name.to_string_lossy().starts_with(['.', '_'])));
    parts.sort();
    parts
        .iter()
        .flat_map(|part| std::fs::read_to_string(part).expect("text").lines().map(String::from).collect::<Vec<_>>())
        .collect()
}

fn outputs(out: &Path) -> Outputs {
    let first = *times(&out.join("batch-count")).first().expect("a batch");
    // A stretch is committed under its last time; the first batch has a group, and none is one.
    let of_sink = |sink: &Path| {
        let mut batches: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for time in times(sink) {
            for line in lines(&sink.join(format!("batch-{time}"))) {
                let (at, record): (u64, Value) = serde_json::from_str(&line).expect("a record with its batch");
                batches.entry((at - first) / BATCH_MS + 1).or_default().push(record.to_string());
            }
        }
        batches.retain(|batch, _| *batch <= BATCHES);
        batches.values_mut().for_each(|records| records.sort());
        batches
    };
    let sinks = std::fs::read_dir(out).expect("a directory").map(|entry| entry.expect("an entry").path());
    sinks.map(|sink| (sink.file_name().expect("a name").to_string_lossy().into_owned(), of_sink(&sink))).collect()
}

/// Killed at random, once for all tests.
fn killed() -> &'static Done {
    static KILLED: OnceLock<Done> = OnceLock::new();
    KILLED.get_or_init(|| {
        let place = tempfile::tempdir().expect("a place");
        let done = run_processes(place.path(), Some(Dice::new(crate::seed())));
        assert!(done.kills >= 3, "{} kills are too few to show anything", done.kills);
        done
    })
}

#[test]
fn i15_killed_at_random_a_replayable_source_puts_each_group_out_once_and_counts_exactly() {
    let done = killed();
    let groups: Vec<u64> =
        done.outputs["groups"].values().flatten().map(|group| group.parse().expect("a number")).collect();
    assert_eq!(groups, (1..=GROUPS).collect::<Vec<_>>(), "each once, in order");
    // A batch without input repeats the last value: one value a batch, whatever was killed.
    let expected = |batch: u64| {
        let n = batch.min(GROUPS);
        vec![format!("[\"a\",{}]", n * (n + 1) / 2)]
    };
    let counts = &done.outputs["counts"];
    assert_eq!(*counts, (1..=BATCHES).map(|batch| (batch, expected(batch))).collect::<BTreeMap<_, _>>());
}

#[test]
fn i4_g8_every_operator_killed_at_random_puts_out_batch_by_batch_what_it_does_undisturbed() {
    let place = tempfile::tempdir().expect("a place");
    let undisturbed = run_processes(place.path(), None);
    assert!(undisturbed.outputs.len() == 17 && undisturbed.outputs.values().all(|batches| !batches.is_empty()));
    let killed = killed();
    for (sink, expected) in &undisturbed.outputs {
        assert_eq!(&killed.outputs[sink], expected, "`{sink}` after {} kills", killed.kills);
    }
    assert_eq!(undisturbed.counted, GROUPS * (GROUPS + 1) / 2);
}

#[test]
fn an_accumulator_counts_each_member_once_though_tasks_fail_and_processes_are_killed() {
    let members: u64 = (1..=GROUPS).map(|i| group(i).len() as u64).sum();
    let done = killed();
    assert_eq!(done.counted, members, "after {} kills", done.kills);
}
