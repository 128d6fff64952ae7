//! millpond-state
