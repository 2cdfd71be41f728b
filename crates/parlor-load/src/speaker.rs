//! A socket that says what it is told and reads what comes: no reconnect, no order, no memory.
//!
//! For reads of the final phase, for misuse on purpose (the same send several times), and for load
//! that must not measure the SDK.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, bail};
use parlor_client::{
    Client,
    socket::{Heard, Socket, SocketOptions},
    wire,
};
use parlor_proto::frame::{Hello, ServerFrame, Welcome};

use crate::clock;

const GREETING_LIMIT: Duration = Duration::from_secs(20);

/// A greeted socket.
#[derive(Debug)]
pub struct Speaker {
    /// The socket, for those who count every microsecond.
    pub socket: Socket,
}

impl Speaker {
    /// Connects and says `hello`; returns the greeting, and the frames that came with it.
    pub async fn connect(
        client: &Client,
        cursor: Option<String>,
        local: Option<IpAddr>,
    ) -> anyhow::Result<(Self, Welcome, Vec<ServerFrame>)> {
        let greeting = async {
            let url = client.socket_url()?;
            let socket = Socket::connect(&url, SocketOptions { local }).await?;
            let mut speaker = Self { socket };
            speaker
                .socket
                .say(wire::hello(&Hello {
                    id: None,
                    v: 1,
                    token: client.token().map(str::to_owned),
                    ticket: None,
                    cursor,
                    device_name: None,
                }))
                .await?;
            let mut frames = speaker.next().await?.into_iter();
            match frames.next() {
                Some(ServerFrame::Welcome(welcome)) => Ok((speaker, *welcome, frames.collect())),
                other => bail!("not a welcome: {other:?}"),
            }
        };
        clock::within(GREETING_LIMIT, greeting).await.context("no greeting in time")?
    }

    /// Waits for the next frames; an error when the socket ended.
    pub async fn next(&mut self) -> anyhow::Result<Vec<ServerFrame>> {
        loop {
            match self.socket.next().await {
                Heard::Text(text) => return Ok(wire::decode(&text)?),
                Heard::Life => {}
                Heard::Closed(code) => bail!("the socket was closed with {code:?}"),
            }
        }
    }

    /// Waits for the next frames, but not longer than the limit.
    pub async fn next_within(
        &mut self,
        limit: Duration,
    ) -> anyhow::Result<Option<Vec<ServerFrame>>> {
        clock::within(limit, self.next()).await.transpose()
    }

    /// Says a text.
    pub async fn say(&mut self, text: String) -> anyhow::Result<()> {
        Ok(self.socket.say(text).await?)
    }
}
