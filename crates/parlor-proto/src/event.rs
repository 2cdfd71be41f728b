//! The closed list of chat events: everything that can happen in the log of a chat.
//!
//! A client stores an event of unknown `kind` as it came and moves its `seq`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    chats::ChatSettings,
    ids::{ChatId, MessageId, Seq, UserId},
    members::{LeaveReason, MemberRole, Role},
    messages::Message,
    time::Time,
};

/// One event of a chat's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The chat.
    pub chat_id: ChatId,
    /// Its position: 1, 2, 3, … (invariant I1).
    pub seq: Seq,
    /// Its id; for a `message` event the `message_id` of the message.
    pub event_id: MessageId,
    /// Server time of the commit; for display.
    pub created_at: Time,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventBody {
    /// The chat was made; always `seq` 1, holds the founding members.
    Created {
        /// By whom.
        by: UserId,
        /// The founding members.
        members: Vec<MemberRole>,
    },
    /// A message in its present state.
    Message {
        /// The message.
        message: Box<Message>,
    },
    /// A text was replaced.
    Edit {
        /// The message.
        message_id: MessageId,
        /// The new text; absent when it was replaced again or erased since.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// When.
        edited_at: Time,
        /// By whom.
        by: UserId,
    },
    /// A message was deleted for everyone.
    Delete {
        /// The message.
        message_id: MessageId,
        /// By whom.
        by: UserId,
    },
    /// A reaction was added or taken away.
    Reaction {
        /// The message.
        message_id: MessageId,
        /// By whom.
        user_id: UserId,
        /// The emoji.
        emoji: String,
        /// Added, or taken away.
        added: bool,
    },
    /// Somebody joined.
    Join {
        /// Who.
        user_id: UserId,
        /// By whom.
        by: UserId,
        /// As what.
        role: Role,
    },
    /// Somebody is no longer a member.
    Leave {
        /// Who.
        user_id: UserId,
        /// By whom.
        by: UserId,
        /// Why.
        reason: LeaveReason,
    },
    /// A role changed.
    Role {
        /// Whose.
        user_id: UserId,
        /// To what.
        role: Role,
        /// By whom.
        by: UserId,
    },
    /// Title, topic or settings changed, or the chat was closed.
    Settings {
        /// What changed, with the new values.
        changes: SettingsChanges,
        /// By whom.
        by: UserId,
    },
    /// Not for this member (a block); keeps the log without a hole.
    Hidden,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The new values of a `settings` event; what is absent did not change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SettingsChanges {
    /// New title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// New topic; empty text took it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// All settings after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<ChatSettings>,
    /// The chat was closed for all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}
