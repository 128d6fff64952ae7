//! What the Kafka source and sink cost by themselves, beside a broker of their own on the same cores: records a second, CPU
//! seconds of this process a million records, and how long a start and a commit take.
//!
//!     cargo run --release -p millpond-tests --example kafka_speed [RECORDS]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_core::clock::SystemClock;
use millpond_core::log::{BlockLog, Budget, MemoryBatchLog};
use millpond_core::sink::{Cursor, Records, Shared, Sink, SinkStart};
use millpond_core::source::{PlanRequest, RefusedRecord, Source, SourceEvents, SourceOutput, SourceStart};
use millpond_core::{BatchTime, Result};
use millpond_kafka::{KafkaSink, KafkaSource};
use millpond_testkit::broker::KafkaBroker;

const PARTITIONS: u32 = 4;
const KEYS: u64 = 1_000_000;

fn main() -> Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(2_000_000);
    let broker = KafkaBroker::builder().start().expect("a broker");
    for topic in ["plain", "headers", "small", "latency"] {
        broker.create_topic(topic, PARTITIONS, &[]).expect("a topic");
    }
    let brokers = broker.bootstrap_servers();
    start_times(brokers)?;
    produce(brokers, "plain", count, &|records, n| records.push(Some(&key(n)), Some(&[b'v'; 100])))?;
    produce(brokers, "headers", count / 4, &|records, n| {
        records.record().key(key(n)).value([b'v'; 100]).header("n", "12").end();
    })?;
    produce(brokers, "small", count, &|records, n| records.push(Some(&key(n)), Some(&[b'v'; 8])))?;
    for _ in 0..2 {
        consume(brokers, "plain", count)?;
    }
    consume_text(brokers, "plain", count)?;
    commits(brokers)
}

fn key(n: u64) -> [u8; 11] {
    let mut key = *b"key-0000000";
    let mut rest = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
    for at in (4..11).rev() {
        key[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn sink_start(application: &str) -> SinkStart {
    SinkStart {
        name: "out".into(),
        application: application.into(),
        deployment: [0; 16],
        run: [0; 16],
        remembered: Vec::new(),
        shared: Arc::new(Shared::default()),
    }
}

fn cursor(batch: u64) -> Cursor {
    Cursor { deployment: [0; 16], run: [0; 16], batch: BatchTime::from_ms(batch), plans: 0, digest: 0, records: 0 }
}

fn started(brokers: &str, application: &str, topic: &str) -> Result<KafkaSink> {
    let mut sink = KafkaSink::to(brokers, topic);
    // To compare settings: `SINK_SETTINGS=linger.ms=5,compression.type=lz4`.
    for setting in std::env::var("SINK_SETTINGS").unwrap_or_default().split(',') {
        if let Some((key, value)) = setting.split_once('=') {
            sink = sink.setting(key, value);
        }
    }
    sink.peek(&sink_start(application))?;
    sink.fence(&sink_start(application))?;
    Ok(sink)
}

fn start_times(brokers: &str) -> Result<()> {
    for round in ["first start", "second start", "third start"] {
        let mut sink = KafkaSink::to(brokers, "plain");
        let start = sink_start("starts");
        let began = Instant::now();
        sink.peek(&start)?;
        let peeked = began.elapsed();
        sink.fence(&start)?;
        let fenced = began.elapsed();
        batch(&mut sink, 1000 + began.elapsed().as_millis() as u64, Records::new())?;
        let committed = began.elapsed();
        let ms = |time: Duration| time.as_millis();
        println!("{round}: peeked {} ms, fenced {} ms, first commit {} ms", ms(peeked), ms(fenced), ms(committed));
        // As after a kill.
        std::mem::forget(sink);
    }
    Ok(())
}

fn batch(sink: &mut KafkaSink, time: u64, records: Records) -> Result<()> {
    sink.begin(BatchTime::from_ms(time), &[])?;
    sink.write(records)?;
    sink.prepare(&cursor(time))?;
    sink.commit()
}

fn produce(brokers: &str, topic: &str, count: u64, add: &dyn Fn(&mut Records, u64)) -> Result<()> {
    let mut sink = started(brokers, topic, topic)?;
    // The records are made beforehand: they are the engine's work.
    const TASK: u64 = 10_000;
    let mut tasks: Vec<Records> = Vec::new();
    for from in (0..count).step_by(TASK as usize) {
        let mut records = Records::new();
        (from..(from + TASK).min(count)).for_each(|n| add(&mut records, n));
        tasks.push(records);
    }
    let meter = Meter::start();
    for (n, some) in tasks.chunks(30).enumerate() {
        let time = n as u64 + 1;
        sink.begin(BatchTime::from_ms(time), &[])?;
        for task in some {
            sink.write(task.clone())?;
        }
        sink.prepare(&cursor(time))?;
        sink.commit()?;
    }
    meter.report(&format!("produce `{topic}`"), count);
    Ok(())
}

struct Sum {
    records: u64,
    bytes: u64,
}

impl SourceOutput<usize> for Sum {
    fn records(&mut self, chunk: Vec<usize>) -> Result<()> {
        self.records += chunk.len() as u64;
        self.bytes += chunk.iter().sum::<usize>() as u64;
        Ok(())
    }
    fn wants_refused(&self) -> bool {
        false
    }
    fn refused(&mut self, _: RefusedRecord) -> Result<()> {
        Ok(())
    }
    fn skipped(&mut self, _: u64) {}
}

impl SourceOutput<String> for Sum {
    fn records(&mut self, chunk: Vec<String>) -> Result<()> {
        self.records += chunk.len() as u64;
        self.bytes += chunk.iter().map(String::len).sum::<usize>() as u64;
        Ok(())
    }
    fn wants_refused(&self) -> bool {
        false
    }
    fn refused(&mut self, _: RefusedRecord) -> Result<()> {
        Ok(())
    }
    fn skipped(&mut self, _: u64) {}
}

fn source_start() -> SourceStart {
    let budget = Budget::new(256 << 20);
    SourceStart {
        name: "in".into(),
        application: "speed".into(),
        positions: None,
        unplanned: Vec::new(),
        blocks: BlockLog::new(Arc::new(MemoryBatchLog::new()), "in", budget),
        first_start: BatchTime::from_ms(0),
        batch_interval: Duration::from_millis(50),
        clock: Arc::new(SystemClock::new()),
        events: SourceEvents::new(|event| println!("{event:?}")),
    }
}

fn consume(brokers: &str, topic: &str, count: u64) -> Result<()> {
    let source = KafkaSource::subscribe(brokers, [topic]);
    let source = source.decode(|record| Ok::<_, std::convert::Infallible>(record.value().map_or(0, <[u8]>::len)));
    drain(source, "consume, lengths of borrowed values", count)
}

fn consume_text(brokers: &str, topic: &str, count: u64) -> Result<()> {
    drain(KafkaSource::subscribe(brokers, [topic]).utf8(), "consume, values as String", count)
}

fn drain<D: millpond_kafka::Decode>(mut source: KafkaSource<D>, what: &str, count: u64) -> Result<()>
where
    Sum: SourceOutput<D::Item>,
{
    let meter = Meter::start();
    source.start(source_start())?;
    let mut sum = Sum { records: 0, bytes: 0 };
    let mut time = 0;
    while sum.records < count {
        time += 50;
        let request =
            PlanRequest { time: BatchTime::from_ms(time), interval: Duration::from_millis(50), max_records: None };
        let plan = source.plan(&request)?;
        for partition in source.read(&plan)? {
            partition.compute(&mut sum)?;
        }
        source.release(request.time);
        if plan.records == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    meter.report(what, count);
    source.stop();
    Ok(())
}

fn commits(brokers: &str) -> Result<()> {
    let mut sink = started(brokers, "latency", "latency")?;
    for size in [0, 1, 1000, 20_000, 100_000] {
        let mut times = Vec::new();
        for round in 0..30 {
            let mut records = Records::new();
            (0..size).for_each(|n| records.push(Some(&key(n)), Some(&[b'v'; 100])));
            let began = Instant::now();
            batch(&mut sink, size * 1000 + round, records)?;
            times.push(began.elapsed());
        }
        times.sort();
        println!("transaction of {size} records: p50 {:.1?}, max {:.1?}", times[15], times[29]);
    }
    Ok(())
}

struct Meter {
    began: Instant,
    cpu_seconds: f64,
}

impl Meter {
    fn start() -> Self {
        Meter { began: Instant::now(), cpu_seconds: cpu_seconds() }
    }

    fn report(&self, what: &str, records: u64) {
        let (wall, cpu) = (self.began.elapsed().as_secs_f64(), cpu_seconds() - self.cpu_seconds);
        let millions = records as f64 / 1e6;
        println!("{what}: {:.2} M records/s, {:.2} CPU s a million", millions / wall, cpu / millions);
    }
}

/// CPU seconds of this process so far, user and system.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("a number") + fields[12].parse::<f64>().expect("a number");
    ticks / 100.0
}
