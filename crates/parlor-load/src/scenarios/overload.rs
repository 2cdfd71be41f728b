//! `overload`: ten times what the server can do is offered (P17, goal G14).
//!
//! First a closed loop finds the rated load of this machine. Then senders offer ten times of it,
//! whatever the answers are: the server goes on near its rated load, refuses the rest with a time to
//! come again, and a calm client is served as before soon after the end. Everything acknowledged is
//! looked up after a kill and a restart.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use parlor_client::{
    Random,
    ids::ClientIds,
    socket::{Heard, Socket},
    wire,
};
use parlor_proto::{
    ChatId, CloseCode, EventBody, Seq,
    error::Reconnect,
    frame::{SendFrame, ServerFrame, Tag},
    messages::{EventsQuery, MessageType},
};
use tokio::task::JoinSet;

use super::{Base, own_log};
use crate::{
    clock,
    finding::Finding,
    latency::{Latencies, ms, per_second},
    people::{Admin, Person},
    process::ServerProcess,
    procfs,
    speaker::Speaker,
    target,
};

const LEAST_GOODPUT: f64 = 0.9;
/// A calm client is served as before so long after the end.
const NORMAL_LIMIT_S: f64 = 10.0;
/// Below this a difference is the machine's.
const NOISE_MS: f64 = 100.0;
const DEPTH: usize = 8;
/// A sender gives up on what goes beyond so many without an answer.
const MOST_OPEN: usize = 512;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Overload {
    /// Senders, each with a chat of its own.
    pub senders: usize,
    /// Times the rated load.
    pub times: u64,
    /// Seconds in which the rated load is found.
    pub rated_s: u64,
    /// Seconds of overload.
    pub overload_s: u64,
}

impl Default for Overload {
    fn default() -> Self {
        Self { senders: 64, times: 10, rated_s: 5, overload_s: 15 }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Overload) -> anyhow::Result<Finding> {
    target::check_size(options.senders, options.rated_s + options.overload_s)?;
    if options.senders == 0 || options.times == 0 {
        bail!("at least one sender");
    }
    let data = tempfile::Builder::new().prefix("parlor-load-").tempdir()?;
    let log = own_log(base, "overload")?;
    let mut server = ServerProcess::start(&base.binary, data.path(), &log).await?;
    let admin = Admin::sign_up(&server.client()?).await?;
    let people = admin.people("s", options.senders + 1).await?;
    let (calm, senders) = people.split_last().context("people")?;
    let mut random = Random::from_seed(base.seed);
    let mut lanes = Vec::new();
    for person in senders {
        let chat_id = person.client.create_group("own", &[]).await?.chat_id;
        let (speaker, _, _) = Speaker::connect(&person.client, None, None).await?;
        lanes.push(Lane {
            chat_id,
            socket: speaker.socket,
            ids: ClientIds::new(random.fork()),
            next: 0,
            is_closed: false,
            open: BTreeMap::new(),
            tally: Tally::default(),
        });
    }
    let own = calm.client.create_group("calm", &[]).await?.chat_id;
    let pid = server.pid()?;
    let calm_before = calm_p99(calm, own, Duration::from_secs(2)).await?;

    let rated_for = Duration::from_secs(options.rated_s);
    let (mut lanes, rated) = drive(lanes, rated_for, Pace::Closed).await?;
    let rated_rate = per_second(rated.acked, micros(rated_for));
    let rss_before = procfs::resident_bytes(pid)?;
    let overload_for = Duration::from_secs(options.overload_s);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let lane_rate = rated_rate * options.times as f64 / options.senders as f64;
    let driven = drive(lanes, overload_for, Pace::Open(lane_rate)).await?;
    lanes = driven.0;
    let overload = driven.1;
    let rss_after = procfs::resident_bytes(pid)?;
    let ended = clock::now();

    // Until a second of calm sends is as fast as before; the last answers are read beside.
    let normal = (calm_before * 2.0).max(calm_before + NOISE_MS);
    let calm_again = async {
        while ended.elapsed() < Duration::from_secs(40) {
            if calm_p99(calm, own, Duration::from_secs(1)).await? <= normal {
                return Ok((ended.elapsed().as_secs_f64() - 1.0).max(0.0));
            }
        }
        anyhow::Ok(f64::NAN)
    };
    let listen = drive(lanes, Duration::from_secs(12), Pace::Listen);
    let (listened, normal_after_s) = tokio::join!(listen, calm_again);
    let ((lanes, rest), normal_after_s) = (listened?, normal_after_s?);
    server.kill9().await?;
    server.restart().await?;
    let mut n_lost = 0;
    for (person, lane) in senders.iter().zip(&lanes) {
        n_lost += lost(person, lane).await?;
    }
    let found = Found {
        rated: rated_rate,
        offered: per_second(overload.offered, micros(overload_for)),
        goodput: per_second(overload.acked_in_time, micros(overload_for)),
        n_refused: overload.refused + rest.refused,
        n_bare: overload.bare + rest.bare,
        n_closed: overload.closed + rest.closed,
        n_away: overload.sent_away + rest.sent_away,
        given_up: per_second(overload.given_up, micros(overload_for)),
        calm_before_ms: calm_before,
        normal_after_s,
        n_lost,
        acked_p99_ms: overload.p99_ms,
        growth_mib: crate::latency::ratio(rss_after.saturating_sub(rss_before), 1 << 20),
    };
    server.stop().await?;
    let mut finding = Finding::default();
    judge(&found, &mut finding);
    Ok(finding)
}

#[derive(Debug, Clone)]
struct Found {
    rated: f64,
    offered: f64,
    goodput: f64,
    n_refused: u64,
    n_bare: u64,
    n_closed: u64,
    n_away: u64,
    given_up: f64,
    calm_before_ms: f64,
    normal_after_s: f64,
    n_lost: u64,
    acked_p99_ms: f64,
    growth_mib: f64,
}

fn judge(found: &Found, finding: &mut Finding) {
    finding.figure("rated load", found.rated, "/s");
    finding.figure("offered", found.offered, "/s");
    finding.figure("given up by the senders", found.given_up, "/s");
    // Less than twice is no overload: the generator shares the machine.
    let wanted = found.offered + found.given_up;
    if wanted.is_nan() || wanted < found.rated * 2.0 {
        finding.missing.push(format!("{wanted:.0}/s were offered, no overload"));
    }
    let goodput = found.goodput / found.rated;
    if cfg!(debug_assertions) {
        // The generator takes the CPU that the server would need.
        finding.figure("goodput of the rated load", goodput, "");
        finding.notes.push("the goodput is not judged: debug build".to_owned());
    } else {
        finding.at_least("goodput of the rated load", goodput, LEAST_GOODPUT, "");
    }
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    finding.figure("refused with a time", found.n_refused as f64, "");
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    finding.figure("closed as slow readers", found.n_away as f64, "");
    finding.figure("p99 of acknowledged sends", found.acked_p99_ms, "ms");
    finding.figure("memory growth", found.growth_mib, "MiB");
    finding.figure("p99 of a calm client before", found.calm_before_ms, "ms");
    finding.fast_at_most("normal again after", found.normal_after_s, NORMAL_LIMIT_S, "s");
    for (count, what) in [
        (found.n_bare, "refusals carry no time to come again"),
        (found.n_closed, "sockets were closed without a code to come back with"),
        (found.n_lost, "acknowledged sends are lost"),
    ] {
        if count > 0 {
            finding.broken.push(format!("{count} {what}"));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Pace {
    /// So many in flight.
    Closed,
    /// So many a second.
    Open(f64),
    /// Nothing is sent.
    Listen,
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    offered: u64,
    acked: u64,
    acked_in_time: u64,
    refused: u64,
    bare: u64,
    closed: u64,
    sent_away: u64,
    given_up: u64,
    p99_ms: f64,
}

#[derive(Debug, Default)]
struct Tally {
    total: Total,
    acked: HashMap<String, Seq>,
}

/// One sender.
struct Lane {
    chat_id: ChatId,
    socket: Socket,
    ids: ClientIds,
    next: u64,
    is_closed: bool,
    /// Sends without an answer: key, and when they were meant to leave.
    open: BTreeMap<u64, (String, Instant)>,
    tally: Tally,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn drive(
    lanes: Vec<Lane>,
    lasts: Duration,
    pace: Pace,
) -> anyhow::Result<(Vec<Lane>, Total)> {
    let latencies = std::sync::Arc::new(Latencies::default());
    let until = clock::now() + lasts;
    let mut tasks = JoinSet::new();
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let latencies = std::sync::Arc::clone(&latencies);
        tasks.spawn(async move {
            lane.tally.total = Total::default();
            lane.drive(number, until, pace, &latencies).await?;
            anyhow::Ok((number, lane))
        });
    }
    let mut done = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        let (number, lane) = ended??;
        done.insert(number, lane);
    }
    let lanes: Vec<Lane> = done.into_values().collect();
    let mut total = Total { p99_ms: ms(latencies.summary().p99_us), ..Total::default() };
    for lane in &lanes {
        let of_lane = &lane.tally.total;
        total.offered += of_lane.offered;
        total.acked += of_lane.acked;
        total.acked_in_time += of_lane.acked_in_time;
        total.refused += of_lane.refused;
        total.bare += of_lane.bare;
        total.closed += of_lane.closed;
        total.sent_away += of_lane.sent_away;
        total.given_up += of_lane.given_up;
    }
    Ok((lanes, total))
}

impl Lane {
    async fn drive(
        &mut self,
        number: usize,
        until: Instant,
        pace: Pace,
        latencies: &Latencies,
    ) -> anyhow::Result<()> {
        let mut at = clock::now();
        if self.is_closed {
            return Ok(());
        }
        loop {
            let now = clock::now();
            if now >= until {
                return Ok(());
            }
            match pace {
                Pace::Closed => {
                    while self.open.len() < DEPTH {
                        self.feed(now).await?;
                    }
                }
                Pace::Open(per_second) => {
                    // What is due leaves in one write; the server's own pressure holds it up.
                    let pause = Duration::from_secs_f64(1.0 / per_second.max(0.1));
                    let mut n_due = 0;
                    while at <= now && n_due < 64 {
                        if self.open.len() < MOST_OPEN {
                            self.feed(at).await?;
                        } else {
                            self.tally.total.given_up += 1;
                        }
                        at += pause;
                        n_due += 1;
                    }
                }
                Pace::Listen => {}
            }
            let flush = self.socket.flush();
            if clock::within(until.saturating_duration_since(now), flush).await.is_none() {
                return Ok(());
            }
            let next = if matches!(pace, Pace::Open(_)) { at.min(until) } else { until };
            // A reader that only writes would be slow itself: read what is there, then go on.
            loop {
                let heard = tokio::select! {
                    biased;
                    heard = self.socket.next() => heard,
                    () = clock::sleep_until(next) => break,
                };
                match heard {
                    Heard::Text(text) => self.take(number, &text, until, latencies)?,
                    Heard::Life => {}
                    Heard::Closed(code) => {
                        tracing::warn!(?code, "a sender was closed");
                        // A sender that this machine starves is a slow reader: it may come back.
                        let code = code.and_then(CloseCode::from_code);
                        let may = code.is_some_and(|code| code.reconnect() != Reconnect::No);
                        self.tally.total.closed += u64::from(!may);
                        self.tally.total.sent_away += u64::from(may);
                        self.is_closed = true;
                        return Ok(());
                    }
                }
                // Everything that is here is read before more is sent: see `biased`.
                if matches!(pace, Pace::Closed) {
                    break;
                }
            }
        }
    }

    async fn feed(&mut self, meant: Instant) -> anyhow::Result<()> {
        let key = self.ids.next(clock::wall_ms());
        self.open.insert(self.next, (key.as_str().to_owned(), meant));
        let frame = SendFrame {
            tag: Tag,
            id: Some(self.next.to_string()),
            chat_id: self.chat_id,
            message: format!("{} of many", self.next),
            kind: MessageType::Text,
            attachments: Vec::new(),
            client_id: Some(key),
            reply_to: None,
        };
        self.next += 1;
        self.tally.total.offered += 1;
        Ok(self.socket.feed(wire::send(&frame)).await?)
    }

    fn take(
        &mut self,
        number: usize,
        text: &str,
        until: Instant,
        latencies: &Latencies,
    ) -> anyhow::Result<()> {
        let now = clock::now();
        for frame in wire::decode(text)? {
            match frame {
                ServerFrame::Ack(ack) => {
                    let id = ack.id.as_deref().and_then(|id| id.parse().ok());
                    let Some((key, meant)) = id.and_then(|id: u64| self.open.remove(&id)) else {
                        continue;
                    };
                    self.tally.total.acked += 1;
                    self.tally.total.acked_in_time += u64::from(now < until);
                    self.tally.acked.insert(key, ack.seq);
                    latencies.record(number, clock::micros_since(meant));
                }
                ServerFrame::Error(error) => {
                    let id = error.id.as_deref().and_then(|id| id.parse().ok());
                    if let Some(id) = id {
                        self.open.remove(&id);
                    }
                    if error.retry_after_ms.is_some() {
                        self.tally.total.refused += 1;
                    } else {
                        self.tally.total.bare += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the p99 of a client that sends one after the other over HTTP, calmly.
async fn calm_p99(person: &Person, chat_id: ChatId, lasts: Duration) -> anyhow::Result<f64> {
    let latencies = Latencies::default();
    let mut ids = ClientIds::new(Random::from_seed(clock::wall_ms()));
    let begin = clock::now();
    while begin.elapsed() < lasts {
        let key = ids.next(clock::wall_ms());
        let message = crate::device::message(chat_id, "calm".to_owned(), key);
        let from = clock::now();
        match person.client.send_message(&message).await {
            Ok(_) => latencies.record(0, clock::micros_since(from)),
            // Refused is not normal.
            Err(error) if error.may_retry() => latencies.record(0, 60_000_000),
            Err(error) => return Err(error.into()),
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
    Ok(ms(latencies.summary().p99_us))
}

/// Counts acknowledged sends that are not in the log at their place.
async fn lost(person: &Person, lane: &Lane) -> anyhow::Result<u64> {
    let mut stored = HashMap::new();
    let mut after = Seq::ZERO;
    loop {
        let query = EventsQuery { after_seq: Some(after.get()), limit: Some(200) };
        let page = person.client.events(lane.chat_id, &query).await?;
        for event in &page.events {
            after = event.seq;
            if let EventBody::Message { message } = &event.body
                && let Some(key) = &message.client_id
            {
                stored.insert(key.as_str().to_owned(), event.seq);
            }
        }
        if page.events.is_empty() || after >= page.head_seq {
            break;
        }
    }
    let is_lost = |(key, seq): &(&String, &Seq)| stored.get(*key) != Some(*seq);
    Ok(lane.tally.acked.iter().filter(is_lost).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn planted_bad_answers_to_overload_are_found() {
        let good = Found {
            rated: 1_000.0,
            offered: 9_000.0,
            goodput: 980.0,
            n_refused: 100,
            n_bare: 0,
            n_closed: 0,
            n_away: 0,
            given_up: 0.0,
            calm_before_ms: 10.0,
            normal_after_s: 2.0,
            n_lost: 0,
            acked_p99_ms: 500.0,
            growth_mib: 10.0,
        };
        let verdict = |found: Found| {
            let mut finding = Finding::default();
            judge(&found, &mut finding);
            finding.verdict()
        };
        assert_eq!(verdict(good.clone()), Verdict::Holds);
        for bad in [
            Found { n_bare: 1, ..good.clone() },
            Found { n_closed: 1, ..good.clone() },
            Found { n_lost: 1, ..good.clone() },
            Found { normal_after_s: f64::NAN, ..good.clone() },
        ] {
            assert_eq!(verdict(bad.clone()), Verdict::Broken, "{bad:?}");
        }
        assert_eq!(verdict(Found { offered: 1_500.0, ..good }), Verdict::NoEvidence);
    }
}
