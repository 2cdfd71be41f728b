//! The client against a fake server that loses, repeats, reorders, cuts and restarts by seed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fake;
mod faults;
mod socket;
