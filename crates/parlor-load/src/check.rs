//! The checker: reads a recording and says which promises it shows to be broken.
//!
//! The server hands out `seq`, so every rule is a pass over the lines and a pass over the logs; no
//! search for an order is needed. A recording that could not have shown a broken promise (too few
//! acknowledgements, no final reads, no fault fired) is *no evidence* and never passes.
//!
//! Judged here: LOST, PHANTOM, DUP, FORK, GAP, REORDER, STALE, LEAK, RECEIPT, STATUS, STUCK.
//! Not judged yet: RESUME (foreign, stale and damaged cursors need clients that forge them).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, bail};
use parlor_proto::{ChatId, MessageId, Seq, UserId, receipts::ReceiptKind};
use serde::Serialize;

use crate::record::{
    ApplyArgs, ChatArgs, CursorsArgs, DeliverArgs, GapArgs, Line, Op, Phase, PositionArgs,
    ReadArgs, ReadResult, ReceiptArgs, RunArgs, Seen, SeenBody, SendArgs, SendResult, Way,
};

/// Positions above this are a defect of their own: no run gets there.
const MOST_EVENTS: u64 = 50_000_000;
/// Examples kept for each rule.
const EXAMPLES: usize = 5;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Rule {
    /// An acknowledged send is missing at its position in the final history of an entitled member.
    Lost,
    /// An event that nobody sent, or one whose send was refused.
    Phantom,
    /// A key stored more than once, or two acknowledgements of one key that differ.
    Dup,
    /// Two events at one position.
    Fork,
    /// A hole in a final history, or a live skip that nothing announced and nothing filled.
    Gap,
    /// A stream that steps back after repeats were dropped, or own sends out of order.
    Reorder,
    /// A read below what the client had already written or seen.
    Stale,
    /// An event outside the membership of the one who got it or wrote it.
    Leak,
    /// A position that goes back, passes the head, or is read above delivered.
    Receipt,
    /// A status without its cause.
    Status,
    /// After the end of all faults: an operation without an end, or a client below the head.
    Stuck,
}

impl Rule {
    /// All rules, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Lost,
        Self::Phantom,
        Self::Dup,
        Self::Fork,
        Self::Gap,
        Self::Reorder,
        Self::Stale,
        Self::Leak,
        Self::Receipt,
        Self::Status,
        Self::Stuck,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Lost => "LOST",
            Self::Phantom => "PHANTOM",
            Self::Dup => "DUP",
            Self::Fork => "FORK",
            Self::Gap => "GAP",
            Self::Reorder => "REORDER",
            Self::Stale => "STALE",
            Self::Leak => "LEAK",
            Self::Receipt => "RECEIPT",
            Self::Status => "STATUS",
            Self::Stuck => "STUCK",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a recording shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No rule was broken, and it would have shown.
    Holds,
    /// At least one rule was broken.
    Broken,
    /// It could not have shown a broken rule.
    NoEvidence,
}

/// How often a rule was broken, with examples.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Broken {
    /// How often.
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines read.
    pub lines: u64,
    /// Keys sent.
    pub sent: u64,
    /// Operations that sent them.
    pub attempts: u64,
    /// Keys acknowledged.
    pub ok: u64,
    /// Keys of unknown outcome.
    pub info: u64,
    /// Those of them that are in the log.
    pub info_stored: u64,
    /// Keys refused for good.
    pub fail: u64,
    /// Reuses of a key with another text, all of which must be refused.
    pub conflicts: u64,
    /// Events that came to clients while the run was on.
    pub delivered: u64,
    /// Those of them that the device had already.
    pub repeats_before_dedup: u64,
    /// Events handed to an application twice.
    pub repeats_after_dedup: u64,
    /// Live skips without a `gap` frame that a read filled.
    pub skips_filled: u64,
    /// Events told to be left out.
    pub gaps_announced: u64,
    /// Events in the final logs of all chats.
    pub stored: u64,
    /// Final reads that came to their end.
    pub final_reads: u64,
    /// Acknowledged sends for which an entitled member's final history was looked at.
    pub acks_verified: u64,
    /// Changes of members that were acknowledged.
    pub member_changes: u64,
    /// Faults fired.
    pub faults: u64,
}

/// The judgement of one recording.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// What it shows.
    pub verdict: Verdict,
    /// What was to be done.
    pub run: Option<RunArgs>,
    /// What was counted.
    pub counts: Counts,
    /// The broken rules.
    pub broken: BTreeMap<Rule, Broken>,
    /// Why it is no evidence.
    pub missing: Vec<String>,
}

impl Judgement {
    /// Returns the exit code of the command: 0 holds, 1 broken, 2 no evidence.
    pub const fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Holds => 0,
            Verdict::Broken => 1,
            Verdict::NoEvidence => 2,
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        if let Some(run) = &self.run {
            writeln!(f, "scenario {}  seed {}", run.scenario, run.seed)?;
            writeln!(f, "replay   {}", run.replay)?;
            writeln!(f, "server   sha256 {}", run.binary_sha256)?;
        }
        let table = [
            ("lines", counts.lines),
            ("keys sent", counts.sent),
            ("attempts", counts.attempts),
            ("ok", counts.ok),
            ("info", counts.info),
            ("info, in the log", counts.info_stored),
            ("fail", counts.fail),
            ("keys with another text", counts.conflicts),
            ("delivered", counts.delivered),
            ("repeats before dedup", counts.repeats_before_dedup),
            ("repeats after dedup", counts.repeats_after_dedup),
            ("skips filled by a read", counts.skips_filled),
            ("gaps announced", counts.gaps_announced),
            ("events in the final logs", counts.stored),
            ("final reads", counts.final_reads),
            ("acks verified", counts.acks_verified),
            ("member changes", counts.member_changes),
            ("faults fired", counts.faults),
        ];
        for (name, count) in table {
            writeln!(f, "{name:<26} {count:>12}")?;
        }
        for rule in Rule::ALL {
            let broken = self.broken.get(&rule);
            writeln!(f, "{rule:<26} {:>12}", broken.map_or(0, |broken| broken.count))?;
            for example in broken.iter().flat_map(|broken| &broken.examples) {
                writeln!(f, "    {example}")?;
            }
        }
        match self.verdict {
            Verdict::Holds => writeln!(f, "verdict: the promises hold in this run"),
            Verdict::Broken => writeln!(f, "verdict: BROKEN"),
            Verdict::NoEvidence => {
                writeln!(f, "verdict: NO EVIDENCE")?;
                self.missing.iter().try_for_each(|missing| writeln!(f, "    {missing}"))
            }
        }
    }
}

/// Judges a recording in a file.
pub fn check_file(path: &Path) -> anyhow::Result<Judgement> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    check(BufReader::with_capacity(1 << 20, file))
}

/// Judges a recording.
pub fn check(mut source: impl BufRead) -> anyhow::Result<Judgement> {
    let mut checker = Checker::default();
    let mut text = Vec::new();
    loop {
        text.clear();
        if source.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let number = checker.counts.lines + 1;
        if text.last() != Some(&b'\n') {
            // A run that was killed while it wrote: the missing end says so.
            break;
        }
        let line = serde_json::from_slice(&text).with_context(|| format!("line {number}"))?;
        checker.take(line).with_context(|| format!("line {number}"))?;
    }
    Ok(checker.judge())
}

/// Judges lines in memory.
pub fn check_lines(lines: impl IntoIterator<Item = Line>) -> anyhow::Result<Judgement> {
    let mut checker = Checker::default();
    for line in lines {
        checker.take(line)?;
    }
    Ok(checker.judge())
}

/// A set of positions.
#[derive(Debug, Default, Clone)]
struct Seqs(Vec<u64>);

impl Seqs {
    /// Puts a position in; tells whether it is new.
    fn insert(&mut self, seq: Seq) -> bool {
        let (word, bit) = Self::place(seq);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let Some(bits) = self.0.get_mut(word) else { return false };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }

    fn contains(&self, seq: Seq) -> bool {
        let (word, bit) = Self::place(seq);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn iter(&self) -> impl Iterator<Item = Seq> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| Seq::new(word as u64 * 64 + bit))
        })
    }

    fn last(&self) -> Seq {
        self.iter().last().unwrap_or_default()
    }

    fn place(seq: Seq) -> (usize, u64) {
        // Positions were checked against MOST_EVENTS when they were read.
        (usize::try_from(seq.get() / 64).unwrap_or(usize::MAX), 1 << (seq.get() % 64))
    }
}

/// What is known of one event, over all readers and ways.
#[derive(Debug)]
struct Known {
    event_id: MessageId,
    body: KnownBody,
}

#[derive(Debug, PartialEq)]
enum KnownBody {
    Message { sender: UserId, key: Option<String>, states: BTreeMap<Seq, State> },
    Fixed(SeenBody),
}

/// The state of a message after one event; the text only as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    text: u64,
    deleted: bool,
}

#[derive(Debug, Default)]
struct Chat {
    history_all: bool,
    events: HashMap<Seq, Known>,
    /// Membership, as the log tells it: who comes (true) or goes at which position.
    changes: BTreeMap<Seq, Vec<(UserId, bool)>>,
    has_begin: bool,
    /// The highest position told in a receipt.
    told: Seq,
}

/// When somebody is a member: from, up to (exclusive; none: still).
type Spans = Vec<(Seq, Option<Seq>)>;

#[derive(Debug, Default)]
struct Key {
    first: Option<FirstSend>,
    n_ok: u64,
    n_info: u64,
    n_fail: u64,
    n_open: u64,
    ack: Option<(ChatId, Seq, MessageId)>,
    stored: BTreeSet<(ChatId, Seq)>,
}

#[derive(Debug)]
struct FirstSend {
    chat_id: ChatId,
    text: u64,
    /// What the client knew of the chat before: its own event comes later.
    known: Seq,
}

type KeyId = (UserId, String);

#[derive(Debug)]
struct OpenSend {
    key: KeyId,
    conflicts: bool,
}

/// One chat on one device.
#[derive(Debug, Default)]
struct Stream {
    connection: u64,
    last_live: Option<Seq>,
    announced: Vec<(Seq, Seq)>,
    seen: Seqs,
    /// Live skips without an announcement: from, to.
    skips: Vec<(Seq, Seq)>,
    applied: Option<Seq>,
    /// Skips of the application's stream: from, to.
    apply_skips: Vec<(Seq, Seq)>,
}

#[derive(Debug, Default)]
struct Reported {
    delivered: Seq,
    read: Seq,
}

/// One position as one connection was told of it: device, connection, chat, of whom, what.
type Told = (UserId, String, u64, ChatId, UserId, ReceiptKind);

#[derive(Debug, Default)]
struct Checker {
    run: Option<RunArgs>,
    is_complete: bool,
    counts: Counts,
    broken: BTreeMap<Rule, Broken>,
    missing: Vec<String>,
    chats: BTreeMap<ChatId, Chat>,
    keys: HashMap<KeyId, Key>,
    open_sends: HashMap<u64, OpenSend>,
    open_reads: HashMap<u64, Seq>,
    open_others: HashSet<u64>,
    lanes: HashMap<(UserId, ChatId, String), Vec<KeyId>>,
    /// What a client has written or seen of a chat.
    known: HashMap<(UserId, ChatId), Seq>,
    streams: HashMap<(UserId, String, ChatId), Stream>,
    seen: BTreeMap<(ChatId, UserId, Way), Seqs>,
    finals: BTreeMap<(ChatId, UserId, Way), (Seq, Seq)>,
    reported: HashMap<(UserId, ChatId), Reported>,
    told: HashMap<Told, Seq>,
    cursors: HashMap<(UserId, String, ChatId, UserId), (Seq, Seq)>,
    positions: Vec<(UserId, String, PositionArgs)>,
}

impl Checker {
    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        self.counts.lines += 1;
        if self.run.is_none() && !matches!(line.op, Op::Run { .. }) {
            bail!("a recording begins with a `run` line");
        }
        let (op_id, phase) = (line.op_id, line.phase);
        let who = line.client.map(|client| (client, line.device));
        match (line.op, who) {
            (Op::Run { args }, _) => {
                if self.run.replace(args).is_some() {
                    bail!("a second `run` line: two recordings in one file");
                }
            }
            (Op::End, _) => self.is_complete = true,
            (Op::Chat { args }, _) => self.on_chat(args),
            (Op::Fault { .. }, _) => {
                if phase == Phase::Ok {
                    self.counts.faults += 1;
                }
            }
            (Op::Member { .. }, _) => {
                match phase {
                    Phase::Invoke => drop(self.open_others.insert(op_id)),
                    _ => drop(self.open_others.remove(&op_id)),
                }
                if phase == Phase::Ok {
                    self.counts.member_changes += 1;
                }
            }
            (Op::Send { args, result, .. }, Some((client, _))) => {
                self.on_send(client, op_id, phase, args, result)?;
            }
            (Op::Deliver { args, result }, Some((client, device))) => {
                self.on_deliver(client, device, args, result)?;
            }
            (Op::Apply { args }, Some((client, device))) => self.on_apply(client, device, args)?,
            (Op::Gap { args }, Some((client, device))) => self.on_gap(client, device, args),
            (Op::Read { args, result }, Some((client, _))) => {
                self.on_read(client, op_id, phase, args, result)?;
            }
            (Op::Report { args }, Some(_)) => {
                let reported = self.reported.entry((args.user_id, args.chat_id)).or_default();
                match args.status {
                    ReceiptKind::Delivered => {
                        reported.delivered = reported.delivered.max(args.seq);
                    }
                    ReceiptKind::Read => reported.read = reported.read.max(args.seq),
                }
            }
            (Op::Receipt { args }, Some((client, device))) => {
                self.on_receipt(client, device, args)?;
            }
            (Op::Cursors { args }, Some((client, device))) => {
                self.on_cursors(client, device, args);
            }
            (Op::Position { args }, Some((client, device))) => {
                self.positions.push((client, device, args));
            }
            (_, None) => bail!("the line has no client"),
        }
        Ok(())
    }

    fn break_rule(&mut self, rule: Rule, example: impl FnOnce() -> String) {
        let broken = self.broken.entry(rule).or_default();
        broken.count += 1;
        if broken.examples.len() < EXAMPLES {
            broken.examples.push(example());
        }
    }

    fn on_chat(&mut self, args: ChatArgs) {
        self.chats.entry(args.chat_id).or_default().history_all = args.history_all;
    }

    fn on_send(
        &mut self,
        client: UserId,
        op_id: u64,
        phase: Phase,
        args: Option<SendArgs>,
        result: Option<SendResult>,
    ) -> anyhow::Result<()> {
        if phase == Phase::Invoke {
            let args = args.context("the invocation of a send has no args")?;
            let id = (client, args.key);
            self.counts.attempts += 1;
            let conflicts = args.conflicts;
            self.open_sends.insert(op_id, OpenSend { key: id.clone(), conflicts });
            if conflicts {
                self.counts.conflicts += 1;
                return Ok(());
            }
            let key = self.keys.entry(id.clone()).or_default();
            key.n_open += 1;
            if key.first.is_none() {
                let known = self.known.get(&(client, args.chat_id)).copied().unwrap_or_default();
                let text = hash(&args.text);
                key.first = Some(FirstSend { chat_id: args.chat_id, text, known });
                if let Some(lane) = args.lane {
                    self.lanes.entry((client, args.chat_id, lane)).or_default().push(id);
                }
            }
            return Ok(());
        }
        let open = self.open_sends.remove(&op_id).context("a send ends that did not begin")?;
        if open.conflicts {
            if phase == Phase::Ok {
                let (user, key) = open.key;
                self.break_rule(Rule::Dup, || {
                    format!("user {user}: key {key} was taken with another text")
                });
            }
            return Ok(());
        }
        let key = self.keys.entry(open.key.clone()).or_default();
        key.n_open = key.n_open.saturating_sub(1);
        match phase {
            Phase::Ok => {
                key.n_ok += 1;
                let result = result.context("an acknowledged send has no result")?;
                check_bound(result.seq)?;
                let chat_id = key.first.as_ref().context("no invocation")?.chat_id;
                let ack = (chat_id, result.seq, result.message_id);
                let first = *key.ack.get_or_insert(ack);
                let known = self.known.entry((client, chat_id)).or_default();
                *known = (*known).max(result.seq);
                if first != ack {
                    self.break_rule(Rule::Dup, || {
                        format!(
                            "user {client}: key {} was acknowledged as {first:?} and {ack:?}",
                            open.key.1
                        )
                    });
                }
            }
            Phase::Info => key.n_info += 1,
            Phase::Fail => key.n_fail += 1,
            Phase::Invoke => {}
        }
        Ok(())
    }

    fn on_deliver(
        &mut self,
        client: UserId,
        device: String,
        args: DeliverArgs,
        seen: Seen,
    ) -> anyhow::Result<()> {
        let (chat_id, seq) = (args.chat_id, seen.seq);
        check_bound(seq)?;
        self.seen.entry((chat_id, client, args.path)).or_default().insert(seq);
        self.observe(client, chat_id, args.path, seen);
        let known = self.known.entry((client, chat_id)).or_default();
        *known = (*known).max(seq);
        if args.path.is_final() {
            return Ok(());
        }
        self.counts.delivered += 1;
        let key = (client, device, chat_id);
        let stream = self.streams.entry(key.clone()).or_default();
        let is_new = stream.seen.insert(seq);
        if !is_new {
            self.counts.repeats_before_dedup += 1;
        }
        if args.path != Way::Live {
            return Ok(());
        }
        if stream.connection != args.connection {
            stream.connection = args.connection;
            stream.last_live = None;
            stream.announced.clear();
        }
        let covered = |from: Seq, to: Seq| {
            stream.announced.iter().any(|(after, head)| *after < from && to <= *head)
        };
        let last = stream.last_live;
        let steps_back = is_new && last.is_some_and(|last| seq < last) && !covered(seq, seq);
        if let Some(last) = last
            && seq > last.next()
            && !covered(last.next(), seq.prev())
        {
            stream.skips.push((last.next(), seq.prev()));
        }
        stream.last_live = Some(last.map_or(seq, |last| last.max(seq)));
        if steps_back {
            self.break_rule(Rule::Reorder, || {
                let (client, device, chat_id) = key;
                format!("user {client} {device}: chat {chat_id} came {last:?}, then new {seq:?}")
            });
        }
        Ok(())
    }

    /// Compares what a client saw with what everybody else saw at the same place.
    fn observe(&mut self, client: UserId, chat_id: ChatId, way: Way, seen: Seen) {
        let chat = self.chats.entry(chat_id).or_default();
        let seq = seen.seq;
        match &seen.body {
            SeenBody::Created { members } => {
                chat.has_begin = true;
                let changes = members.iter().map(|member| (*member, true)).collect();
                chat.changes.insert(seq, changes);
            }
            SeenBody::Join { user_id } => drop(chat.changes.insert(seq, vec![(*user_id, true)])),
            SeenBody::Leave { user_id, .. } => {
                chat.changes.insert(seq, vec![(*user_id, false)]);
            }
            SeenBody::Message { .. } | SeenBody::Other => {}
        }
        let body = match seen.body {
            SeenBody::Message { sender, key, text, state_seq, deleted } => {
                if let Some(key) = &key {
                    let key = self.keys.entry((sender, key.clone())).or_default();
                    key.stored.insert((chat_id, seq));
                }
                let state = State { text: hash(&text), deleted };
                KnownBody::Message { sender, key, states: [(state_seq, state)].into() }
            }
            other => KnownBody::Fixed(other),
        };
        let Some(known) = chat.events.get_mut(&seq) else {
            chat.events.insert(seq, Known { event_id: seen.event_id, body });
            return;
        };
        let agrees = known.event_id == seen.event_id
            && match (&mut known.body, &body) {
                (
                    KnownBody::Message { sender, key, states },
                    KnownBody::Message { sender: sender2, key: key2, states: states2 },
                ) => {
                    let same = sender == sender2 && key == key2;
                    same && states2
                        .iter()
                        .all(|(seq, state)| *states.entry(*seq).or_insert(*state) == *state)
                }
                (known, seen) => known == seen,
            };
        if !agrees {
            let first = known.event_id;
            self.break_rule(Rule::Fork, || {
                format!(
                    "chat {chat_id} {seq:?}: event {first} elsewhere, event {} for user {client} \
                     by {way:?}",
                    seen.event_id
                )
            });
        }
    }

    fn on_apply(&mut self, client: UserId, device: String, args: ApplyArgs) -> anyhow::Result<()> {
        check_bound(args.to_seq)?;
        let stream = self.streams.entry((client, device.clone(), args.chat_id)).or_default();
        let last = stream.applied;
        if let Some(last) = last
            && args.from_seq > last.next()
        {
            stream.apply_skips.push((last.next(), args.from_seq.prev()));
        }
        stream.applied = Some(last.map_or(args.to_seq, |last| last.max(args.to_seq)));
        if let Some(last) = last
            && args.from_seq <= last
        {
            let n_again = last.min(args.to_seq).get() + 1 - args.from_seq.get();
            self.counts.repeats_after_dedup += n_again;
            self.break_rule(Rule::Reorder, || {
                format!(
                    "user {client} {device}: chat {} was handed over up to {last:?}, then {:?}",
                    args.chat_id, args.from_seq
                )
            });
        }
        Ok(())
    }

    fn on_gap(&mut self, client: UserId, device: String, args: GapArgs) {
        self.counts.gaps_announced += 1;
        let stream = self.streams.entry((client, device, args.chat_id)).or_default();
        if stream.connection != args.connection {
            stream.connection = args.connection;
            stream.last_live = None;
            stream.announced.clear();
        }
        stream.announced.push((args.after_seq, args.head_seq));
    }

    fn on_read(
        &mut self,
        client: UserId,
        op_id: u64,
        phase: Phase,
        args: ReadArgs,
        result: Option<ReadResult>,
    ) -> anyhow::Result<()> {
        if phase == Phase::Invoke {
            let known = self.known.get(&(client, args.chat_id)).copied().unwrap_or_default();
            self.open_reads.insert(op_id, known);
            return Ok(());
        }
        let known = self.open_reads.remove(&op_id).context("a read ends that did not begin")?;
        if phase != Phase::Ok {
            return Ok(());
        }
        let head_seq = result.context("a read that ended well has no result")?.head_seq;
        check_bound(head_seq)?;
        // What is missing in the final phase is LOST or a GAP.
        if head_seq < known && !args.path.is_final() {
            self.break_rule(Rule::Stale, || {
                format!(
                    "user {client}: chat {} was read up to {head_seq:?}, {known:?} was known",
                    args.chat_id
                )
            });
        }
        if args.path.is_final() {
            self.counts.final_reads += 1;
            let key = (args.chat_id, client, args.path);
            self.finals.insert(key, (args.after_seq, head_seq));
        }
        Ok(())
    }

    fn on_receipt(
        &mut self,
        client: UserId,
        device: String,
        args: ReceiptArgs,
    ) -> anyhow::Result<()> {
        check_bound(args.seq)?;
        let chat = self.chats.entry(args.chat_id).or_default();
        chat.told = chat.told.max(args.seq);
        let told = (client, device, args.connection, args.chat_id, args.user_id, args.status);
        let last = self.told.entry(told).or_default();
        let before = std::mem::replace(last, (*last).max(args.seq));
        if args.seq < before {
            self.break_rule(Rule::Receipt, || {
                format!(
                    "chat {}: {:?} of user {} went from {before:?} back to {:?}",
                    args.chat_id, args.status, args.user_id, args.seq
                )
            });
        }
        let empty = Reported::default();
        let reported = self.reported.get(&(args.user_id, args.chat_id)).unwrap_or(&empty);
        let cause = match args.status {
            ReceiptKind::Delivered => reported.delivered.max(reported.read),
            ReceiptKind::Read => reported.read,
        };
        if cause < args.seq {
            self.break_rule(Rule::Status, || {
                format!(
                    "chat {}: {:?} {:?} of user {} was told, {cause:?} was reported",
                    args.chat_id, args.status, args.seq, args.user_id
                )
            });
        }
        Ok(())
    }

    fn on_cursors(&mut self, client: UserId, device: String, args: CursorsArgs) {
        let (delivered, read) = (args.delivered_seq, args.read_seq);
        let key = (client, device, args.chat_id, args.user_id);
        let before = self.cursors.insert(key, (delivered, read)).unwrap_or_default();
        let goes_back = delivered < before.0 || read < before.1;
        if goes_back || read > delivered || delivered > args.head_seq {
            self.break_rule(Rule::Receipt, || {
                format!(
                    "chat {}: user {} has delivered {delivered:?} read {read:?} at head {:?}, \
                     before {before:?}",
                    args.chat_id, args.user_id, args.head_seq
                )
            });
        }
    }

    fn judge(mut self) -> Judgement {
        let spans: BTreeMap<ChatId, BTreeMap<UserId, Spans>> =
            self.chats.iter().map(|(chat_id, chat)| (*chat_id, spans(chat))).collect();
        self.judge_keys();
        let lost = self.judge_acks(&spans);
        self.judge_finals(&spans, &lost);
        self.judge_streams(&spans);
        self.judge_leaks(&spans);
        self.judge_rest(&spans);
        self.judge_evidence(&spans);
        let verdict = match (self.broken.is_empty(), self.missing.is_empty()) {
            (false, _) => Verdict::Broken,
            (true, false) => Verdict::NoEvidence,
            (true, true) => Verdict::Holds,
        };
        Judgement {
            verdict,
            run: self.run,
            counts: self.counts,
            broken: self.broken,
            missing: self.missing,
        }
    }

    /// PHANTOM and DUP of the log, REORDER of own sends.
    fn judge_keys(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        for ((user, name), key) in &keys {
            let Some(first) = &key.first else {
                if !key.stored.is_empty() {
                    self.break_rule(Rule::Phantom, || {
                        format!("user {user} never sent key {name}: {:?}", key.stored)
                    });
                }
                continue;
            };
            self.counts.sent += 1;
            let may_be_stored = key.n_ok + key.n_info + key.n_open > 0;
            match key {
                Key { n_ok: 1.., .. } => self.counts.ok += 1,
                _ if may_be_stored => {
                    self.counts.info += 1;
                    self.counts.info_stored += u64::from(!key.stored.is_empty());
                }
                _ => self.counts.fail += 1,
            }
            if !may_be_stored && !key.stored.is_empty() {
                self.break_rule(Rule::Phantom, || {
                    format!("user {user}: key {name} was refused and is at {:?}", key.stored)
                });
            }
            if key.stored.len() > 1 {
                self.break_rule(Rule::Dup, || {
                    format!("user {user}: key {name} is stored at {:?}", key.stored)
                });
            }
            if let Some((_, seq, _)) = key.ack
                && seq <= first.known
            {
                self.break_rule(Rule::Reorder, || {
                    format!(
                        "user {user}: key {name} got {seq:?}, {:?} was known before",
                        first.known
                    )
                });
            }
        }
        let lanes = std::mem::take(&mut self.lanes);
        for ((user, chat_id, lane), ids) in lanes {
            let mut last = Seq::ZERO;
            for id in ids {
                let Some((_, seq, _)) = keys.get(&id).and_then(|key| key.ack) else { continue };
                if seq <= last {
                    self.break_rule(Rule::Reorder, || {
                        format!(
                            "user {user}: key {} of lane {lane} in chat {chat_id} got {seq:?} \
                             after {last:?}",
                            id.1
                        )
                    });
                }
                last = last.max(seq);
            }
        }
        // An event without a key, or with another text than was sent.
        let mut phantoms = Vec::new();
        for (chat_id, chat) in &self.chats {
            for (seq, known) in &chat.events {
                let KnownBody::Message { sender, key, states } = &known.body else { continue };
                let Some(name) = key else {
                    phantoms.push(format!("chat {chat_id} {seq:?}: a message without a key"));
                    continue;
                };
                let first = keys.get(&(*sender, name.clone())).and_then(|key| key.first.as_ref());
                let Some(first) = first else { continue };
                // Deleted or edited since: the text is another one by right.
                let original = states.get(seq).filter(|state| !state.deleted);
                let other_text = original.is_some_and(|state| state.text != first.text);
                if other_text || first.chat_id != *chat_id {
                    phantoms.push(format!(
                        "chat {chat_id} {seq:?}: key {name} holds what user {sender} never sent"
                    ));
                }
            }
        }
        for phantom in phantoms {
            self.break_rule(Rule::Phantom, || phantom);
        }
        self.keys = keys;
    }

    /// LOST, and FORK between an acknowledgement and the log; returns the lost positions.
    fn judge_acks(
        &mut self,
        spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>,
    ) -> HashSet<(ChatId, Seq)> {
        let mut lost = HashSet::new();
        let keys = std::mem::take(&mut self.keys);
        for ((user, name), key) in &keys {
            let Some((chat_id, seq, message_id)) = key.ack else { continue };
            let Some(chat) = self.chats.get(&chat_id) else { continue };
            let history_all = chat.history_all;
            if let Some(known) = chat.events.get(&seq)
                && known.event_id != message_id
            {
                let other = known.event_id;
                self.break_rule(Rule::Fork, || {
                    format!(
                        "chat {chat_id} {seq:?}: acknowledged as {message_id}, in the log {other}"
                    )
                });
            }
            let members = spans.get(&chat_id);
            let entitled = members
                .into_iter()
                .flatten()
                .filter_map(|(member, spans)| Some((*member, open_from(spans)?)));
            let (mut n_looked, mut missing_for) = (0, None);
            for (member, from) in entitled {
                let from = if history_all { Seq::new(1) } else { from };
                for way in Way::FINAL {
                    let Some((after, _)) = self.finals.get(&(chat_id, member, way)) else {
                        continue;
                    };
                    if seq < from || seq <= *after {
                        continue;
                    }
                    n_looked += 1;
                    let seen = self.seen.get(&(chat_id, member, way));
                    if !seen.is_some_and(|seen| seen.contains(seq)) {
                        missing_for.get_or_insert((member, way));
                    }
                }
            }
            if n_looked > 0 {
                self.counts.acks_verified += 1;
            }
            if let Some((member, way)) = missing_for {
                lost.insert((chat_id, seq));
                self.break_rule(Rule::Lost, || {
                    format!(
                        "chat {chat_id} {seq:?}: key {name} of user {user}, acknowledged as \
                         {message_id}, is missing for user {member} by {way:?}"
                    )
                });
            }
        }
        self.keys = keys;
        lost
    }

    /// GAP in the final histories.
    fn judge_finals(
        &mut self,
        spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>,
        lost: &HashSet<(ChatId, Seq)>,
    ) {
        let mut tops: BTreeMap<ChatId, Seq> = BTreeMap::new();
        for ((chat_id, _, way), seen) in &self.seen {
            if way.is_final() {
                let top = tops.entry(*chat_id).or_default();
                *top = (*top).max(seen.last());
            }
        }
        let finals = std::mem::take(&mut self.finals);
        for ((chat_id, member, way), (after, head)) in &finals {
            let Some(chat) = self.chats.get(chat_id) else { continue };
            let from = spans.get(chat_id).and_then(|spans| spans.get(member));
            let Some(from) = from.and_then(open_from) else { continue };
            let from = if chat.history_all { Seq::new(1) } else { from };
            let top = tops.get(chat_id).copied().unwrap_or_default().max(*head);
            let empty = Seqs::default();
            let seen = self.seen.get(&(*chat_id, *member, *way)).unwrap_or(&empty);
            let mut holes = Vec::new();
            let mut seq = from.max(after.next());
            while seq <= top {
                let is_wanted = *way != Way::FinalHistory
                    || chat
                        .events
                        .get(&seq)
                        .is_some_and(|known| matches!(known.body, KnownBody::Message { .. }));
                if is_wanted && !seen.contains(seq) && !lost.contains(&(*chat_id, seq)) {
                    holes.push(seq);
                }
                seq = seq.next();
            }
            if let (Some(first), Some(last)) = (holes.first(), holes.last()) {
                let n_holes = holes.len();
                self.break_rule(Rule::Gap, || {
                    format!(
                        "chat {chat_id}: user {member} by {way:?} lacks {n_holes} between \
                         {first:?} and {last:?} of {top:?}"
                    )
                });
            }
        }
        self.finals = finals;
        self.counts.stored = self.chats.values().map(|chat| chat.events.len() as u64).sum();
    }

    /// GAP in the live streams.
    fn judge_streams(&mut self, spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>) {
        let streams = std::mem::take(&mut self.streams);
        for ((client, device, chat_id), stream) in &streams {
            let Some(chat) = self.chats.get(chat_id) else { continue };
            let members = spans.get(chat_id).and_then(|spans| spans.get(client));
            let visible =
                |seq: Seq| members.is_some_and(|spans| sees(spans, chat.history_all, seq));
            // Who was away when they were removed reads what came before it never more.
            let removed = |from: Seq, to: Seq| {
                let ends = members.into_iter().flatten().filter_map(|(_, end)| *end);
                ends.filter(|end| (from..=to).contains(end)).max().unwrap_or(from)
            };
            let any = |from: Seq, to: Seq, wanted: &dyn Fn(Seq) -> bool| {
                (removed(from, to).get()..=to.get()).map(Seq::new).any(wanted)
            };
            let (mut n_filled, mut open) = (0, Vec::new());
            for (from, to) in &stream.skips {
                if any(*from, *to, &|seq| visible(seq) && !stream.seen.contains(seq)) {
                    open.push(("skipped live, neither told nor read", *from, *to));
                } else if any(*from, *to, &visible) {
                    n_filled += 1;
                }
            }
            for (from, to) in &stream.apply_skips {
                if any(*from, *to, &visible) {
                    open.push(("not handed to the application", *from, *to));
                }
            }
            self.counts.skips_filled += n_filled;
            for (what, from, to) in open {
                self.break_rule(Rule::Gap, || {
                    format!("user {client} {device}: chat {chat_id} {from:?} to {to:?} {what}")
                });
            }
        }
        self.streams = streams;
    }

    fn judge_leaks(&mut self, spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>) {
        let mut leaks = Vec::new();
        for ((chat_id, client, way), seen) in &self.seen {
            let Some(chat) = self.chats.get(chat_id).filter(|chat| chat.has_begin) else {
                continue;
            };
            let members = spans.get(chat_id).and_then(|spans| spans.get(client));
            for seq in seen.iter() {
                if !members.is_some_and(|spans| sees(spans, chat.history_all, seq)) {
                    leaks.push(format!(
                        "chat {chat_id} {seq:?} came to user {client} by {way:?}, {}",
                        nearest(members, seq)
                    ));
                }
            }
        }
        for (chat_id, chat) in self.chats.iter().filter(|(_, chat)| chat.has_begin) {
            for (seq, known) in &chat.events {
                let KnownBody::Message { sender, .. } = &known.body else { continue };
                let members = spans.get(chat_id).and_then(|spans| spans.get(sender));
                if !members.is_some_and(|spans| sees(spans, false, *seq)) {
                    leaks.push(format!(
                        "chat {chat_id} {seq:?} was written by user {sender}, {}",
                        nearest(members, *seq)
                    ));
                }
            }
        }
        for leak in leaks {
            self.break_rule(Rule::Leak, || leak);
        }
    }

    /// RECEIPT above the head, STUCK.
    fn judge_rest(&mut self, spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>) {
        let heads: BTreeMap<ChatId, Seq> = self
            .chats
            .iter()
            .map(|(chat_id, chat)| {
                (*chat_id, chat.events.keys().copied().max().unwrap_or_default())
            })
            .collect();
        let above: Vec<_> = self
            .chats
            .iter()
            .filter(|(chat_id, chat)| heads.get(chat_id).is_some_and(|head| chat.told > *head))
            .map(|(chat_id, chat)| (*chat_id, chat.told))
            .collect();
        for (chat_id, told) in above {
            self.break_rule(Rule::Receipt, || {
                format!("chat {chat_id}: {told:?} was told, which is above the head")
            });
        }
        let n_open = self.open_sends.len() + self.open_reads.len() + self.open_others.len();
        if self.is_complete && n_open > 0 {
            self.break_rule(Rule::Stuck, || format!("{n_open} operations have no end"));
        }
        for (client, device, position) in std::mem::take(&mut self.positions) {
            let members = spans.get(&position.chat_id).and_then(|spans| spans.get(&client));
            let is_member = members.is_some_and(|spans| open_from(spans).is_some());
            let head = heads.get(&position.chat_id).copied().unwrap_or_default();
            if is_member && position.have_seq < head.max(position.head_seq) {
                self.break_rule(Rule::Stuck, || {
                    format!(
                        "user {client} {device}: chat {} stands at {:?}, the head is {head:?}",
                        position.chat_id, position.have_seq
                    )
                });
            }
        }
    }

    fn judge_evidence(&mut self, spans: &BTreeMap<ChatId, BTreeMap<UserId, Spans>>) {
        let Some(run) = &self.run else {
            self.missing.push("the recording is empty".to_owned());
            return;
        };
        let needs = run.needs;
        if !self.is_complete {
            self.missing.push("the recording has no end".to_owned());
        }
        let n_acks = self.keys.values().map(|key| key.n_ok).sum::<u64>();
        if n_acks < needs.n_acks.max(1) {
            let least = needs.n_acks.max(1);
            self.missing.push(format!("{n_acks} acknowledgements of at least {least}"));
        }
        if self.counts.faults < needs.n_faults {
            let fired = self.counts.faults;
            self.missing.push(format!("{fired} faults fired of at least {}", needs.n_faults));
        }
        if !needs.final_reads {
            return;
        }
        for (chat_id, chat) in &self.chats {
            if !chat.has_begin {
                self.missing.push(format!("chat {chat_id} is not known from its first event"));
            }
            for (member, member_spans) in spans.get(chat_id).into_iter().flatten() {
                if open_from(member_spans).is_none() {
                    continue;
                }
                for way in Way::FINAL {
                    if !self.finals.contains_key(&(*chat_id, *member, way)) {
                        self.missing
                            .push(format!("chat {chat_id}: no {way:?} read by user {member}"));
                    }
                }
            }
        }
        let unverified = self.counts.ok.saturating_sub(self.counts.acks_verified);
        if unverified > 0 {
            self.missing.push(format!("{unverified} acknowledged sends were not looked for"));
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn check_bound(seq: Seq) -> anyhow::Result<()> {
    if seq.get() > MOST_EVENTS {
        bail!("position {seq:?} is beyond what a run can reach");
    }
    Ok(())
}

/// Reads from the log who was a member when.
fn spans(chat: &Chat) -> BTreeMap<UserId, Spans> {
    let mut members: BTreeMap<UserId, Spans> = BTreeMap::new();
    for (seq, changes) in &chat.changes {
        for (user, comes) in changes {
            let spans = members.entry(*user).or_default();
            match spans.last_mut().filter(|(_, to)| to.is_none()) {
                Some(open) if !comes => open.1 = Some(*seq),
                None if *comes => spans.push((*seq, None)),
                _ => {}
            }
        }
    }
    members
}

/// Says in words when somebody was last a member before a position.
fn nearest(spans: Option<&Spans>, seq: Seq) -> String {
    let before = spans.into_iter().flatten().rfind(|(from, _)| *from <= seq);
    match before {
        Some((from, Some(to))) => format!("a member from {from:?} up to and without {to:?}"),
        Some((from, None)) => format!("a member from {from:?}"),
        None => "never a member until then".to_owned(),
    }
}

fn open_from(spans: &Spans) -> Option<Seq> {
    spans.last().filter(|(_, to)| to.is_none()).map(|(from, _)| *from)
}

fn sees(spans: &Spans, history_all: bool, seq: Seq) -> bool {
    spans.iter().any(|(from, to)| (history_all || *from <= seq) && to.is_none_or(|to| seq < to))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
