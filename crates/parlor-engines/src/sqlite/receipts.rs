//! Cursors and the log of their moves.

use async_trait::async_trait;
use parlor_core::ports::{
    EngineResult,
    receipts::{Cursors, Move, Moved, Reached, Receipts},
};
use parlor_proto::{ChatId, Seq, Time, UserId, receipts::ReceiptKind};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Sqlite,
    rows::{int, uint},
};

fn number(kind: ReceiptKind) -> i64 {
    match kind {
        ReceiptKind::Delivered => 1,
        ReceiptKind::Read => 2,
    }
}

fn cursors(db: &Connection, chat_id: ChatId, user_id: UserId) -> rusqlite::Result<Option<Cursors>> {
    let select = "SELECT c.delivered_seq, c.read_seq FROM cursors c \
                  JOIN chat_participants p ON p.chat_id = c.chat_id AND p.user_id = c.user_id \
                  WHERE c.chat_id = ?1 AND c.user_id = ?2 AND p.left_seq IS NULL";
    let keys = params![int(chat_id.raw()), int(user_id.raw())];
    let found = db.prepare_cached(select)?.query_row(keys, |row| {
        Ok(Cursors {
            delivered_seq: Seq::new(uint(row.get(0)?)),
            read_seq: Seq::new(uint(row.get(1)?)),
        })
    });
    found.optional()
}

/// Moves one cursor forward; nothing if it is there already.
fn step(db: &Connection, step: Move) -> rusqlite::Result<Option<Moved>> {
    let Move { chat_id, user_id, kind, to_seq, at } = step;
    let Some(cursors) = cursors(db, chat_id, user_id)? else { return Ok(None) };
    let (from_seq, column) = match kind {
        ReceiptKind::Delivered => (cursors.delivered_seq, "delivered_seq"),
        ReceiptKind::Read => (cursors.read_seq, "read_seq"),
    };
    if to_seq <= from_seq {
        return Ok(None);
    }
    let (chat, user) = (int(chat_id.raw()), int(user_id.raw()));
    let set = format!("UPDATE cursors SET {column} = ?3 WHERE chat_id = ?1 AND user_id = ?2");
    db.prepare_cached(&set)?.execute(params![chat, user, int(to_seq.get())])?;
    let insert = "INSERT INTO receipt_moves (chat_id, user_id, kind, to_seq, from_seq, at) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    db.prepare_cached(insert)?.execute(params![
        chat,
        user,
        number(kind),
        int(to_seq.get()),
        int(from_seq.get()),
        int(at.millis()),
    ])?;
    Ok(Some(Moved { chat_id, user_id, kind, from_seq, to_seq, at }))
}

#[async_trait]
impl Receipts for Sqlite {
    async fn write_moves(&self, moves: Vec<Move>) -> EngineResult<Vec<Moved>> {
        self.write(move |db| {
            let mut moved = Vec::new();
            for next in moves {
                if next.kind == ReceiptKind::Read {
                    moved.extend(step(db, Move { kind: ReceiptKind::Delivered, ..next })?);
                }
                moved.extend(step(db, next)?);
            }
            Ok(moved)
        })
        .await
    }

    async fn cursors(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<Cursors>> {
        self.read(move |db| cursors(db, chat_id, user_id)).await
    }

    async fn cursors_of_chat(&self, chat_id: ChatId) -> EngineResult<Vec<(UserId, Cursors)>> {
        let select = "SELECT c.user_id, c.delivered_seq, c.read_seq FROM cursors c \
                      JOIN chat_participants p ON p.chat_id = c.chat_id AND p.user_id = c.user_id \
                      WHERE c.chat_id = ?1 AND p.left_seq IS NULL ORDER BY c.user_id";
        self.read(move |db| {
            let mut statement = db.prepare_cached(select)?;
            let rows = statement.query_map([int(chat_id.raw())], |row| {
                let cursors = Cursors {
                    delivered_seq: Seq::new(uint(row.get(1)?)),
                    read_seq: Seq::new(uint(row.get(2)?)),
                };
                Ok((UserId::from_raw(uint(row.get(0)?)), cursors))
            })?;
            rows.collect()
        })
        .await
    }

    async fn reached(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Vec<Reached>> {
        let members = "SELECT user_id, joined_seq, joined_at FROM chat_participants \
                       WHERE chat_id = ?1 AND left_seq IS NULL ORDER BY user_id";
        let first = "SELECT at FROM receipt_moves WHERE chat_id = ?1 AND user_id = ?2 \
                     AND kind = ?3 AND to_seq >= ?4 ORDER BY to_seq LIMIT 1";
        self.read(move |db| {
            let mut statement = db.prepare_cached(members)?;
            let members = statement.query_map([int(chat_id.raw())], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?;
            let mut reached = Vec::new();
            for member in members {
                let (user, joined_seq, joined_at) = member?;
                for kind in [ReceiptKind::Delivered, ReceiptKind::Read] {
                    let at = if seq.get() <= uint(joined_seq) {
                        Some(joined_at)
                    } else {
                        let keys = params![int(chat_id.raw()), user, number(kind), int(seq.get())];
                        db.prepare_cached(first)?.query_row(keys, |row| row.get(0)).optional()?
                    };
                    reached.extend(at.map(|at| Reached {
                        user_id: UserId::from_raw(uint(user)),
                        kind,
                        at: Time::from_millis(uint(at)),
                    }));
                }
            }
            Ok(reached)
        })
        .await
    }
}
