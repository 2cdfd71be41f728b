//! `sends`: durable one-to-one sends, acknowledged and delivered (test T1 of the performance page).
//!
//! *Closed loop*: each sender keeps so many sends in flight; it finds a maximum and is labelled so,
//! since a slow server slows its clients down. *Open loop*: sends arrive by a Poisson process, and
//! latency counts from the intended time, so that a stall is not hidden.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use parlor_client::{
    Random,
    ids::ClientIds,
    socket::{Heard, Socket},
    wire,
};
use parlor_proto::{
    ChatId, Seq,
    frame::{ReceiptFrame, SendFrame, Tag},
    messages::MessageType,
    receipts::ReceiptKind,
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    clock,
    latency::{Figure, Latencies},
    load::{Counter, Field, Times, Window, number_of, numbered_text, rate, read_light},
    speaker::Speaker,
    target,
};

/// Answers after the end of the load are waited for so long.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Sends of one run; their times are kept in memory.
const MOST_SENDS: usize = 4_000_000;

/// When a sender sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Each sender keeps so many in flight.
    Closed {
        /// In flight per sender.
        depth: usize,
    },
    /// All senders together send so many a second, whatever the server does.
    Open {
        /// Sends per second.
        per_second: f64,
    },
}

/// How large the run is.
#[derive(Debug, Clone, Copy)]
pub struct Sends {
    /// Pairs of a sender and a recipient, each with a chat of their own.
    pub pairs: usize,
    /// When they send.
    pub arrivals: Arrivals,
    /// Bytes of a text.
    pub body_bytes: usize,
    /// Whether recipients report `delivered`.
    pub with_receipts: bool,
    /// How long.
    pub times: Times,
    /// Decides the arrivals.
    pub seed: u64,
}

/// What all clients of a run share.
struct Shared {
    window: Window,
    /// When each send was meant to leave.
    intended_us: Vec<AtomicU64>,
    next: Counter,
    acked: Counter,
    delivered: Counter,
    to_ack: Latencies,
    to_delivery: Latencies,
    late: Latencies,
    /// Senders of the open loop that still have an arrival before the end.
    senders_to_come: AtomicI64,
    in_flight: AtomicI64,
    undelivered: AtomicI64,
}

/// Makes the people, runs the load, and returns the figures.
pub async fn run(field: &Field, options: &Sends) -> anyhow::Result<Vec<Figure>> {
    let seconds = (options.times.warm_up + options.times.measured).as_secs();
    target::check_loopback(&field.server.url())?;
    target::check_size(options.pairs * 2, seconds)?;
    let people = field.admin.people("pair", options.pairs * 2).await?;
    let mut random = Random::from_seed(options.seed);
    let mut pairs = Vec::new();
    for pair in people.chunks_exact(2) {
        let [sender, recipient] = pair else { continue };
        let chat_id = sender.client.direct(recipient.user_id).await?.chat_id;
        let (to_server, _, _) = Speaker::connect(&sender.client, None, None).await?;
        let (from_server, _, _) = Speaker::connect(&recipient.client, None, None).await?;
        pairs.push((chat_id, to_server.socket, from_server.socket));
    }
    let shared = Arc::new(Shared {
        window: Window::begin(options.times),
        intended_us: (0..MOST_SENDS).map(|_| AtomicU64::new(u64::MAX)).collect(),
        next: Counter::default(),
        acked: Counter::default(),
        delivered: Counter::default(),
        to_ack: Latencies::default(),
        to_delivery: Latencies::default(),
        late: Latencies::default(),
        senders_to_come: AtomicI64::new(match options.arrivals {
            Arrivals::Open { .. } => i64::try_from(options.pairs)?,
            Arrivals::Closed { .. } => 0,
        }),
        in_flight: AtomicI64::new(0),
        undelivered: AtomicI64::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (number, (chat_id, to_server, from_server)) in pairs.into_iter().enumerate() {
        let sender = Sender {
            number,
            chat_id,
            socket: to_server,
            shared: Arc::clone(&shared),
            random: random.fork(),
            ids: ClientIds::new(random.fork()),
            options: *options,
            open: BTreeSet::new(),
        };
        tasks.spawn(sender.run(stopped.clone()));
        let recipient = Recipient {
            number,
            chat_id,
            socket: from_server,
            shared: Arc::clone(&shared),
            with_receipts: options.with_receipts,
        };
        tasks.spawn(recipient.run(stopped.clone()));
    }
    let used = shared.window.watch(&field.server).await?;
    // Sends of the measured part that are answered late count with their whole latency.
    let waited = clock::now();
    while waited.elapsed() < LAST_ANSWERS
        && (shared.senders_to_come.load(Ordering::Relaxed) > 0
            || shared.in_flight.load(Ordering::Relaxed) > 0
            || shared.undelivered.load(Ordering::Relaxed) > 0)
    {
        clock::sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let window = &shared.window;
    let to_ack = shared.to_ack.summary();
    if to_ack.count == 0 {
        bail!("no send of the measured part was acknowledged");
    }
    let mut figures = vec![
        rate("acknowledged", shared.acked.get(), window),
        rate("delivered", shared.delivered.get(), window),
    ];
    figures.extend(to_ack.figures("send to ack"));
    figures.extend(shared.to_delivery.summary().figures("send to delivery"));
    if matches!(options.arrivals, Arrivals::Open { .. }) {
        figures.extend(shared.late.summary().figures("generator late"));
    }
    let lost = |count: &AtomicI64| {
        // What is still missing after the wait was not answered at all.
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        let count = count.load(Ordering::Relaxed) as f64;
        count
    };
    figures.push(Figure::new("without an answer", lost(&shared.in_flight), "sends"));
    figures.push(Figure::new("not delivered", lost(&shared.undelivered), "sends"));
    figures.extend(used.figures("send", shared.acked.get(), window));
    Ok(figures)
}

struct Sender {
    number: usize,
    chat_id: ChatId,
    socket: Socket,
    shared: Arc<Shared>,
    random: Random,
    ids: ClientIds,
    options: Sends,
    /// Sends without an answer: their numbers.
    open: BTreeSet<usize>,
}

impl Sender {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let ended = self.send_all(&mut stopped).await;
        if ended.is_err() {
            self.shared.window.stop();
        }
        ended
    }

    async fn send_all(&mut self, stopped: &mut watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut next_us = 0;
        match self.options.arrivals {
            Arrivals::Closed { depth } => {
                for _ in 0..depth {
                    let now_us = self.shared.window.now_us();
                    self.feed(now_us).await?;
                }
                self.socket.flush().await?;
            }
            Arrivals::Open { .. } => next_us = self.pause_us(),
        }
        let mut has_next = matches!(self.options.arrivals, Arrivals::Open { .. });
        loop {
            if has_next && self.shared.window.is_over(next_us) {
                has_next = false;
                self.shared.senders_to_come.fetch_sub(1, Ordering::Relaxed);
            }
            tokio::select! {
                heard = self.socket.next() => match heard {
                    Heard::Text(text) => self.on_text(&text).await?,
                    Heard::Life => {}
                    Heard::Closed(code) => bail!("a sender's socket was closed with {code:?}"),
                },
                () = clock::sleep_until(self.shared.window.at(next_us)), if has_next => {
                    // Everything that is due by now leaves in one write.
                    let now_us = self.shared.window.now_us();
                    while next_us <= now_us && !self.shared.window.is_over(next_us) {
                        self.shared.late.record(self.number, now_us - next_us);
                        self.feed(next_us).await?;
                        next_us += self.pause_us();
                    }
                    self.socket.flush().await?;
                }
                changed = stopped.changed() => {
                    changed?;
                    self.name_open();
                    return Ok(());
                }
            }
        }
    }

    /// Names what was never answered, so that it can be looked for on the server.
    fn name_open(&self) {
        for number in &self.open {
            let intended_us =
                self.shared.intended_us.get(*number).map(|slot| slot.load(Ordering::Relaxed));
            let (pair, chat_id) = (self.number, self.chat_id);
            tracing::warn!(pair, %chat_id, number, intended_us, "a send has no answer");
        }
    }

    /// Returns the time to the next arrival of this sender: exponential, as in a Poisson process.
    fn pause_us(&mut self) -> u64 {
        let Arrivals::Open { per_second } = self.options.arrivals else { return 0 };
        #[expect(clippy::cast_precision_loss, reason = "a number of pairs")]
        let own_per_second = per_second / self.options.pairs as f64;
        let seconds = -(1.0 - self.random.unit()).ln() / own_per_second.max(1e-6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and saturates"
        )]
        let micros = (seconds * 1_000_000.0) as u64;
        micros
    }

    async fn feed(&mut self, intended_us: u64) -> anyhow::Result<()> {
        let number = self.shared.next.add();
        self.open.insert(usize::try_from(number)?);
        let slot = self.shared.intended_us.get(usize::try_from(number)?);
        let slot = slot.with_context(|| format!("more than {MOST_SENDS} sends in one run"))?;
        slot.store(intended_us, Ordering::Relaxed);
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        self.shared.undelivered.fetch_add(1, Ordering::Relaxed);
        let frame = SendFrame {
            tag: Tag,
            id: Some(number.to_string()),
            chat_id: self.chat_id,
            message: numbered_text(number, self.options.body_bytes),
            kind: MessageType::Text,
            attachments: Vec::new(),
            client_id: Some(self.ids.next(clock::wall_ms())),
            reply_to: None,
        };
        Ok(self.socket.feed(wire::send(&frame)).await?)
    }

    async fn on_text(&mut self, text: &str) -> anyhow::Result<()> {
        let now_us = self.shared.window.now_us();
        for frame in read_light(text)? {
            match frame.t {
                "ack" => {
                    let number = frame.id.context("an ack without an id")?.parse::<usize>()?;
                    let slot = self.shared.intended_us.get(number).context("a foreign ack")?;
                    let intended_us = slot.load(Ordering::Relaxed);
                    if self.shared.window.holds(now_us) {
                        self.shared.acked.add();
                    }
                    if self.shared.window.holds(intended_us) {
                        let micros = now_us.saturating_sub(intended_us);
                        self.shared.to_ack.record(self.number, micros);
                    }
                    if self.open.remove(&number) {
                        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                "error" => bail!("a send was refused: {}", frame.code.unwrap_or_default()),
                _ => {}
            }
        }
        if let Arrivals::Closed { depth } = self.options.arrivals {
            let mut has_fed = false;
            while self.open.len() < depth && !self.shared.window.is_over(now_us) {
                self.feed(now_us).await?;
                has_fed = true;
            }
            if has_fed {
                self.socket.flush().await?;
            }
        }
        Ok(())
    }
}

struct Recipient {
    number: usize,
    chat_id: ChatId,
    socket: Socket,
    shared: Arc<Shared>,
    with_receipts: bool,
}

impl Recipient {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                heard = self.socket.next() => match heard {
                    Heard::Text(text) => self.on_text(&text).await?,
                    Heard::Life => {}
                    Heard::Closed(code) => {
                        self.shared.window.stop();
                        bail!("a recipient's socket was closed with {code:?}");
                    }
                },
                changed = stopped.changed() => {
                    changed?;
                    return Ok(());
                }
            }
        }
    }

    async fn on_text(&mut self, text: &str) -> anyhow::Result<()> {
        let now_us = self.shared.window.now_us();
        let mut last_seq = None;
        for frame in read_light(text)? {
            let Some(message) = frame.message else { continue };
            let number = number_of(message.message)?;
            let slot = self.shared.intended_us.get(number).context("a foreign message")?;
            let intended_us = slot.load(Ordering::Relaxed);
            if self.shared.window.holds(now_us) {
                self.shared.delivered.add();
            }
            if self.shared.window.holds(intended_us) {
                let micros = now_us.saturating_sub(intended_us);
                self.shared.to_delivery.record(self.number, micros);
            }
            self.shared.undelivered.fetch_sub(1, Ordering::Relaxed);
            last_seq = frame.seq.or(last_seq);
        }
        if let (true, Some(seq)) = (self.with_receipts, last_seq) {
            let frame = ReceiptFrame {
                tag: Tag,
                id: None,
                chat_id: self.chat_id,
                status: ReceiptKind::Delivered,
                seq: Some(Seq::new(seq)),
                message_id: None,
            };
            self.socket.say(wire::receipt(&frame)).await?;
        }
        Ok(())
    }
}
