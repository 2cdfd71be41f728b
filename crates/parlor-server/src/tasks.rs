//! Tasks whose failure is reported, and the randomness of the operating system.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use parlor_core::ports::clock::{BoxFuture, Random, Spawn};
use tokio_util::task::TaskTracker;

/// Starts tasks, names them, and counts those that panic.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    panics: Arc<AtomicU64>,
    /// What an orderly end waits for: connections, and the calls and sockets on them.
    pub open: TaskTracker,
}

impl Tasks {
    /// Returns how many tasks have panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl Spawn for Tasks {
    fn spawn(&self, name: &'static str, task: BoxFuture) {
        let panics = self.panics.clone();
        self.tracker.spawn(async move {
            // What a task shares is behind locks that a panic does not poison, or dies with it.
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(task = name, "a task panicked");
            }
        });
    }
}

/// The randomness of the operating system.
pub struct OsRandom;

impl Random for OsRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the randomness pipe")]
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness there are no secrets: stopping is the only safe answer.
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
