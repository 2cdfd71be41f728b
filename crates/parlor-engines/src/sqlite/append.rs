//! Writing the log: one batch in one transaction, and what follows from each event.

use std::{collections::BTreeSet, sync::atomic::AtomicU64};

use parlor_core::{
    clock::Ids,
    ports::messages::{Append, Appended, Expects, NewChat, NewEvent, Stored},
};
use parlor_proto::canonical::{self, CanonicalEvent};
use parlor_proto::{
    ChatId, Event, MessageId, Seq, Time, UserId,
    chats::{ChatSettings, HistoryRule},
    event::SettingsChanges,
    frame::{AccountEvent, AccountEventBody},
    limits::REACTION_KINDS,
    members::Role,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::{
    accounts::append_own,
    chats::word,
    log,
    rows::{
        CREATED, Content, CreatedBody, DELETE, EDIT, JOIN, LEAVE, LeaveBody, MESSAGE, REACTION,
        ROLE, RoleBody, SETTINGS, SettingsBody, attachment_bytes, int, type_number, uint,
    },
};

/// Applies a batch; every unit has its outcome.
pub(super) fn batch(
    db: &Connection,
    ids: &Ids,
    unreadable: &AtomicU64,
    units: Vec<Append>,
) -> rusqlite::Result<Vec<Appended>> {
    let mut stale: BTreeSet<(UserId, ChatId)> = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(units.len());
    for unit in units {
        let place = (unit.sender_id, unit.chat_id);
        let outcome = unit_of(db, ids, unreadable, unit, stale.contains(&place))?;
        if matches!(outcome, Appended::Stale) {
            stale.insert(place);
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn unit_of(
    db: &Connection,
    ids: &Ids,
    unreadable: &AtomicU64,
    unit: Append,
    sender_is_stale: bool,
) -> rusqlite::Result<Appended> {
    if let Some(key) = &unit.key
        && let Some((event, body_mac)) =
            find_key(db, unreadable, unit.sender_id, &key.client_id.key_bytes())?
    {
        return Ok(match body_mac == key.body_mac {
            true => Appended::Repeated(event),
            false => Appended::KeyConflict,
        });
    }
    if sender_is_stale {
        return Ok(Appended::Stale);
    }
    let epoch = epoch(db, unit.chat_id)?;
    match (&unit.expects, epoch) {
        (Expects::NewChat(new), known) => {
            if let Some(key) = &new.direct_key
                && let Some(chat_id) = find_direct(db, key)?
            {
                return Ok(Appended::DirectExists(chat_id));
            }
            if known.is_some() {
                return Ok(Appended::Stale);
            }
        }
        (Expects::Epoch(expected), Some(epoch)) if *expected == epoch => {}
        (Expects::Epoch(_), _) => return Ok(Appended::Stale),
    }
    // A unit is stored whole or not at all.
    db.execute_batch("SAVEPOINT unit")?;
    match store(db, ids, unreadable, unit)? {
        Ok(stored) => {
            db.execute_batch("RELEASE unit")?;
            Ok(Appended::Stored(stored))
        }
        Err(refused) => {
            db.execute_batch("ROLLBACK TO unit; RELEASE unit")?;
            Ok(refused)
        }
    }
}

fn store(
    db: &Connection,
    ids: &Ids,
    unreadable: &AtomicU64,
    unit: Append,
) -> rusqlite::Result<Result<Stored, Appended>> {
    let Append { chat_id, sender_id, key, expects, events } = unit;
    let founders = match expects {
        Expects::NewChat(new) => {
            put_chat(db, chat_id, &new)?;
            Some(new)
        }
        Expects::Epoch(_) => None,
    };
    let (first_seq, mut head_id, mut n) =
        log::head(db, chat_id)?.map_or((Seq::ZERO, None, 0), |(seq, id, n)| (seq, Some(id), n));
    let mut seq = first_seq;
    let mut key = key;
    let mut own = Vec::new();
    for event in events {
        if let Err(refused) = check(db, chat_id, sender_id, &event)? {
            return Ok(Err(refused));
        }
        seq = seq.next();
        let event_id = ids.message_id(chat_id, head_id);
        head_id = Some(event_id);
        n += u64::from(matches!(event, NewEvent::Message { .. }));
        let place = Place { chat_id, sender_id, seq, event_id, n };
        let key = key.take();
        let client_key = key.as_ref().map(|key| key.client_id.key_bytes());
        let body_mac = key.map(|key| i64::from_be_bytes(key.body_mac));
        put_event(db, &place, client_key, body_mac, founders.as_ref(), &event)?;
        follow(db, &place, founders.as_ref(), event, &mut own)?;
    }
    let tail = "WHERE m.chat_id = ?1 AND m.seq > ?2 ORDER BY m.seq";
    let keys = params![int(chat_id.raw()), int(first_seq.get())];
    Ok(Ok(Stored { events: log::events(db, unreadable, tail, keys)?, own }))
}

/// Where an event stands.
struct Place {
    chat_id: ChatId,
    sender_id: UserId,
    seq: Seq,
    event_id: MessageId,
    n: u64,
}

impl Place {
    fn at(&self) -> Time {
        Time::from_millis(self.event_id.millis())
    }
}

/// What a row holds beside its place.
#[derive(Default)]
struct Columns {
    kind: u8,
    type_number: u8,
    target_id: Option<MessageId>,
    reply_to: Option<MessageId>,
    attachments: Vec<u8>,
    body: Vec<u8>,
}

fn json(value: &impl Serialize) -> rusqlite::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn columns(founders: Option<&NewChat>, event: &NewEvent) -> rusqlite::Result<Columns> {
    let plain = |kind, body| Columns { kind, body, ..Columns::default() };
    Ok(match event {
        NewEvent::Created => {
            let members = founders.map(|new| new.members.clone()).unwrap_or_default();
            plain(CREATED, json(&CreatedBody { members })?)
        }
        NewEvent::Message { kind, text, attachments, reply_to } => Columns {
            kind: MESSAGE,
            type_number: type_number(*kind),
            target_id: None,
            reply_to: *reply_to,
            attachments: attachment_bytes(attachments),
            body: text.clone().into_bytes(),
        },
        NewEvent::Edit { target_id, text } => {
            Columns { target_id: Some(*target_id), ..plain(EDIT, text.clone().into_bytes()) }
        }
        NewEvent::Delete { target_id } => {
            Columns { target_id: Some(*target_id), ..plain(DELETE, Vec::new()) }
        }
        NewEvent::Reaction { target_id, emoji, added } => Columns {
            target_id: Some(*target_id),
            type_number: u8::from(*added),
            ..plain(REACTION, emoji.clone().into_bytes())
        },
        NewEvent::Join { user_id, role, .. } => {
            plain(JOIN, json(&RoleBody { user_id: *user_id, role: *role })?)
        }
        NewEvent::Leave { user_id, reason } => {
            plain(LEAVE, json(&LeaveBody { user_id: *user_id, reason: *reason })?)
        }
        NewEvent::Role { user_id, role } => {
            plain(ROLE, json(&RoleBody { user_id: *user_id, role: *role })?)
        }
        NewEvent::Settings { changes } => {
            plain(SETTINGS, json(&SettingsBody { changes: changes.clone() })?)
        }
    })
}

fn put_event(
    db: &Connection,
    place: &Place,
    client_key: Option<Vec<u8>>,
    body_mac: Option<i64>,
    founders: Option<&NewChat>,
    event: &NewEvent,
) -> rusqlite::Result<()> {
    let columns = columns(founders, event)?;
    let content = Content {
        kind_of_content: columns.type_number,
        reply_to: columns.reply_to,
        attachments: &columns.attachments,
        body: &columns.body,
    };
    let checksum = canonical::checksum(&CanonicalEvent {
        chat_id: place.chat_id,
        seq: place.seq,
        event_id: place.event_id,
        kind: columns.kind,
        sender_id: place.sender_id,
        created_at_ms: place.event_id.millis(),
        client_key: client_key.as_deref().unwrap_or_default(),
        target_id: columns.target_id,
        body_digest: content.digest(),
    });
    let insert = "INSERT INTO messages (message_id, chat_id, seq, kind, sender_id, n, target_id, \
                  client_id, type, reply_to, body_mac, checksum, attachments, body) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    db.prepare_cached(insert)?.execute(params![
        int(place.event_id.raw()),
        int(place.chat_id.raw()),
        int(place.seq.get()),
        columns.kind,
        int(place.sender_id.raw()),
        int(place.n),
        columns.target_id.map(|id| int(id.raw())),
        client_key,
        columns.type_number,
        columns.reply_to.map(|id| int(id.raw())),
        body_mac,
        checksum.cast_signed(),
        Some(columns.attachments).filter(|bytes| !bytes.is_empty()),
        columns.body,
    ])?;
    Ok(())
}

/// Says why an event cannot be appended.
fn check(
    db: &Connection,
    chat_id: ChatId,
    sender_id: UserId,
    event: &NewEvent,
) -> rusqlite::Result<Result<(), Appended>> {
    let unchanged_if = |same: bool| if same { Err(Appended::Unchanged) } else { Ok(()) };
    Ok(match event {
        NewEvent::Created | NewEvent::Message { .. } | NewEvent::Settings { .. } => Ok(()),
        NewEvent::Edit { target_id, .. } | NewEvent::Delete { target_id } => {
            check_target(db, chat_id, *target_id)?
        }
        NewEvent::Reaction { target_id, emoji, added } => {
            if let Err(refused) = check_target(db, chat_id, *target_id)? {
                return Ok(Err(refused));
            }
            let target = int(target_id.raw());
            let own =
                "SELECT 1 FROM reactions WHERE message_id = ?1 AND emoji = ?2 AND user_id = ?3";
            let keys = params![target, emoji, int(sender_id.raw())];
            if db.prepare_cached(own)?.exists(keys)? == *added {
                return Ok(Err(Appended::Unchanged));
            }
            let known = "SELECT 1 FROM reactions WHERE message_id = ?1 AND emoji = ?2";
            let kinds = "SELECT count(DISTINCT emoji) FROM reactions WHERE message_id = ?1";
            let count: i64 =
                db.prepare_cached(kinds)?.query_row(params![target], |row| row.get(0))?;
            let is_full = uint(count) >= REACTION_KINDS as u64;
            if *added && is_full && !db.prepare_cached(known)?.exists(params![target, emoji])? {
                return Ok(Err(Appended::TooManyReactions));
            }
            Ok(())
        }
        NewEvent::Join { user_id, .. } => unchanged_if(role(db, chat_id, *user_id)?.is_some()),
        NewEvent::Leave { user_id, .. } => unchanged_if(role(db, chat_id, *user_id)?.is_none()),
        NewEvent::Role { user_id, role: wanted } => {
            let present = role(db, chat_id, *user_id)?;
            let wanted = word(wanted)?;
            unchanged_if(present.is_none_or(|present| present == wanted))
        }
    })
}

fn check_target(
    db: &Connection,
    chat_id: ChatId,
    target_id: MessageId,
) -> rusqlite::Result<Result<(), Appended>> {
    let select = "SELECT coalesce(s.deleted, 0) FROM messages m \
                  LEFT JOIN message_state s ON s.message_id = m.message_id \
                  WHERE m.message_id = ?1 AND m.chat_id = ?2 AND m.kind = ?3";
    let keys = params![int(target_id.raw()), int(chat_id.raw()), MESSAGE];
    let deleted: Option<bool> =
        db.prepare_cached(select)?.query_row(keys, |row| row.get(0)).optional()?;
    Ok(match deleted {
        None => Err(Appended::NoTarget),
        Some(true) => Err(Appended::TargetDeleted),
        Some(false) => Ok(()),
    })
}

/// Moves the other tables past an event.
fn follow(
    db: &Connection,
    place: &Place,
    founders: Option<&NewChat>,
    event: NewEvent,
    own: &mut Vec<(UserId, AccountEvent)>,
) -> rusqlite::Result<()> {
    let chat_id = place.chat_id;
    let chat = int(chat_id.raw());
    if event.changes_membership() {
        let rise = "UPDATE chats SET membership_epoch = membership_epoch + 1 WHERE chat_id = ?1";
        db.prepare_cached(rise)?.execute([chat])?;
    }
    let mut step = |user_id, body| -> rusqlite::Result<()> {
        own.push((user_id, append_own(db, user_id, body, place.at())?));
        Ok(())
    };
    match event {
        NewEvent::Created => {
            let set = "UPDATE chats SET created_at = ?2 WHERE chat_id = ?1";
            db.prepare_cached(set)?.execute(params![chat, int(place.at().millis())])?;
            for founder in founders.iter().flat_map(|new| &new.members) {
                admit(db, place, founder.user_id, founder.role, place.seq)?;
                step(founder.user_id, AccountEventBody::ChatAdded { chat_id })?;
            }
        }
        NewEvent::Join { user_id, role, history } => {
            let visible = match history {
                HistoryRule::All => Seq::new(1),
                HistoryRule::Joined => place.seq,
            };
            admit(db, place, user_id, role, visible)?;
            step(user_id, AccountEventBody::ChatAdded { chat_id })?;
        }
        NewEvent::Leave { user_id, reason } => {
            let set =
                "UPDATE chat_participants SET left_seq = ?3 WHERE chat_id = ?1 AND user_id = ?2";
            db.prepare_cached(set)?.execute(params![
                chat,
                int(user_id.raw()),
                int(place.seq.get())
            ])?;
            let close = "UPDATE chats SET closed = 1 WHERE chat_id = ?1 AND NOT EXISTS \
                         (SELECT 1 FROM chat_participants WHERE chat_id = ?1 AND left_seq IS NULL)";
            db.prepare_cached(close)?.execute([chat])?;
            step(user_id, AccountEventBody::ChatRemoved { chat_id, reason })?;
        }
        NewEvent::Role { user_id, role } => {
            let set = "UPDATE chat_participants SET role = ?3 WHERE chat_id = ?1 AND user_id = ?2";
            db.prepare_cached(set)?.execute(params![chat, int(user_id.raw()), word(&role)?])?;
        }
        NewEvent::Settings { changes } => change_settings(db, chat, &changes)?,
        NewEvent::Message { .. } => {}
        NewEvent::Edit { target_id, .. } => {
            let set = "INSERT INTO message_state (message_id, state_seq, edit_id, edited_at) \
                       VALUES (?1, ?2, ?3, ?4) ON CONFLICT (message_id) DO UPDATE SET \
                       state_seq = excluded.state_seq, edit_id = excluded.edit_id, \
                       edited_at = excluded.edited_at";
            db.prepare_cached(set)?.execute(params![
                int(target_id.raw()),
                int(place.seq.get()),
                int(place.event_id.raw()),
                int(place.at().millis()),
            ])?;
        }
        NewEvent::Delete { target_id } => erase(db, place, target_id)?,
        NewEvent::Reaction { target_id, emoji, added } => {
            let target = int(target_id.raw());
            let (change, by) = if added {
                (
                    "INSERT INTO reactions (message_id, emoji, user_id, seq) VALUES (?1, ?2, ?3, ?4)",
                    1,
                )
            } else {
                (
                    "DELETE FROM reactions WHERE message_id = ?1 AND emoji = ?2 AND user_id = ?3 AND ?4 > 0",
                    -1,
                )
            };
            let (user, seq) = (int(place.sender_id.raw()), int(place.seq.get()));
            db.prepare_cached(change)?.execute(params![target, emoji, user, seq])?;
            let set = "INSERT INTO message_state (message_id, state_seq, n_reactions) \
                       VALUES (?1, ?2, ?3) ON CONFLICT (message_id) DO UPDATE SET \
                       state_seq = excluded.state_seq, n_reactions = n_reactions + ?3";
            db.prepare_cached(set)?.execute(params![target, seq, by])?;
        }
    }
    Ok(())
}

fn admit(
    db: &Connection,
    place: &Place,
    user_id: UserId,
    role: Role,
    visible: Seq,
) -> rusqlite::Result<()> {
    let (chat, user, seq) = (int(place.chat_id.raw()), int(user_id.raw()), int(place.seq.get()));
    // Who comes back starts anew, but what they cleared away stays away.
    let put = "INSERT INTO chat_participants \
               (chat_id, user_id, role, joined_at, joined_seq, visible_seq) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (chat_id, user_id) DO UPDATE SET \
               role = excluded.role, joined_at = excluded.joined_at, \
               joined_seq = excluded.joined_seq, visible_seq = excluded.visible_seq, \
               left_seq = NULL";
    let at = int(place.at().millis());
    let keys = params![chat, user, word(&role)?, at, seq, int(visible.get())];
    db.prepare_cached(put)?.execute(keys)?;
    let start = "INSERT INTO cursors (chat_id, user_id, delivered_seq, read_seq) \
                 VALUES (?1, ?2, ?3, ?3) ON CONFLICT (chat_id, user_id) DO UPDATE SET \
                 delivered_seq = excluded.delivered_seq, read_seq = excluded.read_seq";
    db.prepare_cached(start)?.execute(params![chat, user, seq])?;
    Ok(())
}

/// Takes the text of a message, of its edits and of its reactions out of the store.
fn erase(db: &Connection, place: &Place, target_id: MessageId) -> rusqlite::Result<()> {
    let target = int(target_id.raw());
    let select = "SELECT message_id, type, reply_to, attachments, body FROM messages \
                  WHERE (message_id = ?1 OR target_id = ?1) AND body_digest IS NULL AND kind IN (?2, ?3, ?4)";
    let mut statement = db.prepare_cached(select)?;
    let rows = statement.query_map(params![target, MESSAGE, EDIT, REACTION], |row| {
        let reply_to: Option<i64> = row.get(2)?;
        let attachments: Option<Vec<u8>> = row.get(3)?;
        let body: Vec<u8> = row.get(4)?;
        let content = Content {
            kind_of_content: row.get(1)?,
            reply_to: reply_to.map(|raw| MessageId::from_raw(uint(raw))),
            attachments: attachments.as_deref().unwrap_or_default(),
            body: &body,
        };
        Ok((row.get::<_, i64>(0)?, content.digest()))
    })?;
    let rows: Vec<(i64, [u8; 32])> = rows.collect::<rusqlite::Result<_>>()?;
    let blank = "UPDATE messages SET body = x'', attachments = NULL, body_digest = ?2 \
                 WHERE message_id = ?1";
    for (message_id, digest) in rows {
        db.prepare_cached(blank)?.execute(params![message_id, digest])?;
    }
    db.prepare_cached("DELETE FROM reactions WHERE message_id = ?1")?.execute([target])?;
    let set = "INSERT INTO message_state (message_id, state_seq, deleted) VALUES (?1, ?2, 1) \
               ON CONFLICT (message_id) DO UPDATE SET state_seq = excluded.state_seq, \
               deleted = 1, n_reactions = 0";
    db.prepare_cached(set)?.execute(params![target, int(place.seq.get())])?;
    Ok(())
}

fn put_chat(db: &Connection, chat_id: ChatId, new: &NewChat) -> rusqlite::Result<()> {
    let insert = "INSERT INTO chats (chat_id, type, title, created_at, settings, direct_key, \
                  membership_epoch) VALUES (?1, ?2, ?3, 0, ?4, ?5, 0)";
    db.prepare_cached(insert)?.execute(params![
        int(chat_id.raw()),
        word(&new.kind)?,
        new.title,
        settings_text(&new.settings)?,
        new.direct_key,
    ])?;
    Ok(())
}

fn settings_text(settings: &ChatSettings) -> rusqlite::Result<String> {
    serde_json::to_string(settings)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn change_settings(db: &Connection, chat: i64, changes: &SettingsChanges) -> rusqlite::Result<()> {
    if let Some(title) = &changes.title {
        let set = "UPDATE chats SET title = ?2 WHERE chat_id = ?1";
        db.prepare_cached(set)?.execute(params![chat, title])?;
    }
    if let Some(topic) = &changes.topic {
        let set = "UPDATE chats SET topic = nullif(?2, '') WHERE chat_id = ?1";
        db.prepare_cached(set)?.execute(params![chat, topic])?;
    }
    if let Some(settings) = &changes.settings {
        let set = "UPDATE chats SET settings = ?2 WHERE chat_id = ?1";
        db.prepare_cached(set)?.execute(params![chat, settings_text(settings)?])?;
    }
    if changes.closed {
        db.prepare_cached("UPDATE chats SET closed = 1 WHERE chat_id = ?1")?.execute([chat])?;
    }
    Ok(())
}

fn epoch(db: &Connection, chat_id: ChatId) -> rusqlite::Result<Option<u64>> {
    let select = "SELECT membership_epoch FROM chats WHERE chat_id = ?1";
    let found = db.prepare_cached(select)?.query_row([int(chat_id.raw())], |row| row.get(0));
    Ok(found.optional()?.map(|raw: i64| uint(raw)))
}

fn find_direct(db: &Connection, key: &str) -> rusqlite::Result<Option<ChatId>> {
    let select = "SELECT chat_id FROM chats WHERE direct_key = ?1";
    let found = db.prepare_cached(select)?.query_row([key], |row| row.get(0)).optional()?;
    Ok(found.map(|raw: i64| ChatId::from_raw(uint(raw))))
}

fn role(db: &Connection, chat_id: ChatId, user_id: UserId) -> rusqlite::Result<Option<String>> {
    let select = "SELECT role FROM chat_participants \
                  WHERE chat_id = ?1 AND user_id = ?2 AND left_seq IS NULL";
    let keys = params![int(chat_id.raw()), int(user_id.raw())];
    db.prepare_cached(select)?.query_row(keys, |row| row.get(0)).optional()
}

/// Finds what a key of a sender stored.
pub(super) fn find_key(
    db: &Connection,
    unreadable: &AtomicU64,
    sender_id: UserId,
    client_key: &[u8],
) -> rusqlite::Result<Option<(Event, [u8; 8])>> {
    let select = "SELECT body_mac FROM messages WHERE client_id = ?1 AND sender_id = ?2";
    let keys = params![client_key, int(sender_id.raw())];
    let found: Option<Option<i64>> =
        db.prepare_cached(select)?.query_row(keys, |row| row.get(0)).optional()?;
    let Some(body_mac) = found else { return Ok(None) };
    let tail = "WHERE m.client_id = ?1 AND m.sender_id = ?2";
    let event = log::events(db, unreadable, tail, keys)?.pop();
    Ok(event.map(|event| (event, body_mac.unwrap_or(0).to_be_bytes())))
}
