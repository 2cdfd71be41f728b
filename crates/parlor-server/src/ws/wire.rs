//! The bytes of a WebSocket: the handshake, frames that leave in one write, and buffers that are
//! given back while a connection says nothing.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use futures_util::{Sink as _, Stream as _};
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parlor_proto::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use crate::{App, error::Refusal};

/// Read buffer of one connection: one send of a person and a few frames of a client. The library's
/// default costs 135 KB each (performance R1).
const READ_BUFFER: usize = 1024;
/// Bytes that wait before they are written although more is to come.
const WRITE_BUFFER: usize = 8 * 1024;

/// A request that becomes a WebSocket.
pub struct Upgrade {
    accept: String,
    on_upgrade: OnUpgrade,
}

impl FromRequestParts<Arc<App>> for Upgrade {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        let refusal = || Refusal::new(ErrorCode::BadRequest, "this address speaks WebSocket only");
        if parts.method != Method::GET
            || !has_word(&parts.headers, &header::CONNECTION, "upgrade")
            || !has_word(&parts.headers, &header::UPGRADE, "websocket")
            || !has_word(&parts.headers, &header::SEC_WEBSOCKET_VERSION, "13")
        {
            return Err(refusal());
        }
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(refusal)?;
        let accept = derive_accept_key(key.as_bytes());
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(refusal)?;
        Ok(Self { accept, on_upgrade })
    }
}

/// Tells whether a list of words has one, in whatever case.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

impl Upgrade {
    /// Returns the answer, and the stream that there is once it was sent.
    pub fn accept(self) -> (Response, OnUpgrade) {
        let head = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, &self.accept),
        ];
        let response = (StatusCode::SWITCHING_PROTOCOLS, head, Body::empty()).into_response();
        (response, self.on_upgrade)
    }
}

/// An open WebSocket.
pub struct Socket<S = TokioIo<Upgraded>>(WebSocketStream<Outgoing<S>>);

impl Socket {
    /// Speaks on the stream of an upgrade; longer messages than `most` bytes are errors.
    pub async fn of(upgraded: Upgraded, most: usize) -> Self {
        Self::over(TokioIo::new(upgraded), most).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    async fn over(stream: S, most: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // What the library writes by itself waits in our buffer, behind whole frames.
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let stream = Outgoing { stream, bytes: Vec::new(), n_written: 0 };
        Self(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
    }

    /// Waits for the next message; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await
    }

    /// Queues a text for the next write. Not after a close.
    pub fn put_text(&mut self, text: &str) {
        self.0.get_mut().put_frame(0x81, text.as_bytes());
    }

    /// Queues a question for a sign of life. Not after a close.
    pub fn put_ping(&mut self) {
        self.0.get_mut().put_frame(0x89, &[]);
    }

    /// Tells whether so much waits that it should go out before more is queued.
    pub fn is_full(&self) -> bool {
        self.0.get_ref().bytes.len() >= WRITE_BUFFER
    }

    /// Writes everything that was queued.
    pub fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.0.get_mut()).poll_flush(context)
    }

    /// Sends a close frame, behind everything that was queued.
    pub async fn close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        std::future::poll_fn(|context| Pin::new(&mut self.0).poll_ready(context)).await?;
        Pin::new(&mut self.0).start_send(Message::Close(Some(frame)))?;
        std::future::poll_fn(|context| Pin::new(&mut self.0).poll_flush(context)).await
    }
}

/// Tells whether a message was longer than is allowed.
pub fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Capacity(_) | Error::Protocol(ProtocolError::ControlFrameTooBig))
}

/// A stream that gathers what is written until it is flushed, and then gives the buffer back: most
/// connections say nothing most of the time.
struct Outgoing<S> {
    stream: S,
    bytes: Vec<u8>,
    n_written: usize,
}

impl<S> Outgoing<S> {
    /// Appends a whole frame; the server does not mask.
    fn put_frame(&mut self, head: u8, payload: &[u8]) {
        self.bytes.reserve(payload.len() + 10);
        self.bytes.push(head);
        match payload.len() {
            // Both fit by the pattern.
            short @ ..126 => self.bytes.push(short as u8),
            middle @ ..0x1_0000 => {
                self.bytes.push(126);
                self.bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                self.bytes.push(127);
                self.bytes.extend((long as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(payload);
    }
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    fn poll_bytes_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.n_written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.n_written += n;
        }
        self.bytes = Vec::new();
        self.n_written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outgoing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outgoing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= WRITE_BUFFER {
            ready!(self.poll_bytes_out(context))?;
        }
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_bytes_out(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_bytes_out(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};

    use super::*;

    async fn write_out(socket: &mut Socket<tokio::io::DuplexStream>) {
        std::future::poll_fn(|context| socket.poll_write_out(context)).await.unwrap();
    }

    #[tokio::test]
    async fn frames_of_every_length_arrive_whole_and_leave_no_buffer() {
        // Smaller than what is written, so that writes are cut anywhere.
        let (server, client) = tokio::io::duplex(1_000);
        let mut server = Socket::over(server, 1 << 20).await;
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
        let reading = async move {
            let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
            let mut got = Vec::new();
            while got.len() < lengths.len() {
                if let Message::Text(text) = client.next().await.unwrap().unwrap() {
                    got.push(text.len());
                }
            }
            client.send(Message::text("last")).await.unwrap();
            got
        };
        let writing = async {
            for length in lengths {
                server.put_text(&"x".repeat(length));
                server.put_ping();
            }
            assert!(server.is_full());
            write_out(&mut server).await;
            assert_eq!(server.0.get_ref().bytes.capacity(), 0);
            loop {
                match server.next().await.unwrap().unwrap() {
                    Message::Pong(_) => {}
                    last => break last,
                }
            }
        };
        let (got, last) = tokio::join!(reading, writing);
        assert_eq!((got, last), (lengths.to_vec(), Message::text("last")));
    }

    #[tokio::test]
    async fn answers_of_the_library_stand_between_whole_frames() {
        let (server, client) = tokio::io::duplex(100_000);
        let mut server = Socket::over(server, 1 << 20).await;
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        server.put_text("before");
        client.send(Message::Ping("p".into())).await.unwrap();
        client.send(Message::text("hello")).await.unwrap();
        assert!(matches!(server.next().await, Some(Ok(Message::Ping(_)))));
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("hello"));
        server.put_text("after");
        write_out(&mut server).await;
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(client.next().await.unwrap().unwrap());
        }
        let pong = Message::Pong("p".into());
        assert_eq!(got, [Message::text("before"), pong, Message::text("after")]);
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_told_apart() {
        let (server, client) = tokio::io::duplex(100_000);
        let mut server = Socket::over(server, 10).await;
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Message::text("x".repeat(11))).await.unwrap();
        assert!(is_too_large(&server.next().await.unwrap().unwrap_err()));
    }

    #[test]
    fn words_are_found_in_lists_of_any_case() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert!(has_word(&headers, &header::CONNECTION, "upgrade"));
        assert!(!has_word(&headers, &header::CONNECTION, "grade"));
        assert!(!has_word(&headers, &header::UPGRADE, "websocket"));
    }
}
