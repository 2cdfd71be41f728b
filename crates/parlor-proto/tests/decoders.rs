//! Every decoder of what strangers send, on noise and on real bodies with something broken in them:
//! each answers or refuses with a field and a reason, and none panics.

#![allow(clippy::unwrap_used, reason = "tests")]

use parlor_proto::{
    Invalid, Limits,
    accounts::{
        AccountDeletion, ManagedUser, SignUp, UserPatch, check_display_name, check_email,
        check_username,
    },
    chats::{ChatPatch, CreateChat},
    devices::{SignIn, TicketRequest},
    frame::parse_client,
    json,
    members::{AddParticipants, ParticipantPatch},
    messages::{EditMessage, SendBatch, SendMessage, check_emoji, check_send, check_text},
    receipts::PutStatus,
};
use proptest::prelude::*;

/// One of each body and frame, as clients send them.
const REAL: [&str; 16] = [
    r#"{"username":"ann","email":"ann@example.org","password":"correct horse battery"}"#,
    r#"{"login":"ann","password":"correct horse battery","device_name":"Phone"}"#,
    r#"{"display_name":"Ann","privacy":{"online":{"who":"contacts","except":["5"]}}}"#,
    r#"{"type":"group","participants":["7130316800002129920"],"title":"Team"}"#,
    r#"{"title":"Team","topic":"Work","settings":{"history":"all"}}"#,
    r#"{"user_ids":["1","2"],"client_id":"key"}"#,
    r#"{"role":"admin"}"#,
    r#"{"chat_id":"5","message":"hi","type":"text","attachments":[],"client_id":"key"}"#,
    r#"{"messages":[{"chat_id":"5","message":"hi"},{"chat_id":"5","message":"there"}]}"#,
    r#"{"message":"other words"}"#,
    r#"{"status":"read"}"#,
    r#"{"t":"hello","v":1,"token":"x","cursor":"y","device_name":"Phone"}"#,
    r#"[{"t":"send","id":"1","chat_id":"5","message":"hi"},{"t":"ping"}]"#,
    r#"{"t":"receipt","chat_id":"5","status":"read","seq":9007199254740993}"#,
    r#"{"t":"watch","user_ids":["1","2","3"]}"#,
    r#"{"t":"sync","id":"1","chat_id":"5","after_seq":0,"limit":200}"#,
];

fn decode_all(bytes: &[u8]) {
    let limits = Limits::default();
    let mut refusals: Vec<Invalid> = Vec::new();
    macro_rules! body {
        ($($kind:ty),*) => {
            $(refusals.extend(json::parse_object::<$kind>(bytes).err());)*
        };
    }
    body!(SignUp, SignIn, UserPatch, AccountDeletion, ManagedUser, CreateChat, ChatPatch);
    body!(AddParticipants, ParticipantPatch, SendBatch, EditMessage, PutStatus, TicketRequest);
    match json::parse_object::<SendMessage>(bytes) {
        Ok(send) => refusals.extend(check_send(&send, &limits).err()),
        Err(refusal) => refusals.push(refusal),
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        refusals.extend(check_username(text, &limits).err());
        refusals.extend(check_email(text).err());
        refusals.extend(check_display_name(text).err());
        refusals.extend(check_text("message", text, &limits).err());
        refusals.extend(check_emoji(text).err());
        match parse_client(text, &limits) {
            Ok(frames) => {
                refusals.extend(frames.into_iter().filter_map(|f| f.err()).map(|e| e.invalid))
            }
            Err(error) => refusals.push(error.invalid),
        }
    }
    for refusal in refusals {
        assert!(!refusal.detail.is_empty(), "a refusal says why");
    }
}

proptest! {
    #[test]
    fn noise_is_refused_and_breaks_no_decoder(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_all(&bytes);
    }

    #[test]
    fn broken_bodies_are_refused_and_break_no_decoder(
        which in 0..REAL.len(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        twice in any::<bool>(),
    ) {
        let mut bytes = REAL.get(which).unwrap().as_bytes().to_vec();
        for (at, byte) in cuts {
            let at = at.index(bytes.len().max(1));
            match byte % 4 {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), byte),
                2 => bytes.extend_from_within(..at.min(bytes.len())),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = b"{}[]\",:0-e\\u\x00\xff"[usize::from(byte) % 14]),
            }
        }
        if twice {
            bytes = [b"[", bytes.as_slice(), b",", bytes.as_slice(), b"]"].concat();
        }
        decode_all(&bytes);
    }

    #[test]
    fn any_text_is_kept_as_it_was_sent(text in any::<String>()) {
        let body = serde_json::json!({"chat_id": "5", "message": text}).to_string();
        let send: SendMessage = json::parse_object(body.as_bytes()).unwrap();
        prop_assert_eq!(&send.message, &text);
        let again = serde_json::to_string(&send).unwrap();
        prop_assert_eq!(json::parse_object::<SendMessage>(again.as_bytes()).unwrap().message, text);
    }
}

#[test]
fn real_bodies_are_read_and_depth_has_an_end() {
    for text in REAL {
        decode_all(text.as_bytes());
    }
    assert!(json::parse_object::<SendMessage>(REAL[7].as_bytes()).is_ok());
    assert!(parse_client(REAL[12], &Limits::default()).unwrap().iter().all(Result::is_ok));
    for depth in [64, 100_000] {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(depth);
            assert!(json::parse_object::<SendMessage>(deep.as_bytes()).is_err());
            decode_all(deep.as_bytes());
        }
    }
}
