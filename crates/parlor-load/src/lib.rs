//! Load generator, latency recorder and history checker.
pub mod check;
pub mod clock;
pub mod record;
