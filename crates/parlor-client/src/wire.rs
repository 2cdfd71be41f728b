//! Frames as text: what a client says gets its `t`, what a server says may be one frame or an array.

use parlor_proto::frame::{
    ClientFrame, FocusFrame, Hello, PingFrame, ReceiptFrame, SendFrame, ServerFrame, SyncFrame,
    TypingFrame, WatchFrame,
};
use serde::Serialize;

#[derive(Serialize)]
struct Tagged<'a, T> {
    t: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

fn tagged<T: Serialize>(t: &'static str, body: &T) -> String {
    serde_json::to_string(&Tagged { t, body }).expect("a frame is an object with string keys")
}

/// Writes a frame of a client.
pub fn encode(frame: &ClientFrame) -> String {
    match frame {
        ClientFrame::Hello(body) => hello(body),
        ClientFrame::Send(body) => send(body),
        ClientFrame::Receipt(body) => receipt(body),
        ClientFrame::Typing(body) => typing(body),
        ClientFrame::Focus(body) => focus(body),
        ClientFrame::Watch(body) => watch(body),
        ClientFrame::Sync(body) => sync(body),
        ClientFrame::Ping(body) => ping(body),
    }
}

/// Writes a `hello`.
pub fn hello(body: &Hello) -> String {
    tagged("hello", body)
}

/// Writes a `send`.
pub fn send(body: &SendFrame) -> String {
    tagged("send", body)
}

/// Writes a `receipt`.
pub fn receipt(body: &ReceiptFrame) -> String {
    tagged("receipt", body)
}

/// Writes a `typing`.
pub fn typing(body: &TypingFrame) -> String {
    tagged("typing", body)
}

/// Writes a `focus`.
pub fn focus(body: &FocusFrame) -> String {
    tagged("focus", body)
}

/// Writes a `watch`.
pub fn watch(body: &WatchFrame) -> String {
    tagged("watch", body)
}

/// Writes a `sync`.
pub fn sync(body: &SyncFrame) -> String {
    tagged("sync", body)
}

/// Writes a `ping`.
pub fn ping(body: &PingFrame) -> String {
    tagged("ping", body)
}

/// Reads a text from a server: one frame, or an array of them in order.
pub fn decode(text: &str) -> Result<Vec<ServerFrame>, serde_json::Error> {
    if text.trim_start().starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|frame| vec![frame])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use parlor_proto::{ChatId, ClientId, Limits, Seq, UserId, frame, receipts::ReceiptKind};

    use super::*;

    #[test]
    fn what_a_client_writes_is_what_a_server_reads() {
        let chat_id = ChatId::from_raw(7);
        let frames = [
            ClientFrame::Hello(Hello {
                id: None,
                v: 1,
                token: Some("t".into()),
                ticket: None,
                cursor: None,
                device_name: None,
            }),
            ClientFrame::Send(SendFrame {
                tag: frame::Tag,
                id: Some("a".into()),
                chat_id,
                message: "hi \"there\"".into(),
                kind: Default::default(),
                attachments: Vec::new(),
                client_id: Some(ClientId::new("k").unwrap()),
                reply_to: None,
            }),
            ClientFrame::Receipt(ReceiptFrame {
                tag: frame::Tag,
                id: None,
                chat_id,
                status: ReceiptKind::Read,
                seq: Some(Seq::new(3)),
                message_id: None,
            }),
            ClientFrame::Typing(TypingFrame { tag: frame::Tag, id: None, chat_id, active: true }),
            ClientFrame::Focus(FocusFrame {
                tag: frame::Tag,
                id: None,
                chat_id: None,
                visible: false,
            }),
            ClientFrame::Watch(WatchFrame {
                tag: frame::Tag,
                id: None,
                user_ids: vec![UserId::from_raw(9)],
            }),
            ClientFrame::Sync(SyncFrame {
                tag: frame::Tag,
                id: Some("s".into()),
                chat_id,
                after_seq: Seq::new(4),
                limit: Some(200),
            }),
            ClientFrame::Ping(PingFrame::default()),
        ];
        for frame in frames {
            let text = encode(&frame);
            let read = frame::parse_client(&text, &Limits::default()).unwrap();
            let read = read.into_iter().next().unwrap().unwrap();
            assert_eq!(encode(&read), text, "the server reads the same frame");
        }
    }

    #[test]
    fn one_frame_or_an_array_is_read_and_unknown_kinds_are_kept_as_unknown() {
        let frames = decode(r#"[{"t":"pong"},{"t":"hologram","x":1}]"#).unwrap();
        assert!(matches!(frames.as_slice(), [ServerFrame::Pong(_), ServerFrame::Unknown]));
        assert_eq!(decode(r#" {"t":"pong","id":"1"}"#).unwrap().len(), 1);
        assert!(decode("nonsense").is_err());
    }
}
