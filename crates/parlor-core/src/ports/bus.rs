//! Hints to those who are connected: may be lost, repeated or reordered without harm.

use std::sync::Arc;

use parlor_proto::{ChatId, DeviceId, Event, Seq, UserId, frame::ServerFrame};

use super::chats::ChatState;

/// Something to pass on to connected devices.
#[derive(Debug, Clone)]
pub enum Hint {
    /// A committed event, for every device of the members who may see it.
    Event {
        /// The chat after the event.
        chat: Arc<ChatState>,
        /// The event.
        event: Arc<Event>,
        /// People who learn of it although they are no longer members: nobody, today.
        also: Vec<UserId>,
    },
    /// A frame for every device of these people; ephemeral ones may be dropped by a slow reader.
    Frame {
        /// Who.
        to: Vec<UserId>,
        /// What.
        frame: ServerFrame,
        /// Typing, presence: may be dropped.
        ephemeral: bool,
    },
    /// Close the connections of these devices: the session was revoked.
    Revoked {
        /// The devices.
        devices: Vec<DeviceId>,
    },
    /// A user may no longer see a chat from this position on (tells caches at the edge).
    Removed {
        /// The chat.
        chat_id: ChatId,
        /// Who.
        user_id: UserId,
        /// The position of the removal.
        left_seq: Seq,
    },
}

/// Carries hints to the connections, on this node and on others.
///
/// `publish` never waits and never fails: what cannot be delivered is found again from the log.
pub trait Bus: Send + Sync + 'static {
    /// Passes a hint on. Hints of one chat are published in the order of its `seq`.
    fn publish(&self, hint: Hint);
}
