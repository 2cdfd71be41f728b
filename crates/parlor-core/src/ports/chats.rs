//! Chats and their members, as folds of the log: written only by the `messages` port.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parlor_proto::{
    ChatId, MessageId, Seq, Time, UserId,
    chats::{ChatSettings, ChatType},
    frame::AccountEvent,
    members::Role,
};

use super::EngineResult;

/// A chat with its present members: what `access` needs to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatState {
    /// The chat.
    pub chat_id: ChatId,
    /// The kind.
    pub kind: ChatType,
    /// The title.
    pub title: Option<String>,
    /// The topic.
    pub topic: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// Settings for all.
    pub settings: ChatSettings,
    /// Closed for all.
    pub closed: bool,
    /// Rises at every change of members, roles or settings.
    pub membership_epoch: u64,
    /// Present members only, in the order of their ids.
    pub members: BTreeMap<UserId, MemberState>,
}

/// A present member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberState {
    /// The role.
    pub role: Role,
    /// When they joined.
    pub joined_at: Time,
    /// The event by which they joined; 1 for founders.
    pub joined_seq: Seq,
    /// The first event that they may see: `joined_seq`, or 1 where the history is open.
    pub visible_seq: Seq,
}

/// A chat in somebody's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatEntry {
    /// The chat.
    pub chat_id: ChatId,
    /// Position of the last event.
    pub head_seq: Seq,
    /// Id of the last event; orders the list.
    pub head_id: MessageId,
    /// Number of message events so far.
    pub head_n: u64,
    /// Server time of the last event.
    pub updated_at: Time,
    /// What the user cleared away: nothing at or below is shown to them.
    pub cleared_seq: Seq,
    /// The first event that the user may see, as a member of now.
    pub visible_seq: Seq,
}

/// Chats; read here, changed by appending events.
#[async_trait]
pub trait Chats: Send + Sync + 'static {
    /// Loads a chat with its present members.
    async fn load(&self, chat_id: ChatId) -> EngineResult<Option<ChatState>>;

    /// Finds the one-to-one of a pair by its key (see `chats::direct_key`).
    async fn find_direct(&self, direct_key: &str) -> EngineResult<Option<ChatId>>;

    /// Pages the chats of which the user is a present member, by descending `head_id`, those below
    /// `before` only; chats without an event above `cleared_seq` are left out.
    async fn list(
        &self,
        user_id: UserId,
        before: Option<MessageId>,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>>;

    /// Returns the chats of the user whose `head_id` is at or above `since`, by descending
    /// `head_id`; may return too much, never too little.
    async fn changed_since(
        &self,
        user_id: UserId,
        since: MessageId,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>>;

    /// Returns the entry of one chat for one present member.
    async fn entry(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<ChatEntry>>;

    /// Tells whether two people are present members of one chat.
    async fn share_chat(&self, one: UserId, other: UserId) -> EngineResult<bool>;

    /// Clears a chat for one member up to a position and appends `cleared` to their stream, which
    /// names the position then in force: a lower one than before changes nothing. For somebody who
    /// is not a present member only the stream moves.
    async fn clear(
        &self,
        chat_id: ChatId,
        user_id: UserId,
        seq: Seq,
        at: Time,
    ) -> EngineResult<AccountEvent>;
}
