//! Metrics, through the `metrics` facade: a program that installs a recorder gets them, all others pay next to nothing. The names
//! stand in docs/operations.md.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::status::Progress;
use crate::listen::BatchInfo;

/// Says what each metric is. Recorders may hear it more than once.
pub(crate) fn describe() {
    describe_counter!("millpond_batches_total", Unit::Count, "batches completed");
    describe_counter!("millpond_failed_batches_total", Unit::Count, "batches that failed for good");
    describe_counter!("millpond_records_total", Unit::Count, "records of completed batches, by source");
    describe_counter!("millpond_source_errors_total", Unit::Count, "errors that a source survived");
    describe_counter!("millpond_task_retries_total", Unit::Count, "tasks tried again");
    describe_counter!(
        "millpond_speculative_tasks_total",
        Unit::Count,
        "tasks started a second time beside a slow first try"
    );
    describe_counter!("millpond_recoveries_total", Unit::Count, "recoveries inside of the process");
    describe_counter!("millpond_checkpoints_total", Unit::Count, "checkpoints published");
    describe_histogram!("millpond_scheduling_delay_ms", Unit::Milliseconds, "from a batch's plan to its start");
    describe_histogram!("millpond_processing_delay_ms", Unit::Milliseconds, "from a batch's start to its commit");
    describe_histogram!("millpond_total_delay_ms", Unit::Milliseconds, "from a batch's plan to its commit");
    describe_histogram!("millpond_checkpoint_ms", Unit::Milliseconds, "writing a checkpoint, beside the batches");
    describe_gauge!(
        "millpond_rate_limit_records_per_second",
        Unit::CountPerSecond,
        "what backpressure allows a source"
    );
    describe_gauge!("millpond_state_bytes", Unit::Bytes, "decoded state in memory");
    describe_gauge!("millpond_waiting_batches", Unit::Count, "batches planned and not committed");
    describe_gauge!("millpond_snapshot_batch_ms", Unit::Milliseconds, "the batch time of the newest checkpoint");
    describe_gauge!("millpond_committed_batch_ms", Unit::Milliseconds, "the newest batch time that is committed");
    describe_gauge!("millpond_planned_batch_ms", Unit::Milliseconds, "the newest batch time that is planned");
}

pub(crate) fn completed(batch: &BatchInfo) {
    if batch.failure.is_some() {
        return counter!("millpond_failed_batches_total").increment(1);
    }
    counter!("millpond_batches_total").increment(1);
    for input in batch.inputs.iter().filter(|input| input.records > 0) {
        counter!("millpond_records_total", "source" => input.source.clone()).increment(input.records);
    }
    let delays = [
        ("millpond_scheduling_delay_ms", batch.scheduling_delay_ms()),
        ("millpond_processing_delay_ms", batch.processing_delay_ms()),
        ("millpond_total_delay_ms", batch.total_delay_ms()),
    ];
    for (name, delay_ms) in delays {
        histogram!(name).record(delay_ms.unwrap_or_default() as f64);
    }
}

pub(crate) fn checkpointed(took: Duration) {
    counter!("millpond_checkpoints_total").increment(1);
    histogram!("millpond_checkpoint_ms").record(took.as_secs_f64() * 1000.0);
}

pub(crate) fn recovered() {
    counter!("millpond_recoveries_total").increment(1);
}

pub(crate) fn source_error(source: &std::sync::Arc<str>) {
    counter!("millpond_source_errors_total", "source" => source.clone()).increment(1);
}

pub(crate) fn rate(source: &std::sync::Arc<str>, records_per_second: f64) {
    gauge!("millpond_rate_limit_records_per_second", "source" => source.clone()).set(records_per_second);
}

/// After every step of the driver.
pub(crate) fn progress(progress: &Progress, waiting_batches: usize) {
    gauge!("millpond_state_bytes").set(progress.state_bytes as f64);
    gauge!("millpond_waiting_batches").set(waiting_batches as f64);
    gauge!("millpond_snapshot_batch_ms").set(progress.snapshot.as_ms() as f64);
    gauge!("millpond_committed_batch_ms").set(progress.committed.as_ms() as f64);
    gauge!("millpond_planned_batch_ms").set(progress.planned.as_ms() as f64);
}
