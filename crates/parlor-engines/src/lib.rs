//! The engines of Parlor: one folder per outside system, each implementing ports of the core.
