//! Group commit: queue → one batch → answers. The same code in production and in simulation.
//!
//! One task takes everything that queued while the last batch was written, hands it to the log as
//! one durable transaction, then answers and tells everybody, in order. There is no timer: a lone
//! message commits at once, a burst forms batches by itself (promises 2.2).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parlor_proto::{
    ChatId, EventBody,
    frame::{AccountEvent, AccountEventBody},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Ports,
    access::{self, Act},
    chats::ChatCache,
    clock::{Ids, first_id_of},
    delivery,
    error::{Error, Result},
    planted::is_planted,
    ports::{
        EngineError, EngineResult,
        bus::Bus,
        clock::Clock,
        messages::{Append, Appended, Expects, Messages, NewEvent, Stored},
    },
    stats::{self, Stats},
};

/// Units of one batch.
const BATCH_UNITS: usize = 512;
/// Bytes of text in one batch.
const BATCH_BYTES: usize = 1024 * 1024;
/// Units that may wait; what comes beyond is refused, not served late (promises P17).
const QUEUE_UNITS: usize = 16 * 1024;
/// How often a unit is decided anew when the membership keeps moving under it.
const RECHECKS: u32 = 5;

/// Pause before the log is asked again what became of a batch of unknown outcome.
const DOUBT_PAUSE: Duration = Duration::from_millis(500);
/// Events told of one chat when its doubt is over; a reader finds more by the gap.
const DOUBT_EVENTS: u32 = 2 * BATCH_UNITS as u32;

/// Called once with the outcome, before anybody is told of the event. Must not block.
pub type Done = Box<dyn FnOnce(Result<Appended>) + Send>;

/// A unit on its way into the log.
struct Request {
    append: Append,
    /// What the sender was found to be allowed to do; asked again if the membership moved.
    act: Act,
    done: Done,
    rechecks: u32,
}

/// The door to the queue.
pub struct Appender {
    queue: mpsc::Sender<Request>,
    /// See [`Appender::told_ms`].
    told_ms: Arc<AtomicU64>,
    stats: Arc<Stats>,
}

impl Appender {
    /// Starts the task; it ends when the last door is dropped.
    pub fn start(ports: &Ports, chats: ChatCache, stats: Arc<Stats>) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE_UNITS);
        // What was stored before the start is in the log for whoever resumes.
        let told_ms = Arc::new(AtomicU64::new(ports.ids.passed_ms()));
        let task = Task {
            log: ports.messages.clone(),
            bus: ports.bus.clone(),
            clock: ports.clock.clone(),
            ids: ports.ids.clone(),
            chats,
            told_ms: told_ms.clone(),
            doubts: BTreeMap::new(),
            stats: stats.clone(),
        };
        ports.spawn.spawn("appender", Box::pin(task.run(requests)));
        Self { queue, told_ms, stats }
    }

    /// Queues a unit; `done` gets its outcome. Units of one caller keep their order.
    pub fn enqueue(&self, append: Append, act: Act, done: Done) {
        let request = Request { append, act, done, rechecks: 0 };
        if let Err(refused) = self.queue.try_send(request) {
            stats::add(&self.stats.appends_overflowed, 1);
            (refused.into_inner().done)(Err(Error::unavailable()));
        }
    }

    /// Queues a unit and waits for its outcome.
    pub async fn append(&self, append: Append, act: Act) -> Result<Appended> {
        let (answer, outcome) = oneshot::channel();
        let done = move |result| {
            // The caller may have gone away; the event is stored all the same.
            drop(answer.send(result));
        };
        self.enqueue(append, act, Box::new(done));
        // Without an answer the task is gone: nobody knows whether the unit was written.
        outcome.await.unwrap_or(Err(Error::unavailable()))
    }

    /// Returns a position in time: every event with lower milliseconds in its id that was stored
    /// since the start was told to the bus, and no id below it will be made any more.
    pub fn told_ms(&self) -> u64 {
        self.told_ms.load(Ordering::Acquire)
    }
}

struct Task {
    log: Arc<dyn Messages>,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    ids: Ids,
    chats: ChatCache,
    told_ms: Arc<AtomicU64>,
    /// Chats with a batch of unknown outcome, and the time above which its ids lie. What of it is in
    /// the log was told to nobody yet.
    doubts: BTreeMap<ChatId, u64>,
    stats: Arc<Stats>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let request = if self.doubts.is_empty() {
                    requests.recv().await
                } else {
                    tokio::select! {
                        biased;
                        request = requests.recv() => request,
                        () = self.clock.sleep(DOUBT_PAUSE) => {
                            self.end_doubts().await;
                            continue;
                        }
                    }
                };
                match request {
                    Some(request) => waiting.push_back(request),
                    None => return,
                }
            }
            self.end_doubts().await;
            while waiting.len() < BATCH_UNITS {
                match requests.try_recv() {
                    Ok(request) => waiting.push_back(request),
                    Err(_) => break,
                }
            }
            let batch = self.take_batch(&mut waiting).await;
            if !batch.is_empty() {
                self.write(batch, &mut waiting).await;
            }
        }
    }

    /// Takes what fits one batch. A unit that changes a membership ends it, so that everything
    /// behind it is decided by the new membership.
    async fn take_batch(&self, waiting: &mut VecDeque<Request>) -> Vec<Request> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_UNITS && bytes < BATCH_BYTES {
            let Some(request) = waiting.pop_front() else { break };
            let Some(request) = self.recheck(request).await else { continue };
            bytes += text_bytes(&request.append);
            let ends = request.append.events.iter().any(NewEvent::changes_membership);
            batch.push(request);
            if ends {
                break;
            }
        }
        batch
    }

    /// Decides a unit anew if the membership moved since it was allowed.
    async fn recheck(&self, mut request: Request) -> Option<Request> {
        let Expects::Epoch(expected) = request.append.expects else { return Some(request) };
        let chat = match self.chats.load(request.append.chat_id).await {
            Ok(chat) => chat,
            Err(error) => {
                (request.done)(Err(error));
                return None;
            }
        };
        if chat.membership_epoch == expected {
            return Some(request);
        }
        stats::add(&self.stats.appends_rechecked, 1);
        match access::check(&chat, request.append.sender_id, &request.act) {
            Ok(_) => {
                request.append.expects = Expects::Epoch(chat.membership_epoch);
                Some(request)
            }
            Err(error) => {
                (request.done)(Err(error));
                None
            }
        }
    }

    /// Tells what batches of unknown outcome left in the log. Whoever sent it repeats it under its
    /// key and is answered; nobody else would hear of it before the next event of the chat.
    async fn end_doubts(&mut self) {
        for (chat_id, since_ms) in self.doubts.clone() {
            match self.tell_since(chat_id, since_ms).await {
                Ok(()) => drop(self.doubts.remove(&chat_id)),
                Err(error) => {
                    tracing::debug!(%error, "the outcome of a batch is still unknown");
                    return;
                }
            }
        }
        self.told_ms.fetch_max(self.ids.passed_ms(), Ordering::Release);
    }

    async fn tell_since(&self, chat_id: ChatId, since_ms: u64) -> EngineResult<()> {
        let after = self.log.seq_before(chat_id, first_id_of(since_ms)).await?;
        let events = self.log.events(chat_id, after, DOUBT_EVENTS).await?;
        // It may have changed without us.
        self.chats.forget(chat_id);
        match self.chats.load(chat_id).await {
            Ok(chat) => {
                for event in events {
                    delivery::deliver(&*self.bus, chat.clone(), event);
                }
                Ok(())
            }
            // It was to be made, and was not.
            Err(Error::NotFound) => Ok(()),
            Err(error) => Err(EngineError::unavailable(error)),
        }
    }

    async fn write(&mut self, batch: Vec<Request>, waiting: &mut VecDeque<Request>) {
        let units = batch.iter().map(|request| request.append.clone()).collect();
        stats::add(&self.stats.batches, 1);
        stats::add(&self.stats.units, batch.len() as u64);
        let outcomes = match self.log.write_batch(units).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                stats::add(&self.stats.batches_failed, 1);
                let is_unknown = error.outcome_unknown;
                let error = Error::from(error);
                for request in batch {
                    if is_unknown && !is_planted("doubt_forgotten") {
                        let since_ms = self.told_ms();
                        self.doubts.entry(request.append.chat_id).or_insert(since_ms);
                    }
                    (request.done)(Err(error.clone()));
                }
                return;
            }
        };
        let mut stale = Vec::new();
        for (request, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Appended::Stored(stored) => {
                    self.tell(request, stored).await;
                }
                Appended::Stale if request.rechecks < RECHECKS => {
                    self.chats.forget(request.append.chat_id);
                    stale.push(Request { rechecks: request.rechecks + 1, ..request });
                }
                Appended::Stale => (request.done)(Err(Error::unavailable())),
                other => {
                    let is_repeat = matches!(other, Appended::Repeated(_));
                    stats::add(&self.stats.repeats, u64::from(is_repeat));
                    (request.done)(Ok(other));
                }
            }
        }
        if self.doubts.is_empty() {
            self.told_ms.fetch_max(self.ids.passed_ms(), Ordering::Release);
        }
        // Ahead of what queued meanwhile, so that one person's order is kept.
        for request in stale.into_iter().rev() {
            waiting.push_front(request);
        }
    }

    fn told_ms(&self) -> u64 {
        self.told_ms.load(Ordering::Acquire)
    }

    /// Answers the sender, then tells everybody else.
    async fn tell(&self, request: Request, stored: Stored) {
        let is_message =
            |event: &&parlor_proto::Event| matches!(event.body, EventBody::Message { .. });
        let messages = stored.events.iter().filter(is_message).count();
        stats::add(&self.stats.events_stored, stored.events.len() as u64);
        stats::add(&self.stats.messages_stored, messages as u64);
        let Request { append, done, .. } = request;
        let states = self.chats.apply(&append, &stored.events).await;
        done(Ok(Appended::Stored(stored.clone())));
        // Who gets a chat hears of that before its first event, who loses one after its last.
        let is_new = |step: &AccountEvent| matches!(step.body, AccountEventBody::ChatAdded { .. });
        let (added, other): (Vec<_>, Vec<_>) =
            stored.own.into_iter().partition(|(_, step)| is_new(step));
        for (user_id, step) in added {
            delivery::deliver_own(&*self.bus, user_id, step);
        }
        match states {
            Ok(states) => {
                for (chat, event) in states.into_iter().zip(stored.events) {
                    delivery::deliver(&*self.bus, chat, event);
                }
            }
            // Members find the event again from the log when they next hear of the chat.
            Err(error) => tracing::warn!(%error, "an event was stored and not told"),
        }
        for (user_id, step) in other {
            delivery::deliver_own(&*self.bus, user_id, step);
        }
    }
}

fn text_bytes(append: &Append) -> usize {
    let text = |event: &NewEvent| match event {
        NewEvent::Message { text, .. } | NewEvent::Edit { text, .. } => text.len(),
        _ => 0,
    };
    append.events.iter().map(text).sum()
}
