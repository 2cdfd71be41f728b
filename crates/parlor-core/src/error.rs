//! The one error of the core, by what the caller can do about it.
//!
//! Which HTTP status or frame it becomes is decided in `parlor-server/src/error.rs`.

use std::time::Duration;

use parlor_proto::{ErrorCode, Invalid};

use crate::ports::EngineError;

/// Why an action was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is not acceptable; change it.
    #[error("{}: {}", .0.field, .0.detail)]
    Invalid(Invalid),
    /// No valid session; sign in.
    #[error("no valid session")]
    Unauthenticated,
    /// Name and password do not match, whichever of them is wrong.
    #[error("that name and password do not match")]
    BadCredentials,
    /// The caller may know of the thing, but may not do this to it.
    #[error("{detail}")]
    Forbidden {
        /// The stable code.
        code: ErrorCode,
        /// One sentence.
        detail: &'static str,
    },
    /// Absent, or not for the caller to know: the same answer.
    #[error("there is no such thing, or it is not for you")]
    NotFound,
    /// The state of the thing forbids this.
    #[error("{detail}")]
    Conflict {
        /// The stable code.
        code: ErrorCode,
        /// One sentence.
        detail: &'static str,
    },
    /// Too many calls.
    #[error("too many calls")]
    TooMany {
        /// How long to wait.
        retry_after: Duration,
    },
    /// An engine cannot do it now; what was sent may or may not be stored.
    #[error("the server cannot do this now; send it again with the same key")]
    Unavailable {
        /// How long to wait.
        retry_after: Duration,
    },
    /// A defect; logged where it was found.
    #[error("the server made a mistake")]
    Internal,
}

/// Answer of every action.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Refuses with the plain code.
    pub const fn forbidden(detail: &'static str) -> Self {
        Self::Forbidden { code: ErrorCode::Forbidden, detail }
    }

    /// Refuses with the plain code.
    pub const fn conflict(detail: &'static str) -> Self {
        Self::Conflict { code: ErrorCode::Conflict, detail }
    }

    /// Says that the key was used with another body.
    pub const fn key_conflict() -> Self {
        Self::Conflict {
            code: ErrorCode::IdempotencyConflict,
            detail: "this key was used before with another body",
        }
    }

    /// Says that an engine cannot do it now.
    pub const fn unavailable() -> Self {
        Self::Unavailable { retry_after: Duration::from_secs(1) }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        // The chain is logged once, here, where it leaves the engines.
        let source = &error.source;
        if error.retryable || error.outcome_unknown {
            tracing::warn!(error.source = %source, error.outcome_unknown, "an engine failed");
            Self::unavailable()
        } else {
            tracing::error!(error.source = %source, "an engine is broken");
            Self::Internal
        }
    }
}
