//! The canonical bytes of an event, version 1: what a checksum covers, and what a hash chain over a
//! chat would chain.
//!
//! Fixed order, lengths before bytes, integers big-endian. The text stands in it as its SHA-256, so
//! that erasing a text (a deleted message) changes neither the form nor any chain over it.

use sha2::{Digest, Sha256};

use crate::ids::{ChatId, MessageId, Seq, UserId};

/// The first byte of the form.
pub const VERSION: u8 = 1;

/// The fields of an event that never change.
#[derive(Debug, Clone, Copy)]
pub struct CanonicalEvent<'a> {
    /// The chat.
    pub chat_id: ChatId,
    /// The position.
    pub seq: Seq,
    /// The id.
    pub event_id: MessageId,
    /// The kind, as it is stored.
    pub kind: u8,
    /// Who acted.
    pub sender_id: UserId,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// The key of the send, as engines index it; empty for none.
    pub client_key: &'a [u8],
    /// The message that the event is about.
    pub target_id: Option<MessageId>,
    /// SHA-256 of the stored body.
    pub body_digest: [u8; 32],
}

/// Returns the SHA-256 of a stored body.
pub fn body_digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Returns the canonical bytes.
pub fn bytes(event: &CanonicalEvent<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + event.client_key.len());
    out.push(VERSION);
    out.extend_from_slice(&event.chat_id.raw().to_be_bytes());
    out.extend_from_slice(&event.seq.get().to_be_bytes());
    out.extend_from_slice(&event.event_id.raw().to_be_bytes());
    out.push(event.kind);
    out.extend_from_slice(&event.sender_id.raw().to_be_bytes());
    out.extend_from_slice(&event.created_at_ms.to_be_bytes());
    out.extend_from_slice(&event.target_id.map_or(0, MessageId::raw).to_be_bytes());
    let key_bytes = u16::try_from(event.client_key.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&key_bytes.to_be_bytes());
    out.extend_from_slice(event.client_key);
    out.extend_from_slice(&event.body_digest);
    out
}

/// Returns the checksum of an event's row: the first 8 bytes of the SHA-256 of its canonical bytes.
pub fn checksum(event: &CanonicalEvent<'_>) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes(event)).into();
    let mut first = [0; 8];
    first.copy_from_slice(digest.first_chunk::<8>().unwrap_or(&[0; 8]));
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CanonicalEvent<'static> {
        CanonicalEvent {
            chat_id: ChatId::from_raw(1),
            seq: Seq::new(2),
            event_id: MessageId::from_raw(3),
            kind: 4,
            sender_id: UserId::from_raw(5),
            created_at_ms: 6,
            client_key: b"key",
            target_id: None,
            body_digest: body_digest(b"hello"),
        }
    }

    #[test]
    fn the_form_of_version_one_is_frozen() {
        let hex: String = bytes(&sample()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0100000000000000010000000000000002000000000000000304000000000000000500000000000000060000\
             0000000000000003\
             6b65792cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
    }

    #[test]
    fn any_changed_field_changes_the_checksum() {
        let base = checksum(&sample());
        let changed = [
            CanonicalEvent { seq: Seq::new(3), ..sample() },
            CanonicalEvent { kind: 5, ..sample() },
            CanonicalEvent { client_key: b"kez", ..sample() },
            CanonicalEvent { target_id: Some(MessageId::from_raw(9)), ..sample() },
            CanonicalEvent { body_digest: body_digest(b"hellp"), ..sample() },
        ];
        assert!(changed.iter().all(|event| checksum(event) != base));
    }
}
