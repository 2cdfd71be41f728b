//! `slowreader`: some members of a group read one byte a second, and harm only themselves (P16).
//!
//! The same load runs twice in one process: first while the slow ones are away, then with them behind
//! a proxy that is slow. Compared are the deliveries to all others and the memory of the server. At
//! the end the slow ones read what they missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use parlor_client::{
    Random,
    ids::ClientIds,
    socket::{Heard, Socket},
    wire,
};
use parlor_proto::{
    ChatId, Seq,
    frame::{SendFrame, Tag},
    messages::{EventsQuery, HistoryQuery, MessageType},
    receipts::ReceiptKind,
};
use tokio::{sync::watch, task::JoinSet};

use super::{Base, own_log};
use crate::{
    clock,
    finding::Finding,
    latency::{Latencies, ms, ratio},
    load::{Counter, number_of, numbered_text, read_light},
    people::{Admin, Person},
    process::ServerProcess,
    procfs,
    proxy::{Faults, Plan, Proxy},
    speaker::Speaker,
    target,
};

/// p99 of the others may grow by so much.
const MOST_RATIO: f64 = 1.2;
/// Below this a difference is the machine's.
const NOISE_MS: f64 = 25.0;
const MOST_GROWTH_MIB: f64 = 100.0;
const MOST_MESSAGES: usize = 100_000;
/// A room of the slow ones fills their queues: the system buffers megabytes of each on loopback.
const FLOOD_PER_SECOND: u64 = 40;
const FLOOD_BYTES: usize = 12_000;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Slowreader {
    /// Members of the group.
    pub members: usize,
    /// How many of a hundred are slow.
    pub slow_percent: usize,
    /// Messages a second.
    pub per_second: u64,
    /// Bytes of a message.
    pub body_bytes: usize,
    /// How long each half lasts.
    pub seconds: u64,
}

impl Default for Slowreader {
    fn default() -> Self {
        Self { members: 200, slow_percent: 5, per_second: 5, body_bytes: 2_000, seconds: 14 }
    }
}

struct Shared {
    /// When each message left.
    left_us: Vec<AtomicU64>,
    start: std::time::Instant,
    /// The first message of the second half.
    half: AtomicU64,
    before: Latencies,
    during: Latencies,
    delivered: Counter,
    lost_sockets: Counter,
}

impl Shared {
    fn new() -> Self {
        Self {
            left_us: (0..MOST_MESSAGES).map(|_| AtomicU64::new(0)).collect(),
            start: clock::now(),
            half: AtomicU64::new(u64::MAX),
            before: Latencies::default(),
            during: Latencies::default(),
            delivered: Counter::default(),
            lost_sockets: Counter::default(),
        }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Slowreader) -> anyhow::Result<Finding> {
    target::check_size(options.members * 3, options.seconds * 2)?;
    let n_slow = (options.members * options.slow_percent).div_ceil(100);
    if n_slow == 0 || options.members < n_slow + 2 || options.per_second == 0 {
        bail!("at least one slow member and two others");
    }
    let data = tempfile::Builder::new().prefix("parlor-load-").tempdir()?;
    let log = own_log(base, "slowreader")?;
    let mut server = ServerProcess::start(&base.binary, data.path(), &log).await?;
    let admin = Admin::sign_up(&server.client()?).await?;
    let people = admin.people("m", options.members).await?;
    let (owner, others) = people.split_first().context("members")?;
    let ids: Vec<_> = others.iter().map(|person| person.user_id).collect();
    let chat_id = owner.client.create_group("hall", &ids).await?.chat_id;
    let (slow, normal) = others.split_at(n_slow);
    let sockets: Vec<Socket> = stream::iter(normal)
        .map(|person| async move {
            anyhow::Ok(Speaker::connect(&person.client, None, None).await?.0.socket)
        })
        .buffered(16)
        .try_collect()
        .await?;
    let shared = Arc::new(Shared::new());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        tasks.spawn(receive(socket, number, Arc::clone(&shared), stopped.clone()));
    }
    let (owner_speaker, _, _) = Speaker::connect(&owner.client, None, None).await?;
    let mut sender = Sender {
        socket: owner_speaker.socket,
        chat_id,
        ids: ClientIds::new(Random::from_seed(base.seed)),
        next: 0,
        options: options.clone(),
    };
    let flooder = admin.person("flooder").await?;
    let slow_ids: Vec<_> = slow.iter().map(|person| person.user_id).collect();
    let mut flood = Sender {
        socket: Speaker::connect(&flooder.client, None, None).await?.0.socket,
        chat_id: flooder.client.create_group("flood", &slow_ids).await?.chat_id,
        ids: ClientIds::new(Random::from_seed(base.seed.wrapping_add(1))),
        next: 0,
        options: Slowreader {
            per_second: FLOOD_PER_SECOND,
            body_bytes: FLOOD_BYTES,
            ..options.clone()
        },
    };
    let flooded = Shared::new();
    let pid = server.pid()?;
    let halves = tokio::join!(
        sender.send_for(&shared, options.seconds, || Ok(())),
        flood.send_for(&flooded, options.seconds, || Ok(())),
    );
    halves.0.and(halves.1)?;
    let rss_before = procfs::resident_bytes(pid)?;
    // The slow ones come, with small buffers: first at full pace for the greeting. What was sent
    // before counts as delivered, so that no replay widens the buffers of the system.
    let quick = Faults { pace: 50_000_000, ..Faults::default() };
    let quick = Plan { down: quick, ..Plan::default() };
    let proxy = Proxy::start(&server.url(), base.seed, quick).await?;
    let query = HistoryQuery { limit: Some(1), ..HistoryQuery::default() };
    let newest = owner.client.history(chat_id, &query).await?.messages;
    let newest = newest.last().context("a message")?.message_id;
    let mut behind = JoinSet::new();
    for person in slow {
        person.client.put_status(newest, ReceiptKind::Delivered).await?;
        let person = person.via(&proxy.url())?;
        let (mut speaker, _, _) = Speaker::connect(&person.client, None, None).await?;
        behind.spawn(async move { while speaker.next().await.is_ok() {} });
    }
    // From now on they read one byte a second.
    let bytes_before = proxy.down_bytes();
    proxy.set(Plan { down: Faults { pace: 1, slice: 1, ..Faults::default() }, ..Plan::default() });
    shared.half.store(sender.next, Ordering::Release);
    let mut rss_most = rss_before;
    let watch_memory = || {
        rss_most = rss_most.max(procfs::resident_bytes(pid)?);
        Ok(())
    };
    let halves = tokio::join!(
        sender.send_for(&shared, options.seconds, watch_memory),
        flood.send_for(&flooded, options.seconds, || Ok(())),
    );
    halves.0.and(halves.1)?;
    clock::sleep(Duration::from_secs(1)).await;
    let n_sent = sender.next;
    let folded = counted(&server, "parlor_events_folded_total").await;
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    drop(behind);
    let mut found = Found {
        before_ms: ms(shared.before.summary().p99_us),
        during_ms: ms(shared.during.summary().p99_us),
        growth_mib: ratio(rss_most.saturating_sub(rss_before), 1 << 20),
        n_during: shared.during.summary().count,
        slow_bytes: proxy.down_bytes() - bytes_before,
        sent_bytes: flood.next / 2 * FLOOD_BYTES as u64,
        n_missing: (n_sent * normal.len() as u64).saturating_sub(shared.delivered.get()),
        n_lost: shared.lost_sockets.get(),
        n_incomplete: 0,
        n_folded: folded.unwrap_or_default(),
    };
    drop(proxy);
    for person in slow {
        if read_all(person, chat_id).await? < n_sent {
            found.n_incomplete += 1;
        }
    }
    server.stop().await?;
    let mut finding = Finding::default();
    judge(&found, &mut finding);
    Ok(finding)
}

#[derive(Debug, Clone)]
struct Found {
    before_ms: f64,
    during_ms: f64,
    growth_mib: f64,
    n_during: u64,
    slow_bytes: u64,
    sent_bytes: u64,
    n_missing: u64,
    n_lost: u64,
    n_incomplete: u64,
    n_folded: f64,
}

fn judge(found: &Found, finding: &mut Finding) {
    finding.evidence("deliveries to the others beside slow ones", found.n_during, 1_000);
    // The slow ones were slow: what went to all of them is less than what one should have got.
    if found.slow_bytes >= found.sent_bytes {
        finding.missing.push(format!("the slow readers read {} bytes", found.slow_bytes));
    }
    if found.n_folded < 1.0 {
        finding.missing.push("no queue of a slow reader was ever full".to_owned());
    }
    finding.figure("events folded for slow readers", found.n_folded, "");
    finding.figure("p99 without slow readers", found.before_ms, "ms");
    let bound = (found.before_ms * MOST_RATIO).max(found.before_ms + NOISE_MS);
    finding.fast_at_most("p99 beside slow readers", found.during_ms, bound, "ms");
    finding.at_most("memory growth", found.growth_mib, MOST_GROWTH_MIB, "MiB");
    for (count, what) in [
        (found.n_missing, "deliveries to the others are missing"),
        (found.n_lost, "sockets of the others were closed"),
        (found.n_incomplete, "slow readers cannot read what they missed"),
    ] {
        if count > 0 {
            finding.broken.push(format!("{count} {what}"));
        }
    }
}

struct Sender {
    socket: Socket,
    chat_id: ChatId,
    ids: ClientIds,
    next: u64,
    options: Slowreader,
}

impl Sender {
    /// Sends at the rate of the run for so long; `beside` is called between the sends.
    async fn send_for(
        &mut self,
        shared: &Shared,
        seconds: u64,
        mut beside: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begin = clock::now();
        let pause = Duration::from_micros(1_000_000 / self.options.per_second);
        let mut at = begin;
        while at < begin + Duration::from_secs(seconds) {
            loop {
                tokio::select! {
                    biased;
                    () = clock::sleep_until(at) => break,
                    heard = self.socket.next() => match heard {
                        Heard::Text(text) => {
                            for frame in read_light(&text)? {
                                if frame.t == "error" {
                                    bail!("a send was refused: {}", frame.code.unwrap_or_default());
                                }
                            }
                        }
                        Heard::Life => {}
                        Heard::Closed(code) => bail!("the sender was closed with {code:?}"),
                    },
                }
            }
            // From the time that was meant: a stall is not hidden.
            let meant = at.saturating_duration_since(shared.start);
            let slot = shared.left_us.get(usize::try_from(self.next)?).context("too many")?;
            slot.store(u64::try_from(meant.as_micros())?, Ordering::Release);
            let frame = SendFrame {
                tag: Tag,
                id: Some(self.next.to_string()),
                chat_id: self.chat_id,
                message: numbered_text(self.next, self.options.body_bytes),
                kind: MessageType::Text,
                attachments: Vec::new(),
                client_id: Some(self.ids.next(clock::wall_ms())),
                reply_to: None,
            };
            self.socket.say(wire::send(&frame)).await?;
            self.next += 1;
            beside()?;
            at += pause;
        }
        // Until the last of them is everywhere.
        clock::sleep(Duration::from_millis(500)).await;
        Ok(())
    }
}

async fn receive(
    mut socket: Socket,
    number: usize,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        let text = tokio::select! {
            heard = socket.next() => match heard {
                Heard::Text(text) => text,
                Heard::Life => continue,
                Heard::Closed(_) => {
                    shared.lost_sockets.add();
                    return Ok(());
                }
            },
            changed = stopped.changed() => return Ok(changed?),
        };
        let now_us = clock::micros_since(shared.start);
        for frame in read_light(&text)? {
            let Some(message) = frame.message else { continue };
            let message = number_of(message.message)?;
            let left_us = shared.left_us.get(message).context("a number")?.load(Ordering::Acquire);
            let is_during = message as u64 >= shared.half.load(Ordering::Acquire);
            let latencies = if is_during { &shared.during } else { &shared.before };
            latencies.record(number, now_us.saturating_sub(left_us));
            shared.delivered.add();
        }
    }
}

/// Reads the log of a person and returns how many messages it holds, if it has no hole.
async fn read_all(person: &Person, chat_id: ChatId) -> anyhow::Result<u64> {
    let (mut after, mut n_messages) = (Seq::ZERO, 0);
    loop {
        let query = EventsQuery { after_seq: Some(after.get()), limit: Some(200) };
        let page = person.client.events(chat_id, &query).await?;
        for event in &page.events {
            if event.seq != after.next() {
                return Ok(0);
            }
            after = event.seq;
            n_messages += u64::from(matches!(event.body, parlor_proto::EventBody::Message { .. }));
        }
        if page.events.is_empty() || after >= page.head_seq {
            return Ok(n_messages);
        }
    }
}

/// Returns the sum of a counter of the server, if it has it.
pub(crate) async fn counted(server: &ServerProcess, name: &str) -> Option<f64> {
    let answer = reqwest::get(format!("{}/metrics", server.url())).await.ok()?;
    let text = answer.text().await.ok()?;
    let values = text.lines().filter(|line| line.starts_with(name));
    let values: Vec<f64> =
        values.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn planted_harm_by_slow_readers_is_found() {
        let good = Found {
            before_ms: 100.0,
            during_ms: 119.0,
            growth_mib: 20.0,
            n_during: 10_000,
            slow_bytes: 500,
            sent_bytes: 500_000,
            n_missing: 0,
            n_lost: 0,
            n_incomplete: 0,
            n_folded: 20.0,
        };
        let verdict = |found: Found| {
            let mut finding = Finding::default();
            judge(&found, &mut finding);
            finding.verdict()
        };
        assert_eq!(verdict(good.clone()), Verdict::Holds);
        for bad in [
            Found { during_ms: f64::NAN, ..good.clone() },
            Found { growth_mib: 150.0, ..good.clone() },
            Found { n_missing: 1, ..good.clone() },
            Found { n_lost: 1, ..good.clone() },
            Found { n_incomplete: 1, ..good.clone() },
        ] {
            assert_eq!(verdict(bad.clone()), Verdict::Broken, "{bad:?}");
        }
        let fast = Found { slow_bytes: 1_000_000, ..good.clone() };
        assert_eq!(verdict(fast), Verdict::NoEvidence);
        let never_full = Found { n_folded: 0.0, ..good.clone() };
        assert_eq!(verdict(never_full), Verdict::NoEvidence);
        assert_eq!(verdict(Found { n_during: 5, ..good }), Verdict::NoEvidence);
    }
}
