//! The JSON object of a run, and the ratio of two.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Failure;
use crate::usage::Used;

/// One run: what all workloads tell, and what one adds.
pub(crate) struct Report(Map<String, Value>);

impl Report {
    /// A run of `records` records. Durations are in µs; none at all is told as null.
    pub(crate) fn new(workload: &str, records: u64, used: &Used, checkpoints_us: &[u64], batches_us: &[u64]) -> Report {
        let wall_seconds = used.wall.as_secs_f64();
        let mut fields = Map::new();
        fields.insert("workload".into(), json!(workload));
        fields.insert("records_per_second".into(), rounded(records as f64 / wall_seconds));
        fields.insert("wall_seconds".into(), rounded(wall_seconds));
        fields.insert("cpu_seconds".into(), rounded(used.cpu.as_secs_f64()));
        fields.insert("max_resident_bytes".into(), json!(used.max_resident_bytes));
        fields.insert("bytes_written".into(), json!(used.bytes_written));
        fields.insert("checkpoint_ms".into(), spread_ms(checkpoints_us));
        fields.insert("batch_ms".into(), spread_ms(batches_us));
        fields.insert("records".into(), json!(records));
        Report(fields)
    }

    /// Adds what this workload tells beside.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Report {
        let value = match value.into() {
            Value::Number(number) if number.is_f64() => rounded(number.as_f64().unwrap_or_default()),
            other => other,
        };
        self.0.insert(field.into(), value);
        self
    }

    /// A figure of the run; 0 if it is not there.
    pub(crate) fn number(&self, field: &str) -> f64 {
        self.0.get(field).and_then(Value::as_f64).unwrap_or_default()
    }

    pub(crate) fn line(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// The ratio of each of this run's figures to the earlier run's.
    ///
    /// # Errors
    /// The earlier run is one of another workload.
    pub(crate) fn against(&self, previous: &Value) -> Result<String, Failure> {
        let (now, then) = (&self.0["workload"], &previous["workload"]);
        if now != then {
            return Err(format!("the earlier run is of workload {then}, this one of {now}: nothing to compare").into());
        }
        let now = Value::Object(self.0.clone());
        let mut ratios = ratio(&now, previous).unwrap_or_else(|| json!({}));
        ratios["ratio_of"] = now["workload"].clone();
        Ok(ratios.to_string())
    }
}

/// The last run in a file of this program's output.
pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut runs = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    runs.rfind(|run| run.get("workload").is_some())
        .ok_or_else(|| format!("{}: no run of this program is in it", path.display()).into())
}

/// Numbers divided by those of the same name; what one side lacks is left out.
fn ratio(now: &Value, then: &Value) -> Option<Value> {
    match (now, then) {
        (Value::Number(now), Value::Number(then)) => {
            let then = then.as_f64().filter(|then| *then != 0.0)?;
            Some(rounded(now.as_f64()? / then))
        }
        (Value::Object(now), Value::Object(then)) => {
            let ratios = now.iter().filter_map(|(name, now)| Some((name.clone(), ratio(now, then.get(name)?)?)));
            Some(Value::Object(ratios.collect()))
        }
        _ => None,
    }
}

/// Median, 99th percentile and largest of durations in µs, as milliseconds.
pub(crate) fn spread_ms(durations_us: &[u64]) -> Value {
    let mut sorted = durations_us.to_vec();
    sorted.sort_unstable();
    let Some(&max) = sorted.last() else { return Value::Null };
    let ms = |us: u64| rounded(us as f64 / 1000.0);
    json!({ "p50": ms(percentile(&sorted, 50)), "p99": ms(percentile(&sorted, 99)), "max": ms(max), "count": sorted.len() })
}

/// The smallest value that `percent` of all are not above.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// Four digits that mean something.
fn rounded(value: f64) -> Value {
    if value == 0.0 || !value.is_finite() {
        return json!(0.0);
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    if scale < 1.0 { json!(value.round()) } else { json!((value * scale).round() / scale) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_the_smallest_value_that_so_many_are_not_above() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 50), 100);
        assert_eq!(percentile(&sorted, 99), 198);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(spread_ms(&[]), Value::Null);
    }

    #[test]
    fn a_run_is_compared_figure_by_figure_with_one_of_its_own_workload() {
        let used = Used { wall: Duration::from_secs(2), ..Used::default() };
        let run = Report::new("wal", 10, &used, &[1000], &[]).with("ratio", 0.5);
        let previous =
            json!({"workload": "wal", "records_per_second": 2.5, "ratio": 1.0, "checkpoint_ms": {"p50": 2.0}});
        let ratios: Value = serde_json::from_str(&run.against(&previous).unwrap()).unwrap();
        assert_eq!(ratios["records_per_second"], 2.0);
        assert_eq!(ratios["ratio"], 0.5);
        assert_eq!(ratios["checkpoint_ms"]["p50"], 0.5);
        assert!(ratios.get("cpu_seconds").is_none());
        assert!(run.against(&json!({"workload": "recover"})).is_err());
    }
}
