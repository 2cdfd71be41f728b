//! The simulated network as the doors and the clients see it.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parlor_server::http::accept::Listen;
use serde_json::Value;
use turmoil::net::{TcpListener, TcpStream};

/// How long a call over HTTP may take.
const CALL_LIMIT: Duration = Duration::from_secs(3);

pub struct Listener(pub TcpListener);

impl Listen for Listener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// Opens a connection to the server.
pub async fn dial() -> io::Result<TcpStream> {
    TcpStream::connect(("server", 80)).await
}

/// An answer over HTTP; none when the connection ended or the time was over.
#[expect(clippy::disallowed_methods, reason = "simulated time")]
pub async fn call(
    method: &str,
    path: &str,
    token: &str,
    body: Option<Value>,
) -> Option<(u16, Value)> {
    let exchange = async {
        let stream = TokioIo::new(dial().await.ok()?);
        let (mut sender, connection) = http1::handshake(stream).await.ok()?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "server")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = async {
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            // An error of the connection is the end of the answer too.
            _ = connection => None,
        }
    };
    tokio::time::timeout(CALL_LIMIT, exchange).await.ok().flatten()
}
