//! Presence: who is here, and when somebody was last here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::UserId, time::Time};

/// What the caller may know of a person's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceStatus {
    /// A device is connected.
    Online,
    /// Devices are connected, and none shows the app.
    Away,
    /// No device is connected.
    Offline,
    /// The person does not show it to the caller.
    Hidden,
    /// The presence service does not answer.
    Unknown,
}

/// Answer of `GET /api/v1/users/{user_id}/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserStatus {
    /// The person.
    pub user_id: UserId,
    /// The presence.
    pub status: PresenceStatus,
    /// When last active, to the minute; null where hidden or never.
    pub last_seen: Option<Time>,
}
