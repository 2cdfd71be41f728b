//! The `messages` port: batches go to `append.rs`, reads to `log.rs`.

use async_trait::async_trait;
use parlor_core::ports::{
    EngineError, EngineResult,
    messages::{Anchor, Append, Appended, HistoryPage, LogHead, Messages},
};
use parlor_proto::{ChatId, ClientId, Event, MessageId, Seq, UserId, messages::Message};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Sqlite, append, log,
    rows::{MESSAGE, int, uint},
};

#[async_trait]
impl Messages for Sqlite {
    async fn write_batch(&self, batch: Vec<Append>) -> EngineResult<Vec<Appended>> {
        if !batch.iter().all(Append::is_well_formed) {
            return Err(EngineError::broken("a unit of the batch is not well formed"));
        }
        let (ids, unreadable) = (self.ids.clone(), self.unreadable.clone());
        self.write(move |db| append::batch(db, &ids, &unreadable, batch)).await
    }

    async fn find_key(
        &self,
        sender_id: UserId,
        client_id: &ClientId,
    ) -> EngineResult<Option<(Event, [u8; 8])>> {
        let (key, unreadable) = (client_id.key_bytes(), self.unreadable.clone());
        self.read(move |db| append::find_key(db, &unreadable, sender_id, &key)).await
    }

    async fn head(&self, chat_id: ChatId) -> EngineResult<Option<LogHead>> {
        let head = self.read(move |db| log::head(db, chat_id)).await?;
        Ok(head.map(|(seq, event_id, n)| LogHead { seq, event_id, n }))
    }

    async fn events(&self, chat_id: ChatId, after: Seq, limit: u32) -> EngineResult<Vec<Event>> {
        let unreadable = self.unreadable.clone();
        self.read(move |db| {
            let tail = "WHERE m.chat_id = ?1 AND m.seq > ?2 ORDER BY m.seq LIMIT ?3";
            let keys = params![int(chat_id.raw()), int(after.get()), limit];
            log::events(db, &unreadable, tail, keys)
        })
        .await
    }

    async fn history(
        &self,
        chat_id: ChatId,
        from: Seq,
        anchor: Anchor,
        limit: u32,
    ) -> EngineResult<HistoryPage> {
        let unreadable = self.unreadable.clone();
        self.read(move |db| {
            let older = |below: Seq, count: u32| -> rusqlite::Result<(Vec<Message>, bool)> {
                let tail = "WHERE m.chat_id = ?1 AND m.seq >= ?2 AND m.seq < ?3 AND m.kind = ?4 \
                            ORDER BY m.seq DESC LIMIT ?5";
                let keys = params![
                    int(chat_id.raw()),
                    int(from.get()),
                    int(below.get()),
                    MESSAGE,
                    count.saturating_add(1)
                ];
                let mut messages = log::messages(db, &unreadable, tail, keys)?;
                let more = messages.len() > count as usize;
                messages.truncate(count as usize);
                messages.reverse();
                Ok((messages, more))
            };
            let newer = |above: Seq, count: u32| -> rusqlite::Result<(Vec<Message>, bool)> {
                let tail = "WHERE m.chat_id = ?1 AND m.seq >= ?2 AND m.seq > ?3 AND m.kind = ?4 \
                            ORDER BY m.seq LIMIT ?5";
                let keys = params![
                    int(chat_id.raw()),
                    int(from.get()),
                    int(above.get()),
                    MESSAGE,
                    count.saturating_add(1)
                ];
                let mut messages = log::messages(db, &unreadable, tail, keys)?;
                let more = messages.len() > count as usize;
                messages.truncate(count as usize);
                Ok((messages, more))
            };
            let (messages, has_more) = match anchor {
                Anchor::Newest => older(Seq::new(u64::MAX), limit)?,
                Anchor::Before(seq) => older(seq, limit)?,
                Anchor::After(seq) => newer(seq, limit)?,
                Anchor::Around(seq) => {
                    let (mut messages, more_older) = older(seq, limit / 2)?;
                    let (rest, more_newer) = newer(seq.prev(), limit - limit / 2)?;
                    messages.extend(rest);
                    (messages, more_older || more_newer)
                }
            };
            Ok(HistoryPage { messages, has_more })
        })
        .await
    }

    async fn load(&self, message_id: MessageId) -> EngineResult<Option<Message>> {
        let unreadable = self.unreadable.clone();
        self.read(move |db| {
            let tail = "WHERE m.message_id = ?1 AND m.kind = ?2";
            let keys = params![int(message_id.raw()), MESSAGE];
            Ok(log::messages(db, &unreadable, tail, keys)?.pop())
        })
        .await
    }

    async fn locate(&self, event_id: MessageId) -> EngineResult<Option<(ChatId, Seq)>> {
        self.read(move |db| {
            let select = "SELECT chat_id, seq FROM messages WHERE message_id = ?1";
            let found = db.prepare_cached(select)?.query_row([int(event_id.raw())], |row| {
                Ok((ChatId::from_raw(uint(row.get(0)?)), Seq::new(uint(row.get(1)?))))
            });
            found.optional()
        })
        .await
    }

    async fn event_id(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Option<MessageId>> {
        self.read(move |db| id_at(db, chat_id, seq)).await
    }

    async fn seq_before(&self, chat_id: ChatId, id: MessageId) -> EngineResult<Seq> {
        // Ids rise with `seq` in a chat, so a search over the index of the log finds it.
        self.read(move |db| {
            let mut below = 0;
            let mut above = log::head(db, chat_id)?.map_or(0, |(seq, ..)| seq.get()) + 1;
            while above - below > 1 {
                let middle = below + (above - below) / 2;
                match id_at(db, chat_id, Seq::new(middle))? {
                    Some(found) if found < id => below = middle,
                    _ => above = middle,
                }
            }
            Ok(Seq::new(below))
        })
        .await
    }

    async fn last_message(&self, chat_id: ChatId, from: Seq) -> EngineResult<Option<Message>> {
        let unreadable = self.unreadable.clone();
        self.read(move |db| {
            let tail = "WHERE m.chat_id = ?1 AND m.seq >= ?2 AND m.kind = ?3 \
                        ORDER BY m.seq DESC LIMIT 1";
            let keys = params![int(chat_id.raw()), int(from.get()), MESSAGE];
            Ok(log::messages(db, &unreadable, tail, keys)?.pop())
        })
        .await
    }

    async fn count_unread(&self, chat_id: ChatId, reader: UserId, after: Seq) -> EngineResult<u64> {
        self.read(move |db| {
            let chat = int(chat_id.raw());
            // The numbers of messages up to here and up to the head tell most of the time that
            // there is nothing to count.
            let n_at = "SELECT n FROM messages WHERE chat_id = ?1 AND seq <= ?2 \
                        ORDER BY seq DESC LIMIT 1";
            let read: Option<i64> = db
                .prepare_cached(n_at)?
                .query_row(params![chat, int(after.get())], |row| row.get(0))
                .optional()?;
            let head = log::head(db, chat_id)?.map_or(0, |(_, _, n)| n);
            if head == read.map_or(0, uint) {
                return Ok(0);
            }
            let count = "SELECT count(*) FROM messages m \
                         LEFT JOIN message_state s ON s.message_id = m.message_id \
                         WHERE m.chat_id = ?1 AND m.seq > ?2 AND m.kind = ?3 \
                           AND m.sender_id <> ?4 AND coalesce(s.deleted, 0) = 0";
            let keys = params![chat, int(after.get()), MESSAGE, int(reader.raw())];
            db.prepare_cached(count)?.query_row(keys, |row| row.get::<_, i64>(0)).map(uint)
        })
        .await
    }
}

fn id_at(db: &Connection, chat_id: ChatId, seq: Seq) -> rusqlite::Result<Option<MessageId>> {
    let select = "SELECT message_id FROM messages WHERE chat_id = ?1 AND seq = ?2";
    let keys = params![int(chat_id.raw()), int(seq.get())];
    let found = db.prepare_cached(select)?.query_row(keys, |row| row.get(0)).optional()?;
    Ok(found.map(|raw: i64| MessageId::from_raw(uint(raw))))
}
