//! Reading the log: rows with the state that later events folded into them.

use std::sync::atomic::{AtomicU64, Ordering};

use parlor_proto::{
    ChatId, Event, EventBody, MessageId, Seq, Time, UserId,
    limits::REACTION_USERS,
    messages::{Message, Reaction},
    receipts::Status,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{
    CREATED, CreatedBody, DELETE, EDIT, JOIN, LEAVE, LeaveBody, MESSAGE, N_ROW_COLUMNS, REACTION,
    ROLE, RoleBody, SETTINGS, SettingsBody, StoredRow, row_columns, type_of, uint,
};

/// Rows of the log with the state of changed messages; the caller adds conditions and order.
const ROWS: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", s.state_seq, s.edit_id, s.edited_at, s.deleted, s.n_reactions \
     FROM messages m LEFT JOIN message_state s ON s.message_id = m.message_id "
);

/// A row, or the place of one that cannot be read.
enum Read {
    Row(Box<StoredRow>, State),
    Unreadable(ChatId, Seq, MessageId),
}

/// What later events made of a message.
#[derive(Default)]
struct State {
    state_seq: Option<Seq>,
    edit_id: Option<MessageId>,
    edited_at: Option<Time>,
    deleted: bool,
    n_reactions: u64,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Read> {
    let Some(stored) = StoredRow::read(row) else {
        return Ok(Read::Unreadable(
            ChatId::from_raw(uint(row.get(1)?)),
            Seq::new(uint(row.get(2)?)),
            MessageId::from_raw(uint(row.get(0)?)),
        ));
    };
    let number = |i: usize| row.get::<_, Option<i64>>(N_ROW_COLUMNS + i);
    let state = State {
        state_seq: number(0)?.map(|raw| Seq::new(uint(raw))),
        edit_id: number(1)?.map(|raw| MessageId::from_raw(uint(raw))),
        edited_at: number(2)?.map(|raw| Time::from_millis(uint(raw))),
        deleted: number(3)?.is_some_and(|raw| raw != 0),
        n_reactions: number(4)?.map_or(0, uint),
    };
    Ok(Read::Row(Box::new(stored), state))
}

/// Reads rows by a condition over `m`, in its order.
fn rows(db: &Connection, tail: &str, keys: impl rusqlite::Params) -> rusqlite::Result<Vec<Read>> {
    let mut statement = db.prepare_cached(&format!("{ROWS} {tail}"))?;
    statement.query_map(keys, read)?.collect()
}

/// Reads events by a condition; unreadable rows keep their place.
pub(super) fn events(
    db: &Connection,
    unreadable: &AtomicU64,
    tail: &str,
    keys: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Event>> {
    let rows = rows(db, tail, keys)?;
    rows.into_iter().map(|read| event(db, unreadable, read)).collect()
}

/// Reads messages by a condition; unreadable rows are left out.
pub(super) fn messages(
    db: &Connection,
    unreadable: &AtomicU64,
    tail: &str,
    keys: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Message>> {
    let events = events(db, unreadable, tail, keys)?;
    let message = |event: Event| match event.body {
        EventBody::Message { message } => Some(*message),
        _ => None,
    };
    Ok(events.into_iter().filter_map(message).collect())
}

fn event(db: &Connection, unreadable: &AtomicU64, read: Read) -> rusqlite::Result<Event> {
    let (chat_id, seq, event_id, body) = match read {
        Read::Row(row, state) => {
            let body = body(db, &row, &state)?;
            (row.chat_id, row.seq, row.message_id, body)
        }
        Read::Unreadable(chat_id, seq, event_id) => (chat_id, seq, event_id, None),
    };
    let body = body.unwrap_or_else(|| {
        unreadable.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%chat_id, %seq, "a stored event cannot be read");
        EventBody::Unknown
    });
    Ok(Event { chat_id, seq, event_id, created_at: Time::from_millis(event_id.millis()), body })
}

fn json<T: serde::de::DeserializeOwned>(row: &StoredRow) -> Option<T> {
    serde_json::from_slice(&row.body).ok()
}

fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok()
}

fn body(db: &Connection, row: &StoredRow, state: &State) -> rusqlite::Result<Option<EventBody>> {
    let by = row.sender_id;
    let created_at = Time::from_millis(row.message_id.millis());
    Ok(match row.kind {
        MESSAGE => {
            return Ok(message(db, row, state)?
                .map(|message| EventBody::Message { message: Box::new(message) }));
        }
        CREATED => json(row).map(|CreatedBody { members }| EventBody::Created { by, members }),
        EDIT => match row.target_id {
            Some(message_id) => {
                let message = if row.erased || !is_in_force(db, message_id, row.message_id)? {
                    None
                } else {
                    text(row.body.clone())
                };
                Some(EventBody::Edit { message_id, message, edited_at: created_at, by })
            }
            None => None,
        },
        DELETE => row.target_id.map(|message_id| EventBody::Delete { message_id, by }),
        REACTION => row.target_id.zip(text(row.body.clone())).map(|(message_id, emoji)| {
            EventBody::Reaction { message_id, user_id: by, emoji, added: row.type_number == 1 }
        }),
        JOIN => json(row).map(|RoleBody { user_id, role }| EventBody::Join { user_id, by, role }),
        LEAVE => {
            json(row).map(|LeaveBody { user_id, reason }| EventBody::Leave { user_id, by, reason })
        }
        ROLE => json(row).map(|RoleBody { user_id, role }| EventBody::Role { user_id, role, by }),
        SETTINGS => json(row).map(|SettingsBody { changes }| EventBody::Settings { changes, by }),
        _ => None,
    })
}

/// Tells whether an edit is the one whose text is shown.
fn is_in_force(
    db: &Connection,
    message_id: MessageId,
    edit_id: MessageId,
) -> rusqlite::Result<bool> {
    let select =
        "SELECT 1 FROM message_state WHERE message_id = ?1 AND edit_id = ?2 AND NOT deleted";
    let keys = params![super::rows::int(message_id.raw()), super::rows::int(edit_id.raw())];
    db.prepare_cached(select)?.exists(keys)
}

fn message(db: &Connection, row: &StoredRow, state: &State) -> rusqlite::Result<Option<Message>> {
    let (Some(kind), Some(first)) = (type_of(row.type_number), text(row.body.clone())) else {
        return Ok(None);
    };
    let text = match state.edit_id.filter(|_| !state.deleted) {
        Some(edit_id) => match edited_text(db, edit_id)? {
            Some(text) => text,
            None => return Ok(None),
        },
        None => first,
    };
    let reactions =
        if state.n_reactions == 0 { Vec::new() } else { reactions(db, row.message_id)? };
    Ok(Some(Message {
        message_id: row.message_id,
        chat_id: row.chat_id,
        seq: row.seq,
        sender_id: row.sender_id,
        kind,
        message: if state.deleted { String::new() } else { text },
        attachments: row.attachments.clone(),
        client_id: row.client_id.clone(),
        reply_to: row.reply_to,
        created_at: Time::from_millis(row.message_id.millis()),
        edited_at: state.edited_at,
        deleted: state.deleted,
        reactions,
        status: Status::Sent,
        state_seq: state.state_seq.unwrap_or(row.seq),
    }))
}

/// Returns the text of an edit; nothing if its row cannot be read.
fn edited_text(db: &Connection, edit_id: MessageId) -> rusqlite::Result<Option<String>> {
    let keys = [super::rows::int(edit_id.raw())];
    let found = rows(db, "WHERE m.message_id = ?1", keys)?.pop();
    Ok(match found {
        Some(Read::Row(row, _)) => text(row.body),
        _ => None,
    })
}

fn reactions(db: &Connection, message_id: MessageId) -> rusqlite::Result<Vec<Reaction>> {
    let select = "SELECT emoji, user_id FROM reactions WHERE message_id = ?1 ORDER BY seq";
    let mut statement = db.prepare_cached(select)?;
    let rows = statement.query_map([super::rows::int(message_id.raw())], |row| {
        Ok((row.get::<_, String>(0)?, UserId::from_raw(uint(row.get(1)?))))
    })?;
    let mut reactions: Vec<Reaction> = Vec::new();
    for row in rows {
        let (emoji, user_id) = row?;
        let known = reactions.iter_mut().find(|reaction| reaction.emoji == emoji);
        match known {
            Some(reaction) => {
                reaction.count += 1;
                if reaction.user_ids.len() < REACTION_USERS {
                    reaction.user_ids.push(user_id);
                }
            }
            None => reactions.push(Reaction { emoji, count: 1, user_ids: vec![user_id] }),
        }
    }
    Ok(reactions)
}

/// The end of a log as the writer needs it.
pub(super) fn head(
    db: &Connection,
    chat_id: ChatId,
) -> rusqlite::Result<Option<(Seq, MessageId, u64)>> {
    let select = "SELECT seq, message_id, n FROM messages WHERE chat_id = ?1 \
                  ORDER BY seq DESC LIMIT 1";
    let found = db.prepare_cached(select)?.query_row([super::rows::int(chat_id.raw())], |row| {
        Ok((Seq::new(uint(row.get(0)?)), MessageId::from_raw(uint(row.get(1)?)), uint(row.get(2)?)))
    });
    found.optional()
}
