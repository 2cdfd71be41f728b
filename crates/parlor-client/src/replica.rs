//! One device kept in step with the server by a real socket: the driver of `session.rs`.
//!
//! A task of its own dials, reads, writes and waits; the application holds a [`Replica`] to speak
//! and [`Changes`] to listen. Every decision is made in `session.rs`; here is only the doing.

use std::{collections::VecDeque, future::Future, io, net::IpAddr, pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use parlor_proto::{
    ChatId, ClientId, MessageId, Seq, UserId,
    chats::Chat,
    frame::{ReceiptFrame, Tag, TypingFrame},
    messages::{MessageType, SendMessage},
    receipts::ReceiptKind,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    client::Client,
    connection::{ClosedReason, Lost, State},
    error::Error,
    ids::ClientIds,
    outbox::Order,
    random::Random,
    runtime::{self, Monotonic},
    session::{Change, Effect, Receipts, Session, SessionOptions, Tap},
    socket::{DialError, Heard, Socket, SocketOptions},
    store::{Position, Store},
    sync::Counts,
    wire,
};

/// Changes that wait for the application; above it the socket is not read.
const WAITING_CHANGES: usize = 1_024;
/// Orders and questions of the application that wait for the task.
const WAITING_COMMANDS: usize = 256;
/// How long a write may take before the socket counts as lost.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// How a replica is set up.
pub struct Options {
    /// A name for the list of devices.
    pub device_name: Option<String>,
    /// Decides jitter and keys; taken from the system without it.
    pub seed: Option<u64>,
    /// The address to connect from; the system chooses without it.
    pub local: Option<IpAddr>,
    /// Sees every frame as it came.
    pub tap: Option<Tap>,
    /// Whether events are reported as delivered once the store has them.
    pub receipts: Receipts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device_name: None,
            seed: None,
            local: None,
            tap: None,
            receipts: Receipts::Delivered,
        }
    }
}

/// Why a replica did not take an order.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The client has no token.
    #[error("the client is not signed in")]
    SignedOut,
    /// The address of the socket cannot be made.
    #[error(transparent)]
    Client(#[from] Error),
    /// The store failed: the order was not kept.
    #[error("the store failed")]
    Store(#[from] io::Error),
    /// The replica has ended.
    #[error("the replica has ended")]
    Ended,
}

/// What a replica knows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Where the connection stands.
    pub state: State,
    /// Every order is settled, and every known chat applied up to its known head.
    pub is_quiet: bool,
    /// Orders that are not settled.
    pub n_orders: usize,
    /// What was seen so far.
    pub counts: Counts,
}

enum Command {
    Enqueue(SendMessage, oneshot::Sender<Result<ClientId, io::Error>>),
    Say(String),
    Watch(Vec<UserId>),
    Focus(Option<ChatId>, bool),
    ConnectNow,
    Report(ReceiptFrame),
    Describe(oneshot::Sender<Report>),
    Position(ChatId, oneshot::Sender<Option<Position>>),
    Stop,
}

/// The speaking side of a device. Clones speak for the same device.
#[derive(Debug, Clone)]
pub struct Replica {
    commands: mpsc::Sender<Command>,
}

/// The listening side of a device; it ends when the replica does.
#[derive(Debug)]
pub struct Changes {
    changes: mpsc::Receiver<Change>,
    task: tokio::task::JoinHandle<()>,
}

impl Replica {
    /// Takes up what the store has kept, and connects. Must be called within a tokio runtime.
    ///
    /// The device ends when it is stopped, or when all its speakers and the listener are gone.
    pub fn start(
        client: &Client,
        store: impl Store,
        options: Options,
    ) -> Result<(Self, Changes), ReplicaError> {
        let token = client.token().ok_or(ReplicaError::SignedOut)?.to_owned();
        let mut random = options.seed.map_or_else(runtime::entropy, Random::from_seed);
        let ids = ClientIds::new(random.fork());
        let session = Session::new(
            store,
            SessionOptions {
                token,
                device_name: options.device_name,
                random,
                tap: options.tap,
                receipts: options.receipts,
            },
        )?;
        let (commands, command_source) = mpsc::channel(WAITING_COMMANDS);
        let (change_sink, changes) = mpsc::channel(WAITING_CHANGES);
        let driver = Driver {
            url: client.socket_url()?,
            socket_options: SocketOptions { local: options.local },
            client: client.clone(),
            session,
            ids,
            clock: Monotonic::start(),
            link: Link::Down,
            looks: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            commands: command_source,
            changes: change_sink,
        };
        let task = runtime::spawn(driver.run());
        Ok((Self { commands }, Changes { changes, task }))
    }

    /// Keeps a message in the outbox and sends it until it is settled; returns its key.
    pub async fn send(&self, message: SendMessage) -> Result<ClientId, ReplicaError> {
        let (answer, kept) = oneshot::channel();
        self.command(Command::Enqueue(message, answer)).await?;
        Ok(kept.await.map_err(|_| ReplicaError::Ended)??)
    }

    /// Sends a text; see `send`.
    pub async fn send_text(&self, chat_id: ChatId, text: &str) -> Result<ClientId, ReplicaError> {
        self.send(SendMessage {
            chat_id,
            message: text.to_owned(),
            kind: MessageType::Text,
            attachments: Vec::new(),
            client_id: None,
            reply_to: None,
        })
        .await
    }

    /// Reports everything up to a position as read, if the connection is live.
    pub async fn mark_read(&self, chat_id: ChatId, seq: Seq) -> Result<(), ReplicaError> {
        self.report_seq(chat_id, ReceiptKind::Read, Some(seq), None).await
    }

    /// Reports a message, and all before it, as read, if the connection is live.
    pub async fn mark_message_read(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
    ) -> Result<(), ReplicaError> {
        self.report_seq(chat_id, ReceiptKind::Read, None, Some(message_id)).await
    }

    /// Says that the user types, if the connection is live.
    pub async fn start_typing(&self, chat_id: ChatId) -> Result<(), ReplicaError> {
        self.say_typing(chat_id, true).await
    }

    /// Says that the user stopped typing, if the connection is live.
    pub async fn stop_typing(&self, chat_id: ChatId) -> Result<(), ReplicaError> {
        self.say_typing(chat_id, false).await
    }

    /// Names the people whose presence is wanted, now and after each reconnect.
    pub async fn watch(&self, user_ids: Vec<UserId>) -> Result<(), ReplicaError> {
        self.command(Command::Watch(user_ids)).await
    }

    /// Says which chat is on a visible screen, now and after each reconnect.
    pub async fn focus(&self, chat_id: ChatId) -> Result<(), ReplicaError> {
        self.command(Command::Focus(Some(chat_id), true)).await
    }

    /// Says that no chat is on a visible screen, now and after each reconnect.
    pub async fn unfocus(&self) -> Result<(), ReplicaError> {
        self.command(Command::Focus(None, false)).await
    }

    /// Connects at once instead of waiting; also leaves a closed state.
    pub async fn connect_now(&self) -> Result<(), ReplicaError> {
        self.command(Command::ConnectNow).await
    }

    /// Returns what the replica knows of itself.
    pub async fn report(&self) -> Result<Report, ReplicaError> {
        let (answer, report) = oneshot::channel();
        self.command(Command::Describe(answer)).await?;
        report.await.map_err(|_| ReplicaError::Ended)
    }

    /// Returns how far a chat is applied, and how far it is known to reach.
    pub async fn position(&self, chat_id: ChatId) -> Result<Option<Position>, ReplicaError> {
        let (answer, position) = oneshot::channel();
        self.command(Command::Position(chat_id, answer)).await?;
        position.await.map_err(|_| ReplicaError::Ended)
    }

    /// Closes the socket and ends the replica; what the store kept stays.
    pub async fn stop(&self) {
        if self.command(Command::Stop).await.is_ok() {
            self.commands.closed().await;
        }
    }

    async fn report_seq(
        &self,
        chat_id: ChatId,
        status: ReceiptKind,
        seq: Option<Seq>,
        message_id: Option<MessageId>,
    ) -> Result<(), ReplicaError> {
        let frame = ReceiptFrame { tag: Tag, id: None, chat_id, status, seq, message_id };
        self.command(Command::Report(frame)).await
    }

    async fn say_typing(&self, chat_id: ChatId, active: bool) -> Result<(), ReplicaError> {
        let frame = TypingFrame { tag: Tag, id: None, chat_id, active };
        self.command(Command::Say(wire::typing(&frame))).await
    }

    async fn command(&self, command: Command) -> Result<(), ReplicaError> {
        self.commands.send(command).await.map_err(|_| ReplicaError::Ended)
    }
}

impl Changes {
    /// Waits for the next change; nothing when the replica has ended. Safe to cancel.
    ///
    /// An application that does not listen is not lost: the socket waits, and the server folds
    /// what it cannot deliver into gaps.
    pub async fn next(&mut self) -> Option<Change> {
        let change = self.changes.recv().await;
        if change.is_none()
            && let Some(Err(error)) = (&mut self.task).now_or_never()
            && error.is_panic()
        {
            tracing::error!(%error, "the task of a replica panicked");
        }
        change
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<Socket, DialError>> + Send>>;
type Look = Pin<Box<dyn Future<Output = (ChatId, Result<Chat, Error>)> + Send>>;

enum Link {
    Down,
    Dialling(Dialling),
    Up(Box<Socket>),
}

enum Woken {
    Command(Option<Command>),
    Dialled(Result<Socket, DialError>),
    Heard(Heard),
    Looked(ChatId, Result<Chat, Error>),
    Told,
    Tick,
}

struct Driver<S> {
    url: String,
    socket_options: SocketOptions,
    client: Client,
    session: Session<S>,
    ids: ClientIds,
    clock: Monotonic,
    link: Link,
    looks: FuturesUnordered<Look>,
    /// Changes that the application has not taken yet.
    waiting: VecDeque<Change>,
    commands: mpsc::Receiver<Command>,
    changes: mpsc::Sender<Change>,
}

impl<S: Store> Driver<S> {
    async fn run(mut self) {
        self.session.start(self.clock.now_ms());
        loop {
            self.perform().await;
            if self.session.state() == State::Closed(ClosedReason::Stopped) {
                // What does not fit any more is kept by the store.
                while let Some(change) = self.waiting.pop_front()
                    && self.changes.try_send(change).is_ok()
                {}
                return;
            }
            let woken = self.wait().await;
            let now_ms = self.clock.now_ms();
            match woken {
                Woken::Command(command) => self.on_command(now_ms, command),
                Woken::Dialled(Ok(socket)) => {
                    self.link = Link::Up(Box::new(socket));
                    self.session.on_opened(now_ms);
                }
                Woken::Dialled(Err(error)) => {
                    tracing::debug!(%error, "the server cannot be reached");
                    self.link = Link::Down;
                    let retry_after_ms = match error {
                        DialError::Refused { retry_after, .. } => {
                            retry_after.and_then(|after| u64::try_from(after.as_millis()).ok())
                        }
                        _ => None,
                    };
                    self.session.on_lost(now_ms, Lost { code: None, retry_after_ms });
                }
                Woken::Heard(Heard::Text(text)) => self.session.on_text(now_ms, &text),
                Woken::Heard(Heard::Life) => self.session.on_life(now_ms),
                Woken::Heard(Heard::Closed(code)) => {
                    self.link = Link::Down;
                    self.session.on_lost(now_ms, Lost { code, retry_after_ms: None });
                }
                Woken::Looked(chat_id, answer) => {
                    let answer = answer.as_ref().map_err(Error::code);
                    self.session.on_chat(now_ms, chat_id, answer);
                }
                Woken::Told => {}
                Woken::Tick => self.session.on_tick(now_ms),
            }
        }
    }

    fn on_command(&mut self, now_ms: u64, command: Option<Command>) {
        match command {
            Some(Command::Enqueue(message, answer)) => {
                let client_id =
                    message.client_id.clone().unwrap_or_else(|| self.ids.next(runtime::wall_ms()));
                let order = Order::new(client_id.clone(), message);
                let kept = self.session.enqueue(now_ms, order).map(|()| client_id);
                give(answer, kept);
            }
            Some(Command::Say(text)) => self.session.say(text),
            Some(Command::Watch(user_ids)) => self.session.watch(user_ids),
            Some(Command::Focus(chat_id, visible)) => self.session.focus(chat_id, visible),
            Some(Command::ConnectNow) => self.session.start(now_ms),
            Some(Command::Report(frame)) => self.session.report(&frame),
            Some(Command::Describe(answer)) => give(
                answer,
                Report {
                    state: self.session.state(),
                    is_quiet: self.session.is_quiet(),
                    n_orders: self.session.n_orders(),
                    counts: self.session.counts(),
                },
            ),
            Some(Command::Position(chat_id, answer)) => {
                give(answer, self.session.position(chat_id));
            }
            Some(Command::Stop) => self.session.close(now_ms),
            // Nobody can speak any more; if nobody listens either, the device has ended.
            None => {
                if self.changes.is_closed() {
                    self.session.close(now_ms);
                }
            }
        }
    }

    /// Does what the session asks for.
    async fn perform(&mut self) {
        let mut has_said = false;
        while let Some(effect) = self.session.next_effect() {
            match effect {
                Effect::Dial => {
                    let (url, options) = (self.url.clone(), self.socket_options);
                    self.link =
                        Link::Dialling(Box::pin(
                            async move { Socket::connect(&url, options).await },
                        ));
                }
                Effect::Say(text) => {
                    if let Link::Up(socket) = &mut self.link {
                        has_said = true;
                        let said = runtime::within(WRITE_LIMIT, socket.feed(text)).await;
                        self.check_write(said);
                    }
                }
                Effect::HangUp => self.hang_up().await,
                Effect::Look(chat_id) => {
                    let client = self.client.clone();
                    self.looks.push(Box::pin(async move { (chat_id, client.chat(chat_id).await) }));
                }
                Effect::Tell(change) => self.waiting.push_back(change),
            }
        }
        if has_said && let Link::Up(socket) = &mut self.link {
            let flushed = runtime::within(WRITE_LIMIT, socket.flush()).await;
            self.check_write(flushed);
        }
    }

    fn check_write(&mut self, written: Option<Result<(), DialError>>) {
        if !matches!(written, Some(Ok(()))) {
            self.link = Link::Down;
            self.session.on_lost(self.clock.now_ms(), Lost::default());
        }
    }

    async fn hang_up(&mut self) {
        if let Link::Up(socket) = std::mem::replace(&mut self.link, Link::Down) {
            // A peer that does not take the goodbye is not waited for.
            runtime::within(Duration::from_millis(200), socket.close()).await;
        }
    }

    async fn wait(&mut self) -> Woken {
        let now_ms = self.clock.now_ms();
        let sleep_ms = self.session.deadline_ms().map(|at_ms| at_ms.saturating_sub(now_ms));
        let may_read = self.waiting.len() < WAITING_CHANGES;
        let can_command = !(self.commands.is_closed() && self.commands.is_empty());
        tokio::select! {
            command = self.commands.recv(), if can_command => Woken::Command(command),
            permit = self.changes.reserve(), if !self.waiting.is_empty() => {
                match (permit, self.waiting.pop_front()) {
                    (Ok(permit), Some(change)) => permit.send(change),
                    // Nobody listens: changes are kept by the store and need no other reader.
                    _ => self.waiting.clear(),
                }
                Woken::Told
            }
            woken = on_link(&mut self.link), if may_read => woken,
            Some((chat_id, answer)) = self.looks.next() => Woken::Looked(chat_id, answer),
            () = runtime::sleep(Duration::from_millis(sleep_ms.unwrap_or(0))),
                if sleep_ms.is_some() => Woken::Tick,
            // The last speaker went before the listener did.
            () = self.changes.closed(), if !can_command => Woken::Command(None),
        }
    }
}

async fn on_link(link: &mut Link) -> Woken {
    match link {
        Link::Down => std::future::pending().await,
        Link::Dialling(dialling) => Woken::Dialled(dialling.await),
        Link::Up(socket) => Woken::Heard(socket.next().await),
    }
}

/// Answers whoever asked; if they have gone, nobody misses it.
fn give<T>(asker: oneshot::Sender<T>, answer: T) {
    if asker.send(answer).is_err() {
        tracing::trace!("the asker of a command has gone");
    }
}
