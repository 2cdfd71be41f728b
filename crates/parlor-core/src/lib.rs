//! The rules of Parlor: who may do what, and what follows from it; and the ports it needs.
//!
//! No HTTP, no SQL, no driver, no socket; no clock, randomness, network or disk but through the
//! ports (invariant I10).

pub mod clock;
pub mod conformance;
pub mod memory;
pub mod ports;
