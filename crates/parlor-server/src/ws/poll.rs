//! The long poll: the frames that the socket would have sent, for networks that block sockets.

use std::{sync::Arc, time::Duration};

use parlor_core::{Caller, Error, Result};
use parlor_proto::{
    ErrorCode, Invalid,
    frame::{ServerFrame, SyncAnswer, SyncQuery},
};

use super::queue::Connection;
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
    let session = app.core.session();
    let told_ms = session.told_ms();
    let seat = Seat { app: app.clone(), connection: app.hub.register(&caller, None) };
    let mut greeted = session.greet(caller, None, query.cursor.as_deref(), told_ms).await?;
    let mut frames = Vec::new();
    if query.cursor.is_none() || greeted.welcome.reset {
        frames.push(ServerFrame::Welcome(Box::new(greeted.welcome.clone())));
    }
    while let Some(more) = session.next_replay(&caller, &mut greeted.replay).await? {
        frames.extend(more);
    }
    let own = session.own_after(&greeted.replay);
    if !frames.is_empty() || wait == 0 {
        return Ok(SyncAnswer { frames, cursor: session.cursor_after(&greeted.replay) });
    }
    tokio::select! {
        biased;
        () = seat.connection.wake.notified() => {}
        () = app.clock.sleep(Duration::from_secs(wait)) => {}
    }
    let told_ms = session.told_ms();
    let drained = seat.connection.drain();
    if drained.close.is_some() {
        return Err(Error::Unauthenticated);
    }
    for (text, _) in &drained.frames {
        frames.push(serde_json::from_str(text).map_err(|_| Error::Internal)?);
    }
    frames.extend(drained.gaps.into_iter().map(ServerFrame::Gap));
    let own = own.max(drained.own.unwrap_or_default());
    Ok(SyncAnswer { frames, cursor: session.cursor(&caller, own, told_ms) })
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
