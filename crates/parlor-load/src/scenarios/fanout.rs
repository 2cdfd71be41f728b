//! `fanout`: one sender, a group of n members online (test T2 of the performance page).
//!
//! A burst leaves in one write; the next one begins when the last member has the last message of it.
//! It is a closed loop by nature: what is measured is the way of one burst through the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
    frame::{SendFrame, Tag},
    messages::MessageType,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{
    clock,
    latency::{Figure, Latencies, ms, per_second, ratio},
    load::{Counter, Field, Times, Window, number_of, numbered_text, rate, read_light},
    speaker::Speaker,
    target,
};

const BURST_LIMIT: Duration = Duration::from_secs(30);

/// How large the run is.
#[derive(Debug, Clone, Copy)]
pub struct Fanout {
    /// Members online, the sender included.
    pub members: usize,
    /// Messages that leave together.
    pub burst: usize,
    /// Bytes of a text.
    pub body_bytes: usize,
    /// How long.
    pub times: Times,
}

struct Shared {
    window: Window,
    members: usize,
    /// The number of the first message of the present burst, and when it left.
    burst_first: AtomicUsize,
    burst_us: std::sync::atomic::AtomicU64,
    /// Deliveries of the present burst that are still missing.
    missing: AtomicUsize,
    /// Members that got the first message of the burst.
    has_first: AtomicUsize,
    all_here: Notify,
    deliveries: Counter,
    to_first: Latencies,
    to_half: Latencies,
    to_last: Latencies,
}

/// Makes the group, runs the load, and returns the figures.
pub async fn run(field: &Field, options: &Fanout) -> anyhow::Result<Vec<Figure>> {
    let seconds = (options.times.warm_up + options.times.measured).as_secs();
    target::check_loopback(&field.server.url())?;
    target::check_size(options.members, seconds)?;
    if options.members < 2 || options.burst == 0 {
        bail!("at least two members and one message");
    }
    let people = field.admin.people("member", options.members).await?;
    let (owner, others) = people.split_first().context("members")?;
    let ids: Vec<_> = others.iter().map(|person| person.user_id).collect();
    let chat_id = owner.client.create_group("hall", &ids).await?.chat_id;
    let recipients: Vec<Socket> = stream::iter(others)
        .map(|person| async move {
            anyhow::Ok(Speaker::connect(&person.client, None, None).await?.0.socket)
        })
        .buffered(16)
        .try_collect()
        .await?;
    let (mut owner_socket, _, _) = Speaker::connect(&owner.client, None, None).await?;
    let n_others = options.members - 1;
    let shared = Arc::new(Shared {
        window: Window::begin(options.times),
        members: n_others,
        burst_first: AtomicUsize::new(0),
        burst_us: 0.into(),
        missing: AtomicUsize::new(0),
        has_first: AtomicUsize::new(0),
        all_here: Notify::new(),
        deliveries: Counter::default(),
        to_first: Latencies::default(),
        to_half: Latencies::default(),
        to_last: Latencies::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for socket in recipients {
        tasks.spawn(receive(socket, Arc::clone(&shared), stopped.clone()));
    }
    let sending = send_bursts(&mut owner_socket.socket, &shared, options, chat_id);
    let (used, sent) = tokio::join!(shared.window.watch(&field.server), sending);
    let n_bursts = sent?;
    let used = used?;
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (window, n_deliveries) = (&shared.window, shared.deliveries.get());
    let mut figures = vec![rate("deliveries", n_deliveries, window)];
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    figures.push(Figure::new("bursts", n_bursts as f64, ""));
    figures.push(Figure::new(
        "deliveries per core-second",
        per_second(n_deliveries, used.server.cpu_us),
        "/s",
    ));
    for (what, latencies) in [
        ("first member", &shared.to_first),
        ("half of the members", &shared.to_half),
        ("last member", &shared.to_last),
    ] {
        let summary = latencies.summary();
        figures.push(Figure::new(format!("{what} p50"), ms(summary.p50_us), "ms"));
        figures.push(Figure::new(format!("{what} p99"), ms(summary.p99_us), "ms"));
    }
    figures.extend(used.figures("delivery", n_deliveries, window));
    figures.push(Figure::new(
        "generator CPU per delivery",
        ratio(used.generator.cpu_us, n_deliveries),
        "µs",
    ));
    Ok(figures)
}

async fn send_bursts(
    socket: &mut Socket,
    shared: &Shared,
    options: &Fanout,
    chat_id: parlor_proto::ChatId,
) -> anyhow::Result<u64> {
    let mut ids = ClientIds::new(Random::from_seed(clock::wall_ms()));
    let (mut next, mut n_bursts) = (0, 0);
    loop {
        let now_us = shared.window.now_us();
        if shared.window.is_over(now_us) {
            return Ok(n_bursts);
        }
        shared.burst_first.store(next, Ordering::Relaxed);
        shared.has_first.store(0, Ordering::Relaxed);
        shared.missing.store(shared.members * options.burst, Ordering::Relaxed);
        shared.burst_us.store(now_us, Ordering::Release);
        for _ in 0..options.burst {
            let frame = SendFrame {
                tag: Tag,
                id: Some(next.to_string()),
                chat_id,
                message: numbered_text(next as u64, options.body_bytes),
                kind: MessageType::Text,
                attachments: Vec::new(),
                client_id: Some(ids.next(clock::wall_ms())),
                reply_to: None,
            };
            socket.feed(wire::send(&frame)).await?;
            next += 1;
        }
        socket.flush().await?;
        let all_here = clock::within(BURST_LIMIT, until_all_are_here(socket, shared)).await;
        all_here.with_context(|| {
            let missing = shared.missing.load(Ordering::Relaxed);
            shared.window.stop();
            format!("{missing} deliveries of a burst are missing after {BURST_LIMIT:?}")
        })??;
        n_bursts += 1;
    }
}

/// Reads the sender's own frames while the members get theirs.
async fn until_all_are_here(socket: &mut Socket, shared: &Shared) -> anyhow::Result<()> {
    loop {
        if shared.missing.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        tokio::select! {
            () = shared.all_here.notified() => {}
            heard = socket.next() => match heard {
                Heard::Text(text) => {
                    for frame in read_light(&text)? {
                        if frame.t == "error" {
                            bail!("a send was refused: {}", frame.code.unwrap_or_default());
                        }
                    }
                }
                Heard::Life => {}
                Heard::Closed(code) => bail!("the sender's socket was closed with {code:?}"),
            },
        }
    }
}

async fn receive(
    mut socket: Socket,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        let heard = tokio::select! {
            heard = socket.next() => heard,
            changed = stopped.changed() => {
                changed?;
                return Ok(());
            }
        };
        let text = match heard {
            Heard::Text(text) => text,
            Heard::Life => continue,
            Heard::Closed(code) => {
                shared.window.stop();
                bail!("a member's socket was closed with {code:?}");
            }
        };
        let now_us = shared.window.now_us();
        let burst_us = shared.burst_us.load(Ordering::Acquire);
        for frame in read_light(&text)? {
            if frame.t == "gap" {
                bail!("the server left events out: this run does not page");
            }
            let Some(message) = frame.message else { continue };
            let is_first =
                number_of(message.message)? == shared.burst_first.load(Ordering::Relaxed);
            let micros = now_us.saturating_sub(burst_us);
            let is_measured = shared.window.holds(now_us);
            if is_measured {
                shared.deliveries.add();
            }
            if is_first {
                let nth = shared.has_first.fetch_add(1, Ordering::Relaxed) + 1;
                if is_measured && nth == 1 {
                    shared.to_first.record(0, micros);
                }
                if is_measured && nth == shared.members.div_ceil(2) {
                    shared.to_half.record(0, micros);
                }
            }
            if shared.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                if is_measured {
                    shared.to_last.record(0, micros);
                }
                shared.all_here.notify_one();
            }
        }
    }
}
