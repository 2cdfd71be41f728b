//! The Rust SDK of Parlor: connect, outbox, sync. For bots, tests and the load tool.
//!
//! [`Client`] makes calls over HTTP, each in the file of its noun. [`Replica`] keeps one device in
//! step over a socket: it resumes by cursor, keeps every log gap-free by `seq`, and sends orders
//! until they are acknowledged. The decisions stand in pure state machines: `connection.rs` (when
//! to dial and wait), `outbox.rs` (what to send), `sync.rs` (what is missing), joined in
//! `session.rs`; `replica.rs` gives them a real socket, `store.rs` a memory.
//!
//! Not here: any rule of chat (the server's), and rendering (the application's).

mod accounts;
mod chats;
pub mod client;
pub mod connection;
mod devices;
pub mod error;
pub mod ids;
mod members;
mod messages;
pub mod outbox;
mod presence;
pub mod random;
mod receipts;
pub mod replica;
pub mod runtime;
pub mod session;
pub mod socket;
pub mod store;
pub mod sync;
pub mod wire;

pub use client::Client;
pub use connection::{ClosedReason, State};
pub use error::{Error, Outcome};
pub use outbox::Settled;
pub use random::Random;
pub use replica::{Changes, Options, Replica, ReplicaError};
pub use session::{Change, Receipts, Tapped};
pub use store::{FileStore, MemoryStore, Store};
