//! In-memory twins of the ports: engine for tests, and oracle for the other engines.
