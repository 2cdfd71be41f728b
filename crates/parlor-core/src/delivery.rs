//! What a committed unit tells the connected devices; only a hint, may be lost (invariant I7).
//!
//! On one node every hint goes to the local bus. Slots and subjects of a cluster will live here.

use std::sync::Arc;

use parlor_proto::{
    Event, UserId,
    frame::{AccountEvent, ServerFrame},
};

use crate::ports::{
    bus::{Bus, Hint},
    chats::ChatState,
};

/// Tells an event to the members of the chat as it stands after it, so that somebody who was
/// removed by it learns nothing from it (invariant I5).
pub fn deliver(bus: &dyn Bus, chat: Arc<ChatState>, event: Event) {
    bus.publish(Hint::Event { chat, event: Arc::new(event) });
}

/// Tells a step of a user's own stream to all their devices.
pub fn deliver_own(bus: &dyn Bus, user_id: UserId, event: AccountEvent) {
    bus.publish(Hint::Lasting { to: vec![user_id], frame: ServerFrame::Account(event) });
}
