//! The real-time doors: sockets, the hub that feeds them, and the long poll for networks that block
//! sockets.

pub mod hub;
pub mod poll;
pub mod queue;
pub mod socket;
pub mod wire;

use parlor_proto::frame::ErrorFrame;

/// Returns the frame that tells an error of the core.
pub(crate) fn error_frame(id: Option<String>, error: &parlor_core::Error) -> ErrorFrame {
    crate::error::Refusal::from(error.clone()).frame(id)
}
