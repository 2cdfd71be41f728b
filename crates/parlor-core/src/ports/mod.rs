//! What the core needs from outside: one file per noun or pipe, each a contract.
//!
//! An engine implements ports and never decides who may do what; it stores and fetches.
//! The proof of the contracts is `conformance/`, which every engine runs in one line; the oracle is
//! the in-memory twin in `memory/`.

pub mod accounts;
pub mod bus;
pub mod chats;
pub mod clock;
pub mod devices;
pub mod messages;
pub mod passwords;
pub mod rates;
pub mod receipts;
pub mod store;

use std::{error::Error as StdError, fmt, sync::Arc};

/// A failure of an engine, by what the caller can do about it.
#[derive(Debug, Clone)]
pub struct EngineError {
    /// The same call may succeed later.
    pub retryable: bool,
    /// The call may or may not have taken effect (a commit or sync failed half way).
    pub outcome_unknown: bool,
    /// What went wrong.
    pub source: Arc<dyn StdError + Send + Sync>,
}

impl EngineError {
    /// A failure before any effect; worth trying again.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { retryable: true, outcome_unknown: false, source: Arc::from(source.into()) }
    }

    /// A failure of a commit: nobody knows.
    pub fn unknown_outcome(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { retryable: true, outcome_unknown: true, source: Arc::from(source.into()) }
    }

    /// A defect: trying again will not help.
    pub fn broken(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { retryable: false, outcome_unknown: false, source: Arc::from(source.into()) }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.outcome_unknown, self.retryable) {
            (true, _) => "the outcome of a write is unknown",
            (false, true) => "the engine is unavailable",
            (false, false) => "the engine is broken",
        })
    }
}

impl StdError for EngineError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Answer of every port.
pub type EngineResult<T> = Result<T, EngineError>;
