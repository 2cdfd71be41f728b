//! Messages: sending, paging, editing, reacting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Invalid, Problem},
    event::Event,
    ids::{ChatId, ClientId, MediaId, MessageId, Seq, UserId},
    limits::{EMOJI_BYTES, Limits},
    receipts::Status,
    time::Time,
};

/// What a message carries. A client that does not know a type shows `message` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageType {
    /// Text.
    #[default]
    Text,
    /// A picture among the attachments.
    Image,
    /// A file among the attachments.
    File,
    /// A recording of a voice among the attachments.
    Voice,
    /// A film among the attachments.
    Video,
}

/// Body of `POST /api/v1/messages`, and an item of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Where to.
    pub chat_id: ChatId,
    /// The text; may be empty only beside attachments.
    #[serde(default)]
    pub message: String,
    /// Defaults to `text`.
    #[serde(default, rename = "type")]
    pub kind: MessageType,
    /// Uploaded files, in order.
    #[serde(default)]
    pub attachments: Vec<MediaId>,
    /// Makes the send safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The message of the same chat that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// Body of `POST /api/v1/messages/batch`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendBatch {
    /// 1–100 messages, stored in this order.
    #[schemars(length(min = 1, max = 100))]
    pub messages: Vec<SendMessage>,
}

/// Answer of the batch route: one result per message, in order.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BatchResults {
    /// The results.
    pub results: Vec<BatchResult>,
}

/// What became of one message of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BatchResult {
    /// Stored: 201, or 200 for a repeat.
    Stored {
        /// 201 or 200.
        status: u16,
        /// The message.
        message: Box<Message>,
    },
    /// Refused.
    Refused {
        /// The status that the single route would have answered.
        status: u16,
        /// Why.
        problem: Problem,
    },
}

/// A message in its present state; holds nothing that depends on the reader, but for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// The message.
    pub message_id: MessageId,
    /// Its chat.
    pub chat_id: ChatId,
    /// Its position.
    pub seq: Seq,
    /// Who wrote it.
    pub sender_id: UserId,
    /// What it carries.
    #[serde(rename = "type")]
    pub kind: MessageType,
    /// The text; empty when deleted.
    pub message: String,
    /// The files.
    pub attachments: Vec<MediaId>,
    /// The key of the send.
    pub client_id: Option<ClientId>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Server time of the commit; for display.
    pub created_at: Time,
    /// When it was last edited.
    pub edited_at: Option<Time>,
    /// A tombstone.
    pub deleted: bool,
    /// The reactions, in order of first use.
    pub reactions: Vec<Reaction>,
    /// `sent` in events; the sender's view in HTTP answers to the sender.
    pub status: Status,
    /// The last event folded into this state.
    pub state_seq: Seq,
}

/// One kind of reaction on a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// How many people.
    pub count: u64,
    /// The first 20 of them.
    pub user_ids: Vec<UserId>,
}

/// Body of `PATCH /api/v1/messages/{message_id}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditMessage {
    /// The new text.
    pub message: String,
}

/// Query of the history route; at most one anchor.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    /// 1–200, default 50.
    pub limit: Option<u32>,
    /// Messages before this one.
    pub before: Option<MessageId>,
    /// Messages after this one.
    pub after: Option<MessageId>,
    /// Messages on both sides of this one, itself included.
    pub around: Option<MessageId>,
}

/// A page of history: the state as of `head_seq`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Messages in ascending `seq`; deleted ones as tombstones.
    pub messages: Vec<Message>,
    /// Whether there is more in the direction of the page (before it, if there was no anchor).
    pub has_more: bool,
    /// The head at the moment of reading.
    pub head_seq: Seq,
}

/// Query of the events route.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsQuery {
    /// Events after this position; 0 from the beginning.
    pub after_seq: Option<u64>,
    /// 1–200, default 50.
    pub limit: Option<u32>,
}

/// A page of the raw log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// Events in ascending `seq`, without a hole from the first visible one on.
    pub events: Vec<Event>,
    /// The head at the moment of reading.
    pub head_seq: Seq,
    /// The epoch of the store; it changes when a backup is restored.
    pub epoch: String,
}

/// Checks the text of a message.
pub fn check_text(field: &str, text: &str, limits: &Limits) -> Result<(), Invalid> {
    if text.len() > limits.message_bytes as usize {
        let detail = format!("a message has at most {} bytes of UTF-8", limits.message_bytes);
        return Err(Invalid::too_large(field, detail));
    }
    Ok(())
}

/// Checks one send: its sizes, and that it says anything at all.
pub fn check_send(send: &SendMessage, limits: &Limits) -> Result<(), Invalid> {
    check_text("message", &send.message, limits)?;
    if send.attachments.len() > limits.attachments as usize {
        let detail = format!("a message has at most {} attachments", limits.attachments);
        return Err(Invalid::new("attachments", detail));
    }
    if send.attachments.is_empty() && send.message.trim().is_empty() {
        return Err(Invalid::new("message", "a message without attachments has a text"));
    }
    Ok(())
}

/// Checks a reaction: short, visible, no letters.
pub fn check_emoji(text: &str) -> Result<(), Invalid> {
    let fits = !text.is_empty() && text.len() <= EMOJI_BYTES;
    let is_symbol =
        text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !c.is_alphabetic());
    let is_plain_ascii = text.is_ascii();
    if fits && is_symbol && !is_plain_ascii {
        Ok(())
    } else {
        Err(Invalid::new("emoji", "a reaction is one emoji"))
    }
}
