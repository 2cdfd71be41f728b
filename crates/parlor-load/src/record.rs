//! The recorder: what every client did and saw, and what was done to the server, one JSON line a step.
//!
//! Lines are in the order in which they happened to the process that writes them: an `invoke` is
//! written before the call leaves, its end after the answer came. Each line is handed to the system
//! at once, so that a killed run keeps what it saw. What the lines prove is decided in `check.rs`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use parlor_proto::{
    ChatId, Event, EventBody, MessageId, Seq, UserId, members::LeaveReason, messages::Message,
    receipts::ReceiptKind,
};
use serde::{Deserialize, Serialize};

use crate::clock;

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the run began.
    pub t_mono_us: u64,
    /// The user who did or saw it; the nemesis and the run itself have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<UserId>,
    /// Which of the user's devices; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Joins the `invoke` of an operation with its end.
    pub op_id: u64,
    /// What it is.
    #[serde(flatten)]
    pub op: Op,
    /// Where in its life the operation is.
    pub phase: Phase,
}

/// Where in its life an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It begins; the effect may come any time from now on.
    Invoke,
    /// It had its effect.
    Ok,
    /// It may have had its effect, or may have it later, or never.
    Info,
    /// It had no effect and never will.
    Fail,
}

/// What was done or seen: `op`, with `args` of the invocation and `result` of the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// The first line.
    Run {
        /// What was to be done.
        args: RunArgs,
    },
    /// The last line: the recording is complete.
    End,
    /// A chat of the run.
    Chat {
        /// Which.
        args: ChatArgs,
    },
    /// A message is sent under a key; several operations may send the same.
    Send {
        /// What is sent; in the `invoke` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args: Option<SendArgs>,
        /// What the acknowledgement said; in the `ok` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<SendResult>,
        /// Why it failed or what is unknown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// An event came to a client, repeats included.
    Deliver {
        /// How.
        args: DeliverArgs,
        /// What.
        result: Seen,
    },
    /// The client handed a run of events to its application: after dropping repeats, in order.
    Apply {
        /// Which.
        args: ApplyArgs,
    },
    /// The server said that it leaves events out.
    Gap {
        /// Which.
        args: GapArgs,
    },
    /// A whole read of what a member may see of a chat ended; its events are `deliver` lines.
    Read {
        /// Which.
        args: ReadArgs,
        /// How far the chat reached; in the `ok` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<ReadResult>,
    },
    /// A device reports a position.
    Report {
        /// Which.
        args: ReceiptArgs,
    },
    /// A client was told of a position of somebody.
    Receipt {
        /// Which.
        args: ReceiptArgs,
    },
    /// A client read the two positions of a member.
    Cursors {
        /// Which.
        args: CursorsArgs,
    },
    /// Where a client stood at the end.
    Position {
        /// Which.
        args: PositionArgs,
    },
    /// Somebody is added or removed.
    Member {
        /// Who.
        args: MemberArgs,
    },
    /// Something was done to the server or the network.
    Fault {
        /// What.
        args: FaultArgs,
    },
}

/// What a run was to do, and what a judgement of it needs at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunArgs {
    /// The scenario.
    pub scenario: String,
    /// The seed of all dice.
    pub seed: u64,
    /// All options, as a command that repeats the run.
    pub replay: String,
    /// Hash of the server's binary.
    #[serde(default)]
    pub binary_sha256: String,
    /// Without this there is no evidence.
    pub needs: Needs,
}

/// What a recording must hold to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Acknowledged sends.
    pub n_acks: u64,
    /// Faults that were fired.
    pub n_faults: u64,
    /// Whether every present member of every chat reads it to the end on every path.
    pub final_reads: bool,
}

/// A chat of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// Newcomers see everything.
    pub history_all: bool,
}

/// A message under its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendArgs {
    /// Where to.
    pub chat_id: ChatId,
    /// The `client_id`.
    pub key: String,
    /// The text.
    pub text: String,
    /// Sends of one client, chat and lane go one after the other: their order is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// The key was used with another text: this one must be refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflicts: bool,
}

/// What an acknowledgement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendResult {
    /// The message.
    pub message_id: MessageId,
    /// The position.
    pub seq: Seq,
}

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverArgs {
    /// The socket of the device, counted from 1; 0 for HTTP.
    pub connection: u64,
    /// The chat.
    pub chat_id: ChatId,
    /// The way.
    pub path: Way,
}

/// The ways on which events come to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// An `event` frame.
    Live,
    /// The answer to `sync`.
    Page,
    /// A page of `events` during the run.
    Events,
    /// A page of history during the run.
    History,
    /// The last message in the list of chats.
    ChatList,
    /// One message by its id.
    Message,
    /// The long poll.
    Poll,
    /// The final read by socket resume.
    FinalResume,
    /// The final read of the raw log, forward.
    FinalEvents,
    /// The final read of the history, backward: messages only.
    FinalHistory,
}

impl Way {
    /// The ways of the final phase.
    pub const FINAL: [Self; 3] = [Self::FinalResume, Self::FinalEvents, Self::FinalHistory];

    /// Tells whether the way belongs to the final phase.
    pub fn is_final(self) -> bool {
        Self::FINAL.contains(&self)
    }
}

/// An event as a client saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Its position.
    pub seq: Seq,
    /// Its id; for messages the id of the message.
    pub event_id: MessageId,
    /// What happened.
    #[serde(flatten)]
    pub body: SeenBody,
}

/// What happened, as far as the rules need it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SeenBody {
    /// The chat began with these members.
    Created {
        /// The founding members.
        members: Vec<UserId>,
    },
    /// A message in its state at the time.
    Message {
        /// Who wrote it.
        sender: UserId,
        /// The key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The text; empty when deleted.
        text: String,
        /// The last event folded into the state.
        state_seq: Seq,
        /// A tombstone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    },
    /// Somebody joined.
    Join {
        /// Who.
        user_id: UserId,
    },
    /// Somebody is no longer a member.
    Leave {
        /// Who.
        user_id: UserId,
        /// Why.
        reason: LeaveReason,
    },
    /// Something that no rule is about.
    Other,
}

/// A run of events handed to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// The first.
    pub from_seq: Seq,
    /// The last; all between were handed over too.
    pub to_seq: Seq,
}

/// Events that the server left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapArgs {
    /// The socket of the device, counted from 1.
    pub connection: u64,
    /// The chat.
    pub chat_id: ChatId,
    /// The last position before them.
    pub after_seq: Seq,
    /// The head.
    pub head_seq: Seq,
}

/// A whole read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// The way.
    pub path: Way,
    /// Positions up to here were not asked for.
    pub after_seq: Seq,
}

/// How far a chat reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadResult {
    /// The head that the server named.
    pub head_seq: Seq,
}

/// A position reported, or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// Whose position.
    pub user_id: UserId,
    /// Delivered or read.
    pub status: ReceiptKind,
    /// Up to where.
    pub seq: Seq,
    /// The socket on which it was told, counted from 1; 0 for HTTP.
    pub connection: u64,
}

/// The two positions of a member as one answer gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorsArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// Whose positions.
    pub user_id: UserId,
    /// What their devices stored.
    pub delivered_seq: Seq,
    /// What they read.
    pub read_seq: Seq,
    /// The head in the same answer.
    pub head_seq: Seq,
}

/// Where a client stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// Everything up to here was applied.
    pub have_seq: Seq,
    /// The chat was known to reach to here.
    pub head_seq: Seq,
}

/// A change of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberArgs {
    /// The chat.
    pub chat_id: ChatId,
    /// Who.
    pub user_id: UserId,
    /// In, or out.
    pub added: bool,
}

/// Something done to the server or the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultArgs {
    /// What: `kill9`, `restart`, `heal`, `cut`.
    pub fault: String,
    /// To what.
    pub target: String,
}

impl Seen {
    /// Notes an event.
    pub fn of_event(event: &Event) -> Self {
        let body = match &event.body {
            EventBody::Created { members, .. } => {
                SeenBody::Created { members: members.iter().map(|member| member.user_id).collect() }
            }
            EventBody::Message { message } => return Self::of_message(message),
            EventBody::Join { user_id, .. } => SeenBody::Join { user_id: *user_id },
            EventBody::Leave { user_id, reason, .. } => {
                SeenBody::Leave { user_id: *user_id, reason: *reason }
            }
            _ => SeenBody::Other,
        };
        Self { seq: event.seq, event_id: event.event_id, body }
    }

    /// Notes a message, which is also the event at its position.
    pub fn of_message(message: &Message) -> Self {
        Self {
            seq: message.seq,
            event_id: message.message_id,
            body: SeenBody::Message {
                sender: message.sender_id,
                key: message.client_id.as_ref().map(|key| key.as_str().to_owned()),
                text: message.message.clone(),
                state_seq: message.state_seq,
                deleted: message.deleted,
            },
        }
    }
}

/// Who did or saw a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user; none for the run itself and the nemesis.
    pub client: Option<UserId>,
    /// Which of the user's devices.
    pub device: String,
}

impl Who {
    /// The run itself, or what is done to the server.
    pub const NOBODY: Self = Self { client: None, device: String::new() };

    /// A device of a user.
    pub fn device(client: UserId, device: impl Into<String>) -> Self {
        Self { client: Some(client), device: device.into() }
    }
}

/// Writes lines; shared by all clients of a run.
pub struct Recorder {
    path: PathBuf,
    start: Instant,
    now_us: Box<dyn Fn() -> u64 + Send + Sync>,
    next_op: AtomicU64,
    n_acks: AtomicU64,
    sink: Mutex<Sink>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("path", &self.path).finish_non_exhaustive()
    }
}

struct Sink {
    out: Box<dyn Write + Send>,
    /// The first failure; the recording is worthless after it.
    failure: Option<io::Error>,
}

impl Recorder {
    /// Begins a recording; a file of an earlier run is never continued.
    pub fn create(path: &Path, run: RunArgs) -> io::Result<Self> {
        let out = Box::new(File::create_new(path)?);
        let start = clock::now();
        let recorder = Self { start, ..Self::new(out, move || clock::micros_since(start), run) };
        Ok(Self { path: path.to_owned(), ..recorder })
    }

    /// Begins a recording that goes elsewhere, on another clock: a simulation has both.
    pub fn new(
        out: Box<dyn Write + Send>,
        now_us: impl Fn() -> u64 + Send + Sync + 'static,
        run: RunArgs,
    ) -> Self {
        let recorder = Self {
            path: PathBuf::new(),
            start: clock::now(),
            now_us: Box::new(now_us),
            next_op: AtomicU64::new(1),
            n_acks: AtomicU64::new(0),
            sink: Mutex::new(Sink { out, failure: None }),
        };
        recorder.note(&Who::NOBODY, Op::Run { args: run });
        recorder
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when the run began.
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// Returns how many sends were acknowledged so far.
    pub fn n_acks(&self) -> u64 {
        self.n_acks.load(Ordering::Relaxed)
    }

    /// Notes that an operation begins; returns what joins it with its end.
    pub fn invoke(&self, who: &Who, op: Op) -> u64 {
        let op_id = self.next_op.fetch_add(1, Ordering::Relaxed);
        self.write(who, op_id, Phase::Invoke, op);
        op_id
    }

    /// Notes the end of an operation.
    pub fn end(&self, who: &Who, op_id: u64, phase: Phase, op: Op) {
        if phase == Phase::Ok && matches!(op, Op::Send { .. }) {
            self.n_acks.fetch_add(1, Ordering::Relaxed);
        }
        self.write(who, op_id, phase, op);
    }

    /// Notes something seen, which has no end of its own.
    pub fn note(&self, who: &Who, op: Op) {
        let op_id = self.next_op.fetch_add(1, Ordering::Relaxed);
        self.write(who, op_id, Phase::Ok, op);
    }

    /// Writes the last line; tells whether every line was written.
    pub fn finish(&self) -> io::Result<()> {
        self.note(&Who::NOBODY, Op::End);
        match self.lock().failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn write(&self, who: &Who, op_id: u64, phase: Phase, op: Op) {
        let mut sink = self.lock();
        // The time is taken under the lock, so that the lines are in its order.
        let line = Line {
            t_mono_us: (self.now_us)(),
            client: who.client,
            device: who.device.clone(),
            op_id,
            op,
            phase,
        };
        let mut text = match serde_json::to_vec(&line) {
            Ok(text) => text,
            Err(error) => {
                sink.failure.get_or_insert(io::Error::other(error));
                return;
            }
        };
        text.push(b'\n');
        if let Err(error) = sink.out.write_all(&text) {
            sink.failure.get_or_insert(error);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_one_json_object_a_line_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let run = RunArgs {
            scenario: "none".to_owned(),
            seed: 7,
            replay: "nothing".to_owned(),
            binary_sha256: String::new(),
            needs: Needs { n_acks: 1, n_faults: 0, final_reads: true },
        };
        let recorder = Recorder::create(&path, run.clone()).unwrap();
        assert!(Recorder::create(&path, run).is_err(), "an old file is not continued");
        let ann = Who::device(UserId::from_raw(5), "phone");
        let args = SendArgs {
            chat_id: ChatId::from_raw(9),
            key: "k".to_owned(),
            text: "hi".to_owned(),
            lane: None,
            conflicts: false,
        };
        let op_id = recorder.invoke(&ann, Op::Send { args: Some(args), result: None, error: None });
        let result = SendResult { message_id: MessageId::from_raw(3), seq: Seq::new(2) };
        let end = Op::Send { args: None, result: Some(result), error: None };
        recorder.end(&ann, op_id, Phase::Ok, end);
        recorder.finish().unwrap();
        assert_eq!(recorder.n_acks(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.is_sorted_by_key(|line| line.t_mono_us));
        assert_eq!(lines[1].op_id, lines[2].op_id);
        assert!(
            text.lines()
                .nth(2)
                .unwrap()
                .contains(r#""op":"send","result":{"message_id":"3","seq":2},"phase":"ok""#),
            "{text}"
        );
    }
}
