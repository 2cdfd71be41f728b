//! Counters of the engine, for the metrics of the server.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the histogram of commit times, in microseconds; the last one has no bound.
pub const COMMIT_BOUNDS_US: [u64; 9] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];

/// What happened since the engine was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqliteStats {
    /// Batches of the `messages` port.
    pub write_batches: u64,
    /// Rows written to the log.
    pub rows: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Commits whose outcome is unknown.
    pub failed_commits: u64,
    /// Time spent in commits, syncs included.
    pub commit_us: u64,
    /// Number of commits up to each of [`COMMIT_BOUNDS_US`], and of those above.
    pub commits_by_time: [u64; 10],
    /// Times the write-ahead log was moved whole into the database and cut, after an erasure.
    pub truncations: u64,
    /// Rows that could not be decoded or whose checksum was wrong, each time one was met.
    pub unreadable_rows: u64,
    /// Reads that wait for a connection now.
    pub reader_queue: usize,
    /// Writes that wait for the writer now.
    pub writer_queue: usize,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) write_batches: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) failed_commits: AtomicU64,
    pub(super) truncations: AtomicU64,
    pub(super) unreadable_rows: AtomicU64,
    pub(super) reader_queue: AtomicUsize,
    pub(super) writer_queue: AtomicUsize,
    commit_us: AtomicU64,
    commits_by_time: [AtomicU64; 10],
}

impl Counters {
    pub(super) fn committed(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.fetch_add(took, Relaxed);
        let bucket = COMMIT_BOUNDS_US.iter().position(|bound| took <= *bound);
        if let Some(count) = self.commits_by_time.get(bucket.unwrap_or(COMMIT_BOUNDS_US.len())) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn read(&self) -> SqliteStats {
        let commits_by_time = self.commits_by_time.each_ref().map(|count| count.load(Relaxed));
        SqliteStats {
            write_batches: self.write_batches.load(Relaxed),
            rows: self.rows.load(Relaxed),
            commits: commits_by_time.iter().sum(),
            failed_commits: self.failed_commits.load(Relaxed),
            commit_us: self.commit_us.load(Relaxed),
            commits_by_time,
            truncations: self.truncations.load(Relaxed),
            unreadable_rows: self.unreadable_rows.load(Relaxed),
            reader_queue: self.reader_queue.load(Relaxed),
            writer_queue: self.writer_queue.load(Relaxed),
        }
    }
}
