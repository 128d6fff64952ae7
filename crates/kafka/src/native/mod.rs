//! The only unsafe code of this crate: what rdkafka does not offer, or offers a record at a time.
//!
//! - `messages`: fetching in batches, with records left in librdkafka's own buffers
//! - `describe`: ids of topics and clusters
//! - `produce`: producing in batches

#![allow(unsafe_code)]

mod describe;
mod messages;
mod produce;

pub(crate) use describe::{TopicInfo, cached_high_watermark, describe_cluster, describe_topics};
pub(crate) use messages::{FetchQueue, Fetched, Headers, MessageView, Messages};
pub(crate) use produce::Outputs;
