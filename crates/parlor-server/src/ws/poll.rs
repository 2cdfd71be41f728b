//! The long poll: the frames that the socket would have sent, for networks that block sockets.

use std::{sync::Arc, time::Duration};

use parlor_core::{Caller, Error, Result, ports::clock::BoxFuture};
use parlor_proto::{
    CloseCode, ErrorCode, Invalid,
    frame::{ServerFrame, SyncAnswer, SyncQuery},
};

use super::queue::{Connection, Drained};
use crate::App;

const MOST_WAIT_S: u64 = 60;

/// Answers with what the caller missed since the cursor; waits for something new if there is
/// nothing. Without a cursor it answers what `welcome` would say, and the first replay.
pub async fn sync(app: &Arc<App>, caller: Caller, query: SyncQuery) -> Result<SyncAnswer> {
    let wait = query.wait.unwrap_or(0);
    if wait > MOST_WAIT_S {
        let detail = format!("wait lies between 0 and {MOST_WAIT_S} seconds");
        return Err(Invalid::with_code(ErrorCode::OutOfRange, "wait", detail).into());
    }
    // From here on: what the first answer costs counts as waiting.
    let end = app.clock.sleep(Duration::from_secs(wait));
    let session = app.core.session();
    let told_ms = session.told_ms();
    let connection = app.hub.register_poll(&caller, app.most_connections());
    let connection = connection.ok_or(Error::TooMany { retry_after: Duration::from_secs(1) })?;
    let seat = Seat { app: app.clone(), connection };
    if app.hub.is_draining() {
        return Err(Error::Unavailable { retry_after: app.hub.back_after() });
    }
    // The session may have been revoked before the hub knew of the connection.
    if !app.core.devices().is_signed_in(&caller).await? {
        return Err(Error::Unauthenticated);
    }
    let mut greeted = session.greet(caller, None, query.cursor.as_deref(), told_ms).await?;
    let mut frames = Vec::new();
    if query.cursor.is_none() || greeted.welcome.reset {
        frames.push(ServerFrame::Welcome(Box::new(greeted.welcome.clone())));
    }
    while let Some(more) = session.next_replay(&caller, &mut greeted.replay).await? {
        frames.extend(more);
    }
    let mut own = session.own_after(&greeted.replay);
    if !frames.is_empty() || wait == 0 {
        return Ok(SyncAnswer { frames, cursor: session.cursor_after(&greeted.replay) });
    }
    let (told_ms, drained) = something_new(app, &seat.connection, end).await?;
    for (text, step) in &drained.frames {
        if let Some(step) = *step {
            if step <= own {
                continue;
            }
            let missing = session.own_between(&caller, own, step).await?;
            frames.extend(missing.into_iter().map(ServerFrame::Account));
            own = step;
        }
        frames.push(serde_json::from_str(text).map_err(|_| Error::Internal)?);
    }
    frames.extend(drained.gaps.into_iter().map(ServerFrame::Gap));
    Ok(SyncAnswer { frames, cursor: session.cursor(&caller, own, told_ms) })
}

/// Waits until there is something to tell or the time is over, whatever else wakes the connection;
/// returns it with the time up to which everything was told before.
async fn something_new(
    app: &App,
    connection: &Connection,
    mut end: BoxFuture,
) -> Result<(u64, Drained)> {
    loop {
        let is_over = tokio::select! {
            biased;
            () = connection.wake.notified() => false,
            () = &mut end => true,
        };
        let told_ms = app.core.session().told_ms();
        let drained = connection.drain();
        match drained.close {
            None => {}
            Some(CloseCode::SessionRevoked) => return Err(Error::Unauthenticated),
            Some(CloseCode::Draining) => {
                return Err(Error::Unavailable { retry_after: app.hub.back_after() });
            }
            // More happened than waits for one connection: the next poll reads it from the log,
            // since the client keeps its cursor.
            Some(_) => return Err(Error::unavailable()),
        }
        if is_over || !drained.frames.is_empty() || !drained.gaps.is_empty() {
            return Ok((told_ms, drained));
        }
    }
}

/// Leaves the hub when the answer is made or the client goes away.
struct Seat {
    app: Arc<App>,
    connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.hub.unregister(&self.connection);
    }
}
