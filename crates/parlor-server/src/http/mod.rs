//! The HTTP doors: parse, call the core, answer. One file per noun; every route in `router.rs`.

pub mod accept;
pub mod accounts;
pub mod assets;
pub mod asyncapi;
pub mod chats;
pub mod devices;
pub mod extract;
pub mod members;
pub mod messages;
pub mod openapi;
pub mod receipts;
pub mod remote;
pub mod router;
pub mod schemas;
pub mod system;
