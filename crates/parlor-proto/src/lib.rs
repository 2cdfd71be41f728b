//! The words of Parlor: what travels between clients and servers, and nothing else.
//!
//! Ids, requests, answers, frames, events, codes and limits live here, each noun in its own file.
//! There is no async, no I/O and no rule of chat: a type here checks its own shape and stops.
//! The rules are in `parlor-core`; the contract in words is `docs/protocol.md`.

pub mod accounts;
pub mod canonical;
pub mod chats;
pub mod devices;
pub mod error;
pub mod event;
pub mod frame;
pub mod ids;
pub mod json;
pub mod limits;
pub mod members;
pub mod messages;
pub mod presence;
pub mod receipts;
pub mod server;
pub mod time;

pub use error::{CloseCode, ErrorCode, Invalid, Problem};
pub use event::{Event, EventBody};
pub use ids::{ChatId, ClientId, DeviceId, MediaId, MessageId, Seq, UserId};
pub use limits::Limits;
pub use time::Time;
