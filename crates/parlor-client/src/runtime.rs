//! The one place of the client that reads the system: clocks, randomness, waiting, tasks.
//!
//! The state machines (`connection.rs`, `outbox.rs`, `sync.rs`) get time as a number and randomness
//! as a seed, so that tests can replay them; only `replica.rs` and `socket.rs` come here.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::random::Random;

/// Returns milliseconds since the Unix epoch, for the ids of sends.
#[expect(clippy::disallowed_methods, reason = "the client's composition root")]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A stopwatch: milliseconds that never go back.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(std::time::Instant);

impl Monotonic {
    /// Starts at zero.
    #[expect(clippy::disallowed_methods, reason = "the client's composition root")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Returns the milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "the client's composition root")]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Returns the output of the future, or nothing if it took too long.
#[expect(clippy::disallowed_methods, reason = "the client's composition root")]
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Starts a task that lives as long as its handle is awaited or aborted.
#[expect(clippy::disallowed_methods, reason = "the client's composition root")]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Returns a generator seeded by the system; by the clock where the system has no randomness.
#[expect(clippy::disallowed_methods, reason = "the client's composition root")]
pub fn entropy() -> Random {
    let mut seed = [0; 8];
    match getrandom::fill(&mut seed) {
        Ok(()) => Random::from_seed(u64::from_le_bytes(seed)),
        Err(_) => Random::from_seed(wall_ms()),
    }
}
