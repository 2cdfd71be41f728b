//! Receipts: what was delivered and read, as positions and as a status derived from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{MessageId, UserId},
    time::Time,
};

/// State of a message, for one recipient or as the lowest of all; ordered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Stored durably by the server.
    Sent,
    /// Stored by a device of the recipient.
    Delivered,
    /// Shown on a visible, focused screen of the recipient.
    Read,
}

/// The two states that a client may report; `sent` is the commit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// A device stored everything up to here.
    Delivered,
    /// Everything up to here was on a visible, focused screen.
    Read,
}

impl From<ReceiptKind> for Status {
    fn from(kind: ReceiptKind) -> Self {
        match kind {
            ReceiptKind::Delivered => Self::Delivered,
            ReceiptKind::Read => Self::Read,
        }
    }
}

/// Body of `PUT /api/v1/messages/{message_id}/status`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutStatus {
    /// Covers all earlier messages of the chat; never goes back.
    pub status: ReceiptKind,
}

/// The caller's own state of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnStatus {
    /// The message.
    pub message_id: MessageId,
    /// The state now.
    pub status: Status,
    /// When it was reached.
    pub updated_at: Time,
}

/// The state of one message for all its recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageStatus {
    /// The message.
    pub message_id: MessageId,
    /// The lowest state of the recipients that are not hidden; `sent` without any.
    pub status: Status,
    /// The present members who may see the message, less its sender.
    pub recipients: Vec<RecipientStatus>,
}

/// The state of one message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecipientStatus {
    /// The recipient.
    pub user_id: UserId,
    /// The state.
    pub status: RecipientState,
    /// When it was reached; null where hidden.
    pub updated_at: Option<Time>,
    /// When it was delivered; null before, and where hidden.
    pub delivered_at: Option<Time>,
    /// When it was read; null before, and where hidden.
    pub read_at: Option<Time>,
}

/// A [`Status`], or that the recipient sends no receipts to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// See [`Status::Sent`].
    Sent,
    /// See [`Status::Delivered`].
    Delivered,
    /// See [`Status::Read`].
    Read,
    /// The recipient sends no receipts to the caller.
    Hidden,
}

impl From<Status> for RecipientState {
    fn from(status: Status) -> Self {
        match status {
            Status::Sent => Self::Sent,
            Status::Delivered => Self::Delivered,
            Status::Read => Self::Read,
        }
    }
}
