//! Presence: who is connected, who watches whom, typing, focus, last seen. Never on the message
//! path: everything here may be late or lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use parlor_proto::{
    ChatId, ErrorCode, Invalid, Time, UserId,
    accounts::{Audience, Privacy},
    frame::{Presence as PresenceFrame, ServerFrame, Typing},
    presence::{PresenceStatus, UserStatus},
};

use crate::{
    Caller, Core,
    access::{self, Act},
    error::{Error, Result},
    ports::{
        accounts::Account,
        bus::{ConnectionId, Hint},
        rates::Rate,
    },
    privacy::{self, Relation},
};

/// A short drop does not show (promises P9).
const GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);
/// Times of activity are written at most this often.
const FLUSH_EVERY_TICKS: u32 = 30;
/// Typing is told in chats up to this size.
const TYPING_MEMBERS: usize = 100;

/// Who is connected, and who watches whom.
#[derive(Default)]
pub struct Board(Mutex<State>);

#[derive(Default)]
struct State {
    people: BTreeMap<UserId, Person>,
    /// Never an empty set, and never somebody who does not exist: both would only grow (I8).
    watchers: HashMap<UserId, BTreeSet<ConnectionId>>,
    watches: HashMap<ConnectionId, (UserId, BTreeSet<UserId>)>,
}

#[derive(Default)]
struct Person {
    /// Open connections, and whether each shows the app.
    connections: HashMap<ConnectionId, bool>,
    /// When the last connection went, while the grace lasts.
    gone_at: Option<Duration>,
    last_active: Option<Time>,
    /// `last_active` is not written yet.
    dirty: bool,
}

impl State {
    fn unwatch(&mut self, user_id: UserId, connection: ConnectionId) {
        if let Some(watchers) = self.watchers.get_mut(&user_id) {
            watchers.remove(&connection);
            if watchers.is_empty() {
                self.watchers.remove(&user_id);
            }
        }
    }

    /// Returns who watches a person: the connection, and whose it is.
    fn watchers_of(&self, user_id: UserId) -> Vec<(ConnectionId, UserId)> {
        let connections = self.watchers.get(&user_id).into_iter().flatten();
        connections.filter_map(|id| Some((*id, self.watches.get(id)?.0))).collect()
    }
}

impl Person {
    fn status(&self) -> PresenceStatus {
        if self.connections.is_empty() && self.gone_at.is_none() {
            PresenceStatus::Offline
        } else if self.connections.is_empty() || self.connections.values().any(|visible| *visible) {
            PresenceStatus::Online
        } else {
            PresenceStatus::Away
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By a close frame or a closed stream: the grace applies.
    Orderly,
    /// By silence: the time-out was the grace.
    Silent,
}

pub(crate) fn start_ticker(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    core.ports.spawn.spawn("presence", Box::pin(run_ticker(weak)));
}

async fn run_ticker(core: Weak<Core>) {
    let mut ticks = 0_u32;
    loop {
        let Some(strong) = core.upgrade() else { return };
        let pause = strong.ports.clock.sleep(TICK);
        strong.presence().expire().await;
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(FLUSH_EVERY_TICKS) {
            strong.presence().flush().await;
        }
        drop(strong);
        pause.await;
    }
}

/// The actions on presence.
pub struct Presence<'a>(pub(crate) &'a Core);

impl Presence<'_> {
    /// A connection was greeted.
    pub async fn connected(&self, user_id: UserId, connection: ConnectionId) {
        self.change(user_id, |person| {
            person.connections.insert(connection, true);
            person.gone_at = None;
        })
        .await;
    }

    /// A connection ended.
    pub async fn disconnected(&self, user_id: UserId, connection: ConnectionId, ending: Ending) {
        let now = self.0.ports.clock.monotonic();
        {
            let mut state = self.0.presence.0.lock();
            let watched = state.watches.remove(&connection).map(|(_, set)| set);
            for watched in watched.unwrap_or_default() {
                state.unwatch(watched, connection);
            }
        }
        self.change(user_id, |person| {
            person.connections.remove(&connection);
            if person.connections.is_empty() && ending == Ending::Orderly {
                person.gone_at = Some(now);
            }
        })
        .await;
    }

    /// A device says what is on its screen.
    pub async fn focus(
        &self,
        caller: &Caller,
        connection: ConnectionId,
        chat_id: Option<ChatId>,
        visible: bool,
    ) -> Result<()> {
        self.0.rate(Rate::Signals, &caller.user_id.to_string(), 1)?;
        if let Some(chat_id) = chat_id {
            let chat = self.0.chats.load(chat_id).await?;
            access::check(&chat, caller.user_id, &Act::See)?;
        }
        let now = self.0.now();
        self.change(caller.user_id, |person| {
            if let Some(shows) = person.connections.get_mut(&connection) {
                *shows = visible;
            }
            if visible {
                person.last_active = person.last_active.max(Some(now));
                person.dirty = true;
            }
        })
        .await;
        Ok(())
    }

    /// A message, a read, a focus: the person is here.
    pub fn note_activity(&self, user_id: UserId) {
        let now = self.0.now();
        let mut state = self.0.presence.0.lock();
        let person = state.people.entry(user_id).or_default();
        person.last_active = person.last_active.max(Some(now));
        person.dirty = true;
    }

    /// Replaces the set of people whose presence a connection wants; tells each of them at once.
    pub async fn watch(
        &self,
        caller: &Caller,
        connection: ConnectionId,
        user_ids: Vec<UserId>,
    ) -> Result<()> {
        let core = self.0;
        let most = core.settings.limits.watch as usize;
        if user_ids.len() > most {
            let detail = format!("a connection watches at most {most} people");
            return Err(Invalid::with_code(ErrorCode::OutOfRange, "user_ids", detail).into());
        }
        core.rate(Rate::Signals, &caller.user_id.to_string(), 1)?;
        let named: BTreeSet<UserId> = user_ids.into_iter().collect();
        let wanted = core.existing(&named).await?;
        // The frame pays for one question to the store. A wrong id is a guess, and costs what
        // guessing costs elsewhere; one by one, since more than the burst could never be paid.
        for _ in wanted.len()..named.len() {
            core.rate(Rate::LookUps, &caller.user_id.to_string(), 1)?;
        }
        {
            let mut state = core.presence.0.lock();
            let old = state.watches.insert(connection, (caller.user_id, wanted.clone()));
            for gone in old.iter().flat_map(|(_, old)| old.difference(&wanted)) {
                state.unwatch(*gone, connection);
            }
            for user_id in &wanted {
                state.watchers.entry(*user_id).or_default().insert(connection);
            }
        }
        for user_id in wanted {
            let status = match self.status(caller, user_id).await {
                Ok(status) => status,
                Err(Error::NotFound) => continue,
                Err(error) => return Err(error),
            };
            self.tell(vec![connection], status);
        }
        Ok(())
    }

    /// Tells the other members that the caller types, or stopped.
    pub async fn typing(&self, caller: &Caller, chat_id: ChatId, active: bool) -> Result<()> {
        let core = self.0;
        // First of all: a refusal asks the store too.
        core.rate(Rate::Signals, &caller.user_id.to_string(), 1)?;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::Post)?;
        if chat.members.len() > TYPING_MEMBERS {
            return Ok(());
        }
        let to = chat.members.keys().copied().filter(|id| *id != caller.user_id).collect();
        let frame = ServerFrame::Typing(Typing { chat_id, user_id: caller.user_id, active });
        core.ports.bus.publish(Hint::Ephemeral { to, frame });
        Ok(())
    }

    /// Returns what the caller may know of a person's presence.
    pub async fn status(&self, caller: &Caller, user_id: UserId) -> Result<UserStatus> {
        self.status_for(caller.user_id, user_id).await
    }

    /// Returns how many people and how many connections are online.
    pub fn online(&self) -> (usize, usize) {
        let state = self.0.presence.0.lock();
        let online = state.people.values().filter(|person| !person.connections.is_empty());
        online.fold((0, 0), |(people, devices), person| {
            (people + 1, devices + person.connections.len())
        })
    }

    /// Returns how many people somebody watches.
    pub fn watched(&self) -> usize {
        self.0.presence.0.lock().watchers.len()
    }

    /// Somebody chose anew who may see them: whoever sees something else now is told at once.
    pub(crate) async fn privacy_changed(&self, user_id: UserId, old: &Privacy) {
        let watchers = self.0.presence.0.lock().watchers_of(user_id);
        for (connection, viewer) in watchers {
            match self.view_change(viewer, user_id, old).await {
                Ok(Some(status)) => self.tell(vec![connection], status),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a watcher was not told of a change"),
            }
        }
    }

    /// Writes times of activity that are not written yet.
    pub async fn flush(&self) {
        let seen: Vec<(UserId, Time)> = {
            let mut state = self.0.presence.0.lock();
            let dirty = state.people.iter_mut().filter(|(_, person)| person.dirty);
            let seen = dirty.filter_map(|(user_id, person)| {
                person.dirty = false;
                Some((*user_id, person.last_active?))
            });
            seen.collect()
        };
        if seen.is_empty() {
            return;
        }
        if let Err(error) = self.0.ports.accounts.touch(&seen).await {
            tracing::warn!(%error, "times of activity were not written; the next flush tries again");
            let mut state = self.0.presence.0.lock();
            for (user_id, _) in seen {
                state.people.entry(user_id).or_default().dirty = true;
            }
        }
    }

    /// Ends the graces that are over, and forgets people who are long gone.
    async fn expire(&self) {
        let now = self.0.ports.clock.monotonic();
        let over: Vec<UserId> = {
            let state = self.0.presence.0.lock();
            let is_over =
                |person: &Person| person.gone_at.is_some_and(|gone_at| now >= gone_at + GRACE);
            state.people.iter().filter(|(_, p)| is_over(p)).map(|(id, _)| *id).collect()
        };
        for user_id in over {
            self.change(user_id, |person| person.gone_at = None).await;
        }
        let mut state = self.0.presence.0.lock();
        state.people.retain(|_, person| {
            person.dirty || person.gone_at.is_some() || !person.connections.is_empty()
        });
    }

    async fn change(&self, user_id: UserId, change: impl FnOnce(&mut Person)) {
        let watchers = {
            let mut state = self.0.presence.0.lock();
            let person = state.people.entry(user_id).or_default();
            let before = person.status();
            change(person);
            if person.status() == before {
                return;
            }
            state.watchers_of(user_id)
        };
        for (connection, viewer) in watchers {
            match self.status_for(viewer, user_id).await {
                Ok(status) if status.status != PresenceStatus::Hidden => {
                    self.tell(vec![connection], status);
                }
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => tracing::warn!(%error, "a watcher was not told of a change"),
            }
        }
    }

    async fn status_for(&self, viewer: UserId, user_id: UserId) -> Result<UserStatus> {
        let account = self.0.account(user_id).await?;
        self.status_under(viewer, &account, &account.privacy).await
    }

    /// Returns what a viewer sees now, if it is not what they saw under other rules.
    async fn view_change(
        &self,
        viewer: UserId,
        user_id: UserId,
        old: &Privacy,
    ) -> Result<Option<UserStatus>> {
        let account = self.0.account(user_id).await?;
        let before = self.status_under(viewer, &account, old).await?;
        let now = self.status_under(viewer, &account, &account.privacy).await?;
        Ok((before != now).then_some(now))
    }

    async fn status_under(
        &self,
        viewer: UserId,
        account: &Account,
        privacy: &Privacy,
    ) -> Result<UserStatus> {
        let core = self.0;
        let user_id = account.user_id;
        let needs_relation = viewer != user_id
            && (privacy.online.who != Audience::Nobody
                || privacy.last_seen.who != Audience::Nobody);
        let relation = if needs_relation {
            core.relation(user_id, viewer).await?
        } else {
            Relation { shares_chat: false, is_contact: false }
        };
        let shows_online = privacy::may_see(&privacy.online, user_id, viewer, relation);
        let shows_seen = privacy::may_see(&privacy.last_seen, user_id, viewer, relation);
        let (status, active) = {
            let state = core.presence.0.lock();
            let person = state.people.get(&user_id);
            let status = person.map_or(PresenceStatus::Offline, Person::status);
            (status, person.and_then(|person| person.last_active))
        };
        let last_seen = active.max(account.last_seen).map(to_the_minute);
        Ok(UserStatus {
            user_id,
            status: if shows_online { status } else { PresenceStatus::Hidden },
            last_seen: last_seen.filter(|_| shows_seen),
        })
    }

    fn tell(&self, to: Vec<ConnectionId>, status: UserStatus) {
        let frame = ServerFrame::Presence(PresenceFrame {
            user_id: status.user_id,
            status: status.status,
            last_seen: status.last_seen,
        });
        self.0.ports.bus.publish(Hint::Watched { to, frame });
    }
}

fn to_the_minute(at: Time) -> Time {
    Time::from_millis(at.millis() / 60_000 * 60_000)
}
