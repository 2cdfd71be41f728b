//! The accept loop: limits on connections, heads and time before anything expensive runs.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use parlor_core::ports::clock::{Clock, Spawn};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::remote::PeerAddress;
use crate::{config::Network, metrics::Metrics};

/// Time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;
/// Lines of a head.
const HEAD_LINES: usize = 64;
/// Pause after a failed accept, mostly for want of files: gives others the time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Files that are kept for the engine, the log and the way out.
const SPARE_FILES: u64 = 256;

/// Where connections come from: a socket of the system, or of a simulated network.
pub trait Listen: Send + Sync + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection, which writes at once what it is given.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            // It ended before it began; the first read says so too.
            tracing::debug!(%error, "small writes of a connection may be held back");
        }
        Ok((stream, peer))
    }
}

/// A place among the connections that may be open; free again when nobody holds it.
#[derive(Clone)]
pub struct Seat(#[expect(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

/// Everything that the loop needs.
pub struct Doors {
    /// What answers.
    pub router: Router,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// Counters.
    pub metrics: Metrics,
    /// Holds the loop and every connection, so that an orderly end can wait for them.
    pub open: TaskTracker,
    /// Ends the loop, and each connection after the call that it serves.
    pub stop: CancellationToken,
    /// Connections of one address that did not send a request yet; none where limits are off.
    pub most_handshakes: Option<usize>,
    /// Proxies: many people come from their addresses.
    pub trusted_proxies: Vec<Network>,
    /// Connections in all; more wait in the queue of the kernel.
    pub most_connections: usize,
}

/// Accepts connections until it is told to stop.
pub async fn run(listener: impl Listen, doors: Doors) {
    // A connection that was accepted is not overlooked before it is a task of its own.
    let _open = doors.open.token();
    let handshakes = Arc::new(Handshakes::default());
    let seats = Arc::new(Semaphore::new(doors.most_connections));
    loop {
        let accept = async {
            // Never closed, so it never fails.
            let seat = seats.clone().acquire_owned().await.ok();
            (seat, listener.accept().await)
        };
        let (seat, accepted) = tokio::select! {
            biased;
            accepted = accept => accepted,
            () = doors.stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                doors.clock.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        // Who is at the machine itself is no stranger, and a proxy stands for many.
        let is_free = address.is_loopback()
            || doors.trusted_proxies.iter().any(|proxies| proxies.contains(address));
        let most = doors.most_handshakes.filter(|_| !is_free);
        let Some(handshake) = handshakes.begin(address, most) else {
            doors.metrics.handshakes_refused.inc();
            continue;
        };
        let (router, stop) = (doors.router.clone(), doors.stop.clone());
        let serve = serve(stream, peer, router, stop, handshake, seat);
        doors.spawn.spawn("connection", Box::pin(doors.open.track_future(serve)));
    }
}

/// Raises the number of files that the process may open as far as it may, and returns how many
/// connections that allows.
pub fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < 4_096 {
        tracing::warn!(files, "few files may be open: raise the limit (ulimit -n, LimitNOFILE)");
    }
    let most = files.saturating_sub(SPARE_FILES).max(64);
    usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    handshake: Handshake,
    seat: Option<OwnedSemaphorePermit>,
) {
    // A socket keeps it beyond the end of HTTP.
    let seat = seat.map(|seat| Seat(Arc::new(seat)));
    // The handshake is over with the first head.
    let handshake = Mutex::new(Some(handshake));
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        drop(handshake.lock().take());
        request.extensions_mut().insert(PeerAddress(peer.ip()));
        if let Some(seat) = &seat {
            request.extensions_mut().insert(seat.clone());
        }
        let router = router.clone();
        async move {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Connections that did not send a request yet, by address.
#[derive(Default)]
struct Handshakes(Mutex<HashMap<IpAddr, usize>>);

/// One of them; it is over when this is dropped.
struct Handshake {
    all: Arc<Handshakes>,
    block: IpAddr,
}

impl Handshakes {
    fn begin(self: &Arc<Self>, address: IpAddr, most: Option<usize>) -> Option<Handshake> {
        let block = block_of(address);
        let mut all = self.0.lock();
        let count = all.entry(block).or_default();
        if most.is_some_and(|most| *count >= most) {
            return None;
        }
        *count += 1;
        Some(Handshake { all: self.clone(), block })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.block);
            }
        }
    }
}

/// Whoever has one address of IPv6 has its whole /64.
fn block_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_handshakes_and_one_network_of_ipv6_counts_as_one() {
        let all = Arc::new(Handshakes::default());
        let begin = |text: &str| all.begin(text.parse().unwrap(), Some(2));
        let first = begin("192.0.2.1").unwrap();
        let _second = begin("192.0.2.1").unwrap();
        assert!(begin("192.0.2.1").is_none() && begin("192.0.2.2").is_some());
        drop(first);
        assert!(begin("192.0.2.1").is_some());
        let _one = begin("2001:db8::1").unwrap();
        let _two = begin("2001:db8::2").unwrap();
        assert!(begin("2001:db8::3").is_none() && begin("2001:db8:0:1::1").is_some());
        assert!(all.begin("192.0.2.1".parse().unwrap(), None).is_some());
    }

    #[test]
    fn what_is_over_leaves_nothing_behind() {
        let all = Arc::new(Handshakes::default());
        drop(all.begin("192.0.2.1".parse().unwrap(), Some(1)));
        assert!(all.0.lock().is_empty());
    }
}
