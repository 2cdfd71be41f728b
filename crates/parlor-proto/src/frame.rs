//! The closed lists of frames: what clients and servers say to each other over the socket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    chats::Head,
    error::{ErrorCode, Invalid},
    event::Event,
    ids::{ChatId, ClientId, DeviceId, MediaId, MessageId, Seq, UserId},
    json,
    limits::{FRAME_ID_CHARS, Limits},
    members::LeaveReason,
    messages::MessageType,
    presence::PresenceStatus,
    receipts::{ReceiptKind, Status},
    time::Time,
};

/// A frame from a client.
#[derive(Debug, Clone)]
pub enum ClientFrame {
    /// The first frame.
    Hello(Hello),
    /// A message to store.
    Send(SendFrame),
    /// A position reached.
    Receipt(ReceiptFrame),
    /// The caller types, or stopped.
    Typing(TypingFrame),
    /// What is on the caller's screen.
    Focus(FocusFrame),
    /// Whose presence the caller wants.
    Watch(WatchFrame),
    /// A page of a log.
    Sync(SyncFrame),
    /// A sign of life.
    Ping(PingFrame),
}

/// The first frame: who speaks, and from where to resume. Unknown fields are ignored here only.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Answered in `welcome` or in an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The version of the protocol: 1.
    pub v: u32,
    /// A session token; this or `ticket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A one-time ticket; this or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The resume position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// A name for the list of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// A message to store; answered by `ack` or `error`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendFrame {
    /// Always `send`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where to.
    pub chat_id: ChatId,
    /// The text.
    #[serde(default)]
    pub message: String,
    /// Defaults to `text`.
    #[serde(default, rename = "type")]
    pub kind: MessageType,
    /// Uploaded files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<MediaId>,
    /// Makes the send safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
}

/// A position reached: `seq`, or the `message_id` that stands there.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFrame {
    /// Always `receipt`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The chat.
    pub chat_id: ChatId,
    /// Delivered or read.
    pub status: ReceiptKind,
    /// The position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The message at the position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
}

/// The caller types, or stopped.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypingFrame {
    /// Always `typing`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The chat.
    pub chat_id: ChatId,
    /// Typing, or stopped.
    pub active: bool,
}

/// What is on the caller's screen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FocusFrame {
    /// Always `focus`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The chat on the screen, or none.
    pub chat_id: Option<ChatId>,
    /// Whether the app is visible at all.
    pub visible: bool,
}

/// Whose presence the caller wants: the whole set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchFrame {
    /// Always `watch`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The whole set wanted.
    pub user_ids: Vec<UserId>,
}

/// A page of a log; answered by `events`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncFrame {
    /// Always `sync`.
    #[serde(default, rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The chat.
    pub chat_id: ChatId,
    /// Events after this position.
    pub after_seq: Seq,
    /// 1–200, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A sign of life; answered by `pong`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PingFrame {
    /// Always `ping`.
    #[serde(rename = "t", skip_serializing)]
    #[schemars(skip)]
    pub tag: Tag,
    /// Comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The `t` of a frame, already read when the rest is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tag;

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A frame that could not be read, with what an `error` frame says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// The frame's `id`, where it could be read.
    pub id: Option<String>,
    /// Why.
    pub invalid: Invalid,
}

#[derive(Deserialize)]
struct Envelope {
    t: String,
    #[serde(default)]
    id: Option<String>,
}

/// Reads a text frame: one object, or an array of them that is processed in order.
///
/// A frame of the array that cannot be read does not spoil the others.
pub fn parse_client(
    text: &str,
    limits: &Limits,
) -> Result<Vec<Result<ClientFrame, FrameError>>, FrameError> {
    let whole = |invalid| FrameError { id: None, invalid };
    if !text.trim_start().starts_with('[') {
        return Ok(vec![parse_one(text.as_bytes())]);
    }
    json::check_depth(text.as_bytes()).map_err(whole)?;
    let items: Vec<&serde_json::value::RawValue> = json::parse_borrowed(text).map_err(whole)?;
    if items.len() > limits.batch as usize {
        let detail = format!("an array holds at most {} frames", limits.batch);
        return Err(whole(Invalid::with_code(ErrorCode::OutOfRange, "", detail)));
    }
    Ok(items.iter().map(|item| parse_one(item.get().as_bytes())).collect())
}

fn parse_one(text: &[u8]) -> Result<ClientFrame, FrameError> {
    let envelope: Envelope =
        json::parse_object(text).map_err(|invalid| FrameError { id: None, invalid })?;
    let id = envelope.id;
    if id.as_ref().is_some_and(|id| id.chars().count() > FRAME_ID_CHARS) {
        let detail = format!("a frame's id has at most {FRAME_ID_CHARS} characters");
        return Err(FrameError { id: None, invalid: Invalid::new("id", detail) });
    }
    let frame = match envelope.t.as_str() {
        "hello" => json::parse_object(text).map(ClientFrame::Hello),
        "send" => json::parse_object(text).map(ClientFrame::Send),
        "receipt" => json::parse_object(text).map(ClientFrame::Receipt),
        "typing" => json::parse_object(text).map(ClientFrame::Typing),
        "focus" => json::parse_object(text).map(ClientFrame::Focus),
        "watch" => json::parse_object(text).map(ClientFrame::Watch),
        "sync" => json::parse_object(text).map(ClientFrame::Sync),
        "ping" => json::parse_object(text).map(ClientFrame::Ping),
        _ => Err(Invalid::with_code(ErrorCode::UnknownFrame, "t", "no frame has this name")),
    };
    frame.map_err(|invalid| FrameError { id, invalid })
}

/// A frame from the server. A client ignores what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The answer to `hello`.
    Welcome(Box<Welcome>),
    /// A send is durable.
    Ack(Ack),
    /// Something happened in a chat.
    Event(Event),
    /// The answer to `sync`.
    Events(EventsFrame),
    /// A chat moved on; its events are not sent.
    Head(Head),
    /// Events were left out: page the rest.
    Gap(Gap),
    /// Somebody received or read.
    Receipt(Receipt),
    /// Somebody came or went.
    Presence(Presence),
    /// Somebody types, or stopped.
    Typing(Typing),
    /// A step of the user's own stream.
    Account(AccountEvent),
    /// The resume position.
    Cursor(CursorFrame),
    /// Go away and come back later.
    Reconnect(ReconnectFrame),
    /// A frame was refused.
    Error(ErrorFrame),
    /// The answer to `ping`.
    Pong(Pong),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The `id` of the `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The version of the protocol: 1.
    pub v: u32,
    /// The caller.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The resume position before any replay.
    pub cursor: String,
    /// Silence after which a ping is sent.
    pub heartbeat_ms: u64,
    /// The server's clock.
    pub server_time: Time,
    /// What the server accepts.
    pub limits: Limits,
    /// The chats that changed since the client's cursor.
    pub heads: Vec<Head>,
    /// The client's cursor was not usable: forget cached history and start again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// Names of what is newer than version 1.
    #[serde(default)]
    pub features: Vec<String>,
}

/// A send is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// The `id` of the `send`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The message.
    pub message_id: MessageId,
    /// The chat.
    pub chat_id: ChatId,
    /// The position.
    pub seq: Seq,
    /// Server time of the commit.
    pub created_at: Time,
    /// Always `sent`.
    pub status: Status,
}

/// The answer to `sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsFrame {
    /// The `id` of the `sync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The chat.
    pub chat_id: ChatId,
    /// The page.
    pub events: Vec<Event>,
    /// The head at the moment of reading.
    pub head_seq: Seq,
    /// The epoch of the store.
    pub epoch: String,
}

/// Events were left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The chat.
    pub chat_id: ChatId,
    /// The last position before the gap.
    pub after_seq: Seq,
    /// The head.
    pub head_seq: Seq,
}

/// Somebody received or read everything up to a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The chat.
    pub chat_id: ChatId,
    /// Who.
    pub user_id: UserId,
    /// Delivered or read.
    pub status: ReceiptKind,
    /// Up to where.
    pub seq: Seq,
    /// The event at that position.
    pub message_id: MessageId,
    /// When.
    pub at: Time,
}

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// Who.
    pub user_id: UserId,
    /// The presence.
    pub status: PresenceStatus,
    /// When last active, to the minute.
    pub last_seen: Option<Time>,
}

/// Somebody types, or stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Typing {
    /// The chat.
    pub chat_id: ChatId,
    /// Who.
    pub user_id: UserId,
    /// Typing, or stopped.
    pub active: bool,
}

/// A step of the user's own stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountEvent {
    /// Its position: 1, 2, 3, … for each user.
    pub seq: Seq,
    /// When.
    pub at: Time,
    /// What happened.
    #[serde(flatten)]
    pub body: AccountEventBody,
}

/// What happened to the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AccountEventBody {
    /// The user is now a member of a chat.
    ChatAdded {
        /// The chat.
        chat_id: ChatId,
    },
    /// The user is no longer a member of a chat.
    ChatRemoved {
        /// The chat.
        chat_id: ChatId,
        /// Why.
        reason: LeaveReason,
    },
    /// Profile or privacy changed.
    Settings,
    /// A device signed in or out.
    Device {
        /// The device.
        device_id: DeviceId,
        /// Signed in, or out.
        added: bool,
    },
    /// A one-to-one was cleared and hidden for the user.
    Cleared {
        /// The chat.
        chat_id: ChatId,
        /// Everything up to here is gone for the user.
        seq: Seq,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The resume position: everything before this frame is covered by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CursorFrame {
    /// Opaque.
    pub cursor: String,
}

/// Go away and come back later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReconnectFrame {
    /// Milliseconds to wait.
    pub after_ms: u64,
    /// Why.
    pub reason: String,
}

/// A frame was refused; the connection stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorFrame {
    /// The `id` of the refused frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The stable code.
    pub code: ErrorCode,
    /// In words.
    pub detail: String,
    /// The field to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Milliseconds to wait before trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The answer to `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pong {
    /// The `id` of the `ping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Answer of `GET /api/v1/sync`: the frames that the socket would have sent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SyncAnswer {
    /// The frames, in order.
    pub frames: Vec<ServerFrame>,
    /// The resume position after them.
    pub cursor: String,
}

/// Query of `GET /api/v1/sync`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyncQuery {
    /// The resume position; without it the answer is what `welcome` would say.
    pub cursor: Option<String>,
    /// Seconds to wait for something new: 0–60, default 0.
    pub wait: Option<u64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refusal(text: &str) -> FrameError {
        let mut frames = parse_client(text, &Limits::default()).unwrap();
        frames.remove(0).unwrap_err()
    }

    #[test]
    fn one_frame_or_an_array_of_them_is_read_in_order() {
        let limits = Limits::default();
        let frames = parse_client(r#"[{"t":"ping","id":"a"},{"t":"nope"},{"t":"ping"}]"#, &limits);
        let frames = frames.unwrap();
        assert!(matches!(frames.first(), Some(Ok(ClientFrame::Ping(_)))));
        assert!(matches!(frames.get(1), Some(Err(_))));
        assert!(matches!(frames.get(2), Some(Ok(ClientFrame::Ping(_)))));
        let many = format!("[{}]", vec![r#"{"t":"ping"}"#; 101].join(","));
        assert_eq!(parse_client(&many, &limits).unwrap_err().invalid.code, ErrorCode::OutOfRange);
    }

    #[test]
    fn refusals_name_the_code_the_field_and_the_id() {
        let error = refusal(r#"{"t":"send","id":"7","chat_id":5,"message":"x"}"#);
        assert_eq!((error.id.as_deref(), error.invalid.field.as_str()), (Some("7"), "chat_id"));
        let error = refusal(r#"{"t":"send","chat_id":"5","message":"x","colour":"red"}"#);
        assert_eq!(
            (error.invalid.code, error.invalid.field.as_str()),
            (ErrorCode::UnknownField, "colour")
        );
        assert_eq!(refusal(r#"{"t":"dance","id":"1"}"#).invalid.code, ErrorCode::UnknownFrame);
        assert_eq!(refusal("{}").invalid.field, "t");
        assert_eq!(refusal("17").invalid.code, ErrorCode::Invalid);
        assert_eq!(refusal("nonsense").invalid.code, ErrorCode::BadJson);
        let long = format!(r#"{{"t":"ping","id":"{}"}}"#, "x".repeat(65));
        assert_eq!(refusal(&long).invalid.field, "id");
    }

    #[test]
    fn hello_alone_ignores_what_it_does_not_know() {
        let frames = parse_client(r#"{"t":"hello","v":1,"token":"x","hat":1}"#, &Limits::default());
        assert!(matches!(frames.unwrap().first(), Some(Ok(ClientFrame::Hello(_)))));
    }

    #[test]
    fn frames_of_the_future_are_unknown_and_harmless() {
        let frame: ServerFrame = serde_json::from_str(r#"{"t":"hologram","x":1}"#).unwrap();
        assert_eq!(frame, ServerFrame::Unknown);
        let text = r#"{"t":"event","chat_id":"5","seq":3,"event_id":"9","created_at":"2026-01-01T00:00:00.000Z","kind":"dance","x":1}"#;
        let ServerFrame::Event(event) = serde_json::from_str(text).unwrap() else {
            panic!("event")
        };
        assert_eq!((event.seq, event.body), (Seq::new(3), crate::EventBody::Unknown));
    }
}
