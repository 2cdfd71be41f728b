//! Load generator, latency recorder and history checker.
