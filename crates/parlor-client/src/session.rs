//! One device as a state machine without I/O: connection, sync and outbox over one store.
//!
//! Texts from the socket, orders of the application and the passing of time go in; what has to be
//! done outside comes out, in order. The driver with the real socket is `replica.rs`; the tests
//! drive this one with a fake server that loses, repeats and reorders.

use std::collections::{BTreeMap, VecDeque};

use parlor_proto::{
    ChatId, ErrorCode, Event, Limits, UserId,
    chats::Chat,
    frame::{FocusFrame, Hello, PingFrame, ReceiptFrame, ServerFrame, Tag, WatchFrame, Welcome},
};

use crate::{
    connection::{self, ClosedReason, Connection, Lost, State},
    outbox::{Order, Outbox, Settled},
    random::Random,
    store::{Kept, Position, Step, Store},
    sync::{self, Sync},
    wire,
};

/// What the application is told.
#[derive(Debug, Clone)]
pub enum Change {
    /// The connection stands elsewhere now.
    State(State),
    /// The server greeted: who this is, and what it accepts.
    Welcome(Box<Greeting>),
    /// The next event of a chat: each once, in order, without a hole, and kept by the store.
    Event(Box<Event>),
    /// The end of an order.
    Settled(Settled),
    /// The log of the server is another one: forget what was built from events.
    Reset,
    /// Anything else that the server says: presence, typing, receipts, the own account.
    Frame(Box<ServerFrame>),
}

/// What a `welcome` tells an application.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// The user.
    pub user_id: UserId,
    /// What the server accepts.
    pub limits: Limits,
    /// Names of what is newer than version 1.
    pub features: Vec<String>,
}

/// What has to be done outside.
#[derive(Debug)]
pub enum Effect {
    /// Open a socket.
    Dial,
    /// Say a text.
    Say(String),
    /// Drop the socket, or the attempt to open one.
    HangUp,
    /// Ask over HTTP for a chat, then call `on_chat`.
    Look(ChatId),
    /// Tell the application.
    Tell(Change),
}

/// Sees every frame as it came, before anything is dropped or put in order, and every receipt as it
/// goes.
pub type Tap = Box<dyn FnMut(Tapped<'_>) + Send>;

/// What a tap sees.
#[derive(Debug, Clone, Copy)]
pub enum Tapped<'a> {
    /// A socket was opened; they count from 1.
    Opened(u64),
    /// A frame came.
    Frame(&'a ServerFrame),
    /// A position of this device is reported.
    Report(&'a ReceiptFrame),
    /// The socket ended.
    Lost,
}

/// How a session is set up.
pub struct SessionOptions {
    /// What `hello` says.
    pub token: String,
    /// A name for the list of devices.
    pub device_name: Option<String>,
    /// Decides the jitter.
    pub random: Random,
    /// Sees every frame as it came.
    pub tap: Option<Tap>,
    /// Whether events may be reported as delivered once the store has them.
    pub receipts: Receipts,
}

/// Whether a device reports what it stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipts {
    /// It reports `delivered` after each step of the store.
    Delivered,
    /// It reports nothing.
    None,
}

/// One device of one user.
pub struct Session<S> {
    options: SessionOptions,
    store: S,
    connection: Connection,
    sync: Sync,
    outbox: Outbox,
    effects: VecDeque<Effect>,
    /// Said again after each welcome: what the server keeps per connection.
    standing: BTreeMap<&'static str, String>,
    told: State,
    n_opened: u64,
    is_open: bool,
}

impl<S: Store> Session<S> {
    /// Takes up what the store has kept; the connection is offline until `start`.
    pub fn new(mut store: S, mut options: SessionOptions) -> std::io::Result<Self> {
        let kept: Kept = store.load()?;
        let mut outbox = Outbox::default();
        for message in &kept.orders {
            if let Some(client_id) = message.client_id.clone() {
                outbox.enqueue(Order::new(client_id, message.clone()));
            }
        }
        let connection = Connection::new(options.random.fork());
        Ok(Self {
            options,
            store,
            told: connection.state(),
            connection,
            sync: Sync::new(&kept),
            outbox,
            effects: VecDeque::new(),
            standing: BTreeMap::new(),
            n_opened: 0,
            is_open: false,
        })
    }

    /// Connects at once.
    pub fn start(&mut self, now_ms: u64) {
        let action = self.connection.start(now_ms);
        self.act(now_ms, action);
    }

    /// Ends for good.
    pub fn close(&mut self, now_ms: u64) {
        let action = self.connection.close(now_ms, ClosedReason::Stopped);
        self.after_loss(now_ms);
        self.act(now_ms, action);
    }

    /// Keeps an order and sends it as soon as its turn comes.
    pub fn enqueue(&mut self, now_ms: u64, order: Order) -> std::io::Result<()> {
        let step = Step { ordered: vec![order.message.clone()], ..Step::default() };
        self.store.commit(&step)?;
        self.outbox.enqueue(order);
        self.pump(now_ms);
        Ok(())
    }

    /// Says a frame if the connection is live; it is lost otherwise.
    pub fn say(&mut self, text: String) {
        if self.connection.state() == State::Live {
            self.effects.push_back(Effect::Say(text));
        }
    }

    /// Reports a position if the connection is live; it is lost otherwise.
    pub fn report(&mut self, frame: &ReceiptFrame) {
        if self.connection.state() == State::Live {
            self.tap(Tapped::Report(frame));
            self.effects.push_back(Effect::Say(wire::receipt(frame)));
        }
    }

    /// Names the people whose presence is wanted, now and after each reconnect.
    pub fn watch(&mut self, user_ids: Vec<UserId>) {
        self.stand("watch", wire::watch(&WatchFrame { tag: Tag, id: None, user_ids }));
    }

    /// Says what is on the screen, now and after each reconnect.
    pub fn focus(&mut self, chat_id: Option<ChatId>, visible: bool) {
        self.stand("focus", wire::focus(&FocusFrame { tag: Tag, id: None, chat_id, visible }));
    }

    /// The socket that `Dial` asked for is open.
    pub fn on_opened(&mut self, now_ms: u64) {
        let action = self.connection.on_opened(now_ms);
        if action.is_some() {
            self.n_opened += 1;
            self.is_open = true;
            self.tap(Tapped::Opened(self.n_opened));
        }
        self.act(now_ms, action);
    }

    /// The socket ended, or could not be opened.
    pub fn on_lost(&mut self, now_ms: u64, lost: Lost) {
        self.connection.on_lost(now_ms, lost);
        self.after_loss(now_ms);
    }

    /// Something came that was no text.
    pub fn on_life(&mut self, now_ms: u64) {
        self.connection.on_heard(now_ms);
    }

    /// A text came.
    pub fn on_text(&mut self, now_ms: u64, text: &str) {
        self.connection.on_heard(now_ms);
        match wire::decode(text) {
            Ok(frames) => self.on_frames(now_ms, &frames),
            Err(error) => {
                // A server that does not speak the protocol: come back later, from the cursor.
                tracing::warn!(%error, "a frame of the server cannot be read");
                self.hang_up(now_ms);
            }
        }
    }

    /// Frames came, in order; everything they change is kept as one step.
    pub fn on_frames(&mut self, now_ms: u64, frames: &[ServerFrame]) {
        let mut settled = Vec::new();
        let mut rest = Vec::new();
        for frame in frames {
            self.tap(Tapped::Frame(frame));
            match frame {
                ServerFrame::Welcome(welcome) => self.on_welcome(now_ms, welcome),
                ServerFrame::Reconnect(frame) => self.connection.on_reconnect(frame.after_ms),
                ServerFrame::Ack(ack) => settled.extend(self.outbox.on_ack(ack)),
                ServerFrame::Error(error) => settled.extend(self.outbox.on_error(now_ms, error)),
                ServerFrame::Receipt(_)
                | ServerFrame::Presence(_)
                | ServerFrame::Typing(_)
                | ServerFrame::Account(_)
                | ServerFrame::Head(_) => rest.push(Change::Frame(Box::new(frame.clone()))),
                _ => {}
            }
            self.sync.on_frame(now_ms, frame);
        }
        self.keep(now_ms, settled);
        self.effects.extend(rest.into_iter().map(Effect::Tell));
        self.pump(now_ms);
    }

    /// The answer to `Look`: the chat, or why there is none.
    pub fn on_chat(
        &mut self,
        now_ms: u64,
        chat_id: ChatId,
        answer: Result<&Chat, Option<ErrorCode>>,
    ) {
        match answer {
            Ok(chat) => self.sync.on_head(now_ms, &head_of(chat)),
            Err(Some(ErrorCode::NotFound)) => self.sync.on_absent(chat_id),
            Err(_) => self.sync.on_look_failed(now_ms, chat_id),
        }
        self.keep(now_ms, Vec::new());
        self.pump(now_ms);
    }

    /// Time passed.
    pub fn on_tick(&mut self, now_ms: u64) {
        let action = self.connection.on_tick(now_ms);
        if action == Some(connection::Action::HangUp) {
            self.after_loss(now_ms);
        }
        self.act(now_ms, action);
        if self.connection.state() == State::Live {
            self.sync.on_tick(now_ms);
            self.keep(now_ms, Vec::new());
            self.pump(now_ms);
        }
    }

    /// Returns when `on_tick` has something to do.
    pub fn deadline_ms(&self) -> Option<u64> {
        let mut deadline_ms = self.connection.deadline_ms();
        if self.connection.state() == State::Live {
            for other in [self.sync.deadline_ms(), self.outbox.deadline_ms()] {
                deadline_ms = match (deadline_ms, other) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
        }
        deadline_ms
    }

    /// Returns the next thing to do outside.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns where the connection stands.
    pub const fn state(&self) -> State {
        self.connection.state()
    }

    /// Returns how far a chat is applied, and how far it is known to reach.
    pub fn position(&self, chat_id: ChatId) -> Option<Position> {
        self.sync.position(chat_id)
    }

    /// Tells whether every order is settled and every known chat applied.
    pub fn is_quiet(&self) -> bool {
        self.outbox.is_empty() && self.sync.is_caught_up()
    }

    /// Returns what was seen so far.
    pub const fn counts(&self) -> sync::Counts {
        self.sync.counts()
    }

    /// Returns how many orders are not settled.
    pub fn n_orders(&self) -> usize {
        self.outbox.len()
    }

    fn on_welcome(&mut self, now_ms: u64, welcome: &Welcome) {
        self.connection.on_welcome(now_ms, welcome.heartbeat_ms);
        self.tell_state();
        self.effects.push_back(Effect::Tell(Change::Welcome(Box::new(Greeting {
            user_id: welcome.user_id,
            limits: welcome.limits.clone(),
            features: welcome.features.clone(),
        }))));
        self.effects.extend(self.standing.values().cloned().map(Effect::Say));
    }

    /// Keeps what changed as one step, then tells of it and reports what was stored.
    fn keep(&mut self, now_ms: u64, settled: Vec<Settled>) {
        let mut step = self.sync.take_step();
        step.settled = settled
            .iter()
            .map(|settled| match settled {
                Settled::Acked { client_id, .. } | Settled::Refused { client_id, .. } => {
                    client_id.clone()
                }
            })
            .collect();
        if step.is_empty() {
            return;
        }
        if let Err(error) = self.store.commit(&step) {
            // Nothing may be claimed as delivered any more.
            tracing::error!(%error, "the store of the client failed");
            let action = self.connection.close(now_ms, ClosedReason::Store);
            self.after_loss(now_ms);
            self.act(now_ms, action);
            return;
        }
        if self.options.receipts == Receipts::Delivered {
            self.sync.on_kept(now_ms, &step);
        }
        if step.reset {
            self.effects.push_back(Effect::Tell(Change::Reset));
        }
        let events = step.events.into_iter().map(|event| Change::Event(Box::new(event)));
        self.effects.extend(events.map(Effect::Tell));
        self.effects.extend(settled.into_iter().map(Change::Settled).map(Effect::Tell));
    }

    /// Says what is due on a live connection.
    fn pump(&mut self, now_ms: u64) {
        for action in self.sync.take_actions() {
            match action {
                sync::Action::Look(chat_id) => self.effects.push_back(Effect::Look(chat_id)),
                sync::Action::StartOver => self.hang_up(now_ms),
                sync::Action::Page(frame) => self.say(wire::sync(&frame)),
                sync::Action::Report(frame) => {
                    if self.options.receipts == Receipts::Delivered {
                        self.report(&frame);
                    }
                }
            }
        }
        if self.connection.state() == State::Live {
            let due = self.outbox.due(now_ms);
            self.effects.extend(due.iter().map(wire::send).map(Effect::Say));
        }
    }

    fn act(&mut self, now_ms: u64, action: Option<connection::Action>) {
        match action {
            None => {}
            Some(connection::Action::Dial) => self.effects.push_back(Effect::Dial),
            Some(connection::Action::HangUp) => self.effects.push_back(Effect::HangUp),
            Some(connection::Action::Ping) => {
                self.effects.push_back(Effect::Say(wire::ping(&PingFrame::default())));
            }
            Some(connection::Action::Hello) => {
                self.effects.push_back(Effect::Say(wire::hello(&Hello {
                    id: None,
                    v: 1,
                    token: Some(self.options.token.clone()),
                    ticket: None,
                    cursor: self.sync.cursor().map(str::to_owned),
                    device_name: self.options.device_name.clone(),
                })));
            }
        }
        self.tell_state();
        if self.connection.state() == State::Live {
            self.pump(now_ms);
        }
    }

    fn hang_up(&mut self, now_ms: u64) {
        self.connection.on_lost(now_ms, Lost::default());
        self.after_loss(now_ms);
        self.effects.push_back(Effect::HangUp);
    }

    fn after_loss(&mut self, now_ms: u64) {
        self.outbox.on_lost();
        self.sync.on_lost(now_ms);
        if std::mem::take(&mut self.is_open) {
            self.tap(Tapped::Lost);
        }
        self.tell_state();
    }

    fn stand(&mut self, name: &'static str, text: String) {
        self.standing.insert(name, text.clone());
        self.say(text);
    }

    fn tell_state(&mut self) {
        let state = self.connection.state();
        if state != self.told {
            self.told = state;
            self.effects.push_back(Effect::Tell(Change::State(state)));
        }
    }

    fn tap(&mut self, tapped: Tapped<'_>) {
        if let Some(tap) = &mut self.options.tap {
            tap(tapped);
        }
    }
}

fn head_of(chat: &Chat) -> parlor_proto::chats::Head {
    parlor_proto::chats::Head {
        chat_id: chat.chat_id,
        seq: chat.head_seq,
        unread: chat.unread,
        mentions: chat.mentions,
        delivered_seq: chat.delivered_seq,
        read_seq: chat.read_seq,
    }
}
