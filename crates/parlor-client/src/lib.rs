//! The Rust SDK of Parlor: connect, outbox, sync.
