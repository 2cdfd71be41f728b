//! A TCP proxy on loopback that misbehaves on purpose, controlled from the same process.
//!
//! Each direction has latency, jitter, a pace, a slice size, hold and release, a silent drop (a cable
//! that was cut) and an end after so many bytes, by FIN or by RST; new connections can be refused. A
//! plan is in force for all connections at once and may change at any time; dice come from a seed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use parlor_client::{Random, runtime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::clock;

/// What waits in the kernel for a slow reader; small, so that the server feels it.
const SLOW_BUFFER_BYTES: u32 = 4 * 1024;
const SLICE_BYTES: usize = 16 * 1024;

/// What one direction does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Each slice waits so long.
    pub latency: Duration,
    /// And up to so much longer.
    pub jitter: Duration,
    /// Most bytes of a slice; 0 for no bound.
    pub slice: usize,
    /// Bytes a second; 0 for no bound.
    pub pace: u64,
    /// Nothing goes on until it is released.
    pub is_held: bool,
    /// Everything vanishes, ends included: a cable that was cut.
    pub is_silent: bool,
    /// The connection ends after so many bytes of this direction.
    pub cut_after: Option<u64>,
}

/// What a proxy does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// From the client to the server.
    pub up: Faults,
    /// From the server to the client.
    pub down: Faults,
    /// New connections end at once.
    pub refuse: bool,
    /// Cuts are resets instead of orderly ends.
    pub reset: bool,
    /// Connections below this number are ended.
    pub end_below: u64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    cuts: AtomicU64,
    down_bytes: AtomicU64,
}

/// A running proxy; it ends with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    plan: watch::Sender<Plan>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of a server on this machine.
    pub async fn start(server: &str, seed: u64, plan: Plan) -> anyhow::Result<Self> {
        crate::target::check_loopback(server)?;
        let target: SocketAddr =
            server.strip_prefix("http://").context("http://")?.trim_end_matches('/').parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (plan, plans) = watch::channel(plan);
        let counts = Arc::new(Counts::default());
        let accept = accept(listener, target, plans, Arc::clone(&counts), Random::from_seed(seed));
        Ok(Self { address, plan, counts, task: runtime::spawn(accept) })
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, plan: Plan) {
        self.plan.send_replace(plan);
    }

    /// Ends all open connections at once.
    pub fn cut_all(&self) {
        self.plan.send_modify(|plan| plan.end_below = self.n_accepted() + 1);
    }

    /// Returns how many connections there were.
    pub fn n_accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Acquire)
    }

    /// Returns how many connections were cut by plan.
    pub fn n_cuts(&self) -> u64 {
        self.counts.cuts.load(Ordering::Acquire)
    }

    /// Returns how many bytes went from the server to clients.
    pub fn down_bytes(&self) -> u64 {
        self.counts.down_bytes.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    plans: watch::Receiver<Plan>,
    counts: Arc<Counts>,
    mut random: Random,
) {
    // Dropped with the task, which ends every connection.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let plan = *plans.borrow();
        let number = counts.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        if plan.refuse {
            log(client.set_zero_linger());
            continue;
        }
        let (plans, counts, random) = (plans.clone(), Arc::clone(&counts), random.fork());
        connections.spawn(async move {
            let carried = carry(client, target, number, plans, &counts, random).await;
            if let Err(error) = carried {
                tracing::debug!(%error, "a connection through the proxy ended");
            }
        });
    }
}

fn log(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection through the proxy");
    }
}

/// Carries one connection in both directions until it ends.
async fn carry(
    client: TcpStream,
    target: SocketAddr,
    number: u64,
    plans: watch::Receiver<Plan>,
    counts: &Counts,
    mut random: Random,
) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if plans.borrow().down.pace > 0 {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    let server = socket.connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let mut up = Pump {
        from: client_reads,
        to: server_writes,
        plans: plans.clone(),
        of: |plan| plan.up,
        random: random.fork(),
    };
    let mut down = Pump {
        from: server_reads,
        to: client_writes,
        plans: plans.clone(),
        of: |plan| plan.down,
        random: random.fork(),
    };
    let ended = async {
        let mut plans = plans.clone();
        loop {
            if plans.borrow_and_update().end_below > number || plans.changed().await.is_err() {
                return;
            }
        }
    };
    let is_cut = tokio::select! {
        cut = up.run(None) => cut,
        cut = down.run(Some(&counts.down_bytes)) => cut,
        () = ended => true,
    };
    let plan = *plans.borrow();
    if is_cut && plan.reset {
        down.to.as_ref().set_zero_linger()?;
        up.to.as_ref().set_zero_linger()?;
        // Dropped alone, a writing half would say an orderly end first.
        down.to.forget();
        up.to.forget();
    }
    drop((up.from, down.from));
    if is_cut {
        counts.cuts.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

/// One direction of one connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    plans: watch::Receiver<Plan>,
    of: fn(&Plan) -> Faults,
    random: Random,
}

impl Pump {
    /// Runs until the direction ends; tells whether it was cut by plan.
    async fn run(&mut self, counter: Option<&AtomicU64>) -> bool {
        let mut carried = 0;
        match self.carry(&mut carried, counter).await {
            Ok(is_cut) => is_cut,
            Err(error) => {
                tracing::trace!(%error, "a direction ended");
                // What was cut off by a silent cable does not hear of the other end.
                while (self.of)(&self.plans.borrow_and_update()).is_silent {
                    if self.plans.changed().await.is_err() {
                        break;
                    }
                }
                false
            }
        }
    }

    async fn carry(
        &mut self,
        carried: &mut u64,
        counter: Option<&AtomicU64>,
    ) -> anyhow::Result<bool> {
        let mut buffer = vec![0; SLICE_BYTES];
        loop {
            let faults = (self.of)(&self.plans.borrow_and_update());
            let left = faults.cut_after.map(|after| after.saturating_sub(*carried));
            if left == Some(0) {
                return Ok(true);
            }
            if faults.is_held {
                self.plans.changed().await?;
                continue;
            }
            let mut most = if faults.slice == 0 { SLICE_BYTES } else { faults.slice };
            if faults.pace > 0 {
                most = most.min(usize::try_from(faults.pace.div_ceil(10))?);
            }
            most = most.min(SLICE_BYTES).min(usize::try_from(left.unwrap_or(u64::MAX))?);
            let slice = buffer.get_mut(..most).context("a slice")?;
            let n_bytes = tokio::select! {
                read = self.from.read(slice) => read?,
                changed = self.plans.changed() => {
                    changed?;
                    continue;
                }
            };
            if n_bytes == 0 {
                bail!("the end of the stream");
            }
            // What is under way when the plan changes arrives or vanishes by the new one.
            self.wait(faults, n_bytes).await;
            while (self.of)(&self.plans.borrow_and_update()).is_held {
                self.plans.changed().await?;
            }
            if (self.of)(&self.plans.borrow()).is_silent {
                continue;
            }
            self.to.write_all(buffer.get(..n_bytes).context("a slice")?).await?;
            *carried += n_bytes as u64;
            if let Some(counter) = counter {
                counter.fetch_add(n_bytes as u64, Ordering::AcqRel);
            }
        }
    }

    async fn wait(&mut self, faults: Faults, n_bytes: usize) {
        let jitter_us = u64::try_from(faults.jitter.as_micros()).unwrap_or(u64::MAX);
        let mut wait = faults.latency;
        if jitter_us > 0 {
            wait += Duration::from_micros(self.random.below(jitter_us));
        }
        // A pace of 0 is no limit.
        wait +=
            Duration::from_millis((n_bytes as u64 * 1_000).checked_div(faults.pace).unwrap_or(0));
        if !wait.is_zero() {
            clock::sleep(wait).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A server that says so much to each connection and then repeats what it hears.
    async fn server(text: &'static [u8]) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = runtime::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                open.spawn(async move {
                    stream.write_all(text).await.ok()?;
                    let (mut reads, mut writes) = stream.split();
                    tokio::io::copy(&mut reads, &mut writes).await.ok()
                });
            }
        });
        (url, task)
    }

    async fn dial(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_cut_at_each_byte_by_an_end_or_a_reset() {
        let (url, _task) = server(b"hello").await;
        for reset in [false, true] {
            let proxy = Proxy::start(&url, 1, Plan::default()).await.unwrap();
            for n_bytes in 0..=5 {
                let down = Faults { cut_after: Some(n_bytes), slice: 1, ..Faults::default() };
                proxy.set(Plan { down, reset, ..Plan::default() });
                let mut got = Vec::new();
                let mut stream = dial(&proxy).await;
                let ended = stream.read_to_end(&mut got).await;
                assert_eq!(ended.is_err(), reset, "{ended:?}");
                let whole = &b"hello"[..usize::try_from(n_bytes).unwrap()];
                assert!(if reset { whole.starts_with(&got) } else { whole == got }, "{got:?}");
            }
            // Counted after the streams end, which the client may notice first.
            while proxy.n_cuts() < 6 {
                tokio::task::yield_now().await;
            }
            assert_eq!((proxy.n_cuts(), proxy.down_bytes()), (6, 15));
        }
    }

    #[tokio::test]
    async fn bytes_wait_and_vanish_and_connections_are_refused() {
        let (url, _task) = server(b"hi").await;
        let late = Faults { latency: Duration::from_millis(30), ..Faults::default() };
        let proxy = Proxy::start(&url, 1, Plan { down: late, ..Plan::default() }).await.unwrap();
        let begin = clock::now();
        let mut stream = dial(&proxy).await;
        let mut got = [0; 2];
        stream.read_exact(&mut got).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(30));

        let held = Faults { is_held: true, ..Faults::default() };
        proxy.set(Plan { down: held, ..Plan::default() });
        stream.write_all(b"yo").await.unwrap();
        let limit = Duration::from_millis(60);
        assert!(clock::within(limit, stream.read_exact(&mut got)).await.is_none(), "held");
        proxy.set(Plan::default());
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"yo");

        let silent = Faults { is_silent: true, ..Faults::default() };
        proxy.set(Plan { up: silent, down: silent, ..Plan::default() });
        stream.write_all(b"xx").await.unwrap();
        assert!(clock::within(limit, stream.read_exact(&mut got)).await.is_none(), "vanished");

        proxy.set(Plan { refuse: true, ..Plan::default() });
        let refused = dial(&proxy).await.read(&mut got).await;
        assert!(refused.map_or(true, |n_bytes| n_bytes == 0));
        proxy.cut_all();
        assert!(stream.read(&mut got).await.map_or(true, |n_bytes| n_bytes == 0));
        assert!(Proxy::start("http://10.0.0.1:80", 1, Plan::default()).await.is_err());
    }
}
