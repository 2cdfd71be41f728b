//! Load generator, latency recorder and history checker.
//!
//! `record.rs` writes down what clients did and saw, `check.rs` judges it against the promises;
//! `scenarios/` holds what is run. The command line is in `main.rs`; integration tests call the
//! scenarios with small numbers. Loads go to loopback only (`target.rs`), and only processes that
//! were started here are ended (`process.rs`).

pub mod bench;
pub mod check;
pub mod clock;
pub mod device;
pub mod disk;
pub mod final_reads;
pub mod finding;
pub mod latency;
pub mod load;
pub mod people;
pub mod process;
pub mod procfs;
pub mod proxy;
pub mod record;
pub mod report;
pub mod scenarios;
pub mod speaker;
pub mod target;
pub mod torture;
