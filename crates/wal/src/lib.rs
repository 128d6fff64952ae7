//! millpond-wal
