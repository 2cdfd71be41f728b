//! `idle`: n greeted sockets that say nothing (test T3 of the performance page).
//!
//! Resident memory of the server before and after, divided by n; then its CPU while they only answer
//! pings. Sockets are spread over several loopback source addresses, since each has some 28,000
//! ports only.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use parlor_client::socket::{Heard, Socket};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    clock,
    latency::{Figure, ratio},
    load::{Counter, Field},
    people::Person,
    procfs,
    speaker::Speaker,
    target,
};

/// Sockets of one source address.
const PER_ADDRESS: usize = 4_000;
/// Handshakes at once.
const AT_ONCE: usize = 64;

/// How large the run is.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Sockets.
    pub connections: usize,
    /// People whose devices they are.
    pub users: usize,
    /// Chats that each person is in.
    pub chats: usize,
    /// How long they are watched.
    pub hold: Duration,
}

/// Connects, holds, and returns the figures.
pub async fn run(field: &Field, options: &Idle) -> anyhow::Result<Vec<Figure>> {
    target::check_loopback(&field.server.url())?;
    target::check_size(options.connections, options.hold.as_secs())?;
    if options.users == 0 || options.connections < options.users {
        bail!("at least one person, and a socket for each");
    }
    let people = field.admin.people("idle", options.users).await?;
    make_chats(&people, options.chats).await?;
    let pid = field.server.pid()?;
    // Memory that the set-up needed is not the sockets'.
    clock::sleep(Duration::from_secs(2)).await;
    let before = (procfs::resident_bytes(pid)?, procfs::slab_bytes()?);
    let begin = clock::now();
    let client = |number: usize| people.get(number % people.len()).map(|person| &person.client);
    let sockets: Vec<Socket> = stream::iter(0..options.connections)
        .map(|number| async move {
            let client = client(number).context("people")?;
            let local = source_address(number)?;
            let (speaker, _, _) = Speaker::connect(client, None, Some(local)).await?;
            anyhow::Ok(speaker.socket)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let handshakes_us = clock::micros_since(begin);
    let lost = Arc::new(Counter::default());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for socket in sockets {
        tasks.spawn(hold(socket, Arc::clone(&lost), stopped.clone()));
    }
    clock::sleep(Duration::from_secs(2)).await;
    let after = (procfs::resident_bytes(pid)?, procfs::slab_bytes()?);
    let used_before = procfs::usage(pid)?;
    let held = clock::now();
    clock::sleep(options.hold).await;
    let (held_us, used) = (clock::micros_since(held), procfs::usage(pid)?);
    let end_bytes = procfs::resident_bytes(pid)?;
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    if lost.get() > 0 {
        bail!("{} sockets were closed while they were idle", lost.get());
    }
    let n = options.connections as u64;
    let cpu_us = used.cpu_us.saturating_sub(used_before.cpu_us);
    let kib = |bytes: u64| ratio(bytes, n) / 1_024.0;
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let count = n as f64;
    Ok(vec![
        Figure::new("connections", count, ""),
        Figure::new("memory per connection", kib(after.0.saturating_sub(before.0)), "KiB"),
        Figure::new(
            "memory per connection after the hold",
            kib(end_bytes.saturating_sub(before.0)),
            "KiB",
        ),
        Figure::new(
            "kernel slab per connection, both ends",
            kib(after.1.saturating_sub(before.1)),
            "KiB",
        ),
        Figure::new(
            "CPU per idle connection",
            ratio(cpu_us, n) * ratio(1_000_000, held_us),
            "µs/s",
        ),
        Figure::new("handshakes", ratio(n * 1_000_000, handshakes_us), "/s"),
        Figure::new("server memory", ratio(end_bytes, 1 << 20), "MiB"),
    ])
}

/// Puts each person into so many groups of ten people.
async fn make_chats(people: &[Person], n_chats: usize) -> anyhow::Result<()> {
    for (number, group) in people.chunks(10).enumerate() {
        let Some((owner, others)) = group.split_first() else { continue };
        let others: Vec<_> = others.iter().map(|person| person.user_id).collect();
        for chat in 0..n_chats {
            owner.client.create_group(&format!("room {number} {chat}"), &others).await?;
        }
    }
    Ok(())
}

/// Returns 127.0.0.2, 127.0.0.3, … as the numbers grow.
fn source_address(number: usize) -> anyhow::Result<IpAddr> {
    let last = u8::try_from(2 + number / PER_ADDRESS).context("too many source addresses")?;
    Ok(Ipv4Addr::new(127, 0, 0, last).into())
}

/// Answers pings until the end.
async fn hold(
    mut socket: Socket,
    lost: Arc<Counter>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            heard = socket.next() => {
                if let Heard::Closed(_) = heard {
                    lost.add();
                    return Ok(());
                }
            }
            changed = stopped.changed() => {
                changed?;
                return Ok(());
            }
        }
    }
}
