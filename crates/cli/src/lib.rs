//! millpond-cli
