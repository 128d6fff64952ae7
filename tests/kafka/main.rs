//! The Kafka source and sink against a real broker, driven through the traits as the engine drives them.

mod admin;
mod batch_ranges;
mod input;
mod java;
mod model;
mod offsets;
mod output;

mod sink_brokers;
mod sink_cursor;
mod sink_failpoints;
mod sink_fencing;
mod sink_records;
mod source_brokers;
mod source_content;
mod source_lost;
mod source_ranges;
mod source_records;
mod source_starts;
mod threads;
