//! One connection: greeting, the resume position, and what is replayed from the log.
//!
//! The door registers the connection with its hub first, holds what arrives, and then asks for the
//! replay; so nothing falls between the log and the live stream. What overlaps is dropped by `seq`.

use parlor_proto::{
    ChatId, DeviceId, Event, MessageId, Seq, UserId,
    chats::Head,
    frame::{AccountEvent, Gap, Hello, ServerFrame, Welcome},
};
use serde::{Deserialize, Serialize};

use crate::{
    Caller, Core,
    access::{self, Act},
    chats::first_visible,
    clock::first_id_of,
    error::{Error, Result},
    planted::is_planted,
    ports::chats::ChatEntry,
    sealed::Purpose,
    stats,
};

/// The only version of the protocol.
const VERSION: u32 = 1;
/// Chats whose heads are told without a cursor.
const FIRST_HEADS: u32 = 200;
/// Chats whose heads are told with a cursor; more is a `reset`.
const MOST_HEADS: u32 = 2_000;
/// Events replayed of one chat.
const REPLAY_OF_CHAT: u32 = 100;
/// Events replayed in all.
const REPLAY_IN_ALL: u32 = 1_000;
/// Steps of the own stream replayed; more is a `reset`.
const REPLAY_OWN: u32 = 1_000;

/// A resume position: everything with lower milliseconds in its id was sent, and every step of the
/// own stream up to `own`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    epoch: String,
    user: UserId,
    device: DeviceId,
    own: Seq,
    ms: u64,
    /// Which run of a server said so.
    boot: u64,
}

/// A connection that was greeted, and what it missed.
pub struct Greeted {
    /// Who.
    pub caller: Caller,
    /// The answer to `hello`.
    pub welcome: Welcome,
    /// What is to be replayed after it.
    pub replay: Replay,
}

/// What a connection missed, to be read from the log as the socket drains.
pub struct Replay {
    own: Vec<AccountEvent>,
    chats: std::vec::IntoIter<(ChatId, Start)>,
    left: u32,
    /// The position after the replay.
    end: Position,
}

enum Start {
    /// After this position.
    After(Seq),
    /// At the first event whose id is not lower.
    At(MessageId),
}

/// Why a greeting failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The version is not spoken here.
    UnsupportedVersion,
    /// Neither token nor ticket are valid.
    BadToken,
    /// The server cannot do it now.
    Failed(Error),
}

/// The actions of a connection.
pub struct Session<'a>(pub(crate) &'a Core);

impl Session<'_> {
    /// Finds out who greets.
    pub async fn authenticate(&self, hello: &Hello) -> std::result::Result<Caller, Refused> {
        if hello.v != VERSION {
            return Err(Refused::UnsupportedVersion);
        }
        let caller = match (&hello.token, &hello.ticket) {
            (Some(token), None) => self.0.devices().authenticate(token).await,
            (None, Some(ticket)) => self.0.devices().redeem(ticket).await,
            _ => return Err(Refused::BadToken),
        };
        caller.map_err(|error| match error {
            Error::Unauthenticated => Refused::BadToken,
            other => Refused::Failed(other),
        })
    }

    /// Makes the welcome and plans the replay. The connection is registered with the hub already.
    ///
    /// `told_ms` was read with [`Self::told_ms`] before the registration.
    pub async fn greet(
        &self,
        caller: Caller,
        id: Option<String>,
        cursor: Option<&str>,
        told_ms: u64,
    ) -> Result<Greeted> {
        let core = self.0;
        let own_head = core.ports.accounts.own_head(caller.user_id).await?;
        let known = cursor.and_then(|cursor| self.open(&caller, cursor));
        // A genuine position ahead of the log proves that the store went back.
        let known = match known {
            Some(ahead) if ahead.own > own_head => {
                core.renew_epoch(&ahead.epoch).await?;
                None
            }
            other => other,
        };
        let mut plan = match &known {
            Some(position) => self.missed(&caller, position).await?,
            None => None,
        };
        let reset = cursor.is_some() && plan.is_none();
        stats::add(if reset { &core.stats.resets } else { &core.stats.resumed }, 1);
        if plan.is_none() {
            let user_id = caller.user_id;
            plan = Some((Vec::new(), core.ports.chats.list(user_id, None, FIRST_HEADS).await?));
        }
        let (own, entries) = plan.unwrap_or_default();
        let mut heads = Vec::with_capacity(entries.len());
        let mut chats = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(head) = self.head(&caller, &entry).await? else { continue };
            let start = match (&known, reset) {
                (Some(position), false) => Start::At(first_id_of(position.ms)),
                _ => Start::After(head.delivered_seq),
            };
            chats.push((entry.chat_id, start));
            heads.push(head);
        }
        let end = Position {
            epoch: core.epoch(),
            user: caller.user_id,
            device: caller.device_id,
            own: own_head,
            ms: told_ms,
            boot: core.boot.id,
        };
        // Until the replay went out the client's own position holds.
        let start = known.filter(|_| !reset).unwrap_or_else(|| Position { ms: 0, ..end.clone() });
        let heartbeat_ms = u64::try_from(core.settings.heartbeat.as_millis()).unwrap_or(u64::MAX);
        let welcome = Welcome {
            id,
            v: VERSION,
            user_id: caller.user_id,
            device_id: caller.device_id,
            cursor: self.seal(&start),
            heartbeat_ms,
            server_time: core.now(),
            limits: core.settings.limits.clone(),
            heads,
            reset,
            features: Vec::new(),
        };
        let replay = Replay { own, chats: chats.into_iter(), left: REPLAY_IN_ALL, end };
        Ok(Greeted { caller, welcome, replay })
    }

    /// Reads the next portion of a replay; none when it is over.
    pub async fn next_replay(
        &self,
        caller: &Caller,
        replay: &mut Replay,
    ) -> Result<Option<Vec<ServerFrame>>> {
        if !replay.own.is_empty() {
            let own = std::mem::take(&mut replay.own);
            return Ok(Some(own.into_iter().map(ServerFrame::Account).collect()));
        }
        let Some((chat_id, start)) = replay.chats.next() else { return Ok(None) };
        let after = match start {
            Start::After(seq) => seq,
            Start::At(id) => self.0.ports.messages.seq_before(chat_id, id).await?,
        };
        let after = if is_planted("resume_off_by_one") { after.next() } else { after };
        let limit = replay.left.min(REPLAY_OF_CHAT);
        let page = self.0.messages().page_events(caller, chat_id, after, limit.max(1)).await;
        let (mut events, head_seq) = match page {
            Ok(page) => page,
            // Left meanwhile: their own stream tells it.
            Err(Error::NotFound) => return Ok(Some(Vec::new())),
            Err(error) => return Err(error),
        };
        if limit == 0 {
            events.clear();
        }
        replay.left -= u32::try_from(events.len()).unwrap_or(limit).min(replay.left);
        let last = events.last().map_or(after, |event: &Event| event.seq);
        let mut frames: Vec<ServerFrame> = events.into_iter().map(ServerFrame::Event).collect();
        if last < head_seq {
            frames.push(ServerFrame::Gap(Gap { chat_id, after_seq: last, head_seq }));
        }
        Ok(Some(frames))
    }

    /// Returns the resume position at the end of a replay.
    pub fn cursor_after(&self, replay: &Replay) -> String {
        self.seal(&replay.end)
    }

    /// Returns the time up to which everything was told; read it before looking at a queue.
    pub fn told_ms(&self) -> u64 {
        self.0.appender.told_ms()
    }

    /// Returns the resume position of a connection that was sent everything told before `told_ms`
    /// and its own stream up to `own`.
    pub fn cursor(&self, caller: &Caller, own: Seq, told_ms: u64) -> String {
        self.seal(&Position {
            epoch: self.0.epoch(),
            user: caller.user_id,
            device: caller.device_id,
            own,
            ms: told_ms,
            boot: self.0.boot.id,
        })
    }

    /// Returns the position in the own stream at the end of a replay.
    pub fn own_after(&self, replay: &Replay) -> Seq {
        replay.end.own
    }

    /// Tells whether the session of a greeting still stands: asked once the hub knows of the
    /// connection, since a session that ended before that closed nothing.
    pub async fn still_stands(&self, hello: &Hello, caller: &Caller) -> Result<bool> {
        let devices = self.0.devices();
        match &hello.token {
            Some(token) => match devices.authenticate(token).await {
                Ok(_) => Ok(true),
                Err(Error::Unauthenticated) => Ok(false),
                Err(error) => Err(error),
            },
            None => devices.is_signed_in(caller).await,
        }
    }

    /// Returns the steps of the caller's own stream between two positions, both excluded.
    ///
    /// Several tasks append to one stream and each tells its own step, so steps may arrive swapped,
    /// and a hint may be lost. Each connection therefore knows how far it was told and reads what is
    /// missing before it goes on, which holds for any number of devices and nodes. A lock of the
    /// user around append and hint would order one node only, and the appender would have to hold
    /// those of all members of a group.
    pub async fn own_between(
        &self,
        caller: &Caller,
        after: Seq,
        before: Seq,
    ) -> Result<Vec<AccountEvent>> {
        let n_missing = before.get().saturating_sub(after.get()).saturating_sub(1);
        let limit = u32::try_from(n_missing).unwrap_or(u32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        if limit > REPLAY_OWN {
            // As long as that it is a matter for a resume, which may say `reset`.
            return Err(Error::unavailable());
        }
        let steps = self.0.ports.accounts.own_events(caller.user_id, after, limit).await?;
        // A step is told after its commit, and the stream has no holes.
        if steps.len() as u64 == n_missing { Ok(steps) } else { Err(Error::Internal) }
    }

    async fn missed(
        &self,
        caller: &Caller,
        position: &Position,
    ) -> Result<Option<(Vec<AccountEvent>, Vec<ChatEntry>)>> {
        let core = self.0;
        let user_id = caller.user_id;
        let own = core.ports.accounts.own_events(user_id, position.own, REPLAY_OWN).await?;
        let since = first_id_of(position.ms);
        let entries = core.ports.chats.changed_since(user_id, since, MOST_HEADS).await?;
        let is_too_much = own.len() >= REPLAY_OWN as usize || entries.len() >= MOST_HEADS as usize;
        Ok((!is_too_much).then_some((own, entries)))
    }

    async fn head(&self, caller: &Caller, entry: &ChatEntry) -> Result<Option<Head>> {
        let core = self.0;
        let chat = match core.chats.load(entry.chat_id).await {
            Ok(chat) => chat,
            Err(Error::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        if access::check(&chat, caller.user_id, &Act::See).is_err() {
            return Ok(None);
        }
        let cursors = core.ports.receipts.cursors(entry.chat_id, caller.user_id).await?;
        let cursors = cursors.unwrap_or_default();
        let from = cursors.read_seq.max(first_visible(entry).prev());
        Ok(Some(Head {
            chat_id: entry.chat_id,
            seq: entry.head_seq,
            unread: core.unread(&chat, caller.user_id, from).await?,
            mentions: 0,
            delivered_seq: cursors.delivered_seq,
            read_seq: cursors.read_seq,
        }))
    }

    fn seal(&self, position: &Position) -> String {
        let bytes = serde_json::to_vec(position).unwrap_or_default();
        self.0.sealer.seal(Purpose::Cursor, &bytes)
    }

    fn open(&self, caller: &Caller, cursor: &str) -> Option<Position> {
        let bytes = self.0.sealer.open(Purpose::Cursor, cursor)?;
        let mut position: Position = serde_json::from_slice(&bytes).ok()?;
        if position.boot != self.0.boot.id && !is_planted("boot_forgotten") {
            // The clock of that run may have been ahead of this one: ids made since may lie below.
            position.ms = position.ms.min(self.0.boot.ms);
        }
        let is_own = position.user == caller.user_id
            && position.device == caller.device_id
            && position.epoch == self.0.epoch();
        is_own.then_some(position)
    }
}
