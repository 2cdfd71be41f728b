//! A server of three chats in memory, and the wire between it and one session.
//!
//! It keeps the promises that a client may rely on (the log, keys, a cursor that covers only what
//! was handed over) and breaks everything else by the dice.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parlor_client::{
    MemoryStore, Random, Receipts, Settled, State,
    connection::Lost,
    outbox::Order,
    session::{Change, Effect, Session, SessionOptions},
};
use parlor_proto::{
    ChatId, ClientId, ErrorCode, Event, EventBody, Limits, MessageId, Seq, Time, UserId,
    chats::{Chat, ChatSettings, ChatType, Head},
    frame::{
        AccountEvent, AccountEventBody, Ack, ClientFrame, CursorFrame, ErrorFrame, EventsFrame,
        Gap, Pong, SendFrame, ServerFrame, Welcome, parse_client,
    },
    members::{LeaveReason, MemberRole, Role},
    messages::{Message, SendMessage},
    receipts::Status,
};

pub const ME: UserId = UserId::from_raw(1);
pub const OTHER: UserId = UserId::from_raw(2);

/// How often what goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub loss: f64,
    pub repeat: f64,
    pub swap: f64,
    pub cut: f64,
    pub restart: f64,
    pub refuse: f64,
    pub restore: f64,
    /// Events of one chat that a resume replays before it says `gap`.
    pub replay: usize,
}

impl Faults {
    pub const NONE: Self = Self {
        loss: 0.0,
        repeat: 0.0,
        swap: 0.0,
        cut: 0.0,
        restart: 0.0,
        refuse: 0.0,
        restore: 0.0,
        replay: 5,
    };
}

#[derive(Debug, Default)]
pub struct ChatLog {
    pub events: Vec<Event>,
    /// What ME may see: from, up to (exclusive).
    pub visible: Vec<(Seq, Option<Seq>)>,
}

impl ChatLog {
    pub fn sees(&self, seq: Seq) -> bool {
        self.visible.iter().any(|(from, to)| *from <= seq && to.is_none_or(|to| seq < to))
    }

    pub fn is_member(&self) -> bool {
        self.visible.last().is_some_and(|(_, to)| to.is_none())
    }

    pub fn head(&self) -> Seq {
        Seq::new(self.events.len() as u64)
    }
}

/// One socket as the server sees it.
#[derive(Debug, Default)]
struct Socket {
    is_greeted: bool,
    /// Event ids up to here were handed to the wire.
    handed: u64,
    /// The first id that the wire lost: no cursor may pass it.
    lost: Option<u64>,
    to_server: VecDeque<String>,
    to_client: VecDeque<ServerFrame>,
}

pub struct World {
    pub random: Random,
    pub faults: Faults,
    pub now_ms: u64,
    pub chats: BTreeMap<ChatId, ChatLog>,
    pub store: MemoryStore,
    pub session: Session<MemoryStore>,
    pub settled: HashMap<String, Settled>,
    pub told: BTreeMap<ChatId, Vec<Event>>,
    pub n_faults: u64,
    pub n_resets: u64,
    pub n_joins: u64,
    /// Where the logs began again after the last reset.
    pub began: HashMap<ChatId, Seq>,
    epoch: u64,
    next_id: u64,
    account_seq: u64,
    keys: HashMap<String, (ChatId, Seq, MessageId)>,
    delivered: HashMap<ChatId, Seq>,
    socket: Option<Socket>,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random::from_seed(seed);
        let store = MemoryStore::with_logs();
        let session = session(store.clone(), random.fork());
        let mut world = Self {
            random,
            faults,
            now_ms: 0,
            chats: BTreeMap::new(),
            store,
            session,
            settled: HashMap::new(),
            told: BTreeMap::new(),
            n_faults: 0,
            n_resets: 0,
            n_joins: 0,
            began: HashMap::new(),
            epoch: 1,
            next_id: 0,
            account_seq: 0,
            keys: HashMap::new(),
            delivered: HashMap::new(),
            socket: None,
        };
        for chat in 1..=3 {
            world.found(ChatId::from_raw(chat), chat != 3);
        }
        world.session.start(0);
        world
    }

    fn found(&mut self, chat_id: ChatId, with_me: bool) {
        let log = self.chats.entry(chat_id).or_default();
        if with_me {
            log.visible.push((Seq::new(1), None));
        }
        let members = [ME, OTHER].map(|user_id| MemberRole { user_id, role: Role::Owner });
        self.append(chat_id, EventBody::Created { by: OTHER, members: members.to_vec() });
    }

    /// Somebody else posts.
    pub fn post(&mut self, chat_id: ChatId, text: &str) {
        let message = self.message(chat_id, OTHER, text, None);
        self.append(chat_id, EventBody::Message { message: Box::new(message) });
    }

    pub fn add_me(&mut self, chat_id: ChatId) {
        let next = self.chats[&chat_id].head().next();
        self.chats.get_mut(&chat_id).unwrap().visible.push((next, None));
        self.delivered.insert(chat_id, next);
        self.n_joins += 1;
        self.account(AccountEventBody::ChatAdded { chat_id });
        self.append(chat_id, EventBody::Join { user_id: ME, by: OTHER, role: Role::Member });
    }

    pub fn remove_me(&mut self, chat_id: ChatId) {
        let reason = LeaveReason::Removed;
        let log = self.chats.get_mut(&chat_id).unwrap();
        let next = log.head().next();
        log.visible.last_mut().unwrap().1 = Some(next);
        self.append(chat_id, EventBody::Leave { user_id: ME, by: OTHER, reason });
        self.account(AccountEventBody::ChatRemoved { chat_id, reason });
    }

    fn account(&mut self, body: AccountEventBody) {
        self.account_seq += 1;
        let frame = ServerFrame::Account(AccountEvent {
            seq: Seq::new(self.account_seq),
            at: Time::from_millis(0),
            body,
        });
        if let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_greeted) {
            socket.to_client.push_back(frame);
        }
    }

    fn message(
        &self,
        chat_id: ChatId,
        sender_id: UserId,
        text: &str,
        client_id: Option<ClientId>,
    ) -> Message {
        Message {
            message_id: MessageId::from_raw(self.next_id + 1),
            chat_id,
            seq: self.chats[&chat_id].head().next(),
            sender_id,
            kind: Default::default(),
            message: text.to_owned(),
            attachments: Vec::new(),
            client_id,
            reply_to: None,
            created_at: Time::from_millis(0),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
            status: Status::Sent,
            state_seq: self.chats[&chat_id].head().next(),
        }
    }

    fn append(&mut self, chat_id: ChatId, body: EventBody) {
        self.next_id += 1;
        let log = self.chats.get_mut(&chat_id).unwrap();
        let seq = log.head().next();
        let event_id = MessageId::from_raw(self.next_id);
        let event = Event { chat_id, seq, event_id, created_at: Time::from_millis(0), body };
        log.events.push(event.clone());
        let is_visible = log.sees(seq);
        let head_seq = log.head();
        let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_greeted) else { return };
        if !is_visible {
            return;
        }
        if self.random.chance(self.faults.loss) {
            self.n_faults += 1;
            if self.random.chance(0.5) {
                // A slow reader: folded, and said so. The cursor may pass it.
                let after_seq = seq.prev();
                socket.to_client.push_back(ServerFrame::Gap(Gap { chat_id, after_seq, head_seq }));
                socket.handed = socket.handed.max(event_id.raw());
            } else {
                socket.lost.get_or_insert(event_id.raw());
            }
            return;
        }
        socket.handed = socket.handed.max(event_id.raw());
        if self.random.chance(self.faults.repeat) {
            self.n_faults += 1;
            socket.to_client.push_back(ServerFrame::Event(event.clone()));
        }
        socket.to_client.push_back(ServerFrame::Event(event));
    }

    /// The store of the server goes back to an older state: a new epoch, a shorter log.
    pub fn restore(&mut self) {
        self.n_faults += 1;
        self.epoch += 1;
        self.cut();
        let keep = |log: &mut ChatLog, n: usize| log.events.truncate(n.max(1));
        for chat in [1, 2] {
            let log = self.chats.get_mut(&ChatId::from_raw(chat)).unwrap();
            let n_left = log.events.len() / 2;
            keep(log, n_left);
        }
        let chats = &self.chats;
        self.keys.retain(|_, (chat_id, seq, _)| *seq <= chats[chat_id].head());
        for (chat_id, seq) in &mut self.delivered {
            *seq = (*seq).min(chats[chat_id].head());
        }
    }

    pub fn cut(&mut self) {
        self.socket = None;
        self.session.on_lost(self.now_ms, Lost::default());
    }

    /// The process of the client ends and starts again on the same store.
    pub fn restart(&mut self) {
        self.n_faults += 1;
        self.socket = None;
        self.session = session(self.store.clone(), self.random.fork());
        self.session.start(self.now_ms);
    }

    pub fn order(&mut self, key: &str, chat_id: ChatId, text: &str) {
        let message = SendMessage {
            chat_id,
            message: text.to_owned(),
            kind: Default::default(),
            attachments: Vec::new(),
            client_id: None,
            reply_to: None,
        };
        let order = Order::new(ClientId::new(key).unwrap(), message);
        self.session.enqueue(self.now_ms, order).unwrap();
    }

    pub fn hand_out_cursor(&mut self) {
        let epoch = self.epoch;
        if let Some(socket) = self.socket.as_mut().filter(|socket| socket.is_greeted) {
            let covered = socket.lost.map_or(socket.handed, |lost| socket.handed.min(lost - 1));
            let cursor = format!("{epoch}:{covered}");
            socket.to_client.push_back(ServerFrame::Cursor(CursorFrame { cursor }));
        }
    }

    /// Does what the session asks for.
    pub fn perform(&mut self) {
        while let Some(effect) = self.session.next_effect() {
            match effect {
                Effect::Dial => {
                    if self.random.chance(self.faults.refuse) {
                        self.n_faults += 1;
                        let lost = Lost { code: None, retry_after_ms: Some(1_000) };
                        self.session.on_lost(self.now_ms, lost);
                    } else {
                        self.socket = Some(Socket::default());
                        self.session.on_opened(self.now_ms);
                    }
                }
                Effect::Say(text) => {
                    if let Some(socket) = &mut self.socket {
                        socket.to_server.push_back(text);
                    }
                }
                Effect::HangUp => self.socket = None,
                Effect::Look(chat_id) => {
                    let log = &self.chats[&chat_id];
                    let chat = log.is_member().then(|| self.chat(chat_id));
                    let answer = chat.as_ref().ok_or(Some(ErrorCode::NotFound));
                    self.session.on_chat(self.now_ms, chat_id, answer);
                }
                Effect::Tell(Change::Event(event)) => {
                    self.told.entry(event.chat_id).or_default().push(*event);
                }
                Effect::Tell(Change::Reset) => {
                    self.n_resets += 1;
                    self.told.clear();
                }
                Effect::Tell(Change::Settled(settled)) => {
                    let key = match &settled {
                        Settled::Acked { client_id, .. } | Settled::Refused { client_id, .. } => {
                            client_id.as_str().to_owned()
                        }
                    };
                    self.settled.insert(key, settled);
                }
                Effect::Tell(_) => {}
            }
        }
    }

    fn chat(&self, chat_id: ChatId) -> Chat {
        let head = self.head(chat_id);
        Chat {
            chat_id,
            kind: ChatType::Group,
            title: None,
            topic: None,
            created_at: Time::from_millis(0),
            updated_at: Time::from_millis(0),
            head_seq: head.seq,
            role: Role::Member,
            participants_count: 2,
            settings: ChatSettings::default(),
            peer: None,
            last_message: None,
            unread: 0,
            mentions: 0,
            joined_seq: self.chats[&chat_id].visible.last().unwrap().0,
            delivered_seq: head.delivered_seq,
            read_seq: Seq::ZERO,
        }
    }

    fn head(&self, chat_id: ChatId) -> Head {
        let delivered_seq = self.delivered.get(&chat_id).copied().unwrap_or_default();
        Head {
            chat_id,
            seq: self.chats[&chat_id].head(),
            unread: 0,
            mentions: 0,
            delivered_seq,
            read_seq: Seq::ZERO,
        }
    }

    /// Moves one text from the client to the server.
    pub fn serve_one(&mut self) {
        let Some(text) = self.socket.as_mut().and_then(|socket| socket.to_server.pop_front())
        else {
            return;
        };
        for frame in parse_client(&text, &Limits::default()).unwrap() {
            match frame.unwrap() {
                ClientFrame::Hello(hello) => self.greet(hello.cursor.as_deref()),
                ClientFrame::Send(frame) => self.store_send(frame),
                ClientFrame::Sync(frame) => {
                    self.answer_page(frame.id, frame.chat_id, frame.after_seq)
                }
                ClientFrame::Receipt(frame) => {
                    let seq = frame.seq.unwrap();
                    let kept = self.store.log(frame.chat_id);
                    assert!(
                        kept.last().is_some_and(|event| event.seq >= seq),
                        "delivered up to {seq}, but the store ends at {:?}",
                        kept.last().map(|event| event.seq)
                    );
                    let delivered = self.delivered.entry(frame.chat_id).or_default();
                    *delivered = (*delivered).max(seq);
                }
                ClientFrame::Ping(_) => self.say(ServerFrame::Pong(Pong { id: None })),
                _ => {}
            }
        }
    }

    fn say(&mut self, frame: ServerFrame) {
        self.socket.as_mut().unwrap().to_client.push_back(frame);
    }

    fn greet(&mut self, cursor: Option<&str>) {
        let known = cursor.and_then(|cursor| {
            let (epoch, id) = cursor.split_once(':')?;
            (epoch == self.epoch.to_string()).then(|| id.parse::<u64>().unwrap())
        });
        let since = known.unwrap_or(0);
        let mut frames = Vec::new();
        let mut heads = Vec::new();
        for (chat_id, log) in &self.chats {
            let is_new = |event: &&Event| event.event_id.raw() > since && log.sees(event.seq);
            if !log.is_member() || !log.events.iter().any(|event| event.event_id.raw() > since) {
                continue;
            }
            let head = self.head(*chat_id);
            let from = if since > 0 { Seq::ZERO } else { head.delivered_seq };
            let new: Vec<_> =
                log.events.iter().filter(is_new).filter(|event| event.seq > from).collect();
            for event in new.iter().take(self.faults.replay) {
                frames.push(ServerFrame::Event((*event).clone()));
            }
            if let Some(first_left) = new.get(self.faults.replay) {
                let after_seq = first_left.seq.prev();
                let gap = Gap { chat_id: *chat_id, after_seq, head_seq: head.seq };
                frames.push(ServerFrame::Gap(gap));
            }
            heads.push(head);
        }
        let welcome = ServerFrame::Welcome(Box::new(Welcome {
            id: None,
            v: 1,
            user_id: ME,
            device_id: parlor_proto::DeviceId::from_raw(1),
            cursor: format!("{}:{since}", self.epoch),
            heartbeat_ms: 15_000,
            server_time: Time::from_millis(0),
            limits: Limits::default(),
            heads,
            reset: cursor.is_some() && known.is_none(),
            features: Vec::new(),
        }));
        if cursor.is_some() && known.is_none() {
            self.began.clone_from(&self.delivered);
        }
        let handed = self.next_id;
        let socket = self.socket.as_mut().unwrap();
        socket.is_greeted = true;
        socket.handed = handed;
        socket.to_client.push_back(welcome);
        socket.to_client.extend(frames);
    }

    fn store_send(&mut self, frame: SendFrame) {
        let id = frame.id.clone();
        let refuse = |code, retry_after_ms| {
            let detail = String::new();
            ServerFrame::Error(ErrorFrame {
                id: id.clone(),
                code,
                detail,
                field: None,
                retry_after_ms,
            })
        };
        if frame.message.starts_with("bad") || !self.chats[&frame.chat_id].is_member() {
            self.say(refuse(ErrorCode::NotFound, None));
            return;
        }
        if self.random.chance(self.faults.refuse) {
            self.n_faults += 1;
            self.say(refuse(ErrorCode::Unavailable, Some(300)));
            return;
        }
        let client_id = frame.client_id.clone().unwrap();
        let key = client_id.as_str().to_owned();
        if !self.keys.contains_key(&key) {
            let message = self.message(frame.chat_id, ME, &frame.message, Some(client_id));
            let at = (frame.chat_id, message.seq, message.message_id);
            self.keys.insert(key.clone(), at);
            self.append(frame.chat_id, EventBody::Message { message: Box::new(message) });
        }
        let (chat_id, seq, message_id) = self.keys[&key];
        self.say(ServerFrame::Ack(Ack {
            id: frame.id,
            message_id,
            chat_id,
            seq,
            created_at: Time::from_millis(0),
            status: Status::Sent,
        }));
    }

    fn answer_page(&mut self, id: Option<String>, chat_id: ChatId, after_seq: Seq) {
        let log = &self.chats[&chat_id];
        let refusal = |code| {
            let detail = String::new();
            ErrorFrame { id: id.clone(), code, detail, field: None, retry_after_ms: None }
        };
        if !log.is_member() {
            self.say(ServerFrame::Error(refusal(ErrorCode::NotFound)));
            return;
        }
        if after_seq > log.head() {
            self.say(ServerFrame::Error(refusal(ErrorCode::Reset)));
            return;
        }
        let above = log.events.iter().filter(|event| event.seq > after_seq && log.sees(event.seq));
        let events = above.take(7).cloned().collect();
        let head_seq = log.head();
        let epoch = self.epoch.to_string();
        self.say(ServerFrame::Events(EventsFrame { id, chat_id, events, head_seq, epoch }));
    }

    /// Moves up to three frames from the server to the client as one text.
    pub fn deliver_some(&mut self) {
        let n_frames = 1 + self.random.below(3);
        let Some(socket) = &mut self.socket else { return };
        let mut frames = Vec::new();
        for _ in 0..n_frames {
            frames.extend(socket.to_client.pop_front());
        }
        // Events may overtake each other; what a cursor covers comes before it all the same.
        let swaps = frames
            .windows(2)
            .all(|pair| matches!(pair, [ServerFrame::Event(_), ServerFrame::Event(_)]));
        if frames.len() > 1 && swaps && self.random.chance(self.faults.swap) {
            self.n_faults += 1;
            frames.swap(0, 1);
        }
        if !frames.is_empty() {
            let text = serde_json::to_string(&frames).unwrap();
            self.session.on_text(self.now_ms, &text);
        }
    }

    pub fn is_idle(&self) -> bool {
        self.socket.as_ref().is_none_or(|s| s.to_client.is_empty() && s.to_server.is_empty())
    }

    pub fn is_live(&self) -> bool {
        self.session.state() == State::Live
    }

    pub fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.session.on_tick(self.now_ms);
    }
}

fn session(store: MemoryStore, random: Random) -> Session<MemoryStore> {
    let options = SessionOptions {
        token: "token".to_owned(),
        device_name: None,
        random,
        tap: None,
        receipts: Receipts::Delivered,
    };
    Session::new(store, options).unwrap()
}
