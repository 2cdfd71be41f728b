//! Hints to those who are connected: may be lost, repeated or reordered without harm.

use std::sync::Arc;

use parlor_proto::{DeviceId, Event, UserId, frame::ServerFrame};

use super::chats::ChatState;

/// One connection of a device, as the node that holds it numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Something to pass on to connected devices.
#[derive(Debug, Clone)]
pub enum Hint {
    /// A committed event, for every device of the members of the chat as it stands after it.
    Event {
        /// The chat after the event.
        chat: Arc<ChatState>,
        /// The event.
        event: Arc<Event>,
    },
    /// A frame for every device of these people; kept like an event.
    Lasting {
        /// Who.
        to: Vec<UserId>,
        /// What.
        frame: ServerFrame,
    },
    /// A frame that a slow reader may lose: typing.
    Ephemeral {
        /// Who.
        to: Vec<UserId>,
        /// What.
        frame: ServerFrame,
    },
    /// An ephemeral frame for some connections only: presence for those who watch.
    Watched {
        /// Which.
        to: Vec<ConnectionId>,
        /// What.
        frame: ServerFrame,
    },
    /// Close the connections of these devices: their sessions were revoked.
    Revoked {
        /// The devices.
        devices: Vec<DeviceId>,
    },
}

/// Carries hints to the connections, on this node and on others.
///
/// `publish` never waits and never fails: what cannot be delivered is found again from the log.
pub trait Bus: Send + Sync + 'static {
    /// Passes a hint on. Events of one chat are published in the order of its `seq`.
    fn publish(&self, hint: Hint);
}
