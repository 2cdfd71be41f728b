//! `storm`: many sockets are cut at once, and all of them come back (goal G7).
//!
//! Kept clients go on sending, into the chats of those who are away too: there is something to catch
//! up with. Each client comes back after a jitter, resumes from its cursor, and must have each event
//! of its chat once, in order.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use parlor_client::{Random, ids::ClientIds, socket::Heard, wire};
use parlor_proto::{
    ChatId, Seq,
    frame::{SendFrame, ServerFrame, SyncFrame, Tag},
    messages::MessageType,
};
use tokio::{sync::watch, task::JoinSet};

use super::{Base, own_log};
use crate::{
    clock,
    finding::Finding,
    latency::{Latencies, ms, ratio},
    load::{Counter, read_light},
    people::{Admin, Person},
    process::ServerProcess,
    procfs,
    speaker::Speaker,
    target,
};

/// All are back and level after so long.
const BACK_LIMIT_S: f64 = 30.0;
const MOST_P99_MS: f64 = 250.0;
/// Memory may grow by a quarter; below so much a difference is the allocator's.
const MOST_GROWTH: f64 = 1.25;
const NOISE_MIB: f64 = 32.0;
const GROUP: usize = 10;
/// A client that was cut waits up to so long, as the SDKs do at the first loss.
const JITTER_MS: u64 = 1_000;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Sockets that are cut.
    pub sockets: usize,
    /// Clients that stay and send.
    pub kept: usize,
    /// Sends of each of them in ten seconds.
    pub per_ten_seconds: u64,
}

impl Default for Storm {
    fn default() -> Self {
        Self { sockets: 1_000, kept: 50, per_ten_seconds: 10 }
    }
}

struct Shared {
    cut: watch::Receiver<Option<Instant>>,
    stopped: watch::Receiver<bool>,
    back_us: Mutex<Vec<u64>>,
    caught_up: Counter,
    holes: Counter,
    resets: Counter,
    refused: Counter,
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Storm) -> anyhow::Result<Finding> {
    target::check_size(options.sockets + options.kept, 0)?;
    if options.sockets < GROUP || options.kept == 0 || options.per_ten_seconds == 0 {
        bail!("at least {GROUP} sockets and one kept client that sends");
    }
    let data = tempfile::Builder::new().prefix("parlor-load-").tempdir()?;
    let log = own_log(base, "storm")?;
    let mut server = ServerProcess::start(&base.binary, data.path(), &log).await?;
    let admin = Admin::sign_up(&server.client()?).await?;
    let mut random = Random::from_seed(base.seed);
    // Five sockets a person: as many accounts as sockets would only stretch the run.
    let people = admin.people("storm", options.sockets.div_ceil(5).max(GROUP)).await?;
    let kept = admin.people("kept", options.kept).await?;
    let mut chats = Vec::new();
    let mut homes = Vec::new();
    for (number, group) in people.chunks(GROUP).enumerate() {
        let owner = kept.get(number % kept.len()).context("kept")?;
        let ids: Vec<_> = group.iter().map(|person| person.user_id).collect();
        let chat_id = owner.client.create_group(&format!("room {number}"), &ids).await?.chat_id;
        chats.push((number % kept.len(), chat_id));
        homes.extend(group.iter().map(|person| (person.clone(), chat_id)));
    }
    let (cut, is_cut) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        cut: is_cut,
        stopped: stopped.clone(),
        back_us: Mutex::default(),
        caught_up: Counter::default(),
        holes: Counter::default(),
        resets: Counter::default(),
        refused: Counter::default(),
    });
    let mut clients: Vec<Client> = stream::iter(0..options.sockets)
        .map(|number| {
            let home = homes.get(number % homes.len()).cloned();
            let dice = random.fork();
            async move {
                let (person, chat_id) = home.context("homes")?;
                Client::connect(person, chat_id, dice).await
            }
        })
        .buffered(32)
        .try_collect()
        .await?;
    let mut tasks = JoinSet::new();
    while let Some(client) = clients.pop() {
        tasks.spawn(client.run(Arc::clone(&shared)));
    }
    let during = Arc::new(Latencies::default());
    let mut senders = JoinSet::new();
    for (number, person) in kept.iter().enumerate() {
        let own = chats.iter().filter(|(of, _)| *of == number).map(|(_, chat_id)| *chat_id);
        let mut own: Vec<ChatId> = own.collect();
        if own.is_empty() {
            // More kept clients than rooms: they talk beside.
            let other = kept.get((number + 1) % kept.len()).context("kept")?;
            own.push(person.client.direct(other.user_id).await?.chat_id);
        }
        let (speaker, _, _) = Speaker::connect(&person.client, None, None).await?;
        let pause_us = 10_000_000 / options.per_ten_seconds;
        let sender = Kept {
            number,
            speaker,
            chats: own,
            ids: ClientIds::new(random.fork()),
            pause: Duration::from_micros(pause_us),
            first: Duration::from_micros(random.below(pause_us)),
            latencies: Arc::clone(&during),
        };
        senders.spawn(sender.run(is_cut_of(&cut), stopped.clone()));
    }
    let pid = server.pid()?;
    clock::sleep(Duration::from_secs(3)).await;
    let rss_before = procfs::resident_bytes(pid)?;
    let cut_at = clock::now();
    cut.send_replace(Some(cut_at));
    let mut rss_most = rss_before;
    let limit = Duration::from_secs(60);
    let n_sockets = options.sockets as u64;
    while shared.caught_up.get() < n_sockets && cut_at.elapsed() < limit {
        clock::sleep(Duration::from_millis(20)).await;
        rss_most = rss_most.max(procfs::resident_bytes(pid)?);
    }
    // The kept clients go on, so that their figures have enough sends.
    let at_least = Duration::from_secs(8);
    clock::sleep_until(cut_at + at_least).await;
    stop.send_replace(true);
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let mut back_us = shared.back_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
    back_us.sort_unstable();
    let sends = during.summary();
    let found = Found {
        n_sockets,
        n_back: back_us.len() as u64,
        half_back_s: back_us.get(back_us.len() / 2).map_or(f64::NAN, |us| ms(*us) / 1_000.0),
        all_back_s: back_us.last().map_or(f64::NAN, |us| ms(*us) / 1_000.0),
        n_sends: sends.count,
        p99_ms: ms(sends.p99_us),
        before_mib: ratio(rss_before, 1 << 20),
        most_mib: ratio(rss_most, 1 << 20),
        n_holes: shared.holes.get(),
        n_resets: shared.resets.get(),
    };
    server.stop().await?;
    let mut finding = Finding::default();
    finding.notes.push(format!("{} connects were refused on the way", shared.refused.get()));
    judge(&found, &mut finding);
    Ok(finding)
}

fn is_cut_of(cut: &watch::Sender<Option<Instant>>) -> watch::Receiver<Option<Instant>> {
    cut.subscribe()
}

#[derive(Debug, Clone)]
struct Found {
    n_sockets: u64,
    n_back: u64,
    half_back_s: f64,
    all_back_s: f64,
    n_sends: u64,
    p99_ms: f64,
    before_mib: f64,
    most_mib: f64,
    n_holes: u64,
    n_resets: u64,
}

fn judge(found: &Found, finding: &mut Finding) {
    finding.evidence("sends of kept clients after the cut", found.n_sends, 50);
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    finding.at_least("back", found.n_back as f64, found.n_sockets as f64, "sockets");
    finding.figure("half are back after", found.half_back_s, "s");
    finding.at_most("all are back and level after", found.all_back_s, BACK_LIMIT_S, "s");
    finding.fast_at_most("p99 of kept sends", found.p99_ms, MOST_P99_MS, "ms");
    finding.figure("memory before", found.before_mib, "MiB");
    let bound = (found.before_mib * MOST_GROWTH).max(found.before_mib + NOISE_MIB);
    finding.at_most("memory, most", found.most_mib, bound, "MiB");
    for (count, what) in [
        (found.n_holes, "holes in what clients got"),
        (found.n_resets, "cursors answered with `reset`"),
    ] {
        if count > 0 {
            finding.broken.push(format!("RESUME: {count} {what}"));
        }
    }
}

/// A client of the storm: one socket at a time, one chat.
struct Client {
    person: Person,
    chat_id: ChatId,
    random: Random,
    speaker: Speaker,
    cursor: String,
    have: Seq,
    goal: Seq,
    asked: bool,
}

impl Client {
    async fn connect(person: Person, chat_id: ChatId, random: Random) -> anyhow::Result<Self> {
        let (speaker, welcome, first) = Speaker::connect(&person.client, None, None).await?;
        let have = welcome
            .heads
            .iter()
            .find(|head| head.chat_id == chat_id)
            .map_or(Seq::ZERO, |head| head.seq);
        let cursor = welcome.cursor;
        let mut client =
            Self { person, chat_id, random, speaker, cursor, have, goal: have, asked: false };
        for frame in first {
            client.take(&frame);
        }
        Ok(client)
    }

    fn take(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Event(event) if event.chat_id == self.chat_id => self.step(event.seq),
            ServerFrame::Events(page) if page.chat_id == self.chat_id => {
                self.asked = false;
                page.events.iter().for_each(|event| self.step(event.seq));
                self.goal = self.goal.max(page.head_seq);
            }
            ServerFrame::Gap(gap) if gap.chat_id == self.chat_id => {
                self.goal = self.goal.max(gap.head_seq);
            }
            ServerFrame::Cursor(frame) => self.cursor.clone_from(&frame.cursor),
            _ => {}
        }
    }

    fn step(&mut self, seq: Seq) {
        self.goal = self.goal.max(seq);
        if seq == self.have.next() {
            self.have = seq;
        }
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        if self.have < self.goal && !self.asked {
            self.asked = true;
            let frame = SyncFrame {
                tag: Tag,
                id: None,
                chat_id: self.chat_id,
                after_seq: self.have,
                limit: Some(200),
            };
            self.speaker.say(wire::sync(&frame)).await?;
        }
        Ok(())
    }

    async fn run(mut self, shared: Arc<Shared>) -> anyhow::Result<()> {
        let (mut cut, mut stopped) = (shared.cut.clone(), shared.stopped.clone());
        let cut_at = loop {
            if let Some(at) = *cut.borrow_and_update() {
                break at;
            }
            tokio::select! {
                frames = self.speaker.next() => frames?.iter().for_each(|frame| self.take(frame)),
                changed = cut.changed() => changed?,
            }
        };
        // Dropped without a goodbye; the server sees it end.
        let mut client = self.come_back(&shared).await?;
        let mut is_level = false;
        loop {
            client.ask().await?;
            if !is_level && client.have >= client.goal {
                is_level = true;
                let us = clock::micros_since(cut_at);
                shared.back_us.lock().unwrap_or_else(PoisonError::into_inner).push(us);
                shared.caught_up.add();
            }
            tokio::select! {
                frames = client.speaker.next() => {
                    frames?.iter().for_each(|frame| client.take(frame));
                }
                changed = stopped.changed() => {
                    changed?;
                    break;
                }
            }
        }
        // What is still on its way.
        while let Some(frames) = client.speaker.next_within(Duration::from_millis(500)).await? {
            frames.iter().for_each(|frame| client.take(frame));
            client.ask().await?;
        }
        if client.have < client.goal {
            shared.holes.add();
        }
        Ok(())
    }

    async fn come_back(mut self, shared: &Shared) -> anyhow::Result<Self> {
        let Self { person, chat_id, cursor, have, .. } = self;
        drop(self.speaker);
        let mut wait_ms = JITTER_MS;
        loop {
            clock::sleep(Duration::from_millis(self.random.below(wait_ms))).await;
            match Speaker::connect(&person.client, Some(cursor.clone()), None).await {
                Ok((speaker, welcome, first)) => {
                    if welcome.reset {
                        shared.resets.add();
                    }
                    let head = welcome.heads.iter().find(|head| head.chat_id == chat_id);
                    let goal = head.map_or(have, |head| head.seq.max(have));
                    let random = self.random;
                    // The replay comes by itself; only what it leaves out is asked for.
                    let mut client =
                        Self { person, chat_id, random, speaker, cursor, have, goal, asked: true };
                    first.iter().for_each(|frame| client.take(frame));
                    while client.have < client.goal {
                        let frames = client.speaker.next_within(Duration::from_secs(2)).await?;
                        let Some(frames) = frames else { break };
                        let has_gap =
                            frames.iter().any(|frame| matches!(frame, ServerFrame::Gap(_)));
                        frames.iter().for_each(|frame| client.take(frame));
                        if has_gap {
                            break;
                        }
                    }
                    client.asked = false;
                    return Ok(client);
                }
                Err(error) => {
                    tracing::debug!(%error, "a connect in the storm");
                    shared.refused.add();
                    wait_ms = (wait_ms * 2).min(10_000);
                }
            }
        }
    }
}

/// A client that stays and sends.
struct Kept {
    number: usize,
    speaker: Speaker,
    chats: Vec<ChatId>,
    ids: ClientIds,
    pause: Duration,
    first: Duration,
    latencies: Arc<Latencies>,
}

impl Kept {
    async fn run(
        mut self,
        cut: watch::Receiver<Option<Instant>>,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut at = clock::now() + self.first;
        let mut open = std::collections::BTreeMap::new();
        let mut n_sent = 0_usize;
        while !(*stopped.borrow() && open.is_empty()) {
            tokio::select! {
                () = clock::sleep_until(at), if !*stopped.borrow() => {
                    let chat_id =
                        *self.chats.get(n_sent % self.chats.len()).context("own chats")?;
                    let frame = SendFrame {
                        tag: Tag,
                        id: Some(n_sent.to_string()),
                        chat_id,
                        message: format!("kept {n_sent}"),
                        kind: MessageType::Text,
                        attachments: Vec::new(),
                        client_id: Some(self.ids.next(clock::wall_ms())),
                        reply_to: None,
                    };
                    open.insert(n_sent.to_string(), at);
                    self.speaker.say(wire::send(&frame)).await?;
                    n_sent += 1;
                    at += self.pause;
                }
                heard = self.speaker.socket.next() => match heard {
                    Heard::Text(text) => {
                        for frame in read_light(&text)? {
                            if frame.t == "error" {
                                bail!("a kept send was refused: {}", frame.code.unwrap_or_default());
                            }
                            let meant = frame.id.filter(|_| frame.t == "ack");
                            let Some(meant) = meant.and_then(|id| open.remove(id)) else { continue };
                            if cut.borrow().is_some_and(|cut_at| meant >= cut_at) {
                                self.latencies.record(self.number, clock::micros_since(meant));
                            }
                        }
                    }
                    Heard::Life => {}
                    Heard::Closed(code) => bail!("a kept client was closed with {code:?}"),
                },
                changed = stopped.changed(), if !*stopped.borrow() => changed?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn planted_bad_storms_are_found() {
        let good = Found {
            n_sockets: 100,
            n_back: 100,
            half_back_s: 1.0,
            all_back_s: 3.0,
            n_sends: 500,
            p99_ms: 20.0,
            before_mib: 200.0,
            most_mib: 240.0,
            n_holes: 0,
            n_resets: 0,
        };
        let verdict = |found: Found| {
            let mut finding = Finding::default();
            judge(&found, &mut finding);
            finding.verdict()
        };
        assert_eq!(verdict(good.clone()), Verdict::Holds);
        for bad in [
            Found { n_back: 99, ..good.clone() },
            Found { all_back_s: 31.0, ..good.clone() },
            Found { p99_ms: f64::NAN, ..good.clone() },
            Found { most_mib: 260.0, ..good.clone() },
            Found { n_holes: 1, ..good.clone() },
            Found { n_resets: 1, ..good.clone() },
        ] {
            assert_eq!(verdict(bad.clone()), Verdict::Broken, "{bad:?}");
        }
        assert_eq!(verdict(Found { n_sends: 3, ..good }), Verdict::NoEvidence);
    }
}
