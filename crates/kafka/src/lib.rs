//! millpond-kafka
