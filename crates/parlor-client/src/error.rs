//! What can go wrong between a client and a server, by what the caller may do about it.

use std::time::Duration;

use parlor_proto::{ErrorCode, Problem};

/// Why a call has no answer of the promised kind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, and said why.
    #[error("refused with {} ({}): {}", .0.status, .0.code, .0.detail)]
    Problem(Box<Problem>),
    /// No answer arrived: the call may have had its effect or not.
    #[error("no answer from the server")]
    Network(#[source] reqwest::Error),
    /// The answer is not what the contract says.
    #[error("the answer with status {status} cannot be read: {detail}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it, without its text.
        detail: String,
    },
    /// The address of the server is not one.
    #[error("not the address of a server: {0}")]
    Address(String),
}

/// What a caller knows of the effect of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had none, and never will.
    Refused,
    /// It may have had one, or not: repeat it with the same key.
    Unknown,
}

impl Error {
    /// Returns the code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// Returns the HTTP status of the answer, where there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Unreadable { status, .. } => Some(*status),
            Self::Network(_) | Self::Address(_) => None,
        }
    }

    /// Returns the field that the server blames.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => problem.field.as_deref(),
            _ => None,
        }
    }

    /// Returns how long the server wants the caller to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after.map(Duration::from_secs),
            _ => None,
        }
    }

    /// Tells whether the same call may succeed when it is made again unchanged.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.code.may_retry(),
            Self::Network(_) => true,
            Self::Unreadable { status, .. } => *status >= 500,
            Self::Address(_) => false,
        }
    }

    /// Tells whether the call may have had its effect: only a definite refusal rules it out.
    pub fn outcome(&self) -> Outcome {
        match self.status() {
            Some(status) if (400..500).contains(&status) => Outcome::Refused,
            None if matches!(self, Self::Address(_)) => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }
}
