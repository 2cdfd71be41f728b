//! A person's device that writes down everything it does and sees, and the sends over HTTP beside it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use parlor_client::{
    Change, Changes, Error, MemoryStore, Options, Outcome, Random, Receipts, Replica, Settled,
    Tapped, ids::ClientIds, runtime,
};
use parlor_proto::{
    ChatId, ClientId, Event, Seq, UserId,
    frame::ServerFrame,
    messages::{MessageType, SendMessage},
    receipts::ReceiptKind,
};
use tokio::sync::{oneshot, watch};

use crate::{
    clock,
    people::Person,
    record::{
        ApplyArgs, DeliverArgs, GapArgs, Op, Phase, PositionArgs, ReceiptArgs, Recorder, Seen,
        SendArgs, SendResult, Way, Who,
    },
};

/// How a send ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the log at this position.
    Ok(Seq),
    /// It may be in the log.
    Unknown,
    /// It is not in the log and never will be.
    Refused,
}

type Waiting = Arc<Mutex<HashMap<String, (u64, oneshot::Sender<Sent>)>>>;

/// One device on one socket, with everything recorded.
#[derive(Debug)]
pub struct Device {
    /// Speaks for the device.
    pub replica: Replica,
    who: Who,
    recorder: Arc<Recorder>,
    waiting: Waiting,
    ids: Mutex<ClientIds>,
    listener: tokio::task::JoinHandle<()>,
}

impl Device {
    /// Connects a device whose name is new in the recording.
    pub fn start(
        person: &Person,
        name: &str,
        recorder: &Arc<Recorder>,
        random: &mut Random,
    ) -> anyhow::Result<Self> {
        Self::start_with(person, name, recorder, random, MemoryStore::new())
    }

    /// Connects a device that has kept something.
    pub fn start_with(
        person: &Person,
        name: &str,
        recorder: &Arc<Recorder>,
        random: &mut Random,
        store: MemoryStore,
    ) -> anyhow::Result<Self> {
        let who = Who::device(person.user_id, name);
        let tap = tap(who.clone(), Arc::clone(recorder), 0);
        let options = Options {
            device_name: Some(name.to_owned()),
            seed: Some(random.bits()),
            local: None,
            tap: Some(Box::new(tap)),
            receipts: Receipts::Delivered,
        };
        let (replica, changes) = Replica::start(&person.client, store, options)?;
        let waiting = Waiting::default();
        let listener = listen(changes, who.clone(), Arc::clone(recorder), Arc::clone(&waiting));
        Ok(Self {
            replica,
            who,
            recorder: Arc::clone(recorder),
            waiting,
            ids: Mutex::new(ClientIds::new(random.fork())),
            listener: runtime::spawn(listener),
        })
    }

    /// Sends a text and waits until it is settled; the outbox repeats it as often as needed.
    pub async fn send(&self, chat_id: ChatId, text: String, lane: &str) -> anyhow::Result<Sent> {
        let key = {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.next(clock::wall_ms())
        };
        let message = message(chat_id, text, key.clone());
        let op = invocation(&message, &key, Some(lane));
        let op_id = self.recorder.invoke(&self.who, op);
        let (settle, settled) = oneshot::channel();
        self.lock().insert(key.as_str().to_owned(), (op_id, settle));
        self.replica.send(message).await?;
        Ok(settled.await.unwrap_or(Sent::Unknown))
    }

    /// Waits until every order is settled and these heads are applied; tells whether they were.
    ///
    /// The heads come from the server: a client that heard of nothing new is quiet, but not level.
    pub async fn settle(&self, heads: &[(ChatId, Seq)], limit: Duration) -> anyhow::Result<bool> {
        let begin = clock::now();
        while begin.elapsed() < limit {
            let mut is_level = self.replica.report().await?.n_orders == 0;
            for (chat_id, head) in heads {
                let position = self.replica.position(*chat_id).await?;
                is_level &= position.is_some_and(|position| position.have >= *head);
            }
            if is_level {
                return Ok(true);
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
        Ok(false)
    }

    /// Notes where the device stands in a chat.
    pub async fn note_position(&self, chat_id: ChatId) -> anyhow::Result<()> {
        let position = self.replica.position(chat_id).await?;
        let (have_seq, head_seq) = position.map_or_else(Default::default, |at| (at.have, at.head));
        let args = PositionArgs { chat_id, have_seq, head_seq };
        self.recorder.note(&self.who, Op::Position { args });
        Ok(())
    }

    /// Ends the device; sends without an answer end as unknown.
    pub async fn stop(self) {
        self.replica.stop().await;
        if let Err(error) = self.listener.await {
            tracing::error!(%error, "a listener ended badly");
        }
        let open: Vec<_> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.drain().map(|(_, (op_id, _))| op_id).collect()
        };
        for op_id in open {
            let error = Some("the device ended".to_owned());
            let op = Op::Send { args: None, result: None, error };
            self.recorder.end(&self.who, op_id, Phase::Info, op);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, oneshot::Sender<Sent>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes every frame down as it came. A device that was started anew goes on counting its sockets
/// after those that it `had`.
pub fn tap(who: Who, recorder: Arc<Recorder>, had: u64) -> impl FnMut(Tapped<'_>) + Send {
    let mut connection = had;
    let note_event = {
        let (who, recorder) = (who.clone(), Arc::clone(&recorder));
        move |connection: u64, path: Way, event: &Event| {
            let args = DeliverArgs { connection, chat_id: event.chat_id, path };
            recorder.note(&who, Op::Deliver { args, result: Seen::of_event(event) });
        }
    };
    let me = who.client;
    move |tapped| match tapped {
        Tapped::Opened(number) => connection = had + number,
        Tapped::Frame(ServerFrame::Event(event)) => note_event(connection, Way::Live, event),
        Tapped::Frame(ServerFrame::Events(page)) => {
            for event in &page.events {
                note_event(connection, Way::Page, event);
            }
        }
        Tapped::Frame(ServerFrame::Gap(gap)) => {
            let args = GapArgs {
                connection,
                chat_id: gap.chat_id,
                after_seq: gap.after_seq,
                head_seq: gap.head_seq,
            };
            recorder.note(&who, Op::Gap { args });
        }
        Tapped::Frame(ServerFrame::Receipt(receipt)) => {
            let args = ReceiptArgs {
                chat_id: receipt.chat_id,
                user_id: receipt.user_id,
                status: receipt.status,
                seq: receipt.seq,
                connection,
            };
            recorder.note(&who, Op::Receipt { args });
        }
        Tapped::Report(frame) => {
            if let (Some(user_id), Some(seq)) = (me, frame.seq) {
                let (chat_id, status) = (frame.chat_id, frame.status);
                let args = ReceiptArgs { chat_id, user_id, status, seq, connection };
                recorder.note(&who, Op::Report { args });
            }
        }
        Tapped::Frame(_) | Tapped::Lost => {}
    }
}

async fn listen(mut changes: Changes, who: Who, recorder: Arc<Recorder>, waiting: Waiting) {
    let mut told = Told::new(who, recorder);
    while let Some(change) = changes.next().await {
        if let Change::Settled(settled) = &change {
            let key = key_of(settled).as_str();
            let waiter = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            if let Some((op_id, waiter)) = waiter
                && waiter.send(told.settled(op_id, settled)).is_err()
            {
                tracing::trace!("nobody waits for this send any more");
            }
        }
        told.on_change(&change);
    }
    told.finish();
}

/// Returns the key of an order.
pub const fn key_of(settled: &Settled) -> &ClientId {
    match settled {
        Settled::Acked { client_id, .. } | Settled::Refused { client_id, .. } => client_id,
    }
}

/// Writes down what an application is told.
#[derive(Debug)]
pub struct Told {
    who: Who,
    recorder: Arc<Recorder>,
    /// Events that follow each other are one line.
    runs: BTreeMap<ChatId, (Seq, Seq)>,
}

impl Told {
    /// Begins with nothing told.
    pub const fn new(who: Who, recorder: Arc<Recorder>) -> Self {
        Self { who, recorder, runs: BTreeMap::new() }
    }

    /// Writes down the end of a send.
    pub fn settled(&mut self, op_id: u64, settled: &Settled) -> Sent {
        self.finish();
        let (phase, result, error, sent) = match settled {
            Settled::Acked { message_id, seq, .. } => {
                let result = Some(SendResult { message_id: *message_id, seq: *seq });
                (Phase::Ok, result, None, Sent::Ok(*seq))
            }
            Settled::Refused { error, .. } => {
                let error = Some(format!("{}: {}", error.code, error.detail));
                (Phase::Fail, None, error, Sent::Refused)
            }
        };
        self.recorder.end(&self.who, op_id, phase, Op::Send { args: None, result, error });
        sent
    }

    /// Writes down what the application is told.
    pub fn on_change(&mut self, change: &Change) {
        let Change::Event(event) = change else { return self.finish() };
        let (chat_id, seq) = (event.chat_id, event.seq);
        // A run grows while nothing else happens; a step back or a skip ends it.
        match self.runs.get_mut(&chat_id) {
            Some((_, to)) if seq == to.next() => *to = seq,
            Some(_) => {
                self.finish();
                self.runs.insert(chat_id, (seq, seq));
            }
            None => drop(self.runs.insert(chat_id, (seq, seq))),
        }
        if self.runs.len() > 64 {
            self.finish();
        }
    }

    /// Writes down what is not written yet.
    pub fn finish(&mut self) {
        for (chat_id, (from_seq, to_seq)) in std::mem::take(&mut self.runs) {
            let args = ApplyArgs { chat_id, from_seq, to_seq };
            self.recorder.note(&self.who, Op::Apply { args });
        }
    }
}

/// Sends a text over HTTP under a key until it is settled; each attempt is an operation.
pub async fn send_http(
    person: &Person,
    device: &str,
    recorder: &Recorder,
    message: &SendMessage,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Sent> {
    let key = message.client_id.clone().context("a recorded send has a key")?;
    loop {
        let sent = attempt_http(person, device, recorder, message, &key).await;
        if sent != Sent::Unknown {
            return Ok(sent);
        }
        // One more attempt is made after the stop: with the server healed it settles the key.
        let was_stopped = *stop.borrow_and_update();
        clock::sleep(Duration::from_millis(50)).await;
        if was_stopped {
            return Ok(attempt_http(person, device, recorder, message, &key).await);
        }
    }
}

/// Sends once over HTTP.
pub async fn attempt_http(
    person: &Person,
    device: &str,
    recorder: &Recorder,
    message: &SendMessage,
    key: &ClientId,
) -> Sent {
    let who = Who::device(person.user_id, device);
    let op_id = recorder.invoke(&who, invocation(message, key, None));
    let answer = person.client.send_message(message).await;
    end_http(recorder, &who, op_id, answer.map(|message| (message.message_id, message.seq)))
}

/// Notes the end of a send over HTTP.
pub fn end_http(
    recorder: &Recorder,
    who: &Who,
    op_id: u64,
    answer: Result<(parlor_proto::MessageId, Seq), Error>,
) -> Sent {
    let (phase, result, error, sent) = match answer {
        Ok((message_id, seq)) => {
            (Phase::Ok, Some(SendResult { message_id, seq }), None, Sent::Ok(seq))
        }
        // Told to wait: refused for now, but the caller will come again with the same key.
        Err(error) if error.may_retry() || error.outcome() == Outcome::Unknown => {
            (Phase::Info, None, Some(error.to_string()), Sent::Unknown)
        }
        Err(error) => (Phase::Fail, None, Some(error.to_string()), Sent::Refused),
    };
    recorder.end(who, op_id, phase, Op::Send { args: None, result, error });
    sent
}

/// Reports a position over HTTP, with the report noted first.
pub async fn report_http(
    person: &Person,
    device: &str,
    recorder: &Recorder,
    event: (ChatId, parlor_proto::MessageId, Seq),
    status: ReceiptKind,
) -> Result<(), Error> {
    let (chat_id, message_id, seq) = event;
    let user_id: UserId = person.user_id;
    let args = ReceiptArgs { chat_id, user_id, status, seq, connection: 0 };
    recorder.note(&Who::device(user_id, device), Op::Report { args });
    person.client.put_status(message_id, status).await.map(|_| ())
}

/// Puts a text and its key together.
pub fn message(chat_id: ChatId, text: String, key: ClientId) -> SendMessage {
    SendMessage {
        chat_id,
        message: text,
        kind: MessageType::Text,
        attachments: Vec::new(),
        client_id: Some(key),
        reply_to: None,
    }
}

/// The invocation of a send, for the recording.
pub fn invocation(message: &SendMessage, key: &ClientId, lane: Option<&str>) -> Op {
    let args = SendArgs {
        chat_id: message.chat_id,
        key: key.as_str().to_owned(),
        text: message.message.clone(),
        lane: lane.map(str::to_owned),
        conflicts: false,
    };
    Op::Send { args: Some(args), result: None, error: None }
}
