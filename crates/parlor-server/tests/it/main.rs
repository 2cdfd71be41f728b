//! The one integration binary: stories through the public API, and the mechanical guards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod access_table;
mod accounts;
mod chats;
mod configuration;
mod doors;
mod durability;
mod guards;
mod hostile;
mod messages;
mod presence;
mod receipts;
mod simulation;
mod sockets;
mod world;
