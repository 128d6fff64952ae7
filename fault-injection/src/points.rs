//! The failpoints at which processes are killed, by what a pipeline has.

pub use millpond_testkit::chaos::Point;

const fn point(name: &'static str, hit: u32) -> Point {
    Point::new(name, hit)
}

/// Of every pipeline: log, plans, tasks, checkpoints.
pub const ENGINE: &[Point] = &[
    point("plan-appended", 2),
    point("plan-synced", 2),
    point("log-appended", 4),
    point("log-synced", 4),
    point("task-done", 5),
    point("state-applied", 3),
    point("state-frozen", 2),
    point("state-written", 1),
    point("checkpoint-linked", 1),
    point("manifest-written", 1),
    point("manifest-renamed", 2),
    point("checkpoint-deleted", 1),
    point("log-segment-created", 1),
    point("log-segment-deleted", 1),
];

/// Of blocks that are logged whole.
pub const RECEIVER: &[Point] = &[point("block-appended", 3), point("block-synced", 3), point("source-acknowledged", 3)];

/// Of any transactional sink.
pub const SINK: &[Point] = &[point("output-written", 2), point("before-commit", 2), point("after-commit", 2)];

/// Of the file sink alone.
pub const FILE_SINK: &[Point] = &[point("files-renamed", 2)];

/// Of the Kafka sink alone.
pub const KAFKA_SINK: &[Point] = &[point("transaction-begun", 2), point("offsets-sent", 2)];

/// Of recovery: each is hit once a start. The five steps, and what lies between.
pub const RECOVERY: &[Point] = &[
    point("recovery-checkpoint-found", 1),
    point("recovery-log-read", 1),
    point("recovery-run-logged", 1),
    point("sink-fenced", 1),
    point("recovery-sinks-fenced", 1),
    point("recovery-state-opened", 1),
];
