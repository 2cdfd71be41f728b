//! The twin of `ports::receipts`.

use async_trait::async_trait;
use parlor_proto::{ChatId, Seq, UserId, receipts::ReceiptKind};

use super::{Memory, chats::Chat};
use crate::{
    planted::is_planted,
    ports::{
        EngineResult,
        receipts::{Cursors, Move, Moved, Reached, Receipts},
    },
};

impl Chat {
    /// Moves one cursor forward; nothing if it is there already.
    fn move_cursor(&mut self, step: Move) -> Option<Moved> {
        let cursors = &mut self.member_mut(step.user_id)?.cursors;
        let cursor = match step.kind {
            ReceiptKind::Delivered => &mut cursors.delivered_seq,
            ReceiptKind::Read => &mut cursors.read_seq,
        };
        if step.to_seq <= *cursor && !is_planted("cursor_back") {
            return None;
        }
        let from_seq = std::mem::replace(cursor, step.to_seq);
        let Move { chat_id, user_id, kind, to_seq, at } = step;
        let moved = Moved { chat_id, user_id, kind, from_seq, to_seq, at };
        self.moves.push(moved);
        Some(moved)
    }
}

#[async_trait]
impl Receipts for Memory {
    async fn write_moves(&self, moves: Vec<Move>) -> EngineResult<Vec<Moved>> {
        self.write(|state| {
            let mut moved = Vec::new();
            for step in moves {
                let Some(chat) = state.chats.get_mut(&step.chat_id) else { continue };
                if step.kind == ReceiptKind::Read {
                    let delivered = Move { kind: ReceiptKind::Delivered, ..step };
                    moved.extend(chat.move_cursor(delivered));
                }
                moved.extend(chat.move_cursor(step));
            }
            moved
        })
        .await
    }

    async fn cursors(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<Cursors>> {
        let state = self.state.lock();
        let chat = state.chats.get(&chat_id);
        Ok(chat.and_then(|chat| chat.member(user_id)).map(|member| member.cursors))
    }

    async fn cursors_of_chat(&self, chat_id: ChatId) -> EngineResult<Vec<(UserId, Cursors)>> {
        let state = self.state.lock();
        let chat = state.chats.get(&chat_id);
        Ok(chat.into_iter().flat_map(Chat::present).map(|(id, m)| (id, m.cursors)).collect())
    }

    async fn reached(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Vec<Reached>> {
        let state = self.state.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(Vec::new()) };
        let mut reached = Vec::new();
        for (user_id, member) in chat.present() {
            for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
                let covers = |moved: &&Moved| {
                    moved.user_id == user_id && moved.kind == kind && moved.to_seq >= seq
                };
                let at = if seq <= member.joined_seq {
                    Some(member.joined_at)
                } else {
                    chat.moves.iter().find(covers).map(|moved| moved.at)
                };
                reached.extend(at.map(|at| Reached { user_id, kind, at }));
            }
        }
        Ok(reached)
    }
}
