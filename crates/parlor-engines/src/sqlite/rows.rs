//! How an event becomes a row of `messages`, and back: kinds and types as numbers, bodies as bytes,
//! and the checksum over everything that does not change.
//!
//! Pure: no connection here. Who reads rows: `log.rs`; who writes them: `append.rs`.

use parlor_proto::{
    ChatId, ClientId, MediaId, MessageId, Seq, UserId,
    canonical::{self, CanonicalEvent},
    event::SettingsChanges,
    members::{LeaveReason, MemberRole, Role},
    messages::MessageType,
};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

pub(super) const CREATED: u8 = 0;
pub(super) const MESSAGE: u8 = 1;
pub(super) const EDIT: u8 = 2;
pub(super) const DELETE: u8 = 3;
pub(super) const REACTION: u8 = 4;
pub(super) const JOIN: u8 = 5;
pub(super) const LEAVE: u8 = 6;
pub(super) const ROLE: u8 = 7;
pub(super) const SETTINGS: u8 = 8;

/// The columns of a row in the order in which [`StoredRow::read`] takes them.
macro_rules! row_columns {
    () => {
        "m.message_id, m.chat_id, m.seq, m.kind, m.sender_id, m.target_id, m.client_id, m.type, \
         m.reply_to, m.checksum, m.body_digest, m.attachments, m.body"
    };
}
pub(super) use row_columns;

/// Number of columns in `row_columns`.
pub(super) const N_ROW_COLUMNS: usize = 13;

/// Body of a `created` row.
#[derive(Serialize, Deserialize)]
pub(super) struct CreatedBody {
    pub(super) members: Vec<MemberRole>,
}

/// Body of a `join` or `role` row.
#[derive(Serialize, Deserialize)]
pub(super) struct RoleBody {
    pub(super) user_id: UserId,
    pub(super) role: Role,
}

/// Body of a `leave` row.
#[derive(Serialize, Deserialize)]
pub(super) struct LeaveBody {
    pub(super) user_id: UserId,
    pub(super) reason: LeaveReason,
}

/// Body of a `settings` row.
#[derive(Serialize, Deserialize)]
pub(super) struct SettingsBody {
    #[serde(flatten)]
    pub(super) changes: SettingsChanges,
}

/// A number for SQLite; what a client can send above `i64::MAX` lies above every stored one.
pub(super) fn int(raw: u64) -> i64 {
    i64::try_from(raw).unwrap_or(i64::MAX)
}

/// A stored number; negative ones are never stored.
pub(super) fn uint(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn type_number(kind: MessageType) -> u8 {
    match kind {
        MessageType::Text => 0,
        MessageType::Image => 1,
        MessageType::File => 2,
        MessageType::Voice => 3,
        MessageType::Video => 4,
    }
}

pub(super) fn type_of(number: u8) -> Option<MessageType> {
    Some(match number {
        0 => MessageType::Text,
        1 => MessageType::Image,
        2 => MessageType::File,
        3 => MessageType::Voice,
        4 => MessageType::Video,
        _ => return None,
    })
}

pub(super) fn attachment_bytes(attachments: &[MediaId]) -> Vec<u8> {
    attachments.iter().flat_map(|media_id| media_id.raw().to_be_bytes()).collect()
}

pub(super) fn attachments_of(bytes: &[u8]) -> Option<Vec<MediaId>> {
    let (ids, rest) = bytes.as_chunks::<8>();
    let ids = ids.iter().map(|id| MediaId::from_raw(u64::from_be_bytes(*id)));
    rest.is_empty().then(|| ids.collect())
}

/// The parts of a row that an erasure takes away or that stand beside them.
pub(super) struct Content<'a> {
    pub(super) kind_of_content: u8,
    pub(super) reply_to: Option<MessageId>,
    pub(super) attachments: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Content<'_> {
    /// The digest that stands for the content in the checksum, and stays when it is erased.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(13 + self.attachments.len() + self.body.len());
        bytes.push(self.kind_of_content);
        bytes.extend_from_slice(&self.reply_to.map_or(0, MessageId::raw).to_be_bytes());
        let attachments = u32::try_from(self.attachments.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&attachments.to_be_bytes());
        bytes.extend_from_slice(self.attachments);
        bytes.extend_from_slice(self.body);
        canonical::body_digest(&bytes)
    }
}

/// A row whose checksum was right.
#[derive(Debug, Clone)]
pub(super) struct StoredRow {
    pub(super) message_id: MessageId,
    pub(super) chat_id: ChatId,
    pub(super) seq: Seq,
    pub(super) kind: u8,
    pub(super) sender_id: UserId,
    pub(super) target_id: Option<MessageId>,
    pub(super) client_id: Option<ClientId>,
    /// The type of a message; of a reaction whether it was added.
    pub(super) type_number: u8,
    pub(super) reply_to: Option<MessageId>,
    pub(super) attachments: Vec<MediaId>,
    pub(super) body: Vec<u8>,
    /// The digest of the content; `erased` tells whether the content is gone.
    pub(super) digest: [u8; 32],
    pub(super) erased: bool,
}

impl StoredRow {
    /// Reads the columns of `row_columns`; nothing if they make no sense or the checksum is wrong.
    pub(super) fn read(row: &Row<'_>) -> Option<Self> {
        let id = |i| row.get::<_, i64>(i).ok().and_then(|raw| u64::try_from(raw).ok());
        let optional_id = |i| match row.get::<_, Option<i64>>(i) {
            Ok(Some(raw)) => u64::try_from(raw).ok().map(|raw| Some(MessageId::from_raw(raw))),
            Ok(None) => Some(None),
            Err(_) => None,
        };
        let bytes = |i| row.get_ref(i).ok().and_then(|value| value.as_blob_or_null().ok());
        let client_key = bytes(6)?;
        let erased_digest = bytes(10)?;
        let attachments = bytes(11)?.unwrap_or_default();
        let body = bytes(12)?.unwrap_or_default();
        let type_number = row.get::<_, u8>(7).ok()?;
        let reply_to = optional_id(8)?;
        let digest = match erased_digest {
            Some(digest) => digest.try_into().ok()?,
            None => Content { kind_of_content: type_number, reply_to, attachments, body }.digest(),
        };
        let read = Self {
            message_id: MessageId::from_raw(id(0)?),
            chat_id: ChatId::from_raw(id(1)?),
            seq: Seq::new(id(2)?),
            kind: row.get(3).ok()?,
            sender_id: UserId::from_raw(id(4)?),
            target_id: optional_id(5)?,
            client_id: match client_key {
                Some(key) => Some(ClientId::from_key_bytes(key)?),
                None => None,
            },
            type_number,
            reply_to,
            attachments: attachments_of(attachments)?,
            body: body.to_vec(),
            digest,
            erased: erased_digest.is_some(),
        };
        let is_consistent = !read.erased || (read.body.is_empty() && read.attachments.is_empty());
        let checksum = row.get::<_, i64>(9).ok()?.cast_unsigned();
        let is_right =
            read.canonical(client_key.unwrap_or_default(), canonical::checksum) == checksum;
        (is_consistent && is_right).then_some(read)
    }

    fn canonical<T>(&self, client_key: &[u8], take: impl Fn(&CanonicalEvent<'_>) -> T) -> T {
        take(&CanonicalEvent {
            chat_id: self.chat_id,
            seq: self.seq,
            event_id: self.message_id,
            kind: self.kind,
            sender_id: self.sender_id,
            created_at_ms: self.message_id.millis(),
            client_key,
            target_id: self.target_id,
            body_digest: self.digest,
        })
    }
}
