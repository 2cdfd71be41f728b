//! The one place of the load tool that reads the system: clocks, waiting.
//!
//! Randomness comes from a seed (`parlor_client::Random`), so that a run can be repeated.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Returns a point in monotonic time.
#[expect(clippy::disallowed_methods, reason = "the load tool's composition root")]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the microseconds since a point in time.
pub fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Returns milliseconds since the Unix epoch, for keys and reports.
#[expect(clippy::disallowed_methods, reason = "the load tool's composition root")]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "the load tool's composition root")]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits until a point in time.
#[expect(clippy::disallowed_methods, reason = "the load tool's composition root")]
pub async fn sleep_until(at: Instant) {
    tokio::time::sleep(at.saturating_duration_since(Instant::now())).await;
}

/// Returns the output of the future, or nothing if it took too long.
#[expect(clippy::disallowed_methods, reason = "the load tool's composition root")]
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
