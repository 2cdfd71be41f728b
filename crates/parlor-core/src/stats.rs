//! Counters of the core: plain numbers that the server turns into metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that is counted; each only rises.
#[derive(Debug, Default)]
pub struct Stats {
    /// Message events stored.
    pub messages_stored: AtomicU64,
    /// All events stored.
    pub events_stored: AtomicU64,
    /// Batches written.
    pub batches: AtomicU64,
    /// Units in these batches.
    pub units: AtomicU64,
    /// Sends and other keyed calls that were repeats.
    pub repeats: AtomicU64,
    /// Appends refused because the queue was full.
    pub appends_overflowed: AtomicU64,
    /// Batches whose write failed.
    pub batches_failed: AtomicU64,
    /// Appends decided anew because the membership had changed.
    pub appends_rechecked: AtomicU64,
    /// Receipt moves asked for.
    pub receipts_reported: AtomicU64,
    /// Receipt moves written after merging.
    pub receipts_written: AtomicU64,
    /// Receipt batches whose write failed (kept and tried again).
    pub receipts_failed: AtomicU64,
    /// Receipts refused because too many waited.
    pub receipts_overflowed: AtomicU64,
    /// Calls and frames refused by a rate limit.
    pub rate_limited: AtomicU64,
    /// Connections greeted, by resume.
    pub resumed: AtomicU64,
    /// Connections greeted with `reset`.
    pub resets: AtomicU64,
}

/// Counts.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Reads.
pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
