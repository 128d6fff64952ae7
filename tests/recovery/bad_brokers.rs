//! Brokers that are away, die, lose topics, or serve two of a name: a clear message, and nothing lost.

use std::time::Duration;

use millpond_fault_injection::kafka::Kafka;
use millpond_fault_injection::points;
use millpond_fault_injection::victim::{Pipeline, Setup};
use millpond_fault_injection::{Ended, Lineage, Process, World, kill_at};
use millpond_testkit::broker::{KafkaBroker, unique_name};
use millpond_testkit::{Outgoing, Producer};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_broker_away_at_start_is_waited_for_and_one_killed_in_the_middle_too() {
    let broker = KafkaBroker::builder().start().unwrap();
    let servers = broker.bootstrap_servers().to_owned();
    let (input, output) = (unique_name("input"), unique_name("output"));
    broker.create_topic(&input, 2, &[]).unwrap();
    broker.create_topic(&output, 2, &[]).unwrap();
    let mut producer = Producer::new(&servers).unwrap();
    let place = tempfile::tempdir().unwrap();
    let setup = Setup {
        input: input.clone(),
        output: output.clone(),
        brokers: servers.clone(),
        batch_ms: 50,
        ..Setup::new(Pipeline::KafkaCount, unique_name("application"), place.path().join("pond"))
    };
    let mut fed = Vec::new();
    let mut feed = |range: std::ops::Range<u32>| {
        let lines: Vec<String> = range.map(|n| format!("all line{n}")).collect();
        producer.produce(&input, lines.iter().map(|line| Outgoing::value(line.clone()))).unwrap();
        fed.extend(lines);
    };
    feed(0..50);

    broker.kill().unwrap();
    // One that does not wait says who is away, and for how long it waited.
    let impatient = Setup { wait_for_broker_ms: 500, ..setup.clone() };
    let mut process = Process::start(&impatient, "", &place.path().join("impatient.log")).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    assert!(process.said().contains(&servers), "{}", process.said());

    let mut lineage = Lineage::new(setup);
    let mut process = lineage.start("").unwrap();
    broker.restart().unwrap();
    process.wait_ready(LIMIT).unwrap();
    feed(50..100);
    let has_counted = |count: &str| {
        let seen = millpond_testkit::read_committed(&servers, &output)?;
        Ok(seen.iter().any(|record| record.key_text() == "all" && record.value_text() == count))
    };
    process.wait_while_alive(LIMIT, "the first hundred", || has_counted("100")).unwrap();
    // In the midst of batches, which go on being cut every 50 ms.
    broker.kill().unwrap();
    broker.restart().unwrap();
    feed(100..150);
    process.wait_while_alive(LIMIT, "the rest", || has_counted("150")).unwrap();
    process.terminate().unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Well, "{}", process.said());
    let seen = millpond_testkit::read_committed(&servers, &output).unwrap();
    let keys = fed.iter().flat_map(|line| line.split_whitespace());
    millpond_testkit::oracle::running_counts(keys, &seen).assert_none();
}

/// A word count that has put out all there was.
fn counting(seed: u64) -> (Kafka<'static>, Lineage, Process) {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    world.feed().unwrap();
    let mut process = lineage.start("").unwrap();
    process.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
    (world, lineage, process)
}

/// It ends with an error that has all of this.
fn stops_with(mut process: Process, expected: &[&str]) {
    let limit = Duration::from_secs(240);
    assert_eq!(process.wait(limit).unwrap(), Ended::Failed, "{}", process.said());
    for text in expected {
        assert!(process.said().contains(text), "{text:?} is not in: {}", process.said());
    }
}

#[test]
fn an_input_topic_that_is_deleted_stops_the_application_by_name_and_is_not_taken_for_a_new_one() {
    let (world, mut lineage, process) = counting(41);
    let input = world.setup().input;
    KafkaBroker::shared().delete_topic(&input).unwrap();
    stops_with(process, &["source `lines`", &input, "was deleted"]);
    stops_with(lineage.start("").unwrap(), &["source `lines`", &input, "is gone"]);
    KafkaBroker::shared().create_topic(&input, 2, &[]).unwrap();
    stops_with(lineage.start("").unwrap(), &["source `lines`", &input, "was deleted and made again"]);
}

#[test]
fn an_output_topic_that_is_deleted_stops_the_application_by_name_and_what_it_had_not_committed_comes_again() {
    let (mut world, mut lineage, process) = counting(47);
    let setup = world.setup();
    KafkaBroker::shared().delete_topic(&setup.output).unwrap();
    world.feed().unwrap();
    let began = std::time::Instant::now();
    stops_with(process, &["sink `out`", &setup.output]);
    println!("stopped after {:?}", began.elapsed());
    // What was in the topic is gone with it, and nobody can bring it back; what was not committed is there.
    KafkaBroker::shared().create_topic(&setup.output, 2, &[]).unwrap();
    let mut process = lineage.start("").unwrap();
    let new = world.newest_line();
    let has_new = || {
        let seen = millpond_testkit::read_committed(&setup.brokers, &setup.output)?;
        Ok(seen.iter().any(|record| record.key_text() == new && record.value_text() == "1"))
    };
    process.wait_while_alive(LIMIT, "the newest line", has_new).unwrap();
}

#[test]
fn an_empty_directory_under_a_name_that_has_committed_to_kafka_is_refused_and_shuts_out_nobody() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, 42).unwrap();
    let mut lineage = Lineage::new(world.setup());
    world.feed().unwrap();
    let mut first = lineage.start("").unwrap();
    first.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
    // Started beside the one that runs: the same name, so the same transactional id, another directory.
    let setup = Setup { directory: world.place().join("empty"), ..world.setup() };
    let mut second = Process::start(&setup, "", &world.place().join("second.log")).unwrap();
    assert_eq!(second.wait(LIMIT).unwrap(), Ended::Failed, "{}", second.said());
    for text in ["sink `out` has committed batch", "for another directory than", "Restore that directory"] {
        assert!(second.said().contains(text), "{}", second.said());
    }
    world.feed().unwrap();
    first.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
    first.kill().unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn two_applications_with_one_transactional_id_shut_each_other_out_and_lose_nothing() {
    let broker = KafkaBroker::shared();
    let id = unique_name("id");
    let mut worlds: Vec<Kafka<'_>> =
        (0..2).map(|n| Kafka::new(broker, Pipeline::KafkaCount, 43 + n).unwrap()).collect();
    // What the killed leave open under the shared id is over when its transaction times out, after a minute: an id is known to
    // the next start, which would end it at once, from the first checkpoint on.
    let patient = |world: &Kafka<'_>| Lineage::new(world.setup()).patience(Duration::from_secs(180));
    let mut lineages: Vec<Lineage> = worlds.iter().map(patient).collect();
    lineages.iter_mut().for_each(|lineage| lineage.setup_mut().transactional_id = Some(id.clone()));
    worlds.iter_mut().for_each(|world| world.feed().unwrap());
    let mut processes: Vec<Process> = lineages.iter_mut().map(|lineage| lineage.start("").unwrap()).collect();
    // They shut each other out until one of them gives up and says why.
    let mut loser = None;
    for _ in 0..LIMIT.as_millis() / 20 {
        loser = (0..2).find(|&n| processes[n].wait(Duration::from_millis(10)).is_ok());
        if loser.is_some() {
            break;
        }
        worlds.iter_mut().for_each(|world| world.feed().unwrap());
    }
    let loser = loser.expect("one gives up");
    let said = processes[loser].said();
    assert!(said.contains(&id) && (said.contains("shut this one out") || said.contains("was shut out")), "{said}");
    processes.iter_mut().for_each(|process| process.kill().unwrap());
    // With an id of its own each has everything once.
    for (n, (lineage, world)) in lineages.iter_mut().zip(&mut worlds).enumerate() {
        lineage.setup_mut().transactional_id = Some(format!("{id}-{n}"));
        lineage.finish(world).unwrap();
    }
}

#[test]
fn h5_a_partition_idle_over_two_restarts_with_starting_offset_latest_loses_nothing() {
    let broker = KafkaBroker::shared();
    let mut world = Kafka::new(broker, Pipeline::KafkaCount, 45).unwrap();
    let mut lineage = Lineage::new(world.setup());
    lineage.setup_mut().from_latest = true;
    let mut producer = Producer::new(broker.bootstrap_servers()).unwrap();
    let input = world.setup().input;
    let mut give = |world: &mut Kafka<'_>, partition: i32, line: &str| {
        producer.produce(&input, [Outgoing::value(line).partition(partition)]).unwrap();
        world.note(line);
    };
    let mut process = lineage.start("").unwrap();
    process.wait_ready(LIMIT).unwrap();
    for restart in 0..2 {
        give(&mut world, 0, &format!("all busy{restart}"));
        process.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
        process.kill().unwrap();
        process.wait(LIMIT).unwrap();
        process = lineage.start("").unwrap();
        process.wait_ready(LIMIT).unwrap();
    }
    process.kill().unwrap();
    process.wait(LIMIT).unwrap();
    // The first record of the idle partition, while nobody runs.
    give(&mut world, 1, "all idle");
    lineage.finish(&mut world).unwrap();
}

#[test]
fn h1_a_kill_in_the_midst_of_a_commit_is_settled_by_the_next_start_within_the_transaction_timeout() {
    let mut world = Kafka::new(KafkaBroker::shared(), Pipeline::KafkaCount, 46).unwrap();
    let mut lineage = Lineage::new(world.setup());
    kill_at(&mut lineage, &mut world, points::SINK[1], "").unwrap();
    // The transaction of the dead is open; its timeout is a minute. A restart does not wait for it.
    let mut process = lineage.start("").unwrap();
    process.wait_ready(Duration::from_secs(20)).unwrap();
    process.kill().unwrap();
    lineage.finish(&mut world).unwrap();
}
