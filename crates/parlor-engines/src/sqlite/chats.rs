//! Chats and members, as the writer of the log left them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parlor_core::ports::{
    EngineResult,
    chats::{ChatEntry, ChatState, Chats, MemberState},
};
use parlor_proto::{
    ChatId, MessageId, Seq, Time, UserId,
    chats::{ChatSettings, ChatType},
    frame::{AccountEvent, AccountEventBody},
    members::Role,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Sqlite,
    accounts::append_own,
    rows::{int, uint},
};

/// Writes a word of the protocol as the text that also travels.
pub(super) fn word(value: &impl Serialize) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Ok(other.to_string()),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    }
}

/// Reads a word of the protocol.
pub(super) fn read_word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(word)).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

fn read_settings(row: &Row<'_>, column: usize) -> rusqlite::Result<ChatSettings> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

fn load(db: &Connection, chat_id: ChatId) -> rusqlite::Result<Option<ChatState>> {
    let select = "SELECT type, title, topic, created_at, settings, closed, membership_epoch \
                  FROM chats WHERE chat_id = ?1";
    let id = int(chat_id.raw());
    let chat = db.prepare_cached(select)?.query_row([id], |row| {
        Ok(ChatState {
            chat_id,
            kind: read_word::<ChatType>(row, 0)?,
            title: row.get(1)?,
            topic: row.get(2)?,
            created_at: Time::from_millis(uint(row.get(3)?)),
            settings: read_settings(row, 4)?,
            closed: row.get(5)?,
            membership_epoch: uint(row.get(6)?),
            members: BTreeMap::new(),
        })
    });
    let Some(mut chat) = chat.optional()? else { return Ok(None) };
    let select = "SELECT user_id, role, joined_at, joined_seq, visible_seq \
                  FROM chat_participants WHERE chat_id = ?1 AND left_seq IS NULL";
    let mut statement = db.prepare_cached(select)?;
    let members = statement.query_map([id], |row| {
        let state = MemberState {
            role: read_word::<Role>(row, 1)?,
            joined_at: Time::from_millis(uint(row.get(2)?)),
            joined_seq: Seq::new(uint(row.get(3)?)),
            visible_seq: Seq::new(uint(row.get(4)?)),
        };
        Ok((UserId::from_raw(uint(row.get(0)?)), state))
    })?;
    chat.members = members.collect::<rusqlite::Result<_>>()?;
    Ok(Some(chat))
}

/// A member's chats with the ends of their logs; the caller adds conditions and order.
const ENTRIES: &str = "SELECT p.chat_id, m.seq, m.message_id, m.n, p.cleared_seq, p.visible_seq \
     FROM chat_participants p \
     JOIN messages m ON m.message_id = \
        (SELECT l.message_id FROM messages l WHERE l.chat_id = p.chat_id ORDER BY l.seq DESC LIMIT 1) \
     WHERE p.left_seq IS NULL AND p.user_id = ?1";

fn entry(row: &Row<'_>) -> rusqlite::Result<ChatEntry> {
    let head_id = MessageId::from_raw(uint(row.get(2)?));
    Ok(ChatEntry {
        chat_id: ChatId::from_raw(uint(row.get(0)?)),
        head_seq: Seq::new(uint(row.get(1)?)),
        head_id,
        head_n: uint(row.get(3)?),
        updated_at: Time::from_millis(head_id.millis()),
        cleared_seq: Seq::new(uint(row.get(4)?)),
        visible_seq: Seq::new(uint(row.get(5)?)),
    })
}

#[async_trait]
impl Chats for Sqlite {
    async fn load(&self, chat_id: ChatId) -> EngineResult<Option<ChatState>> {
        self.read(move |db| load(db, chat_id)).await
    }

    async fn find_direct(&self, direct_key: &str) -> EngineResult<Option<ChatId>> {
        let key = direct_key.to_owned();
        let select = "SELECT chat_id FROM chats WHERE direct_key = ?1";
        self.read(move |db| {
            let found = db.prepare_cached(select)?.query_row([key], |row| row.get(0)).optional()?;
            Ok(found.map(|raw: i64| ChatId::from_raw(uint(raw))))
        })
        .await
    }

    async fn list(
        &self,
        user_id: UserId,
        before: Option<MessageId>,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>> {
        let select = format!(
            "{ENTRIES} AND m.seq > p.cleared_seq AND m.message_id < ?2 \
             ORDER BY m.message_id DESC LIMIT ?3"
        );
        let before = before.map_or(i64::MAX, |id| int(id.raw()));
        self.read(move |db| {
            let mut statement = db.prepare_cached(&select)?;
            statement.query_map(params![int(user_id.raw()), before, limit], entry)?.collect()
        })
        .await
    }

    async fn changed_since(
        &self,
        user_id: UserId,
        since: MessageId,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>> {
        let select =
            format!("{ENTRIES} AND m.message_id >= ?2 ORDER BY m.message_id DESC LIMIT ?3");
        self.read(move |db| {
            let mut statement = db.prepare_cached(&select)?;
            let keys = params![int(user_id.raw()), int(since.raw()), limit];
            statement.query_map(keys, entry)?.collect()
        })
        .await
    }

    async fn entry(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<ChatEntry>> {
        let select = format!("{ENTRIES} AND p.chat_id = ?2");
        self.read(move |db| {
            let keys = params![int(user_id.raw()), int(chat_id.raw())];
            db.prepare_cached(&select)?.query_row(keys, entry).optional()
        })
        .await
    }

    async fn share_chat(&self, one: UserId, other: UserId) -> EngineResult<bool> {
        let select = "SELECT 1 FROM chat_participants a \
                      JOIN chat_participants b ON b.chat_id = a.chat_id \
                      WHERE a.user_id = ?1 AND a.left_seq IS NULL \
                        AND b.user_id = ?2 AND b.left_seq IS NULL LIMIT 1";
        self.read(move |db| {
            db.prepare_cached(select)?.exists(params![int(one.raw()), int(other.raw())])
        })
        .await
    }

    async fn clear(
        &self,
        chat_id: ChatId,
        user_id: UserId,
        seq: Seq,
        at: Time,
    ) -> EngineResult<AccountEvent> {
        self.write(move |db| {
            let set = "UPDATE chat_participants SET cleared_seq = max(cleared_seq, ?3) \
                       WHERE chat_id = ?1 AND user_id = ?2 AND left_seq IS NULL \
                       RETURNING cleared_seq";
            let keys = params![int(chat_id.raw()), int(user_id.raw()), int(seq.get())];
            let cleared: Option<i64> =
                db.prepare_cached(set)?.query_row(keys, |row| row.get(0)).optional()?;
            let seq = cleared.map_or(seq, |cleared| Seq::new(uint(cleared)));
            append_own(db, user_id, AccountEventBody::Cleared { chat_id, seq }, at)
        })
        .await
    }
}
