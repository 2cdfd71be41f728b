//! The engines of Parlor: one folder per outside system, each implementing ports of the core.
//!
//! An engine stores and fetches; it never decides who may do what. The contracts it keeps stand in
//! `parlor-core/src/ports/`, their proof in `parlor-core/src/conformance/`.

pub mod sqlite;
