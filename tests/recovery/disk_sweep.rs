//! Every call to the disk fails once: in the test command as many as there is time for, drawn evenly over failures and kinds of files;
//! `make disk-sweep` takes them all.

use std::time::{Duration, Instant};

use millpond_fault_injection::disk_sweep::{Answer, Failure, Kind, Life, Stage, Tally, cases, drawn, inflict};

/// How long the drawn ones go on.
const TIME: Duration = Duration::from_secs(35);

#[test]
fn h20_n10_any_call_to_the_disk_that_fails_is_answered_as_was_written_down_and_nothing_is_lost() {
    let seed = crate::seed();
    let cases = cases(seed).unwrap();
    let began = Instant::now();
    let some = drawn(&cases, seed).take_while(|_| began.elapsed() < TIME);
    let tally = inflict(some, 2, seed, |_| ()).unwrap();
    println!("{}", tally.markdown());
    let Tally { missed, findings, .. } = &tally;
    println!(
        "{} of {} calls failed, {} stopped the process, {missed} were not made",
        tally.met(),
        cases.len(),
        tally.stopped()
    );
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(tally.met() >= 10, "hardly any call has failed");
    assert!(tally.stopped() > 0 && tally.stopped() < tally.met(), "all has gone one way: {:?}", tally.answers);
}

#[test]
fn a_persisted_data_set_that_cannot_be_read_is_computed_again_from_the_checkpoint() {
    let mut stage = Stage::new(Life::ALL[0], 401).unwrap();
    let calls = stage.calls().unwrap();
    let reads = calls.iter().filter(|(failing, kind)| failing.failure == Failure::Read && *kind == Kind::Spill);
    let reads: Vec<_> = reads.map(|(failing, _)| *failing).collect();
    let mut met = 0;
    for failing in reads.iter().step_by(reads.len().div_ceil(10)) {
        let seen = stage.inflict(*failing).unwrap();
        if let Some(seen) = seen.filter(|seen| seen.kind == Kind::Spill) {
            assert_eq!(seen.answer, Answer::WentOn, "{seen:?}");
            met += 1;
        }
    }
    assert!(met >= 3, "{met} of {} were met", reads.len());
}
