//! The log of a chat: events appended in one order, and everything that follows from them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use parlor_proto::{
    ChatId, Event, MediaId, MessageId, Seq, UserId,
    chats::{ChatSettings, ChatType, HistoryRule},
    event::SettingsChanges,
    frame::AccountEvent,
    ids::ClientId,
    members::{LeaveReason, MemberRole, Role},
    messages::{Message, MessageType},
};

use super::EngineResult;

/// One unit of writing: events of one chat by one person, stored together or not at all.
#[derive(Debug, Clone)]
pub struct Append {
    /// The chat.
    pub chat_id: ChatId,
    /// Who acts.
    pub sender_id: UserId,
    /// Makes the unit safe to repeat (invariant I3); stands on its first event.
    pub key: Option<AppendKey>,
    /// What the writer believes about the chat.
    pub expects: Expects,
    /// At least one event.
    pub events: Vec<NewEvent>,
}

impl Append {
    /// Tells whether the unit can mean anything: it has an event; `Created` stands first in the unit
    /// that makes a chat and nowhere else; no founder is named twice.
    pub fn is_well_formed(&self) -> bool {
        let n_created = self.events.iter().filter(|e| matches!(e, NewEvent::Created)).count();
        match &self.expects {
            Expects::NewChat(new) => {
                let founders: BTreeSet<_> = new.members.iter().map(|m| m.user_id).collect();
                matches!(self.events.first(), Some(NewEvent::Created))
                    && n_created == 1
                    && founders.len() == new.members.len()
                    && !founders.is_empty()
            }
            Expects::Epoch(_) => !self.events.is_empty() && n_created == 0,
        }
    }
}

/// The idempotency key of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendKey {
    /// As the client sent it.
    pub client_id: ClientId,
    /// Keyed digest of the request: the same key with another digest is a conflict.
    pub body_mac: [u8; 8],
}

/// What the writer believes about the chat.
#[derive(Debug, Clone)]
pub enum Expects {
    /// It does not exist yet; the first event is `Created`.
    NewChat(NewChat),
    /// It exists with this membership epoch.
    Epoch(u64),
}

/// A chat to be made.
#[derive(Debug, Clone)]
pub struct NewChat {
    /// The kind.
    pub kind: ChatType,
    /// The title.
    pub title: Option<String>,
    /// Settings for all.
    pub settings: ChatSettings,
    /// The key of the pair, for a one-to-one.
    pub direct_key: Option<String>,
    /// The founding members.
    pub members: Vec<MemberRole>,
}

/// An event to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewEvent {
    /// The chat is made with the members of [`NewChat`].
    Created,
    /// A message.
    Message {
        /// What it carries.
        kind: MessageType,
        /// The text.
        text: String,
        /// The files.
        attachments: Vec<MediaId>,
        /// The message of this chat that it answers.
        reply_to: Option<MessageId>,
    },
    /// Replaces the text of a message.
    Edit {
        /// The message.
        target_id: MessageId,
        /// The new text.
        text: String,
    },
    /// Deletes a message: its text, those of its edits and its reactions are erased.
    Delete {
        /// The message.
        target_id: MessageId,
    },
    /// Adds or takes away the sender's reaction.
    Reaction {
        /// The message.
        target_id: MessageId,
        /// The emoji.
        emoji: String,
        /// Added, or taken away.
        added: bool,
    },
    /// Makes somebody a member.
    Join {
        /// Who.
        user_id: UserId,
        /// As what.
        role: Role,
        /// `All` makes the whole history visible to them.
        history: HistoryRule,
    },
    /// Ends somebody's membership.
    Leave {
        /// Who.
        user_id: UserId,
        /// Why.
        reason: LeaveReason,
    },
    /// Changes a member's role.
    Role {
        /// Whose.
        user_id: UserId,
        /// To what.
        role: Role,
    },
    /// Changes title, topic or settings, or closes the chat.
    Settings {
        /// What changes.
        changes: SettingsChanges,
    },
}

impl NewEvent {
    /// Tells whether the event raises the membership epoch.
    pub fn changes_membership(&self) -> bool {
        matches!(
            self,
            Self::Created
                | Self::Join { .. }
                | Self::Leave { .. }
                | Self::Role { .. }
                | Self::Settings { .. }
        )
    }
}

/// What became of a unit.
#[derive(Debug, Clone)]
pub enum Appended {
    /// Stored now.
    Stored(Stored),
    /// The key was stored before with the same digest: its first event in its present state.
    Repeated(Event),
    /// The key was stored before with another digest.
    KeyConflict,
    /// The membership epoch differs, or the chat does not exist: nothing was stored.
    Stale,
    /// The pair has a one-to-one already.
    DirectExists(ChatId),
    /// The target is not a message of this chat.
    NoTarget,
    /// The target was deleted.
    TargetDeleted,
    /// Nothing would change: the same reaction again, or one that is not there; a member who joins,
    /// somebody who is none who leaves or gets a role, a member who gets the role they have.
    Unchanged,
    /// The message has as many kinds of reaction as it may have.
    TooManyReactions,
}

/// What was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The events, as clients see them.
    pub events: Vec<Event>,
    /// Steps of users' own streams that follow (chat_added, chat_removed).
    pub own: Vec<(UserId, AccountEvent)>,
}

/// The end of a chat's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// Position of the last event.
    pub seq: Seq,
    /// Its id.
    pub event_id: MessageId,
    /// Number of message events so far.
    pub n: u64,
}

/// Where a page of history lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The newest messages.
    Newest,
    /// The newest messages before a position.
    Before(Seq),
    /// The oldest messages after a position.
    After(Seq),
    /// Messages on both sides of a position, the one at it included: half of the page (rounded down)
    /// before it, the rest from it on; a side that ends early is not made up for by the other.
    Around(Seq),
}

/// A page of messages in ascending `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The messages in their present state.
    pub messages: Vec<Message>,
    /// More in the direction of the anchor (before it for `Newest` and `Before`, after it for
    /// `After`, on any side for `Around`), within what may be seen.
    pub has_more: bool,
}

/// The log of all chats.
///
/// # Contract
/// - `write_batch` is one durable transaction: when it answers, everything in it survives a power
///   cut; when it fails, nothing of it is stored, unless the error says that the outcome is unknown.
/// - Units are applied in order, each whole or not at all; the outcome of one does not spoil others.
///   A batch with a unit that is not well formed (see [`Append::is_well_formed`]) is refused whole
///   as broken: no client can cause one.
/// - Events of a chat get `seq` 1, 2, 3, … and ids that rise with it, whatever the clocks say (I1, I4).
/// - `created_at` of an event is the milliseconds of its id, so that it never falls as `seq` rises.
/// - A key `(sender_id, client_id)` is stored once, over all chats (I3); the check comes before the
///   epoch check, so that a repeat is recognised by a former member too. A unit with several events
///   counts as its first one.
/// - After a unit is `Stale`, later units of the same sender and chat in the batch are `Stale` too,
///   so that one person's order is kept (a repeat is still recognised).
/// - A new chat is checked against its `direct_key` first (`DirectExists`), then its id (`Stale`).
/// - Membership events raise the epoch of the chat by one each, move the members table, and append
///   `chat_added` or `chat_removed` to the streams of those concerned. Cursors of a new member start
///   at their `joined_seq`. A one-to-one's `direct_key` is unique.
/// - A `message` event is always handed out in its present state, with `state_seq`; an `edit` whose
///   text was replaced or erased comes without its text. `status` is always `Sent`. Reactions stand
///   in the order of their oldest present use, each with its first people in that order.
/// - A deleted message keeps its place as a tombstone; its text, those of its edits, its attachments
///   and its reactions are gone from the store when the call answers; `reaction` events about it come
///   with an empty emoji. Its type, `client_id`, `reply_to` and `edited_at` stay.
/// - A stored row that cannot be decoded, or whose checksum is wrong, is handed out as
///   `EventBody::Unknown` at its `seq` and counted; it never stops a reader. Where only messages are
///   asked for, such a row is left out.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Writes a batch; one outcome per unit, in order.
    async fn write_batch(&self, batch: Vec<Append>) -> EngineResult<Vec<Appended>>;

    /// Finds what a key of a sender stored, in its present state, with the digest of its request.
    async fn find_key(
        &self,
        sender_id: UserId,
        client_id: &ClientId,
    ) -> EngineResult<Option<(Event, [u8; 8])>>;

    /// Returns the end of a log.
    async fn head(&self, chat_id: ChatId) -> EngineResult<Option<LogHead>>;

    /// Pages the log in ascending order: events with `after < seq`, at most `limit`.
    async fn events(&self, chat_id: ChatId, after: Seq, limit: u32) -> EngineResult<Vec<Event>>;

    /// Pages the messages with `from <= seq`.
    async fn history(
        &self,
        chat_id: ChatId,
        from: Seq,
        anchor: Anchor,
        limit: u32,
    ) -> EngineResult<HistoryPage>;

    /// Loads a message in its present state; other kinds of events are not messages.
    async fn load(&self, message_id: MessageId) -> EngineResult<Option<Message>>;

    /// Returns where an event stands.
    async fn locate(&self, event_id: MessageId) -> EngineResult<Option<(ChatId, Seq)>>;

    /// Returns the id of the event at a position.
    async fn event_id(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Option<MessageId>>;

    /// Returns the last position whose event id is below `id`; 0 for none.
    async fn seq_before(&self, chat_id: ChatId, id: MessageId) -> EngineResult<Seq>;

    /// Returns the newest message at or above `from`, deleted ones included.
    async fn last_message(&self, chat_id: ChatId, from: Seq) -> EngineResult<Option<Message>>;

    /// Counts the messages of others above `after`, deleted ones not counted.
    async fn count_unread(&self, chat_id: ChatId, reader: UserId, after: Seq) -> EngineResult<u64>;
}
