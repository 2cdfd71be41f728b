//! Time, randomness and tasks from outside (invariant I10).

use std::{future::Future, pin::Pin, time::Duration};

use parlor_proto::Time;

/// A future that is not tied to its maker.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall clock: for display and for ids, never for order or time-outs.
    fn now(&self) -> Time;

    /// Returns the time since an arbitrary start; never goes back: for time-outs and leases.
    fn monotonic(&self) -> Duration;

    /// Waits; a manual clock wakes when it is moved past the end.
    fn sleep(&self, duration: Duration) -> BoxFuture;
}

/// A source of unguessable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills the buffer.
    fn fill(&self, bytes: &mut [u8]);
}

/// Starts tasks whose failure is reported.
pub trait Spawn: Send + Sync + 'static {
    /// Runs the future to its end in the background; a panic is logged with the name and counted.
    fn spawn(&self, name: &'static str, task: BoxFuture);
}
