//! One WebSocket: greets, replays, then passes frames in and out. No rule of chat lives here.

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use axum::response::Response;
use parlor_core::{
    Caller, Core, Error,
    messages::sent,
    presence::Ending,
    session::{Greeted, Refused},
};
use parlor_proto::{
    ChatId, CloseCode, Limits, Seq,
    frame::{
        Ack, ClientFrame, CursorFrame, ErrorFrame, EventsFrame, FrameError, Hello, Pong,
        ReceiptFrame, SendFrame, ServerFrame, SyncFrame, parse_client,
    },
    messages::SendMessage,
    receipts::Status,
};

use tokio_tungstenite::tungstenite::{
    self, Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding},
};

use super::{
    error_frame,
    hub::{Hub, reconnect},
    queue::{Connection, Drained, MOST_BEHIND, encode},
    wire::{Socket, Upgrade, is_too_large},
};
use crate::{App, http::accept::Seat};

/// Time to say `hello`.
const GREETING: Duration = Duration::from_secs(10);
/// Time between a close frame and the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Turns an accepted upgrade into a connection; the router has checked the origin.
pub fn accept(app: Arc<App>, upgrade: Upgrade, seat: Option<Seat>) -> Response {
    let (response, upgraded) = upgrade.accept();
    let spawn = app.spawn.clone();
    // Held from here on: an orderly end waits for the close frame.
    let open = app.tasks.open.token();
    let task = async move {
        match upgraded.await {
            Ok(upgraded) => {
                let most = app.core.settings().limits.frame_bytes as usize;
                serve(&app, Socket::of(upgraded, most).await).await;
            }
            Err(error) => tracing::debug!(%error, "a connection ended before it was a socket"),
        }
        drop((open, seat));
    };
    spawn.spawn("socket", Box::pin(task));
    response
}

/// Serves one connection from `hello` to its end. What happens once is boxed: its room is given
/// back, and what is left is what an idle connection costs (performance R16).
async fn serve(app: &App, mut socket: Socket) {
    let Some((caller, connection, own)) = Box::pin(begin(app, &mut socket)).await else { return };
    let ending = match own {
        Ok(own) => run(app, &mut socket, &connection, &caller, own).await,
        Err(code) => (Ending::Orderly, code),
    };
    Box::pin(end(app, &mut socket, &caller, &connection, ending)).await;
}

/// Greets, registers and replays. None where the connection ended before it was registered; the
/// position in the own stream, or how to close.
async fn begin(
    app: &App,
    socket: &mut Socket,
) -> Option<(Caller, Arc<Connection>, Result<Seq, Option<CloseCode>>)> {
    let greeted = tokio::select! {
        biased;
        () = app.hub.drained() => {
            send_away(app, socket).await;
            return None;
        }
        greeted = greeting(app, socket) => greeted,
    };
    let (hello, caller) = match greeted {
        Ok(greeted) => greeted,
        Err(code) => {
            if let Some(code) = code {
                close(app, socket, code).await;
            }
            return None;
        }
    };
    let told_ms = app.core.session().told_ms();
    let connection = app.hub.register(&caller, app.most_connections());
    if app.hub.is_draining() {
        app.hub.unregister(&connection);
        send_away(app, socket).await;
        return None;
    }
    let own = resume(app, socket, &connection, caller, hello, told_ms).await;
    Some((caller, connection, own))
}

async fn end(
    app: &App,
    socket: &mut Socket,
    caller: &Caller,
    connection: &Connection,
    (ending, code): (Ending, Option<CloseCode>),
) {
    app.hub.unregister(connection);
    app.core.presence().disconnected(caller.user_id, connection.id, ending).await;
    if let Some(code) = code {
        close(app, socket, code).await;
    }
}

/// Sends away whom a drain did not find among the connections.
async fn send_away(app: &App, socket: &mut Socket) {
    let after_ms = u64::try_from(app.hub.back_after().as_millis()).unwrap_or(u64::MAX);
    let told = tell(app, socket, &reconnect(after_ms)).await;
    if let Some(code) = told.err().unwrap_or(Some(CloseCode::Draining)) {
        close(app, socket, code).await;
    }
}

/// Waits for `hello` and finds out who speaks.
async fn greeting(app: &App, socket: &mut Socket) -> Result<(Hello, Caller), Option<CloseCode>> {
    let late = app.clock.sleep(GREETING);
    let text = tokio::select! {
        biased;
        text = first_text(socket) => text?,
        () = late => return Err(Some(CloseCode::HelloTimeout)),
    };
    let limits = &app.core.settings().limits;
    let first = parse_client(&text, limits).ok().and_then(|frames| frames.into_iter().next());
    let hello = match first {
        Some(Ok(ClientFrame::Hello(hello))) => hello,
        Some(Err(error)) if is_hello(&text) => {
            tell(app, socket, &refusal(error)).await?;
            return Err(Some(CloseCode::HelloRequired));
        }
        _ => return Err(Some(CloseCode::HelloRequired)),
    };
    match app.core.session().authenticate(&hello).await {
        Ok(caller) => Ok((hello, caller)),
        Err(Refused::UnsupportedVersion) => Err(Some(CloseCode::UnsupportedVersion)),
        Err(Refused::BadToken) => Err(Some(CloseCode::BadToken)),
        Err(Refused::Failed(error)) => Err(fail(app, socket, hello.id, &error).await),
    }
}

fn is_hello(text: &str) -> bool {
    text.contains("\"hello\"")
}

/// Says welcome and replays what was missed.
async fn resume(
    app: &App,
    socket: &mut Socket,
    connection: &Connection,
    caller: Caller,
    hello: Hello,
    told_ms: u64,
) -> Result<Seq, Option<CloseCode>> {
    let core = &app.core;
    let session = core.session();
    match session.still_stands(&hello, &caller).await {
        Ok(true) => {}
        Ok(false) => return Err(Some(CloseCode::SessionRevoked)),
        Err(error) => return Err(fail(app, socket, hello.id, &error).await),
    }
    if let Some(name) = &hello.device_name
        && let Err(error) = core.devices().rename(&caller, name).await
    {
        // A name is no reason to stay away.
        tracing::warn!(%error, "a device kept its old name");
    }
    let greeted = session.greet(caller, hello.id.clone(), hello.cursor.as_deref(), told_ms).await;
    let greeted = match greeted {
        Ok(greeted) => greeted,
        Err(error) => return Err(fail(app, socket, hello.id, &error).await),
    };
    let own = core.session().own_after(&greeted.replay);
    let told = replay(app, socket, greeted).await?;
    connection.forget(&told);
    core.presence().connected(caller.user_id, connection.id).await;
    Ok(own)
}

async fn run(
    app: &App,
    socket: &mut Socket,
    connection: &Arc<Connection>,
    caller: &Caller,
    mut own: Seq,
) -> (Ending, Option<CloseCode>) {
    let orderly = |code| (Ending::Orderly, code);
    let mut writes_next = false;
    loop {
        match next(socket, connection, writes_next).await {
            Next::Received(Ok(text)) => {
                writes_next = true;
                connection.heard(app.clock.monotonic());
                // A mere sign of life asks for nothing.
                let Some(text) = text else { continue };
                let done = on_text(app, socket, connection, caller, &text, &mut own);
                if let Err(code) = Box::pin(done).await {
                    return orderly(code);
                }
            }
            Next::Received(Err(code)) => return orderly(code),
            Next::Woken => {
                writes_next = false;
                let flushed = flush(app, socket, connection, caller, &mut own);
                match Box::pin(flushed).await {
                    Ok(None) => {}
                    Ok(Some(CloseCode::Silent)) => {
                        return (Ending::Silent, Some(CloseCode::Silent));
                    }
                    Ok(Some(code)) => return orderly(Some(code)),
                    Err(code) => return orderly(code),
                }
            }
        }
    }
}

enum Next {
    /// A text came, a mere sign of life, or the end.
    Received(Result<Option<Utf8Bytes>, Option<CloseCode>>),
    /// Something waits to be written.
    Woken,
}

/// Waits for the client or for the queue. Where both are ready they take turns, so that neither a
/// client that never stops nor a chat that never stops is in the way of the other.
async fn next(socket: &mut Socket, connection: &Connection, writes_next: bool) -> Next {
    let received = next_heard(socket);
    let woken = connection.wake.notified();
    tokio::pin!(received, woken);
    std::future::poll_fn(|context| {
        if writes_next && woken.as_mut().poll(context).is_ready() {
            return Poll::Ready(Next::Woken);
        }
        if let Poll::Ready(received) = received.as_mut().poll(context) {
            return Poll::Ready(Next::Received(received));
        }
        woken.as_mut().poll(context).map(|()| Next::Woken)
    })
    .await
}

/// Sends the welcome and everything that was missed, read from the log as the socket drains.
/// Returns how far each chat was told.
async fn replay(
    app: &App,
    socket: &mut Socket,
    greeted: Greeted,
) -> Result<BTreeMap<ChatId, Seq>, Option<CloseCode>> {
    let session = app.core.session();
    let Greeted { caller, welcome, mut replay } = greeted;
    let mut told = BTreeMap::new();
    tell(app, socket, &ServerFrame::Welcome(Box::new(welcome))).await?;
    loop {
        match session.next_replay(&caller, &mut replay).await {
            Ok(Some(frames)) => {
                for frame in &frames {
                    if let ServerFrame::Event(event) = frame {
                        told.insert(event.chat_id, event.seq);
                    }
                    feed(app, socket, &encode(frame)).await?;
                }
            }
            Ok(None) => break,
            // Without the whole replay there is no position to tell: the client resumes again.
            Err(error) => return Err(fail(app, socket, None, &error).await),
        }
    }
    let cursor = session.cursor_after(&replay);
    tell(app, socket, &ServerFrame::Cursor(CursorFrame { cursor })).await?;
    Ok(told)
}

/// Writes everything that waits in one go.
async fn flush(
    app: &App,
    socket: &mut Socket,
    connection: &Connection,
    caller: &Caller,
    own: &mut Seq,
) -> Result<Option<CloseCode>, Option<CloseCode>> {
    // Read before the drain: what was told before it is in the queue or was sent.
    let told_ms = app.core.session().told_ms();
    let Drained { frames, gaps, ping, cursor, close, watch } = connection.drain();
    if watch {
        app.hub.watch(connection);
    }
    for (text, step) in frames {
        if let Some(step) = step {
            if step <= *own {
                continue;
            }
            let missing = match app.core.session().own_between(caller, *own, step).await {
                Ok(missing) => missing,
                Err(error) => return Err(fail(app, socket, None, &error).await),
            };
            for step in missing {
                feed(app, socket, &encode(&ServerFrame::Account(step))).await?;
            }
            *own = step;
        }
        feed(app, socket, &text).await?;
    }
    for gap in gaps {
        feed(app, socket, &encode(&ServerFrame::Gap(gap))).await?;
    }
    if cursor {
        let cursor = app.core.session().cursor(caller, *own, told_ms);
        feed(app, socket, &encode(&ServerFrame::Cursor(CursorFrame { cursor }))).await?;
    }
    if ping {
        socket.put_ping();
    }
    write_out(app, socket).await?;
    Ok(close)
}

/// Handles the frames of one text.
async fn on_text(
    app: &App,
    socket: &mut Socket,
    connection: &Arc<Connection>,
    caller: &Caller,
    text: &str,
    own: &mut Seq,
) -> Result<(), Option<CloseCode>> {
    let limits: &Limits = &app.core.settings().limits;
    let frames = match parse_client(text, limits) {
        Ok(frames) => frames,
        Err(error) => {
            connection.answer(&refusal(error));
            return Ok(());
        }
    };
    for frame in frames {
        let frame = match frame {
            Ok(ClientFrame::Sync(sync)) => {
                // What is queued goes first, then the page, straight from the log.
                if let Some(code) = flush(app, socket, connection, caller, own).await? {
                    return Err(Some(code));
                }
                let answer = on_sync(&app.core, caller, sync).await;
                tell(app, socket, &answer).await?;
                continue;
            }
            Ok(frame) => frame,
            Err(error) => {
                connection.answer(&refusal(error));
                continue;
            }
        };
        on_frame(&app.core, connection, caller, frame).await;
    }
    Ok(())
}

async fn on_frame(
    core: &Arc<Core>,
    connection: &Arc<Connection>,
    caller: &Caller,
    frame: ClientFrame,
) {
    let (id, result) = match frame {
        ClientFrame::Send(send) => return on_send(core, connection, caller, send).await,
        ClientFrame::Ping(ping) => {
            connection.answer(&ServerFrame::Pong(Pong { id: ping.id }));
            return;
        }
        ClientFrame::Hello(hello) => {
            connection.answer(&ServerFrame::Error(ErrorFrame {
                id: hello.id,
                code: parlor_proto::ErrorCode::AlreadyGreeted,
                detail: "this connection was greeted already".to_owned(),
                field: None,
                retry_after_ms: None,
            }));
            return;
        }
        ClientFrame::Receipt(mut receipt) => {
            (receipt.id.take(), on_receipt(core, caller, receipt).await)
        }
        ClientFrame::Typing(typing) => {
            let result = core.presence().typing(caller, typing.chat_id, typing.active).await;
            (typing.id, result)
        }
        ClientFrame::Focus(focus) => {
            let presence = core.presence();
            let result = presence.focus(caller, connection.id, focus.chat_id, focus.visible).await;
            (focus.id, result)
        }
        ClientFrame::Watch(watch) => {
            let result = core.presence().watch(caller, connection.id, watch.user_ids).await;
            (watch.id, result)
        }
        // Answered by the caller of this function, which owns the socket.
        ClientFrame::Sync(_) => return,
    };
    if let Err(error) = result {
        connection.answer(&ServerFrame::Error(error_frame(id, &error)));
    }
}

async fn on_send(
    core: &Arc<Core>,
    connection: &Arc<Connection>,
    caller: &Caller,
    frame: SendFrame,
) {
    let SendFrame { tag: _, id, chat_id, message, kind, attachments, client_id, reply_to } = frame;
    let send = SendMessage { chat_id, message, kind, attachments, client_id, reply_to };
    let connection = connection.clone();
    // Runs in the appender, so that the `ack` is queued before the event is told.
    let done = move |outcome: parlor_core::Result<_>| {
        let frame = match outcome.and_then(sent) {
            Ok((message, _)) => ServerFrame::Ack(Ack {
                id,
                message_id: message.message_id,
                chat_id: message.chat_id,
                seq: message.seq,
                created_at: message.created_at,
                status: Status::Sent,
            }),
            Err(error) => ServerFrame::Error(error_frame(id, &error)),
        };
        connection.answer(&frame);
    };
    core.messages().enqueue(caller, send, Box::new(done)).await;
}

async fn on_receipt(core: &Core, caller: &Caller, frame: ReceiptFrame) -> parlor_core::Result<()> {
    let ReceiptFrame { tag: _, id: _, chat_id, status, seq, message_id } = frame;
    let receipts = core.receipts();
    match (seq, message_id) {
        (Some(seq), None) => receipts.report(caller, chat_id, status, seq).await,
        (None, Some(message_id)) => {
            receipts.report_message(caller, chat_id, status, message_id).await
        }
        _ => {
            let detail = "a receipt has a seq or a message_id";
            Err(parlor_proto::Invalid::new("seq", detail).into())
        }
    }
}

async fn on_sync(core: &Core, caller: &Caller, frame: SyncFrame) -> ServerFrame {
    let SyncFrame { tag: _, id, chat_id, after_seq, limit } = frame;
    let query = parlor_proto::messages::EventsQuery { after_seq: Some(after_seq.get()), limit };
    match core.messages().events(caller, chat_id, query).await {
        Ok(page) => ServerFrame::Events(EventsFrame {
            id,
            chat_id,
            events: page.events,
            head_seq: page.head_seq,
            epoch: page.epoch,
        }),
        Err(error) => ServerFrame::Error(error_frame(id, &error)),
    }
}

fn refusal(error: FrameError) -> ServerFrame {
    ServerFrame::Error(error_frame(error.id, &Error::Invalid(error.invalid)))
}

/// Reads the first text; what the library does by itself before it is passed over.
async fn first_text(socket: &mut Socket) -> Result<Utf8Bytes, Option<CloseCode>> {
    loop {
        if let Some(text) = next_heard(socket).await? {
            return Ok(text);
        }
    }
}

/// Reads a text, or none for a ping or pong; anything else ends the connection, with a close code or
/// without.
async fn next_heard(socket: &mut Socket) -> Result<Option<Utf8Bytes>, Option<CloseCode>> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Binary(_))) => Err(Some(CloseCode::BinaryFrame)),
        // Raw frames are written only, never read.
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Close(_))) | None => Err(None),
        Some(Err(error)) => Err(close_code_of(&error)),
    }
}

fn close_code_of(error: &tungstenite::Error) -> Option<CloseCode> {
    match error {
        error if is_too_large(error) => Some(CloseCode::FrameTooLarge),
        tungstenite::Error::Utf8(_) => Some(CloseCode::BadUtf8),
        _ => None,
    }
}

async fn tell(
    app: &App,
    socket: &mut Socket,
    frame: &ServerFrame,
) -> Result<(), Option<CloseCode>> {
    socket.put_text(&encode(frame));
    write_out(app, socket).await
}

/// Tells that the server could not do what it had to; returns how to close.
async fn fail(
    app: &App,
    socket: &mut Socket,
    id: Option<String>,
    error: &Error,
) -> Option<CloseCode> {
    let told = tell(app, socket, &ServerFrame::Error(error_frame(id, error))).await;
    told.err().unwrap_or(Some(CloseCode::ServerFailed))
}

/// Queues a text; what waits goes out first if it is much, so that one text more is all that waits.
async fn feed(app: &App, socket: &mut Socket, text: &str) -> Result<(), Option<CloseCode>> {
    if socket.is_full() {
        write_out(app, socket).await?;
    }
    socket.put_text(text);
    Ok(())
}

/// Writes what waits, in as much time as a connection may stay behind.
async fn write_out(app: &App, socket: &mut Socket) -> Result<(), Option<CloseCode>> {
    // Most writes end at once and need no timer.
    let first = std::future::poll_fn(|context| match socket.poll_write_out(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(result) = first.await {
        return result.map_err(|_| None);
    }
    let late = app.clock.sleep(MOST_BEHIND);
    tokio::select! {
        biased;
        result = std::future::poll_fn(|context| socket.poll_write_out(context)) => {
            result.map_err(|_| None)
        }
        () = late => Err(Some(CloseCode::SlowReader)),
    }
}

/// Says why, and gives the other side a moment to hear it.
async fn close(app: &App, socket: &mut Socket, code: CloseCode) {
    let reason = Utf8Bytes::from_static(code.name());
    let frame = CloseFrame { code: coding::CloseCode::from(code.code()), reason };
    let farewell = async {
        if socket.close(frame).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    tokio::select! {
        biased;
        () = farewell => {}
        () = app.clock.sleep(FAREWELL) => {}
    }
}

/// Starts the task that looks after all connections once a second; ends with the hub.
pub fn start_ticker(app: &Arc<App>, hub: &Arc<Hub>) {
    let (clock, hub) = (app.clock.clone(), Arc::downgrade(hub));
    let heartbeat = app.core.settings().heartbeat;
    let task = async move {
        loop {
            clock.sleep(Duration::from_secs(1)).await;
            let Some(hub) = hub.upgrade() else { return };
            hub.tick(heartbeat);
        }
    };
    app.spawn.spawn("hub", Box::pin(task));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_an_idle_connection_stays_small() {
        const fn size_of<A, F>(_: &impl FnOnce(A, Socket) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        // What it awaits once, or only while it is busy, belongs in a box.
        let size = size_of(&|app: &'static App, socket| serve(app, socket));
        assert!(size <= 1_280, "{size} bytes");
    }
}
