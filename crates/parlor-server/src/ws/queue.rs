//! The outgoing queue of one connection: bounded in bytes and count, drained in one write.
//!
//! A connection that cannot keep up gets its chat events folded into one `gap` per chat (the client
//! pages the rest), and is closed with a resumable code when it stays behind. Others never wait.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use parlor_core::ports::bus::ConnectionId;
use parlor_proto::{
    ChatId, CloseCode, DeviceId, Seq, UserId,
    frame::{Gap, ServerFrame},
};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Frames that may wait.
const MOST_FRAMES: usize = 256;
/// Bytes that may wait.
const MOST_BYTES: usize = 256 * 1024;
/// How long a connection may stay behind.
pub const MOST_BEHIND: Duration = Duration::from_secs(10);
/// Time between two resume positions.
const CURSOR_EVERY: Duration = Duration::from_secs(2);

/// How a connection is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A socket: it gives signs of life, and so many are open for one user.
    Socket,
    /// A long poll: it ends by itself, says nothing meanwhile, and is no socket.
    Poll,
}

/// One connection as the hub knows it.
pub struct Connection {
    /// Its number on this node.
    pub id: ConnectionId,
    /// How it is read.
    pub door: Door,
    /// Whose.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Wakes the task that owns the socket.
    pub wake: Notify,
    /// Guards what waits; never held over an await.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    bytes: usize,
    /// Chats whose events were left out, and the stretch that was.
    gaps: BTreeMap<ChatId, (Seq, Seq)>,
    /// Since when something was left out and nothing drained.
    behind_since: Option<Duration>,
    close: Option<CloseCode>,
    ping: bool,
    heard_at: Duration,
    pinged_at: Duration,
    cursor_at: Duration,
    /// Something was sent since the last `cursor`.
    moved: bool,
    cursor_due: bool,
    /// The hub looks at it each second until it is calm.
    watched: bool,
}

struct Waiting {
    text: Utf8Bytes,
    /// The position, if it is a step of the own stream.
    own: Option<Seq>,
    /// The place, if it is an event of a chat.
    event: Option<(ChatId, Seq)>,
}

/// What a drain takes out.
#[derive(Default)]
pub struct Drained {
    /// Frames in order, with the position of those that are steps of the own stream.
    pub frames: Vec<(Utf8Bytes, Option<Seq>)>,
    /// Events that were left out, to be told after the frames.
    pub gaps: Vec<Gap>,
    /// Ask for a sign of life.
    pub ping: bool,
    /// Tell the resume position after the frames.
    pub cursor: bool,
    /// Close after the frames.
    pub close: Option<CloseCode>,
    /// From now on the hub has to look at the connection each second.
    pub watch: bool,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// The client reads it from the log.
    Folded {
        /// From now on the hub has to look at the connection each second.
        watch: bool,
    },
}

/// When the hub looks at a connection again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Not later than this: its silence is looked at.
    pub at: Duration,
    /// With the next tick too, since it moved or is behind.
    pub soon: bool,
}

impl Connection {
    /// Makes a connection that was heard now.
    pub fn new(
        id: ConnectionId,
        door: Door,
        user_id: UserId,
        device_id: DeviceId,
        now: Duration,
    ) -> Self {
        let queue = Queue { heard_at: now, pinged_at: now, cursor_at: now, ..Queue::default() };
        Self { id, door, user_id, device_id, wake: Notify::new(), queue: Mutex::new(queue) }
    }

    /// Queues an event, or folds it into a gap.
    pub fn push_event(&self, text: Utf8Bytes, chat_id: ChatId, seq: Seq, now: Duration) -> Pushed {
        let mut queue = self.queue.lock();
        if queue.is_full() || queue.gaps.contains_key(&chat_id) {
            queue.behind_since.get_or_insert(now);
            queue.gaps.entry(chat_id).or_insert((seq.prev(), seq)).1 = seq;
            return Pushed::Folded { watch: !std::mem::replace(&mut queue.watched, true) };
        }
        queue.push(Waiting { text, own: None, event: Some((chat_id, seq)) });
        drop(queue);
        self.wake.notify_one();
        Pushed::Queued
    }

    /// Queues a frame that must not be lost; a connection that cannot take it is closed.
    pub fn push_lasting(&self, text: Utf8Bytes, own: Option<Seq>) -> bool {
        let mut queue = self.queue.lock();
        // Answers to the client's own frames may use as much again before it is given up.
        let fits = queue.frames.len() < 2 * MOST_FRAMES && queue.bytes < 2 * MOST_BYTES;
        if fits {
            queue.push(Waiting { text, own, event: None });
        } else {
            queue.close.get_or_insert(CloseCode::SlowReader);
        }
        drop(queue);
        self.wake.notify_one();
        fits
    }

    /// Queues a frame that may be lost.
    pub fn push_ephemeral(&self, text: Utf8Bytes) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_full() {
            return false;
        }
        queue.push(Waiting { text, own: None, event: None });
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// Encodes and queues a frame that must not be lost.
    pub fn answer(&self, frame: &ServerFrame) -> bool {
        self.push_lasting(encode(frame), None)
    }

    /// Closes the connection after what is queued.
    pub fn close(&self, code: CloseCode) {
        self.queue.lock().close.get_or_insert(code);
        self.wake.notify_one();
    }

    /// Notes a sign of life.
    pub fn heard(&self, now: Duration) {
        self.queue.lock().heard_at = now;
    }

    /// Looks after the connection: silence, slowness, the resume position. Returns when to look
    /// again.
    pub fn tick(&self, now: Duration, heartbeat: Duration) -> Look {
        let mut queue = self.queue.lock();
        let silent_for = now.saturating_sub(queue.heard_at);
        let mut wakes = false;
        if queue.behind_since.is_some_and(|since| now.saturating_sub(since) >= MOST_BEHIND) {
            queue.close.get_or_insert(CloseCode::SlowReader);
            wakes = true;
        }
        if self.door == Door::Poll {
            // Whoever waits for an answer has nothing to say.
        } else if silent_for >= heartbeat * 3 {
            queue.close.get_or_insert(CloseCode::Silent);
            wakes = true;
        } else if silent_for >= heartbeat && now.saturating_sub(queue.pinged_at) >= heartbeat {
            queue.pinged_at = now;
            queue.ping = true;
            wakes = true;
        }
        if queue.moved && now.saturating_sub(queue.cursor_at) >= CURSOR_EVERY {
            queue.cursor_at = now;
            queue.moved = false;
            queue.cursor_due = true;
            wakes = true;
        }
        let is_calm = !queue.moved && queue.behind_since.is_none();
        queue.watched = !is_calm;
        // A sign of life is asked for when there was none since it was last asked for.
        let asks_at = queue.heard_at.max(queue.pinged_at) + heartbeat;
        let at = match self.door {
            Door::Poll => now + heartbeat,
            Door::Socket => asks_at.min(queue.heard_at + heartbeat * 3),
        };
        drop(queue);
        if wakes {
            self.wake.notify_one();
        }
        Look { at, soon: !is_calm }
    }

    /// Drops the events that a replay told already, up to a position of each chat: they were queued
    /// while it read the log, and would step back behind it.
    pub fn forget(&self, told: &BTreeMap<ChatId, Seq>) {
        let mut queue = self.queue.lock();
        let Queue { frames, bytes, .. } = &mut *queue;
        frames.retain(|frame| {
            let is_told = frame
                .event
                .is_some_and(|(chat_id, seq)| told.get(&chat_id).is_some_and(|last| seq <= *last));
            if is_told {
                *bytes = bytes.saturating_sub(frame.text.len());
            }
            !is_told
        });
    }

    /// Takes everything that waits.
    pub fn drain(&self) -> Drained {
        let mut queue = self.queue.lock();
        let frames = std::mem::take(&mut queue.frames);
        let gaps = std::mem::take(&mut queue.gaps);
        queue.bytes = 0;
        queue.behind_since = None;
        queue.moved |= !frames.is_empty() || !gaps.is_empty();
        let watch = queue.moved && !queue.watched;
        queue.watched |= watch;
        let gap = |(chat_id, (after_seq, head_seq))| Gap { chat_id, after_seq, head_seq };
        Drained {
            frames: frames.into_iter().map(|frame| (frame.text, frame.own)).collect(),
            gaps: gaps.into_iter().map(gap).collect(),
            ping: std::mem::take(&mut queue.ping),
            cursor: std::mem::take(&mut queue.cursor_due),
            close: queue.close,
            watch,
        }
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.frames.len() >= MOST_FRAMES || self.bytes >= MOST_BYTES
    }

    fn push(&mut self, frame: Waiting) {
        self.bytes += frame.text.len();
        self.frames.push_back(frame);
    }
}

/// Encodes a frame once, to be shared by all who get it.
pub fn encode(frame: &ServerFrame) -> Utf8Bytes {
    match serde_json::to_string(frame) {
        Ok(text) => text.into(),
        Err(error) => {
            // The frame types have string keys and no failing parts.
            tracing::error!(%error, "a frame could not be encoded");
            Utf8Bytes::from_static(r#"{"t":"error","code":"internal","detail":"not encoded"}"#)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let (user, device) = (UserId::from_raw(1), DeviceId::from_raw(1));
        Connection::new(ConnectionId(1), Door::Socket, user, device, Duration::ZERO)
    }

    const CHAT: ChatId = ChatId::from_raw(7);

    #[test]
    fn what_does_not_fit_becomes_one_gap_per_chat() {
        let connection = connection();
        for seq in 1..=300 {
            connection.push_event("x".into(), CHAT, Seq::new(seq), Duration::ZERO);
        }
        let drained = connection.drain();
        assert_eq!(drained.frames.len(), MOST_FRAMES);
        let gap = Gap { chat_id: CHAT, after_seq: Seq::new(256), head_seq: Seq::new(300) };
        assert_eq!(drained.gaps, vec![gap]);
        let pushed = connection.push_event("x".into(), CHAT, Seq::new(301), Duration::ZERO);
        assert_eq!(pushed, Pushed::Queued);
    }

    #[test]
    fn what_a_replay_told_is_dropped_and_what_is_newer_stays() {
        let one = connection();
        let [chat, other] = [1, 2].map(ChatId::from_raw);
        for (chat_id, seq) in [(chat, 6), (other, 2), (chat, 15)] {
            one.push_event(
                Utf8Bytes::from(seq.to_string()),
                chat_id,
                Seq::new(seq),
                Duration::ZERO,
            );
        }
        one.forget(&BTreeMap::from([(chat, Seq::new(14))]));
        let texts: Vec<_> = one.drain().frames.iter().map(|(text, _)| text.to_string()).collect();
        assert_eq!(texts, ["2", "15"]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let connection = connection();
        let big: Utf8Bytes = "x".repeat(MOST_BYTES).into();
        let push = |text, seq| connection.push_event(text, CHAT, Seq::new(seq), Duration::ZERO);
        assert_eq!(push(big, 1), Pushed::Queued);
        assert_eq!(push("x".into(), 2), Pushed::Folded { watch: true });
        assert_eq!(push("x".into(), 3), Pushed::Folded { watch: false });
        assert!(!connection.push_ephemeral("x".into()));
    }

    #[test]
    fn who_stays_behind_or_silent_is_closed() {
        let heartbeat = Duration::from_secs(15);
        let slow = connection();
        for seq in 1..=300 {
            slow.push_event("x".into(), CHAT, Seq::new(seq), Duration::ZERO);
        }
        slow.tick(Duration::from_secs(10), heartbeat);
        assert_eq!(slow.drain().close, Some(CloseCode::SlowReader));

        let silent = connection();
        silent.tick(Duration::from_secs(15), heartbeat);
        let drained = silent.drain();
        assert!(drained.ping && drained.close.is_none());
        silent.heard(Duration::from_secs(16));
        silent.tick(Duration::from_secs(60), heartbeat);
        assert_eq!(silent.drain().close, None);
        silent.tick(Duration::from_secs(61), heartbeat);
        assert_eq!(silent.drain().close, Some(CloseCode::Silent));
    }

    #[test]
    fn a_calm_connection_is_looked_at_when_it_is_due_and_a_moved_one_until_its_cursor_was_told() {
        let (heartbeat, at) = (Duration::from_secs(15), Duration::from_secs);
        let connection = connection();
        assert_eq!(connection.tick(at(1), heartbeat), Look { at: at(15), soon: false });
        connection.heard(at(9));
        assert_eq!(connection.tick(at(15), heartbeat), Look { at: at(24), soon: false });
        assert_eq!(connection.tick(at(24), heartbeat), Look { at: at(39), soon: false });
        assert_eq!(connection.tick(at(39), heartbeat), Look { at: at(54), soon: false });

        let quick = Connection::new(
            ConnectionId(2),
            Door::Socket,
            UserId::from_raw(1),
            DeviceId::from_raw(1),
            at(40),
        );
        quick.push_event("x".into(), CHAT, Seq::new(1), at(40));
        assert!(quick.drain().watch);
        quick.push_event("x".into(), CHAT, Seq::new(2), at(40));
        assert!(!quick.drain().watch);
        assert_eq!(quick.tick(at(41), heartbeat), Look { at: at(55), soon: true });
        assert_eq!(quick.tick(at(42), heartbeat), Look { at: at(55), soon: false });
        let drained = quick.drain();
        assert!(drained.cursor && !drained.watch);
        quick.push_event("x".into(), CHAT, Seq::new(3), at(42));
        assert!(quick.drain().watch);
    }
}
