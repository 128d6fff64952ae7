//! The Kafka source and sink against a real broker, driven through the traits as the engine drives them.

mod admin;
mod input;

mod source_content;
mod source_lost;
mod source_ranges;
mod source_records;
mod source_starts;
