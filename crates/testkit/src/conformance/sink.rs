//! What every [`Sink`] must do.

use std::sync::Arc;

use millpond::BatchTime;
use millpond::sink::{Cursor, Guarantee, Records, Shared, Sink, SinkStart};

use super::Random;

/// How the suite gets at a sink and at what its readers see.
pub trait SinkHarness {
    /// The sink.
    type Sink: Sink;

    /// A new incarnation of the sink, on the one place of this harness, which is empty at first.
    fn open(&mut self) -> Self::Sink;

    /// The values of all records that a reader sees, in any order.
    fn visible(&mut self) -> Vec<Vec<u8>>;
}

/// Runs all cases that the sink's guarantee calls for, each on a harness of its own.
///
/// # Panics
/// Where the sink does not do what the trait and its own guarantee say.
pub fn run<H: SinkHarness>(mut new: impl FnMut() -> H) {
    if new().open().guarantee() == Guarantee::AtLeastOnce {
        return at_least_once_writes_every_batch(&mut new());
    }
    a_new_place_has_no_cursor(&mut new());
    a_committed_batch_is_seen_once_and_leaves_its_cursor(&mut new());
    an_empty_batch_moves_the_cursor(&mut new());
    a_batch_that_died_is_written_again_and_seen_once(&mut new());
    an_aborted_batch_is_never_seen(&mut new());
    a_look_disturbs_nobody(&mut new());
    of_two_incarnations_one_commits(&mut new());
    recovery_inside_the_process(&mut new());
    random_lives(&mut new(), 200);
}

/// A place where nothing was committed has no cursor, however often it is asked.
pub fn a_new_place_has_no_cursor<H: SinkHarness>(harness: &mut H) {
    for _ in 0..2 {
        let mut sink = harness.open();
        assert_eq!(sink.peek(&start(1)).expect("a look"), None);
        assert_eq!(sink.fence(&start(1)).expect("a fence"), None);
    }
    assert_eq!(harness.visible(), none());
}

/// Output becomes visible at the commit, not before it, with its cursor; both outlive a crash.
pub fn a_committed_batch_is_seen_once_and_leaves_its_cursor<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    let transactional = sink.guarantee() == Guarantee::Transactional;
    sink.begin(BatchTime::from_ms(1000), &[]).expect("a begin");
    sink.write(records(&["a", "b"])).expect("a task's output");
    sink.write(records(&["c"])).expect("another task's output");
    sink.write(records(&[])).expect("the output of a task that had none");
    if transactional {
        assert_eq!(harness.visible(), none(), "nothing is seen before it is prepared");
    }
    sink.prepare(&cursor(1, 1000)).expect("a prepare");
    if transactional {
        assert_eq!(harness.visible(), none(), "nothing is seen before the commit");
    }
    sink.commit().expect("a commit");
    assert_eq!(visible(harness), ["a", "b", "c"]);
    drop(sink);
    let mut sink = opened(harness, 2, Some(&cursor(1, 1000)));
    assert_eq!(visible(harness), ["a", "b", "c"]);
    write(&mut sink, 2, 2000, &["d"]);
    sink.close();
    drop(sink);
    opened(harness, 3, Some(&cursor(2, 2000)));
    assert_eq!(visible(harness), ["a", "b", "c", "d"]);
}

/// A batch without output commits its cursor all the same.
pub fn an_empty_batch_moves_the_cursor<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    write(&mut sink, 1, 1000, &[]);
    drop(sink);
    let mut sink = opened(harness, 2, Some(&cursor(1, 1000)));
    write(&mut sink, 2, 2000, &[]);
    write(&mut sink, 2, 3000, &["a"]);
    write(&mut sink, 2, 4000, &[]);
    drop(sink);
    opened(harness, 3, Some(&cursor(2, 4000)));
    assert_eq!(visible(harness), ["a"]);
}

/// A crash at any step before the commit leaves the cursor where it was; the batch is written again
/// and its records are seen once.
pub fn a_batch_that_died_is_written_again_and_seen_once<H: SinkHarness>(harness: &mut H) {
    let mut committed: Option<Cursor> = None;
    let mut expected = Vec::new();
    for (step, batch) in (0..4).zip(1..) {
        let mut sink = opened(harness, batch as u8, committed.as_ref());
        let time = BatchTime::from_ms(batch * 1000);
        let value = format!("of batch {batch}");
        if step >= 1 {
            sink.begin(time, &[]).expect("a begin");
        }
        if step >= 2 {
            sink.write(records(&[&value])).expect("a task's output");
        }
        if step >= 3 {
            sink.prepare(&cursor(batch as u8, batch * 1000)).expect("a prepare");
        }
        drop(sink);
        let mut sink = opened(harness, batch as u8 + 100, committed.as_ref());
        if sink.guarantee() == Guarantee::Transactional {
            assert_eq!(visible(harness), expected, "nothing of the batch that died at step {step}");
        }
        write(&mut sink, batch as u8 + 100, batch * 1000, &[&value]);
        expected.push(value);
        assert_eq!(visible(harness), expected);
        committed = Some(cursor(batch as u8 + 100, batch * 1000));
    }
}

/// An aborted batch leaves nothing, and the next try of it is seen alone.
pub fn an_aborted_batch_is_never_seen<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    sink.abort().expect("an abort when nothing has begun");
    for step in 0..3 {
        sink.begin(BatchTime::from_ms(1000), &[]).expect("a begin");
        if step >= 1 {
            sink.write(records(&["of a try that failed"])).expect("a task's output");
        }
        if step >= 2 {
            sink.prepare(&cursor(1, 1000)).expect("a prepare");
        }
        sink.abort().expect("an abort");
        if sink.guarantee() == Guarantee::Transactional {
            assert_eq!(harness.visible(), none(), "step {step}");
        }
    }
    write(&mut sink, 1, 1000, &["a"]);
    assert_eq!(visible(harness), ["a"]);
    drop(sink);
    opened(harness, 2, Some(&cursor(1, 1000)));
    assert_eq!(visible(harness), ["a"]);
}

/// `peek` of another incarnation leaves a batch under way alone.
pub fn a_look_disturbs_nobody<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    write(&mut sink, 1, 1000, &["a"]);
    sink.begin(BatchTime::from_ms(2000), &[]).expect("a begin");
    sink.write(records(&["b"])).expect("a task's output");
    let mut other = harness.open();
    assert_eq!(other.peek(&start(2)).expect("a look"), Some(cursor(1, 1000)));
    sink.prepare(&cursor(1, 2000)).expect("a prepare");
    assert_eq!(other.peek(&start(2)).expect("a look"), Some(cursor(1, 1000)));
    sink.commit().expect("the commit of the sink that was looked at");
    assert_eq!(visible(harness), ["a", "b"]);
}

/// A second incarnation either is refused while the first lives, or shuts it out for good.
pub fn of_two_incarnations_one_commits<H: SinkHarness>(harness: &mut H) {
    let mut first = opened(harness, 1, None);
    first.begin(BatchTime::from_ms(1000), &[]).expect("a begin");
    first.write(records(&["of the first"])).expect("a task's output");
    first.prepare(&cursor(1, 1000)).expect("a prepare");
    let mut second = harness.open();
    second.peek(&start(2)).expect("a look");
    match second.fence(&start(2)) {
        Err(_) => {
            first.commit().expect("the commit of the only owner");
            assert_eq!(visible(harness), ["of the first"]);
        }
        Ok(found) => {
            assert_eq!(found, None);
            assert!(first.commit().is_err(), "an incarnation that was shut out has committed");
            write(&mut second, 2, 1000, &["of the second"]);
            assert_eq!(visible(harness), ["of the second"]);
        }
    }
}

/// The engine recovers inside its process with the same sink: abort, peek, fence, and on.
pub fn recovery_inside_the_process<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    write(&mut sink, 1, 1000, &["a"]);
    sink.begin(BatchTime::from_ms(2000), &[]).expect("a begin");
    sink.write(records(&["b"])).expect("a task's output");
    sink.abort().expect("an abort");
    assert_eq!(sink.peek(&start(1)).expect("a look"), Some(cursor(1, 1000)));
    assert_eq!(sink.fence(&start(1)).expect("a fence"), Some(cursor(1, 1000)));
    write(&mut sink, 1, 2000, &["b"]);
    assert_eq!(visible(harness), ["a", "b"]);
}

/// Commits, aborts, crashes and recoveries in random order, held against what must be there.
pub fn random_lives<H: SinkHarness>(harness: &mut H, steps: u64) {
    let mut random = Random::new("random lives of a sink");
    let mut committed: Option<Cursor> = None;
    let mut expected: Vec<String> = Vec::new();
    let mut sink = opened(harness, 0, None);
    let mut run = 0;
    for step in 1..=steps {
        let values: Vec<String> = (0..random.below(4)).map(|n| format!("{step}-{n}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let reached = random.below(5);
        if reached >= 1 {
            sink.begin(BatchTime::from_ms(step * 1000), &[]).expect("a begin");
        }
        if reached >= 2 {
            values.iter().for_each(|value| sink.write(records(&[value])).expect("a task's output"));
        }
        let next = cursor(run, step * 1000);
        if reached >= 3 {
            sink.prepare(&next).expect("a prepare");
        }
        if reached == 4 {
            sink.commit().expect("a commit");
            expected.extend(values.iter().map(|value| (*value).to_owned()));
            committed = Some(next);
        }
        match random.below(3) {
            0 if reached == 4 => {}
            0 | 1 => sink.abort().expect("an abort"),
            _ => {
                drop(sink);
                run = run.wrapping_add(1);
                sink = opened(harness, run, committed.as_ref());
            }
        }
    }
    drop(sink);
    opened(harness, run.wrapping_add(1), committed.as_ref());
    expected.sort();
    assert_eq!(visible(harness), expected);
}

/// A sink without cursors says so, and shows what it was given.
pub fn at_least_once_writes_every_batch<H: SinkHarness>(harness: &mut H) {
    let mut sink = opened(harness, 1, None);
    write(&mut sink, 1, 1000, &["a", "b"]);
    write(&mut sink, 1, 2000, &["c"]);
    drop(sink);
    opened(harness, 2, None);
    let seen = visible(harness);
    assert!(["a", "b", "c"].iter().all(|value| seen.iter().any(|seen| seen == value)), "{seen:?}");
}

/// The next incarnation, looked at and fenced; it must find this cursor both times.
fn opened<H: SinkHarness>(harness: &mut H, run: u8, expected: Option<&Cursor>) -> H::Sink {
    let mut sink = harness.open();
    let peeked = sink.peek(&start(run)).expect("a look");
    // What a commit left in doubt may be settled between the two: the second is the answer.
    let fenced = sink.fence(&start(run)).expect("a fence");
    assert_eq!(fenced.as_ref(), expected, "the cursor after the fence");
    assert!(peeked.is_none() || peeked.as_ref() == expected, "the cursor before the fence: {peeked:?}");
    sink
}

fn write(sink: &mut impl Sink, run: u8, batch_ms: u64, values: &[&str]) {
    sink.begin(BatchTime::from_ms(batch_ms), &[]).expect("a begin");
    sink.write(records(values)).expect("a task's output");
    sink.prepare(&cursor(run, batch_ms)).expect("a prepare");
    sink.commit().expect("a commit");
}

fn start(run: u8) -> SinkStart {
    SinkStart {
        name: "out".into(),
        application: "conformance".into(),
        deployment: [7; 16],
        run: [run; 16],
        remembered: Vec::new(),
        shared: Arc::new(Shared::default()),
    }
}

fn cursor(run: u8, batch_ms: u64) -> Cursor {
    let batch = BatchTime::from_ms(batch_ms);
    Cursor { deployment: [7; 16], run: [run; 16], batch, plans: batch_ms + 1, digest: batch_ms + 2, records: 3 }
}

fn records(values: &[&str]) -> Records {
    let mut records = Records::new();
    values.iter().for_each(|value| records.push(None, Some(value.as_bytes())));
    records
}

fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

/// What a reader sees, as sorted text.
fn visible(harness: &mut impl SinkHarness) -> Vec<String> {
    let mut values: Vec<_> =
        harness.visible().into_iter().map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
    values.sort();
    values
}
