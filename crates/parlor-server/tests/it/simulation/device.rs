//! A device of a simulation: the session of the SDK over a simulated socket, and a person who acts
//! by dice. It restarts with what its store kept, whenever the dice say so.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, stream::FuturesUnordered};
use parlor_client::{
    Change, MemoryStore, Random, Receipts, Settled, State,
    connection::Lost,
    ids::ClientIds,
    outbox::Order,
    session::{Effect, Session, SessionOptions},
    socket,
};
use parlor_load::{
    device::{Told, invocation, key_of, message, tap},
    record::{
        DeliverArgs, MemberArgs, Op, Phase, PositionArgs, ReadArgs, ReadResult, Seen, SendResult,
        Way, Who,
    },
};
use parlor_proto::{
    ChatId, ErrorCode, Event, MessageId, Problem, Seq,
    chats::Chat,
    frame::{ReceiptFrame, Tag},
    messages::{EventPage, History, Message, SendMessage},
    receipts::ReceiptKind,
};
use serde_json::{Value, json};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite::Message as Frame};
use turmoil::net::TcpStream;

use super::{DEVICES, PEOPLE, Shared, net, server::now_ms};

type Task = Pin<Box<dyn Future<Output = ()>>>;
type Dialling = Pin<Box<dyn Future<Output = Option<WebSocketStream<TcpStream>>>>>;
type Look = Pin<Box<dyn Future<Output = (ChatId, Option<(u16, Value)>)>>>;

enum Link {
    Down,
    Dialling(Dialling),
    Up(Box<WebSocketStream<TcpStream>>),
}

/// Runs to the end of the simulation.
pub async fn run(shared: Arc<Shared>, person: usize, number: usize) -> turmoil::Result {
    while shared.cast.get().is_none() {
        sleep_ms(5).await;
    }
    let mut device = Device::new(shared, person, number);
    device.act_until_healed().await;
    device.settle().await;
    device.read_all().await;
    Ok(())
}

struct Device {
    shared: Arc<Shared>,
    person: usize,
    token: String,
    who: Who,
    dice: Random,
    ids: ClientIds,
    store: MemoryStore,
    session: Session<MemoryStore>,
    link: Link,
    looks: FuturesUnordered<Look>,
    /// What goes on over HTTP beside the socket.
    tasks: FuturesUnordered<Task>,
    told: Told,
    /// Operations of sends that are not settled, by key.
    waiting: HashMap<String, u64>,
    n_opened: u64,
    n_sent: u64,
}

impl Device {
    fn new(shared: Arc<Shared>, person: usize, number: usize) -> Self {
        let mut dice =
            Random::from_seed(shared.seed.wrapping_mul(31) + person as u64 * 7 + number as u64);
        let cast = shared.cast.get().expect("the cast is there");
        let token = cast.people[person].tokens[number].clone();
        let who = Who::device(cast.people[person].user_id, format!("device{number}"));
        let store = MemoryStore::with_logs();
        let ids = ClientIds::new(dice.fork());
        let told = Told::new(who.clone(), shared.recorder.clone());
        let options = session_options(&shared, &who, &token, &mut dice, 0);
        let session = Session::new(store.clone(), options).expect("memory does not fail");
        Self {
            shared,
            person,
            token,
            who,
            dice,
            ids,
            store,
            session,
            link: Link::Down,
            looks: FuturesUnordered::new(),
            tasks: FuturesUnordered::new(),
            told,
            waiting: HashMap::new(),
            n_opened: 0,
            n_sent: 0,
        }
    }

    async fn act_until_healed(&mut self) {
        self.session.start(now_ms());
        let mut next_ms = now_ms();
        while !self.shared.is_healed.load(Ordering::Relaxed) {
            if now_ms() >= next_ms {
                self.act();
                next_ms = now_ms() + self.dice.below(160 * u64::from(self.shared.pace));
            }
            self.step(next_ms).await;
        }
    }

    /// Waits until every order is settled, everything over HTTP has ended, and all chats are level.
    async fn settle(&mut self) {
        // The backoff of a client is for crowds; here it would only stretch the run.
        self.session.start(now_ms());
        let deadline_ms = now_ms() + 60_000;
        let (mut is_quiet, mut is_level) = (false, false);
        // At the end everybody is inside, so that everybody has a final history.
        let mut lets_in = self.is_door();
        let mut next_look_ms = 0;
        while !is_level && now_ms() < deadline_ms {
            self.step(now_ms() + 50).await;
            if matches!(self.session.state(), State::Offline { .. }) {
                self.session.start(now_ms());
            }
            if self.tasks.is_empty() && std::mem::take(&mut lets_in) {
                let (shared, token, who) =
                    (self.shared.clone(), self.token.clone(), self.who.clone());
                self.tasks.push(Box::pin(change_member(shared, token, who, true)));
            }
            if !is_quiet && self.session.n_orders() == 0 && self.tasks.is_empty() {
                is_quiet = true;
                self.shared.n_quiet.fetch_add(1, Ordering::Relaxed);
                // What still runs at the server for a caller that went away ends meanwhile.
                next_look_ms = now_ms() + 2_000;
            }
            let all_are_quiet = self.shared.n_quiet.load(Ordering::Relaxed) == DEVICES.len();
            if !all_are_quiet || now_ms() < next_look_ms {
                continue;
            }
            next_look_ms = now_ms() + 400;
            is_level = true;
            for chat_id in self.own_chats() {
                let path = format!("/api/v1/chats/{chat_id}");
                let chat: Option<Chat> = get(&path, &self.token).await;
                let have = self.session.position(chat_id).map(|position| position.have);
                is_level &= chat.is_some_and(|chat| have >= Some(chat.head_seq));
            }
        }
        self.told.finish();
        for chat_id in self.own_chats() {
            let position = self.session.position(chat_id);
            let (have_seq, head_seq) =
                position.map_or_else(Default::default, |at| (at.have, at.head));
            let args = PositionArgs { chat_id, have_seq, head_seq };
            self.shared.recorder.note(&self.who, Op::Position { args });
        }
        // Reports of the last events are on their way to the cursors that are read now.
        self.step(now_ms() + 300).await;
        let orders = self.session.n_orders();
        assert!(
            is_level,
            "{}: {:?} did not come to rest: {:?}, {orders} orders, {} calls",
            self.shared.replay,
            self.who,
            self.session.state(),
            self.tasks.len(),
        );
    }

    fn own_chats(&self) -> Vec<ChatId> {
        let [all, pair, open] = self.shared.cast.get().expect("the cast is there").chats;
        if self.person < 2 { vec![all, pair, open] } else { vec![all, open] }
    }

    /// The first device of the first person adds and removes the last person.
    fn is_door(&self) -> bool {
        self.person == 0 && self.who.device == "device0"
    }

    /// Does something, by dice.
    fn act(&mut self) {
        if self.tasks.len() >= 4 {
            // Without a network they would only pile up.
            return;
        }
        let chats = self.own_chats();
        let chat_id = chats[usize::try_from(self.dice.below(chats.len() as u64)).expect("small")];
        // Who is cut off for hours writes into the outbox; calls would only fail.
        let n_kinds = if self.shared.pace > 1 { 9 } else { 20 };
        match self.dice.below(n_kinds) {
            0..=8 => self.send_by_socket(chat_id, false),
            // The same key on both ways at once.
            9 | 10 => self.send_by_socket(chat_id, true),
            11 => {
                let (one, two) = (self.next_message(chat_id), self.next_message(chat_id));
                let lane = format!("{}-{}", self.who.device, self.n_sent);
                let (shared, who, token) =
                    (self.shared.clone(), self.who.clone(), self.token.clone());
                self.tasks.push(Box::pin(async move {
                    // One after the other, on two connections: they never swap.
                    send_by_http(&shared, &who, &token, &one, Some(&lane)).await;
                    send_by_http(&shared, &who, &token, &two, Some(&lane)).await;
                }));
            }
            12 | 13 => self.change_own_message(),
            14 | 15 => self.read(chat_id),
            16 if self.is_door() => {
                let added = self.dice.chance(0.6);
                let who = self.who.clone();
                let change = change_member(self.shared.clone(), self.token.clone(), who, added);
                if self.tasks.is_empty() {
                    self.tasks.push(Box::pin(change));
                }
            }
            17 if chat_id != self.shared.cast.get().expect("the cast is there").chats[2] => {
                let limit = 1 + self.dice.below(4);
                let page = page_back(self.shared.clone(), self.token.clone(), chat_id, limit);
                self.tasks.push(Box::pin(page));
            }
            18 => self.restart(),
            _ => {}
        }
    }

    fn next_message(&mut self, chat_id: ChatId) -> SendMessage {
        self.n_sent += 1;
        let text = format!("{} {} {}", self.person, self.who.device, self.n_sent);
        message(chat_id, text, self.ids.next(now_ms()))
    }

    fn send_by_socket(&mut self, chat_id: ChatId, by_http_too: bool) {
        let message = self.next_message(chat_id);
        let key = message.client_id.clone().expect("it has a key");
        let lane = (!by_http_too).then_some(self.who.device.as_str());
        let op_id = self.shared.recorder.invoke(&self.who, invocation(&message, &key, lane));
        self.waiting.insert(key.as_str().to_owned(), op_id);
        let order = Order::new(key, message.clone());
        self.session.enqueue(now_ms(), order).expect("memory does not fail");
        if by_http_too {
            let (shared, who, token) = (self.shared.clone(), self.who.clone(), self.token.clone());
            self.tasks.push(Box::pin(async move {
                send_by_http(&shared, &who, &token, &message, None).await;
            }));
        }
    }

    /// Edits, deletes or decorates something that this person wrote.
    fn change_own_message(&mut self) {
        let own = self.shared.acked.lock();
        let own: Vec<MessageId> = own.get(&self.person).cloned().unwrap_or_default();
        let Some(count) = std::num::NonZeroU64::new(own.len() as u64) else { return };
        let message_id = own[usize::try_from(self.dice.below(count.get())).expect("small")];
        let path = format!("/api/v1/messages/{message_id}");
        let (method, path, body) = match self.dice.below(4) {
            0 => ("DELETE", path, None),
            1 => ("PUT", format!("{path}/reactions/%F0%9F%91%8D"), None),
            _ => {
                let text = format!("edited {}", self.dice.below(1_000));
                ("PATCH", path, Some(json!({"message": text})))
            }
        };
        let token = self.token.clone();
        self.tasks.push(Box::pin(async move {
            net::call(method, &path, &token, body).await;
        }));
    }

    fn read(&mut self, chat_id: ChatId) {
        let Some(position) = self.session.position(chat_id) else { return };
        let seq = Seq::new(self.dice.below(position.have.get() + 1));
        let status = ReceiptKind::Read;
        if seq > Seq::ZERO {
            let frame = ReceiptFrame {
                tag: Tag,
                id: None,
                chat_id,
                status,
                seq: Some(seq),
                message_id: None,
            };
            self.session.report(&frame);
        }
    }

    /// The process of the device ends and comes back with what its store kept.
    fn restart(&mut self) {
        // An application takes events from its store, so what is kept counts as told.
        while let Some(effect) = self.session.next_effect() {
            if let Effect::Tell(change) = effect {
                self.on_change(&change);
            }
        }
        self.told.finish();
        let options =
            session_options(&self.shared, &self.who, &self.token, &mut self.dice, self.n_opened);
        self.session = Session::new(self.store.clone(), options).expect("memory does not fail");
        self.link = Link::Down;
        self.looks = FuturesUnordered::new();
        self.session.start(now_ms());
    }

    /// Does what is due, and waits for the next thing.
    async fn step(&mut self, until_ms: u64) {
        self.perform().await;
        let now = now_ms();
        let wake_ms = self.session.deadline_ms().map_or(until_ms, |at| at.min(until_ms));
        tokio::select! {
            biased;
            Some(()) = self.tasks.next() => {}
            Some((chat_id, answer)) = self.looks.next() => {
                let chat = match answer {
                    Some((200, body)) => Ok(serde_json::from_value::<Chat>(body).expect("a chat")),
                    Some((_, body)) => Err(serde_json::from_value::<Problem>(body).ok().map(|p| p.code)),
                    None => Err(None),
                };
                let answer: Result<&Chat, Option<ErrorCode>> = chat.as_ref().map_err(|code| *code);
                self.session.on_chat(now_ms(), chat_id, answer);
            }
            woken = on_link(&mut self.link) => match woken {
                Woken::Dialled(Some(socket)) => {
                    self.link = Link::Up(socket);
                    self.n_opened += 1;
                    self.session.on_opened(now_ms());
                }
                Woken::Heard(Some(Frame::Text(text))) => self.session.on_text(now_ms(), &text),
                Woken::Heard(Some(Frame::Close(frame))) => {
                    self.link = Link::Down;
                    let code = frame.map(|frame| u16::from(frame.code));
                    self.session.on_lost(now_ms(), Lost { code, retry_after_ms: None });
                }
                Woken::Heard(Some(_)) => self.session.on_life(now_ms()),
                Woken::Dialled(None) | Woken::Heard(None) => {
                    self.link = Link::Down;
                    self.session.on_lost(now_ms(), Lost::default());
                }
            },
            () = sleep_ms(wake_ms.saturating_sub(now)) => self.session.on_tick(now_ms()),
        }
    }

    async fn perform(&mut self) {
        let mut has_said = false;
        while let Some(effect) = self.session.next_effect() {
            match effect {
                Effect::Dial => self.link = Link::Dialling(Box::pin(dial())),
                Effect::Say(text) => {
                    if let Link::Up(socket) = &mut self.link {
                        has_said = true;
                        if socket.feed(Frame::text(text)).await.is_err() {
                            self.link = Link::Down;
                            self.session.on_lost(now_ms(), Lost::default());
                        }
                    }
                }
                Effect::HangUp => self.link = Link::Down,
                Effect::Look(chat_id) => {
                    let token = self.token.clone();
                    self.looks.push(Box::pin(async move {
                        let path = format!("/api/v1/chats/{chat_id}");
                        (chat_id, net::call("GET", &path, &token, None).await)
                    }));
                }
                Effect::Tell(change) => self.on_change(&change),
            }
        }
        if has_said && let Link::Up(socket) = &mut self.link {
            // A write that cannot go on is noticed by the heartbeat.
            if let Some(Err(_)) = socket.flush().now_or_never() {
                self.link = Link::Down;
                self.session.on_lost(now_ms(), Lost::default());
            }
        }
    }

    fn on_change(&mut self, change: &Change) {
        if let Change::Settled(settled) = change {
            if let Some(op_id) = self.waiting.remove(key_of(settled).as_str()) {
                self.told.settled(op_id, settled);
            }
            if let Settled::Acked { message_id, .. } = settled {
                self.shared.acked.lock().entry(self.person).or_default().push(*message_id);
            }
        }
        if matches!(change, Change::Reset) {
            self.shared.n_resets.fetch_add(1, Ordering::Relaxed);
        }
        self.told.on_change(change);
    }

    /// The final reads: what the device kept, the log forward, the history backward.
    async fn read_all(&mut self) {
        for chat_id in self.own_chats() {
            let events = self.read_events(chat_id).await;
            let messages = self.read_history(chat_id).await;
            let first = events.first().map_or(Seq::ZERO, |event| event.seq);
            let mut kept = self.store.log(chat_id);
            kept.retain(|event| event.seq >= first);
            // A device that is new begins where the others of its person are.
            let after = kept.first().map_or(Seq::ZERO, |event| event.seq.prev());
            let head = events.last().map_or(Seq::ZERO, |event| event.seq);
            let places = |events: &[Event]| -> Vec<(Seq, MessageId)> {
                let seen = events.iter().filter(|event| event.seq > after);
                seen.map(|event| (event.seq, event.event_id)).collect()
            };
            assert_eq!(places(&kept), places(&events), "{}: kept", self.shared.replay);
            let note = |path, after_seq, seen: Vec<Seen>| {
                let args = ReadArgs { chat_id, path, after_seq };
                let recorder = &self.shared.recorder;
                let op_id = recorder.invoke(&self.who, Op::Read { args, result: None });
                for result in seen {
                    let args = DeliverArgs { connection: 0, chat_id, path };
                    recorder.note(&self.who, Op::Deliver { args, result });
                }
                let result = Some(ReadResult { head_seq: head });
                recorder.end(&self.who, op_id, Phase::Ok, Op::Read { args, result });
            };
            note(Way::FinalResume, after, kept.iter().map(Seen::of_event).collect());
            note(Way::FinalEvents, Seq::ZERO, events.iter().map(Seen::of_event).collect());
            note(Way::FinalHistory, Seq::ZERO, messages.iter().map(Seen::of_message).collect());
            self.check(chat_id, &events, &messages).await;
        }
    }

    async fn read_events(&self, chat_id: ChatId) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq.get());
            let path = format!("/api/v1/chats/{chat_id}/events?after_seq={after}&limit=200");
            let page: EventPage = get(&path, &self.token).await.expect("healed");
            events.extend(page.events);
            if events.last().is_none_or(|last| last.seq >= page.head_seq) {
                return events;
            }
        }
    }

    async fn read_history(&self, chat_id: ChatId) -> Vec<Message> {
        let mut messages: Vec<Message> = Vec::new();
        loop {
            let before =
                messages.first().map_or_else(String::new, |m| format!("&before={}", m.message_id));
            let path = format!("/api/v1/chats/{chat_id}/messages?limit=50{before}");
            let page: History = get(&path, &self.token).await.expect("healed");
            messages = page.messages.into_iter().chain(messages).collect();
            if !page.has_more {
                return messages;
            }
        }
    }

    /// What no rule of the checker is about.
    async fn check(&self, chat_id: ChatId, events: &[Event], messages: &[Message]) {
        let replay = &self.shared.replay;
        assert!(events.is_sorted_by(|one, next| one.event_id < next.event_id), "{replay}: I4");
        assert!(events.is_sorted_by_key(|event| event.created_at), "{replay}: times fall");
        let path = format!("/api/v1/chats/{chat_id}");
        let chat: Chat = get(&path, &self.token).await.expect("healed");
        let own = self.who.client.expect("a person");
        let counted = messages
            .iter()
            .filter(|m| m.seq > chat.read_seq && m.sender_id != own && !m.deleted)
            .count() as u64;
        assert_eq!(chat.unread, counted, "{replay}: unread of {:?} in {chat_id}", self.who);
        // Pages read while others wrote meet without a hole.
        for run in self.shared.pages.lock().get(&chat_id).into_iter().flatten() {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let between =
                messages.iter().map(|m| m.seq).filter(|seq| (first..=last).contains(&seq));
            assert_eq!(*run, between.collect::<Vec<_>>(), "{replay}: pages of {chat_id}");
        }
    }
}

fn session_options(
    shared: &Arc<Shared>,
    who: &Who,
    token: &str,
    dice: &mut Random,
    had: u64,
) -> SessionOptions {
    SessionOptions {
        token: token.to_owned(),
        device_name: None,
        random: dice.fork(),
        tap: Some(Box::new(tap(who.clone(), shared.recorder.clone(), had))),
        receipts: Receipts::Delivered,
    }
}

async fn dial() -> Option<WebSocketStream<TcpStream>> {
    let stream = net::dial().await.ok()?;
    let opened = client_async_with_config("ws://server/api/v1/ws", stream, Some(socket::config()));
    Some(opened.await.ok()?.0)
}

enum Woken {
    Dialled(Option<Box<WebSocketStream<TcpStream>>>),
    Heard(Option<Frame>),
}

async fn on_link(link: &mut Link) -> Woken {
    match link {
        Link::Down => std::future::pending().await,
        Link::Dialling(dialling) => Woken::Dialled(dialling.await.map(Box::new)),
        Link::Up(socket) => Woken::Heard(socket.next().await.and_then(Result::ok)),
    }
}

/// Sends until it is known how it ended; each attempt is an operation.
async fn send_by_http(
    shared: &Shared,
    who: &Who,
    token: &str,
    message: &SendMessage,
    lane: Option<&str>,
) {
    let key = message.client_id.clone().expect("it has a key");
    let body = serde_json::to_value(message).expect("JSON");
    loop {
        let op_id = shared.recorder.invoke(who, invocation(message, &key, lane));
        let answer = net::call("POST", "/api/v1/messages", token, Some(body.clone())).await;
        let end = |phase, result, error| {
            shared.recorder.end(who, op_id, phase, Op::Send { args: None, result, error });
        };
        match answer {
            Some((200 | 201, body)) => {
                let message: Message = serde_json::from_value(body).expect("a message");
                let result = SendResult { message_id: message.message_id, seq: message.seq };
                end(Phase::Ok, Some(result), None);
                return;
            }
            Some((status @ 400..=499, body)) => {
                end(Phase::Fail, None, Some(format!("{status} {body}")));
                return;
            }
            other => end(Phase::Info, None, Some(format!("{other:?}"))),
        }
        sleep_ms(100).await;
    }
}

/// Adds the last person to the open group, or removes them, until that is known to be done.
async fn change_member(shared: Arc<Shared>, token: String, who: Who, added: bool) {
    let cast = shared.cast.get().expect("the cast is there");
    let (chat_id, user_id) = (cast.chats[2], cast.people[PEOPLE - 1].user_id);
    let path = format!("/api/v1/chats/{chat_id}/participants");
    loop {
        let args = MemberArgs { chat_id, user_id, added };
        let op_id = shared.recorder.invoke(&who, Op::Member { args });
        let answer = if added {
            net::call("POST", &path, &token, Some(json!({"user_ids": [user_id]}))).await
        } else {
            net::call("DELETE", &format!("{path}/{user_id}"), &token, None).await
        };
        let status = answer.map_or(0, |(status, _)| status);
        let phase = if (200..300).contains(&status) { Phase::Ok } else { Phase::Info };
        shared.recorder.end(&who, op_id, phase, Op::Member { args });
        // 404: the person is out already.
        if phase == Phase::Ok || (!added && status == 404) {
            return;
        }
        sleep_ms(100).await;
    }
}

/// Pages back from the newest message while others write, and keeps the positions seen.
async fn page_back(shared: Arc<Shared>, token: String, chat_id: ChatId, limit: u64) {
    let mut messages: Vec<Message> = Vec::new();
    for _ in 0..6 {
        let before =
            messages.first().map_or_else(String::new, |m| format!("&before={}", m.message_id));
        let path = format!("/api/v1/chats/{chat_id}/messages?limit={limit}{before}");
        let Some(page) = get::<History>(&path, &token).await else { break };
        messages = page.messages.into_iter().chain(messages).collect();
        if !page.has_more {
            break;
        }
    }
    let run = messages.iter().map(|message| message.seq).collect();
    shared.pages.lock().entry(chat_id).or_default().push(run);
}

async fn get<T: serde::de::DeserializeOwned>(path: &str, token: &str) -> Option<T> {
    match net::call("GET", path, token, None).await {
        Some((200, body)) => Some(serde_json::from_value(body).expect("what the contract says")),
        _ => None,
    }
}

#[expect(clippy::disallowed_methods, reason = "simulated time")]
async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Positions of pages, by chat.
pub type Pages = BTreeMap<ChatId, Vec<Vec<Seq>>>;
