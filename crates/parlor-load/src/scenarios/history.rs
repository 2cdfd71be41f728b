//! `history`: pages of 50 out of a long chat, over HTTP (test T5 of the performance page).

use std::sync::Arc;

use anyhow::{Context, bail};
use parlor_client::{Random, ids::ClientIds};
use parlor_proto::{
    ChatId,
    messages::{BatchResult, History as Page, MessageType, SendBatch, SendMessage},
};
use tokio::task::JoinSet;

use crate::{
    clock,
    latency::{Figure, Latencies, ratio},
    load::{Counter, Field, Times, Window, numbered_text, rate},
    people::Person,
    target,
};

/// Messages of one batch call.
const BATCH: usize = 100;

/// Which pages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// The newest 50, by everybody: one hot page.
    Newest,
    /// 50 before a random message.
    Random,
}

/// How large the run is.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// Messages of the chat.
    pub messages: usize,
    /// Readers at once, each with one call in flight (closed loop).
    pub readers: usize,
    /// Which pages.
    pub pages: Pages,
    /// Bytes of a text.
    pub body_bytes: usize,
    /// How long.
    pub times: Times,
    /// Decides the pages.
    pub seed: u64,
}

struct Shared {
    window: Window,
    /// Anchors of the pages; none for the newest.
    anchors: Vec<String>,
    pages: Counter,
    bytes: Counter,
    latencies: Latencies,
}

/// Fills the chat, runs the load, and returns the figures.
pub async fn run(field: &Field, options: &History) -> anyhow::Result<Vec<Figure>> {
    let seconds = (options.times.warm_up + options.times.measured).as_secs();
    target::check_loopback(&field.server.url())?;
    target::check_size(options.readers, seconds)?;
    let people = field.admin.people("reader", options.readers.clamp(2, 50)).await?;
    let (owner, others) = people.split_first().context("people")?;
    let ids: Vec<_> = others.iter().map(|person| person.user_id).collect();
    let chat_id = owner.client.create_group("library", &ids).await?.chat_id;
    let message_ids = fill(owner, chat_id, options).await?;
    let anchors = match options.pages {
        Pages::Newest => Vec::new(),
        Pages::Random => message_ids.into_iter().skip(50).collect(),
    };
    let shared = Arc::new(Shared {
        window: Window::begin(options.times),
        anchors,
        pages: Counter::default(),
        bytes: Counter::default(),
        latencies: Latencies::default(),
    });
    let http = reqwest::Client::builder().build()?;
    let url = format!("{}/api/v1/chats/{chat_id}/messages", field.server.url());
    let mut random = Random::from_seed(options.seed);
    let mut tasks = JoinSet::new();
    for (number, person) in (0..options.readers).zip(people.iter().cycle()) {
        let reader = Reader {
            number,
            http: http.clone(),
            url: url.clone(),
            token: person.client.token().context("a token")?.to_owned(),
            random: random.fork(),
            shared: Arc::clone(&shared),
        };
        tasks.spawn(reader.run());
    }
    let used = shared.window.watch(&field.server).await?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (window, n_pages) = (&shared.window, shared.pages.get());
    let mut figures = vec![rate("pages", n_pages, window)];
    figures.extend(shared.latencies.summary().figures("page"));
    figures.push(Figure::new("bytes of a page", ratio(shared.bytes.get(), n_pages), "bytes"));
    figures.extend(used.figures("page", n_pages, window));
    Ok(figures)
}

/// Sends the messages in batches; returns their ids.
async fn fill(owner: &Person, chat_id: ChatId, options: &History) -> anyhow::Result<Vec<String>> {
    let mut ids = ClientIds::new(Random::from_seed(options.seed));
    let mut message_ids = Vec::with_capacity(options.messages);
    while message_ids.len() < options.messages {
        let n_left = options.messages - message_ids.len();
        let messages = (0..n_left.min(BATCH))
            .map(|number| SendMessage {
                chat_id,
                message: numbered_text((message_ids.len() + number) as u64, options.body_bytes),
                kind: MessageType::Text,
                attachments: Vec::new(),
                client_id: Some(ids.next(clock::wall_ms())),
                reply_to: None,
            })
            .collect();
        for result in owner.client.send_batch(&SendBatch { messages }).await? {
            match result {
                BatchResult::Stored { message, .. } => {
                    message_ids.push(message.message_id.to_string());
                }
                BatchResult::Refused { problem, .. } => bail!("not stored: {}", problem.detail),
            }
        }
    }
    Ok(message_ids)
}

struct Reader {
    number: usize,
    http: reqwest::Client,
    url: String,
    token: String,
    random: Random,
    shared: Arc<Shared>,
}

impl Reader {
    async fn run(mut self) -> anyhow::Result<()> {
        let ended = self.read_all().await;
        if ended.is_err() {
            self.shared.window.stop();
        }
        ended
    }

    async fn read_all(&mut self) -> anyhow::Result<()> {
        let mut is_first = true;
        loop {
            let start_us = self.shared.window.now_us();
            if self.shared.window.is_over(start_us) {
                return Ok(());
            }
            let n_anchors = self.shared.anchors.len() as u64;
            let anchor = self.shared.anchors.get(usize::try_from(self.random.below(n_anchors))?);
            let url = match anchor {
                Some(anchor) => format!("{}?limit=50&before={anchor}", self.url),
                None => format!("{}?limit=50", self.url),
            };
            let answer = self.http.get(url).bearer_auth(&self.token).send().await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            if !status.is_success() {
                bail!("a page was answered with {status}");
            }
            // The shape is checked once; after that only its bytes are counted.
            if std::mem::take(&mut is_first) {
                let page: Page = serde_json::from_slice(&body)?;
                if page.messages.len() != 50 {
                    bail!("a page of {} messages", page.messages.len());
                }
            }
            let end_us = self.shared.window.now_us();
            if self.shared.window.holds(end_us) {
                self.shared.pages.add();
                self.shared.bytes.add_many(body.len() as u64);
                self.shared.latencies.record(self.number, end_us - start_us);
            }
        }
    }
}
