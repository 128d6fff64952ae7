//! Whatever happens to the service, every count is right, and seen once.

use std::process::Command;

use millpond_testkit::broker::KafkaBroker;
use millpond_testkit::chaos::{Chaos, Expected, Fault, Needs, Seen, faults};
use millpond_testkit::{Outgoing, Record, oracle};

#[test]
fn counts_are_exactly_once_whatever_happens() {
    let broker = KafkaBroker::builder().with_proxy().start().unwrap();
    broker.create_topic("visits", 2, &[]).unwrap();
    broker.create_topic("counts", 2, &[]).unwrap();
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().canonicalize().unwrap().join("visits");
    let mut service = Command::new(env!("CARGO_BIN_EXE_visits"));
    service.arg("--brokers").arg(broker.proxied_servers()).arg("--directory").arg(&directory);

    let report = Chaos::new(service)
        .application("visits", &directory)
        .kafka(&broker)
        .topics("visits", "counts")
        .input(|n| Outgoing::value(format!("page{}", n % 20)))
        .faults([faults::killed_at_random(), faults::frozen(), faults::second_instance()])
        .faults(faults::of_kafka().into_iter().filter(|fault| ["network-cut", "broker-killed"].contains(&fault.name())))
        // The clock stays as it is: a broker refuses records from the future.
        .faults(faults::of_disk(&[]).into_iter().filter(|fault| fault.name() != "clock-jumps"))
        .faults(cfg!(feature = "failpoints").then(faults::killed_at_a_point))
        .faults([terminated_and_started_again()])
        .oracle(|input, output| oracle::running_counts(input.iter().map(Record::value_text), output))
        .run();

    println!("seed {}: {} kills, {} results", report.seed, report.kill_count(), report.results_judged);
    report.write_to(&place.path().join("report")).unwrap();
    report.assert_clean();
    assert!(report.faults.len() >= 15, "{:?}", report.faults);
}

/// A fault of one's own.
fn terminated_and_started_again() -> Fault {
    let what = "stopped gracefully in the midst of its work, as a new release does";
    Fault::new("terminated", what, Expected::Recovers, Needs::Process, |scene| {
        scene.world.feed()?;
        let mut process = scene.lineage.start("")?;
        process.wait_ready(scene.limit)?;
        scene.world.feed()?;
        process.terminate()?;
        process.wait(scene.limit)?;
        Ok(Seen::WentOn)
    })
}
