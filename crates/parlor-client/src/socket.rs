//! One WebSocket with small buffers: dialling, text in, text out. No protocol lives here.
//!
//! The buffers are set explicitly: the library's defaults cost 135 KB a connection and four times
//! the work of a read (rule R1 of the performance page).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message, Utf8Bytes,
        http::{Uri, header::RETRY_AFTER},
        protocol::WebSocketConfig,
    },
};

/// Bytes that one read asks for.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes that are gathered before a write; a flush always writes.
pub const WRITE_BUFFER_BYTES: usize = 4 * 1024;
const MAX_WRITE_BUFFER_BYTES: usize = 256 * 1024;
/// A page of 200 messages of 16 KiB, escaped, fits.
const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// How a socket is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct SocketOptions {
    /// The address to connect from; the system chooses without it.
    pub local: Option<IpAddr>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server answered, and not with an upgrade.
    #[error("the server answered the upgrade with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the server wants the client to wait.
        retry_after: Option<Duration>,
    },
    /// The address cannot be dialled by this build.
    #[error("{0}")]
    Address(String),
    /// The connection failed.
    #[error("the connection failed")]
    Failed(#[source] Box<tungstenite::Error>),
}

impl From<std::io::Error> for DialError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// What came from the other side.
#[derive(Debug)]
pub enum Heard {
    /// A text frame.
    Text(Utf8Bytes),
    /// A sign of life without a text.
    Life,
    /// The end, with the close code where one was said.
    Closed(Option<u16>),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

/// Returns the buffers that every socket of this crate has.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

impl Socket {
    /// Dials a `ws://` address.
    pub async fn connect(url: &str, options: SocketOptions) -> Result<Self, DialError> {
        let stream = open(url, options).await?;
        match client_async_with_config(url, stream, Some(config())).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(answer)) => {
                let header = answer.headers().get(RETRY_AFTER);
                let seconds = header.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
                let retry_after = seconds.map(Duration::from_secs);
                Err(DialError::Refused { status: answer.status().as_u16(), retry_after })
            }
            Err(error) => Err(DialError::Failed(Box::new(error))),
        }
    }

    /// Waits for the next thing; safe to cancel. Pings are answered on the way.
    pub async fn next(&mut self) -> Heard {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Heard::Text(text),
            Some(Ok(Message::Close(frame))) => Heard::Closed(frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => Heard::Life,
            Some(Err(_)) | None => Heard::Closed(None),
        }
    }

    /// Queues a text; `flush` sends it.
    pub async fn feed(&mut self, text: String) -> Result<(), DialError> {
        self.0.feed(Message::text(text)).await.map_err(|error| DialError::Failed(Box::new(error)))
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<(), DialError> {
        self.0.flush().await.map_err(|error| DialError::Failed(Box::new(error)))
    }

    /// Sends a text at once.
    pub async fn say(&mut self, text: String) -> Result<(), DialError> {
        self.feed(text).await?;
        self.flush().await
    }

    /// Says goodbye; whether it is heard does not matter any more.
    pub async fn close(mut self) {
        if let Err(error) = self.0.close(None).await {
            tracing::debug!(%error, "the goodbye was not heard");
        }
    }

    /// Returns what is in force, for tests and reports.
    pub fn config(&self) -> WebSocketConfig {
        *self.0.get_config()
    }
}

async fn open(url: &str, options: SocketOptions) -> Result<TcpStream, DialError> {
    let uri: Uri = url.parse().map_err(|error| DialError::Address(format!("{url}: {error}")))?;
    if uri.scheme_str() != Some("ws") {
        return Err(DialError::Address(format!("{url}: this build speaks ws:// without TLS only")));
    }
    let host = uri.host().ok_or_else(|| DialError::Address(format!("{url}: no host")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let stream = match options.local {
        None => TcpStream::connect((host, port)).await?,
        Some(local) => {
            let mut found = tokio::net::lookup_host((host, port)).await?;
            let remote = found.find(|remote| remote.is_ipv4() == local.is_ipv4());
            let remote = remote.ok_or_else(|| DialError::Address(format!("{url}: not found")))?;
            let socket = if local.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(local, 0))?;
            socket.connect(remote).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buffers_are_small_and_sources_can_be_chosen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/api/v1/ws", listener.local_addr().unwrap());
        let server = async {
            let (stream, from) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            socket.send(Message::text("hello")).await.unwrap();
            from
        };
        let options = SocketOptions { local: Some("127.0.0.5".parse().unwrap()) };
        let (from, client) = tokio::join!(server, Socket::connect(&url, options));
        let mut client = client.unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.5");
        let config = client.config();
        assert!(config.read_buffer_size <= 4096 && config.write_buffer_size <= 4096);
        assert!(matches!(client.next().await, Heard::Text(text) if text.as_str() == "hello"));
        assert!(matches!(client.next().await, Heard::Closed(_)));
    }

    #[tokio::test]
    async fn a_refused_upgrade_tells_its_status_and_delay() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let answer = b"HTTP/1.1 503 x\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let ((), client) = tokio::join!(server, Socket::connect(&url, SocketOptions::default()));
        let Err(DialError::Refused { status, retry_after }) = client else { panic!("refused") };
        assert_eq!((status, retry_after), (503, Some(Duration::from_secs(3))));
        let none = Socket::connect("wss://localhost/", SocketOptions::default()).await;
        assert!(matches!(none, Err(DialError::Address(_))));
    }
}
