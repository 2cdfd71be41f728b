//! Members of a chat and their roles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    accounts::User,
    ids::{ClientId, Seq, UserId},
    time::Time,
};

/// What a member may do; ordered from least to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and posts.
    Member,
    /// Also adds, removes, renames and sets.
    Admin,
    /// Also closes the chat and names owners.
    Owner,
}

/// A member as it stands in a `created` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberRole {
    /// The member.
    pub user_id: UserId,
    /// The role.
    pub role: Role,
}

/// Why somebody is no longer a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// By their own act.
    Left,
    /// By an admin.
    Removed,
    /// By an admin, who also keeps them out.
    Banned,
}

/// A member with their profile and positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Participant {
    /// The member.
    pub user_id: UserId,
    /// The profile.
    pub user: User,
    /// The role.
    pub role: Role,
    /// When they joined.
    pub joined_at: Time,
    /// The event by which they joined.
    pub joined_seq: Seq,
    /// What their devices stored; null where receipts are hidden from the caller.
    pub delivered_seq: Option<Seq>,
    /// What they read; null where receipts are hidden from the caller.
    pub read_seq: Option<Seq>,
}

/// Answer of the participants routes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ParticipantList {
    /// The members.
    pub items: Vec<Participant>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// Body of `POST /api/v1/chats/{chat_id}/participants`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddParticipants {
    /// Who is added; members already in are left as they are.
    #[schemars(length(min = 1, max = 100))]
    pub user_ids: Vec<UserId>,
    /// Makes the call safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
}

/// Body of `PATCH /api/v1/chats/{chat_id}/participants/{user_id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParticipantPatch {
    /// The new role.
    pub role: Role,
}
