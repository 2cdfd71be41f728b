//! What a server says of itself to those who are not signed in: enough for a sign-in page.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Answer of `GET /api/v1/server`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// The name that the operator gave it.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Whether the caller may make an account.
    pub registration: Registration,
    /// What is accepted.
    pub limits: Limits,
    /// Names of what is newer than version 1.
    pub features: Vec<String>,
}

/// Whether an account can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// By anybody.
    Open,
    /// By nobody.
    Closed,
    /// The first account is still to be made, with the code that was printed at start (`invite`).
    Setup,
}

/// Answer of `GET /healthz` and `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Always `ok`; anything else is a problem document.
    pub status: String,
}
