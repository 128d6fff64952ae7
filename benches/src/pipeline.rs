//! The pipelines of the Kafka workloads, each run in a process of its own so that what it takes can be told from what the
//! measuring takes, and so that it can be killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millpond::kafka::{KafkaSink, KafkaSource};
use millpond::{ErrorKind, StreamingContext, milliseconds};
use serde_json::{Value, json};

use crate::Failure;
use crate::disk::filler;
use crate::usage::{Meter, Used};

/// What a pipeline process is told.
#[derive(clap::Args, Clone)]
pub(crate) struct Pipeline {
    /// What it does.
    pub(crate) kind: Kind,
    #[arg(long)]
    pub(crate) brokers: String,
    #[arg(long)]
    pub(crate) directory: PathBuf,
    #[arg(long)]
    pub(crate) batch_ms: u64,
    #[arg(long)]
    pub(crate) checkpoint_ms: u64,
    /// Stops gracefully after so many input records, and tells what it took; without it, goes on until it is killed.
    #[arg(long)]
    pub(crate) records: Option<u64>,
    /// For `keep`: bytes of each value kept.
    #[arg(long, default_value_t = 90)]
    pub(crate) value_bytes: usize,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Counts records per key; after each batch the count of each key it touched.
    Count,
    /// Values to upper case, no state.
    Pass,
    /// As `count`, with a value kept beside each count.
    Keep,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Count => "count",
            Kind::Pass => "pass",
            Kind::Keep => "keep",
        }
    }
}

pub(crate) const INPUT: &str = "input";
pub(crate) const OUTPUT: &str = "output";

/// How long a pipeline may stand still before the run is given up.
const STALL_LIMIT: Duration = Duration::from_secs(120);

impl Pipeline {
    /// Starts a process that runs this pipeline.
    pub(crate) fn spawn(&self) -> Result<Running, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("pipeline").arg(self.kind.name()).args(["--brokers", &self.brokers]);
        command.arg("--directory").arg(&self.directory);
        command.args(["--batch-ms", &self.batch_ms.to_string(), "--checkpoint-ms", &self.checkpoint_ms.to_string()]);
        command.args(["--value-bytes", &self.value_bytes.to_string()]);
        if let Some(records) = self.records {
            command.args(["--records", &records.to_string()]);
        }
        Ok(Running(command.stdout(Stdio::piped()).spawn()?))
    }

    /// Runs it here. The last line of the output tells what it took.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let meter = Meter::start()?;
        let memory_limit_bytes = if self.kind == Kind::Keep { 8 << 30 } else { 512 << 20 };
        let value_bytes = self.value_bytes;
        let context = StreamingContext::builder("bench")
            .directory(&self.directory)
            .batch_interval(milliseconds(self.batch_ms))
            .checkpoint_interval(milliseconds(self.checkpoint_ms))
            .memory_limit_bytes(memory_limit_bytes)
            .graceful_stop_timeout(Duration::from_secs(600))
            .open(|graph| {
                let source = KafkaSource::subscribe(&self.brokers, [INPUT]);
                let sink = KafkaSink::to(&self.brokers, OUTPUT);
                match self.kind {
                    Kind::Pass => graph
                        .source("records", source.decode(|record| pair(record.key(), record.value())))
                        .map(|(key, value)| (key, value.to_uppercase()))
                        .sink_key_value("out", sink, |(key, value): &(String, String)| (key.clone(), value.clone())),
                    Kind::Count => graph
                        .source("records", source.decode(|record| Ok::<_, Failure>((text(record.key())?, 1_u64))))
                        .update_touched_by_key("counts", |ones, count| Some(count.unwrap_or(0) + ones.sum()))
                        .sink_key_value("out", sink, |(key, count): &(String, u64)| (key.clone(), count.to_string())),
                    Kind::Keep => graph
                        .source("records", source.decode(|record| text(record.key())))
                        .map(|key| (key.clone(), key))
                        .update_touched_by_key("counts", move |keys, state: Option<(u64, String)>| {
                            let (mut count, mut kept) = state.unwrap_or_default();
                            for key in keys {
                                count += 1;
                                if kept.is_empty() {
                                    kept = filler(number(&key), value_bytes);
                                }
                            }
                            Some((count, kept))
                        })
                        .sink_key_value("out", sink, |(key, (count, _)): &(String, (u64, String))| {
                            (key.clone(), count.to_string())
                        }),
                }
                Ok(())
            })?;
        let running = context.start()?;
        let Some(records) = self.records else { return Ok(running.await_termination()?) };
        let mut last = (0, Instant::now());
        loop {
            let planned = running.progress().records;
            if planned >= records {
                break;
            }
            if planned > last.0 {
                last = (planned, Instant::now());
            }
            if last.1.elapsed() > STALL_LIMIT {
                return Err(format!("nothing came for {STALL_LIMIT:?} after {planned} of {records} records").into());
            }
            // Until the next batch has committed: plans come at the same pace.
            let next = millpond::BatchTime::from_ms(running.progress().committed.as_ms() + 1);
            match running.await_committed(next, Duration::from_secs(1)) {
                Err(error) if error.kind() != ErrorKind::Retry => return Err(error.into()),
                _ => {}
            }
        }
        running.stop_gracefully()?;
        let used = meter.used()?;
        let (batches_us, checkpoints_us) = running.durations_us();
        println!(
            "{}",
            json!({
                "wall_us": used.wall.as_micros() as u64, "cpu_us": used.cpu.as_micros() as u64,
                "max_resident_bytes": used.max_resident_bytes, "bytes_written": used.bytes_written,
                "batches_us": batches_us, "checkpoints_us": checkpoints_us,
            })
        );
        Ok(())
    }
}

fn text(bytes: Option<&[u8]>) -> Result<String, Failure> {
    Ok(std::str::from_utf8(bytes.ok_or("no key or value")?)?.to_owned())
}

fn pair(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(String, String), Failure> {
    Ok((text(key)?, text(value)?))
}

fn number(key: &str) -> u64 {
    key.bytes().fold(7, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()))
}

/// A pipeline process; killed with its owner.
pub(crate) struct Running(Child);

/// What a pipeline process told at its end.
pub(crate) struct Told {
    pub(crate) used: Used,
    pub(crate) batches_us: Vec<u64>,
    pub(crate) checkpoints_us: Vec<u64>,
}

impl Running {
    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Whether it still runs; an error if it has ended, which it should not have.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the pipeline process ended: {status}").into()),
        }
    }

    pub(crate) fn finish(mut self) -> Result<Told, Failure> {
        let mut output = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut output)?;
        }
        let status = self.0.wait()?;
        if !status.success() {
            return Err(format!("the pipeline process failed: {status}").into());
        }
        let told: Value = serde_json::from_str(output.lines().last().unwrap_or_default())?;
        let number = |name: &str| told[name].as_u64().unwrap_or_default();
        let list = |name: &str| -> Vec<u64> {
            told[name].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        Ok(Told {
            used: Used {
                wall: Duration::from_micros(number("wall_us")),
                cpu: Duration::from_micros(number("cpu_us")),
                max_resident_bytes: number("max_resident_bytes"),
                bytes_written: number("bytes_written"),
            },
            batches_us: list("batches_us"),
            checkpoints_us: list("checkpoints_us"),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
