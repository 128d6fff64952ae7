//! The faults around Kafka: transactions that expire, zombies, a broker that dies, a network that delays, cuts, loses and repeats.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::faults::end;
use super::kill::{Point, kill_at};
use super::proxy::Request;
use super::{Expected, Fault, Finding, Needs, Process, Proxy, Result, Scene, Seen, wait_until};

/// All faults around a program that reads from Kafka and writes to it.
pub fn of_kafka() -> Vec<Fault> {
    [transactions(), brokers(), networks()].concat()
}

/// A [broker](KafkaBrokerBuilder::with_proxy) that the program reaches through a proxy is needed for the last of them.
///
/// [KafkaBrokerBuilder::with_proxy]: crate::broker::KafkaBrokerBuilder::with_proxy
fn transactions() -> Vec<Fault> {
    let fault = |name: &str, what: &str, expected, inflict: fn(&mut Scene<'_>) -> Result<Seen>| {
        Fault::new(name, what, expected, Needs::Kafka, inflict)
    };
    vec![
        fault(
            "expired-while-down",
            "SIGKILL with an open transaction, and no start until the broker has timed it out",
            Expected::Recovers,
            expired_while_down,
        ),
        fault(
            "frozen-past-the-transaction-timeout",
            "SIGSTOP with an open transaction until the broker has timed it out, then SIGCONT",
            Expected::Recovers,
            frozen_past_the_timeout,
        ),
        fault(
            "zombie",
            "SIGSTOP with an open transaction; a process with a copy of the directory takes over; SIGCONT",
            Expected::Stops("has committed batch"),
            zombie,
        ),
        fault(
            "second-directory",
            "a second process with the same name and transactional id and an empty directory, while the first runs",
            Expected::Refuses("for another directory than"),
            second_directory,
        ),
    ]
}

fn brokers() -> Vec<Fault> {
    let fault = |name: &str, what: &str, needs, inflict: fn(&mut Scene<'_>) -> Result<Seen>| {
        Fault::new(name, what, Expected::Recovers, needs, inflict)
    };
    vec![
        fault("broker-killed", "the broker is killed at any moment and started again", Needs::Broker, broker_killed),
        fault("broker-and-process-killed", "SIGKILL of the broker and then of the process", Needs::Broker, both_killed),
        fault("broker-frozen", "the broker is frozen (SIGSTOP) for three seconds", Needs::Broker, broker_frozen),
        fault(
            "broker-killed-before-the-commit-arrives",
            "a commit is asked for and does not arrive, the broker is killed and started again",
            Needs::Proxy,
            |scene| broker_killed_at_commit(scene, true),
        ),
        fault(
            "broker-killed-before-it-has-answered",
            "the broker is killed when it has committed and written all markers, before its answer has come, and started again",
            Needs::Proxy,
            |scene| broker_killed_at_commit(scene, false),
        ),
    ]
}

fn networks() -> Vec<Fault> {
    let fault = |name: &str, what: &str, inflict: fn(&mut Scene<'_>) -> Result<Seen>| {
        Fault::new(name, what, Expected::Recovers, Needs::Proxy, inflict)
    };
    vec![
        fault("network-slow", "every request and answer is held up for up to 30 ms", |scene| {
            scene.proxy()?.delay(Duration::from_millis(30));
            scene.world.feed()?;
            let process = live(scene)?;
            scene.world.feed()?;
            end(scene, process)
        }),
        fault("network-cut", "all connections are cut five times, at any moment", network_cut),
        fault("network-away", "no connection comes about for two seconds", network_away),
        fault(
            "commit-delayed",
            "the request to commit is held up, its connection closed; it arrives when the next transaction is open",
            |scene| late_commit(scene, |proxy| proxy.keep_back(Request::EndTransaction)),
        ),
        fault(
            "commit-repeated",
            "a commit's answer is lost with its connection; the same request arrives again when the next transaction is open",
            |scene| late_commit(scene, |proxy| proxy.lose_answer(Request::EndTransaction)),
        ),
        fault("offsets-repeated", "the request that adds the input's offsets arrives twice", |scene| {
            repeated(scene, Request::Offsets)
        }),
        fault("records-repeated", "a request with records arrives twice", |scene| repeated(scene, Request::Produce)),
        fault("records-answer-lost", "the answer to a request with records is lost with its connection", |scene| {
            scene.proxy()?.lose_answer(Request::Produce);
            scene.world.feed()?;
            let mut process = scene.lineage.start("")?;
            wait_caught(scene, &mut process)?;
            end(scene, process)
        }),
    ]
}

/// Everything of the transaction is at the broker, the commit has not been asked for.
const OPEN: Point = Point::new("before-commit", 3);

fn live(scene: &mut Scene<'_>) -> Result<Process> {
    let mut process = scene.lineage.start("")?;
    process.wait_ready(scene.limit)?;
    scene.lineage.note_recovery(&process);
    Ok(process)
}

fn expired_while_down(scene: &mut Scene<'_>) -> Result<Seen> {
    kill_at(scene.lineage, scene.world, OPEN, "")?;
    scene.wait_no_transaction()?;
    Ok(Seen::WentOn)
}

/// A process that holds a transaction open and does nothing.
fn frozen_in_transaction(scene: &mut Scene<'_>) -> Result<Process> {
    scene.world.feed()?;
    let mut process = scene.lineage.start(&format!("{}=stop@{}", OPEN.name, OPEN.hit))?;
    for _ in 0..scene.limit.as_secs() {
        if process.wait_frozen(Duration::from_secs(1)).is_ok() {
            return Ok(process);
        }
        // The point wants more input than there was.
        scene.world.feed()?;
    }
    Err(Finding::new("the process did not come to a transaction").at(process.said()))
}

fn frozen_past_the_timeout(scene: &mut Scene<'_>) -> Result<Seen> {
    let mut process = frozen_in_transaction(scene)?;
    scene.wait_no_transaction()?;
    scene.world.feed()?;
    process.thaw()?;
    end(scene, process)
}

fn zombie(scene: &mut Scene<'_>) -> Result<Seen> {
    let mut zombie = frozen_in_transaction(scene)?;
    let directory = scene.lineage.directory().to_owned();
    let elsewhere = directory.with_extension("elsewhere");
    copy_folder(&directory, &elsewhere)?;
    let launch = scene.lineage.launch().replaced(&directory, &elsewhere);
    let mut successor = Process::start(launch, "", &directory.with_extension("successor"))?;
    successor.wait_ready(scene.limit)?;
    scene.world.feed()?;
    scene.wait_complete(&mut successor)?;
    zombie.thaw()?;
    let said = scene.wait_stopped(&mut zombie)?;
    scene.world.feed()?;
    scene.wait_complete(&mut successor)?;
    successor.kill()?;
    // From here on the successor's directory is that of the application.
    fs::remove_dir_all(&directory)?;
    fs::rename(&elsewhere, &directory)?;
    Ok(Seen::Stopped(said))
}

fn second_directory(scene: &mut Scene<'_>) -> Result<Seen> {
    scene.world.feed()?;
    let mut first = live(scene)?;
    scene.wait_complete(&mut first)?;
    let directory = scene.lineage.directory().to_owned();
    let empty = directory.with_extension("empty");
    let launch = scene.lineage.launch().replaced(&directory, &empty);
    let mut second = Process::start(launch, "", &directory.with_extension("second"))?;
    let said = scene.wait_stopped(&mut second)?;
    if empty.exists() {
        fs::remove_dir_all(&empty)?;
    }
    scene.world.feed()?;
    end(scene, first)?;
    Ok(Seen::Refused(said))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Lets a live process work for a random time; what happens then is a fault whose moment is random.
fn work_for_a_while(scene: &mut Scene<'_>, process: &mut Process) -> Result<()> {
    scene.world.feed()?;
    let moment = Duration::from_micros(scene.dice.below(400_000));
    match process.ends_within(moment)? {
        None => Ok(()),
        Some(ended) => Err(Finding::new(format!("the process {ended}: {}", process.said()))),
    }
}

fn broker_killed(scene: &mut Scene<'_>) -> Result<Seen> {
    let broker = scene.broker()?;
    let mut process = live(scene)?;
    work_for_a_while(scene, &mut process)?;
    broker.kill()?;
    broker.restart()?;
    scene.world.feed()?;
    end(scene, process)
}

fn both_killed(scene: &mut Scene<'_>) -> Result<Seen> {
    let broker = scene.broker()?;
    let mut process = live(scene)?;
    work_for_a_while(scene, &mut process)?;
    broker.kill()?;
    process.kill()?;
    scene.lineage.tally_mut().kill("random");
    // Started while the broker is away, it waits.
    let process = scene.lineage.start("")?;
    broker.restart()?;
    scene.world.feed()?;
    end(scene, process)
}

fn broker_frozen(scene: &mut Scene<'_>) -> Result<Seen> {
    let broker = scene.broker()?;
    let mut process = live(scene)?;
    work_for_a_while(scene, &mut process)?;
    broker.pause()?;
    // Time itself is the fault.
    let ended = process.ends_within(Duration::from_secs(3));
    broker.resume()?;
    if let Some(ended) = ended? {
        return Err(Finding::new(format!("the process {ended}: {}", process.said())));
    }
    scene.world.feed()?;
    end(scene, process)
}

fn wait_caught(scene: &mut Scene<'_>, process: &mut Process) -> Result<()> {
    let proxy = scene.proxy()?;
    process.wait_while_alive(scene.limit, "the request that is waited for", || Ok(proxy.has_caught()))
}

fn broker_killed_at_commit(scene: &mut Scene<'_>, before_it_arrives: bool) -> Result<Seen> {
    let (broker, proxy) = (scene.broker()?, scene.proxy()?);
    match before_it_arrives {
        true => proxy.keep_back(Request::EndTransaction),
        false => proxy.lose_answer_and_refuse(Request::EndTransaction),
    }
    scene.world.feed()?;
    let mut process = scene.lineage.start("")?;
    wait_caught(scene, &mut process)?;
    if !before_it_arrives {
        // Killed before it has written all markers, a broker that is alone may forget those it owes when it comes back (4.3.1: "these
        // partitions are likely deleted already and hence can be skipped"). Then the transaction is open for ever, and torn.
        scene.wait_no_transaction()?;
    }
    broker.kill()?;
    proxy.refuse(false);
    broker.restart()?;
    scene.world.feed()?;
    end(scene, process)
}

fn network_cut(scene: &mut Scene<'_>) -> Result<Seen> {
    let proxy = scene.proxy()?;
    let mut process = live(scene)?;
    for _ in 0..5 {
        work_for_a_while(scene, &mut process)?;
        proxy.cut();
    }
    end(scene, process)
}

fn network_away(scene: &mut Scene<'_>) -> Result<Seen> {
    let proxy = scene.proxy()?;
    let mut process = live(scene)?;
    work_for_a_while(scene, &mut process)?;
    proxy.refuse(true);
    // Time itself is the fault.
    let ended = process.ends_within(Duration::from_secs(2));
    proxy.refuse(false);
    if let Some(ended) = ended? {
        return Err(Finding::new(format!("the process {ended}: {}", process.said())));
    }
    scene.world.feed()?;
    end(scene, process)
}

/// Version 1 of the protocol: EndTxn names no transaction. One that comes late can commit half of the next.
fn late_commit(scene: &mut Scene<'_>, set: fn(&Proxy)) -> Result<Seen> {
    let (broker, proxy) = (scene.broker()?, scene.proxy()?);
    scene.world.feed()?;
    // Each transaction stays open for a while, with its output at the broker and its cursor not.
    let mut process = scene.lineage.start("output-written=sleep(300)")?;
    process.wait_ready(scene.limit)?;
    set(proxy);
    wait_caught(scene, &mut process)?;
    // The commit is asked for again, on another connection, and then another transaction begins.
    let commits = proxy.passed(Request::EndTransaction);
    let transaction = scene.transactional_id;
    let mut partitions = None;
    wait_until(scene.limit, "the next transaction", || {
        // A transaction without output is none, for this.
        scene.world.feed()?;
        if proxy.passed(Request::EndTransaction) == commits {
            return Ok(None);
        }
        let now = proxy.passed(Request::AddPartitions);
        if now <= *partitions.get_or_insert(now) {
            return Ok(None);
        }
        let open = broker.open_transactions()?;
        Ok(open.iter().any(|open| open.transactional_id == transaction && open.state == "Ongoing").then_some(()))
    })
    .map_err(|finding| finding.at(process.said()))?;
    proxy.deliver()?;
    end(scene, process)
}

fn repeated(scene: &mut Scene<'_>, request: Request) -> Result<Seen> {
    let proxy = scene.proxy()?;
    scene.world.feed()?;
    let mut process = live(scene)?;
    for _ in 0..3 {
        proxy.repeat(request);
        scene.world.feed()?;
        wait_caught(scene, &mut process)?;
        proxy.deliver()?;
    }
    end(scene, process)
}
