//! Cursors: how far each member's devices stored and read, and the log of their moves.

use async_trait::async_trait;
use parlor_proto::{ChatId, Seq, Time, UserId, receipts::ReceiptKind};

use super::EngineResult;

/// The two cursors of a member (invariant I6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursors {
    /// Stored by a device.
    pub delivered_seq: Seq,
    /// Shown on a visible, focused screen; never above `delivered_seq`.
    pub read_seq: Seq,
}

/// A move asked for; merged by maximum with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The chat.
    pub chat_id: ChatId,
    /// Whose cursor.
    pub user_id: UserId,
    /// Which; a read move carries the delivered cursor along.
    pub kind: ReceiptKind,
    /// Up to where; the caller has checked that it is not above the head.
    pub to_seq: Seq,
    /// When.
    pub at: Time,
}

/// A move that changed a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The chat.
    pub chat_id: ChatId,
    /// Whose cursor.
    pub user_id: UserId,
    /// Which.
    pub kind: ReceiptKind,
    /// From where.
    pub from_seq: Seq,
    /// Up to where.
    pub to_seq: Seq,
    /// When.
    pub at: Time,
}

/// When a member's cursors first covered a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub kind: ReceiptKind,
    /// When; the creation time of the membership where the cursor started above the position.
    pub at: Time,
}

/// Cursors; every write is durable when it answers.
#[async_trait]
pub trait Receipts: Send + Sync + 'static {
    /// Applies moves in one transaction, merged by maximum; returns the moves that changed
    /// something, in order. A read move beyond the delivered cursor yields two: delivered, then
    /// read. Moves of people who are not present members change nothing.
    async fn write_moves(&self, moves: Vec<Move>) -> EngineResult<Vec<Moved>>;

    /// Returns the cursors of one present member.
    async fn cursors(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<Cursors>>;

    /// Returns the cursors of all present members.
    async fn cursors_of_chat(&self, chat_id: ChatId) -> EngineResult<Vec<(UserId, Cursors)>>;

    /// Returns the times at which the logged moves first covered a position.
    async fn reached(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Vec<Reached>>;
}
