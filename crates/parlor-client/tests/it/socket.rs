//! The driver over a real socket: greeting, an order, an event, a cut and the way back.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parlor_client::{Change, Client, MemoryStore, Options, Replica, Settled, State, runtime};
use parlor_proto::{
    ChatId, DeviceId, Event, EventBody, Limits, MessageId, Seq, Time, UserId,
    chats::Head,
    frame::{Ack, ClientFrame, ServerFrame, Welcome, parse_client},
    receipts::Status,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

const CHAT: ChatId = ChatId::from_raw(7);

struct Server {
    listener: TcpListener,
    socket: Option<WebSocketStream<TcpStream>>,
}

impl Server {
    async fn accept(&mut self) {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.socket = Some(tokio_tungstenite::accept_async(stream).await.unwrap());
    }

    async fn hears(&mut self) -> ClientFrame {
        loop {
            let message = self.socket.as_mut().unwrap().next().await.unwrap().unwrap();
            if let Message::Text(text) = message {
                let mut frames = parse_client(&text, &Limits::default()).unwrap();
                return frames.remove(0).unwrap();
            }
        }
    }

    async fn says(&mut self, frame: ServerFrame) {
        let text = serde_json::to_string(&frame).unwrap();
        self.socket.as_mut().unwrap().send(Message::text(text)).await.unwrap();
    }

    async fn greets(&mut self, head: u64) {
        self.says(ServerFrame::Welcome(Box::new(Welcome {
            id: None,
            v: 1,
            user_id: UserId::from_raw(1),
            device_id: DeviceId::from_raw(2),
            cursor: format!("c{head}"),
            heartbeat_ms: 15_000,
            server_time: Time::from_millis(0),
            limits: Limits::default(),
            heads: vec![Head {
                chat_id: CHAT,
                seq: Seq::new(head),
                unread: 0,
                mentions: 0,
                delivered_seq: Seq::ZERO,
                read_seq: Seq::ZERO,
            }],
            reset: false,
            features: Vec::new(),
        })))
        .await;
    }

    async fn says_hidden(&mut self, seq: u64) {
        self.says(ServerFrame::Event(Event {
            chat_id: CHAT,
            seq: Seq::new(seq),
            event_id: MessageId::from_raw(seq),
            created_at: Time::from_millis(0),
            body: EventBody::Hidden,
        }))
        .await;
    }
}

#[tokio::test]
async fn an_order_survives_a_cut_and_events_are_told_once() {
    let story = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let mut server = Server { listener, socket: None };
        let client = Client::new(&origin).unwrap().with_token("secret");
        let options = Options { seed: Some(5), ..Options::default() };
        let (replica, mut changes) = Replica::start(&client, MemoryStore::new(), options).unwrap();
        server.accept().await;
        let ClientFrame::Hello(hello) = server.hears().await else { panic!("hello first") };
        assert_eq!((hello.token.as_deref(), hello.cursor), (Some("secret"), None));
        server.greets(2).await;
        server.says_hidden(1).await;
        server.says_hidden(2).await;
        let key = replica.send_text(CHAT, "one").await.unwrap();
        let mut receipt = None;
        loop {
            match server.hears().await {
                ClientFrame::Send(frame) => {
                    assert_eq!(frame.client_id.as_ref(), Some(&key));
                    break;
                }
                ClientFrame::Receipt(frame) => receipt = frame.seq,
                other => panic!("{other:?}"),
            }
        }
        server.socket = None; // the ack is lost with the connection
        server.accept().await;
        let ClientFrame::Hello(hello) = server.hears().await else { panic!("hello first") };
        assert_eq!(hello.cursor.as_deref(), Some("c2"));
        server.greets(2).await;
        let frame = loop {
            match server.hears().await {
                ClientFrame::Send(frame) => break frame,
                ClientFrame::Receipt(frame) => receipt = frame.seq,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(frame.client_id.as_ref(), Some(&key), "the same key");
        assert_eq!(receipt, Some(Seq::new(2)), "what was stored was reported");
        server.says_hidden(2).await;
        server.says_hidden(3).await;
        server
            .says(ServerFrame::Ack(Ack {
                id: frame.id,
                message_id: MessageId::from_raw(3),
                chat_id: CHAT,
                seq: Seq::new(3),
                created_at: Time::from_millis(0),
                status: Status::Sent,
            }))
            .await;
        let (mut seqs, mut states) = (Vec::new(), Vec::new());
        loop {
            match changes.next().await.unwrap() {
                Change::Event(event) => seqs.push(event.seq.get()),
                Change::State(state) => states.push(state),
                Change::Settled(Settled::Acked { client_id, seq, .. }) => {
                    assert_eq!((client_id, seq), (key, Seq::new(3)));
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(seqs, [1, 2, 3]);
        let n_live = states.iter().filter(|state| **state == State::Live).count();
        assert_eq!(n_live, 2, "{states:?}");
        replica.stop().await;
        while changes.next().await.is_some() {}
        assert!(replica.report().await.is_err(), "ended");
    };
    runtime::within(Duration::from_secs(30), story).await.expect("the story comes to its end");
}
