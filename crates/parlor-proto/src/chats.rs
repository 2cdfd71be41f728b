//! Chats: one-to-one chats and groups; channels, broadcast and support will be further types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    accounts::{User, check_line},
    error::Invalid,
    ids::{ChatId, ClientId, Seq, UserId},
    limits::Limits,
    members::Role,
    messages::Message,
    time::Time,
};

/// The kind of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatType {
    /// Two people, or one with themselves (saved messages); one chat per pair.
    OneOnOne,
    /// Several people with roles.
    Group,
}

/// What newcomers see of the time before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryRule {
    /// From their own `join` on.
    #[default]
    Joined,
    /// Everything.
    All,
}

/// Settings of a chat, the same for all its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettings {
    /// What newcomers see.
    pub history: HistoryRule,
    /// Members may add people too.
    pub members_may_add: bool,
}

/// Settings to replace; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChatSettingsPatch {
    /// See [`ChatSettings::history`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryRule>,
    /// See [`ChatSettings::members_may_add`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members_may_add: Option<bool>,
}

/// Body of `POST /api/v1/chats`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChat {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: ChatType,
    /// The others; the caller is a member anyhow.
    #[serde(default)]
    pub participants: Vec<UserId>,
    /// Needed for a group, absent for a one-to-one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Makes the call safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
}

/// Body of `PATCH /api/v1/chats/{chat_id}`; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChatPatch {
    /// New title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// New topic; empty text takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// New settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<ChatSettingsPatch>,
}

/// A chat as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chat {
    /// The chat.
    pub chat_id: ChatId,
    /// The kind.
    #[serde(rename = "type")]
    pub kind: ChatType,
    /// Null in a one-to-one: its name is the other person's.
    pub title: Option<String>,
    /// What it is about.
    pub topic: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// When something last happened in it.
    pub updated_at: Time,
    /// Position of the last event.
    pub head_seq: Seq,
    /// The caller's role.
    pub role: Role,
    /// Number of members.
    pub participants_count: u32,
    /// Settings for all.
    pub settings: ChatSettings,
    /// The other person of a one-to-one; null in a chat with oneself and in groups.
    pub peer: Option<User>,
    /// The newest message that the caller may see.
    pub last_message: Option<Message>,
    /// Messages of others after `read_seq`, deleted ones not counted.
    pub unread: u64,
    /// Those among them that name the caller; 0 until mentions exist.
    pub mentions: u64,
    /// First position that the caller may see.
    pub joined_seq: Seq,
    /// What the caller's devices stored.
    pub delivered_seq: Seq,
    /// What the caller read.
    pub read_seq: Seq,
}

/// Answer of `GET /api/v1/chats`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ChatList {
    /// The chats, the most recent first.
    pub items: Vec<Chat>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// Query of `GET /api/v1/chats` and of `GET /api/v1/chats/{chat_id}/participants`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// 1–200, default 50.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// What changed in a chat, told without its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// The chat.
    pub chat_id: ChatId,
    /// Position of the last event.
    pub seq: Seq,
    /// Unread messages of the caller.
    pub unread: u64,
    /// Those that name the caller.
    pub mentions: u64,
    /// What the caller's devices stored.
    pub delivered_seq: Seq,
    /// What the caller read.
    pub read_seq: Seq,
}

/// Checks a title.
pub fn check_title(text: &str, limits: &Limits) -> Result<(), Invalid> {
    check_line("title", text, limits.title_chars as usize)
}

/// Checks a topic; empty means none.
pub fn check_topic(text: &str, limits: &Limits) -> Result<(), Invalid> {
    if text.is_empty() { Ok(()) } else { check_line("topic", text, limits.topic_chars as usize) }
}
