//! Chats: making, listing, changing, closing; and the cache of chat states.
//!
//! A chat changes by events in its log only; `apply_event` is the fold of one event.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use moka::sync::Cache;
use parlor_proto::{
    ChatId, Event, EventBody, Invalid, MessageId, Seq, Time, UserId,
    chats::{
        Chat, ChatList, ChatPatch, ChatSettings, ChatType, CreateChat, HistoryRule, ListQuery,
        check_title, check_topic,
    },
    event::SettingsChanges,
    limits::DEFAULT_PAGE,
    members::{MemberRole, Role},
};

use crate::{
    Caller, Core, Fresh,
    access::{self, Act},
    delivery,
    error::{Error, Result},
    planted::is_planted,
    ports::{
        chats::{ChatEntry, ChatState, Chats as ChatsPort, MemberState},
        messages::{Append, Appended, Expects, NewChat, NewEvent},
        rates::Rate,
    },
    sealed::Purpose,
};

/// Chats whose state is kept at hand.
const CACHED_CHATS: u64 = 20_000;

/// Chat states by id. A stale one does no harm: the append checks the epoch.
#[derive(Clone)]
pub struct ChatCache {
    states: Cache<ChatId, Arc<ChatState>>,
    port: Arc<dyn ChatsPort>,
}

impl ChatCache {
    /// Makes an empty cache over the port.
    pub fn new(port: Arc<dyn ChatsPort>) -> Self {
        Self { states: Cache::new(CACHED_CHATS), port }
    }

    /// Returns the state of a chat, or `NotFound`.
    pub async fn load(&self, chat_id: ChatId) -> Result<Arc<ChatState>> {
        if let Some(chat) = self.states.get(&chat_id) {
            return Ok(chat);
        }
        let chat = self.port.load(chat_id).await?.ok_or(Error::NotFound)?;
        Ok(self.keep_newest(Arc::new(chat)))
    }

    /// Drops a state that turned out to be stale.
    pub fn forget(&self, chat_id: ChatId) {
        self.states.invalidate(&chat_id);
    }

    /// Moves the state past the stored events; returns the state after each of them.
    pub async fn apply(&self, append: &Append, events: &[Event]) -> Result<Vec<Arc<ChatState>>> {
        let mut chat = match &append.expects {
            Expects::NewChat(new) => {
                Arc::new(blank(append.chat_id, new, events.first().map(|event| event.created_at)))
            }
            Expects::Epoch(epoch) => {
                let chat = self.load(append.chat_id).await?;
                if chat.membership_epoch != *epoch {
                    // Loaded after the write: it holds the end state, which serves all its events.
                    return Ok(vec![chat; events.len()]);
                }
                chat
            }
        };
        let mut states = Vec::with_capacity(events.len());
        for (event, new) in events.iter().zip(&append.events) {
            if new.changes_membership() && !is_planted("stale_member") {
                let mut next = ChatState::clone(&chat);
                apply_event(&mut next, event);
                chat = self.keep_newest(Arc::new(next));
            }
            states.push(chat.clone());
        }
        Ok(states)
    }

    fn keep_newest(&self, chat: Arc<ChatState>) -> Arc<ChatState> {
        let entry = self.states.entry(chat.chat_id).and_upsert_with(|known| match known {
            Some(known) if known.value().membership_epoch > chat.membership_epoch => {
                known.into_value()
            }
            _ => chat,
        });
        entry.into_value()
    }
}

fn blank(chat_id: ChatId, new: &NewChat, created_at: Option<Time>) -> ChatState {
    ChatState {
        chat_id,
        kind: new.kind,
        title: new.title.clone(),
        topic: None,
        created_at: created_at.unwrap_or_default(),
        settings: new.settings,
        closed: false,
        membership_epoch: 0,
        members: BTreeMap::new(),
    }
}

/// Folds one event into the state of its chat.
pub fn apply_event(chat: &mut ChatState, event: &Event) {
    let member = |role, visible_seq| MemberState {
        role,
        joined_at: event.created_at,
        joined_seq: event.seq,
        visible_seq,
    };
    match &event.body {
        EventBody::Created { members, .. } => {
            for founder in members {
                chat.members.insert(founder.user_id, member(founder.role, event.seq));
            }
        }
        EventBody::Join { user_id, role, .. } => {
            let visible = match chat.settings.history {
                HistoryRule::All => Seq::new(1),
                HistoryRule::Joined => event.seq,
            };
            chat.members.insert(*user_id, member(*role, visible));
        }
        EventBody::Leave { user_id, .. } => {
            chat.members.remove(user_id);
            // A fold, not an event of its own: two who leave at once need not know who was last.
            chat.closed |= chat.members.is_empty();
        }
        EventBody::Role { user_id, role, .. } => {
            if let Some(member) = chat.members.get_mut(user_id) {
                member.role = *role;
            }
        }
        EventBody::Settings { changes, .. } => apply_settings(chat, changes),
        _ => return,
    }
    chat.membership_epoch += 1;
}

fn apply_settings(chat: &mut ChatState, changes: &SettingsChanges) {
    if let Some(title) = &changes.title {
        chat.title = Some(title.clone());
    }
    if let Some(topic) = &changes.topic {
        chat.topic = Some(topic.clone()).filter(|topic| !topic.is_empty());
    }
    if let Some(settings) = changes.settings {
        chat.settings = settings;
    }
    chat.closed |= changes.closed;
}

/// Returns the key of the one-to-one of a pair: both ids, the smaller first.
pub fn direct_key(one: UserId, other: UserId) -> String {
    format!("{}-{}", one.min(other), one.max(other))
}

/// The actions on chats.
pub struct Chats<'a>(pub(crate) &'a Core);

impl Chats<'_> {
    /// Makes a chat. The one-to-one of a pair exists once: asking again gives the same.
    pub async fn create(&self, caller: &Caller, request: CreateChat) -> Result<(Chat, Fresh)> {
        let core = self.0;
        let others: BTreeSet<UserId> =
            request.participants.iter().copied().filter(|id| *id != caller.user_id).collect();
        check_new(&request, &others, core)?;
        core.rate(Rate::Sends, &caller.user_id.to_string(), 1)?;
        let people: Vec<UserId> = others.iter().copied().collect();
        let known = core.ports.accounts.load_many(&people).await?;
        if known.iter().filter(|account| account.deleted_at.is_none()).count() != people.len() {
            let detail = "one of these people does not exist";
            return Err(Invalid::new("participants", detail).into());
        }
        let direct = match request.kind {
            ChatType::Group => None,
            ChatType::OneOnOne => {
                Some(direct_key(caller.user_id, *people.first().unwrap_or(&caller.user_id)))
            }
        };
        if let Some(key) = &direct
            && let Some(chat_id) = core.ports.chats.find_direct(key).await?
        {
            return Ok((self.get(caller, chat_id).await?, Fresh::Repeated));
        }
        let chat_id = core.ports.ids.chat_id();
        let role = |user_id| match (request.kind, user_id == caller.user_id) {
            (ChatType::Group, true) => Role::Owner,
            _ => Role::Member,
        };
        let founders = std::iter::once(caller.user_id).chain(people);
        let new = NewChat {
            kind: request.kind,
            title: request.title.clone(),
            settings: ChatSettings::default(),
            direct_key: direct,
            members: founders.map(|user_id| MemberRole { user_id, role: role(user_id) }).collect(),
        };
        let body = ("chat", &request.kind, &request.participants, &request.title);
        let append = Append {
            chat_id,
            sender_id: caller.user_id,
            key: request.client_id.map(|id| core.append_key(id, &body)),
            expects: Expects::NewChat(new),
            events: vec![NewEvent::Created],
        };
        match core.appender.append(append, Act::See).await? {
            Appended::Stored(_) => Ok((self.get(caller, chat_id).await?, Fresh::New)),
            Appended::Repeated(event) => {
                Ok((self.get(caller, event.chat_id).await?, Fresh::Repeated))
            }
            Appended::DirectExists(chat_id) => {
                Ok((self.get(caller, chat_id).await?, Fresh::Repeated))
            }
            Appended::KeyConflict => Err(Error::key_conflict()),
            _ => Err(Error::unavailable()),
        }
    }

    /// Lists the caller's chats, the most recent first.
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<ChatList> {
        let core = self.0;
        let limit = core.page_limit(query.limit)?;
        let before = query.cursor.map(|cursor| core.open_page(&cursor)).transpose()?;
        let before = before.map(MessageId::from_raw);
        let mut entries = core.ports.chats.list(caller.user_id, before, limit + 1).await?;
        let has_more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        let next =
            entries.last().filter(|_| has_more).map(|last| core.seal_page(last.head_id.raw()));
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.view(caller, entry).await {
                Ok(chat) => items.push(chat),
                // Left between the two reads.
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ChatList { items, next })
    }

    /// Returns one chat as the caller sees it.
    pub async fn get(&self, caller: &Caller, chat_id: ChatId) -> Result<Chat> {
        let entry = self.0.ports.chats.entry(chat_id, caller.user_id).await?;
        self.view(caller, entry.ok_or(Error::NotFound)?).await
    }

    /// Changes title, topic or settings of a group.
    pub async fn update(&self, caller: &Caller, chat_id: ChatId, patch: ChatPatch) -> Result<Chat> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::Set)?;
        if let Some(title) = &patch.title {
            check_title(title, &core.settings.limits)?;
        }
        if let Some(topic) = &patch.topic {
            check_topic(topic, &core.settings.limits)?;
        }
        let settings = patch.settings.map(|patch| ChatSettings {
            history: patch.history.unwrap_or(chat.settings.history),
            members_may_add: patch.members_may_add.unwrap_or(chat.settings.members_may_add),
        });
        let changes = SettingsChanges {
            title: patch.title.filter(|title| chat.title.as_ref() != Some(title)),
            topic: patch.topic.filter(|topic| chat.topic.as_deref().unwrap_or_default() != topic),
            settings: settings.filter(|settings| *settings != chat.settings),
            closed: false,
        };
        if changes != SettingsChanges::default() {
            let events = vec![NewEvent::Settings { changes }];
            core.append_plain(caller, &chat, events, Act::Set).await?;
        }
        self.get(caller, chat_id).await
    }

    /// Clears and hides a one-to-one for the caller alone; closes a group for all.
    pub async fn remove(&self, caller: &Caller, chat_id: ChatId) -> Result<()> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        if chat.kind == ChatType::OneOnOne {
            access::check(&chat, caller.user_id, &Act::See)?;
            let head = core.ports.messages.head(chat_id).await?.ok_or(Error::NotFound)?;
            let port = &core.ports.chats;
            let event = port.clear(chat_id, caller.user_id, head.seq, core.now()).await?;
            delivery::deliver_own(&*core.ports.bus, caller.user_id, event);
            return Ok(());
        }
        access::check(&chat, caller.user_id, &Act::Close)?;
        let changes = SettingsChanges { closed: true, ..SettingsChanges::default() };
        let close = std::iter::once(NewEvent::Settings { changes });
        let leaves = chat.members.keys().map(|user_id| NewEvent::Leave {
            user_id: *user_id,
            reason: access::leave_reason(caller.user_id, *user_id),
        });
        let events = close.chain(leaves).collect();
        core.append_plain(caller, &chat, events, Act::Close).await?;
        Ok(())
    }

    async fn view(&self, caller: &Caller, entry: ChatEntry) -> Result<Chat> {
        let core = self.0;
        let chat = core.chats.load(entry.chat_id).await?;
        let member = access::check(&chat, caller.user_id, &Act::See)?;
        let cursors = core.ports.receipts.cursors(chat.chat_id, caller.user_id).await?;
        let cursors = cursors.unwrap_or_default();
        let from = first_visible(&entry);
        let last = core.ports.messages.last_message(chat.chat_id, from).await?;
        let newest = last.as_ref().map_or(Seq::ZERO, |message| message.state_seq);
        if core.messages().moved(caller, &entry, newest).await?.is_some() {
            return Err(Error::unavailable());
        }
        let last_message = match last {
            Some(message) => Some(core.messages().with_status(caller, &chat, message).await?),
            None => None,
        };
        let unread = core.unread(&chat, caller.user_id, cursors.read_seq.max(entry.cleared_seq));
        Ok(Chat {
            chat_id: chat.chat_id,
            kind: chat.kind,
            title: chat.title.clone(),
            topic: chat.topic.clone(),
            created_at: chat.created_at,
            updated_at: entry.updated_at,
            head_seq: entry.head_seq,
            role: member.role,
            participants_count: u32::try_from(chat.members.len()).unwrap_or(u32::MAX),
            settings: chat.settings,
            peer: core.peer_of(&chat, caller.user_id).await?,
            last_message,
            unread: unread.await?,
            mentions: 0,
            joined_seq: from,
            delivered_seq: cursors.delivered_seq,
            read_seq: cursors.read_seq,
        })
    }
}

/// Returns the first position that a member may see and did not clear away.
pub(crate) fn first_visible(entry: &ChatEntry) -> Seq {
    entry.visible_seq.max(entry.cleared_seq.next())
}

fn check_new(request: &CreateChat, others: &BTreeSet<UserId>, core: &Core) -> Result<()> {
    let limits = &core.settings.limits;
    match (request.kind, &request.title) {
        (ChatType::Group, Some(title)) => check_title(title, limits)?,
        (ChatType::Group, None) => return Err(Invalid::new("title", "a group has a title").into()),
        (ChatType::OneOnOne, Some(_)) => {
            return Err(Invalid::new("title", "a one-to-one chat has no title").into());
        }
        (ChatType::OneOnOne, None) if others.len() > 1 => {
            let detail = "a one-to-one chat has one other person at most";
            return Err(Invalid::new("participants", detail).into());
        }
        (ChatType::OneOnOne, None) => {}
    }
    if others.len() >= limits.group_members as usize {
        let detail = format!("a group has at most {} members", limits.group_members);
        return Err(Invalid::new("participants", detail).into());
    }
    Ok(())
}

impl Core {
    /// Counts what a member has not read: the only function that does (S173).
    pub(crate) async fn unread(&self, chat: &ChatState, reader: UserId, after: Seq) -> Result<u64> {
        Ok(self.ports.messages.count_unread(chat.chat_id, reader, after).await?)
    }

    /// Appends events of a present member that need no key; an outcome without effect is fine.
    pub(crate) async fn append_plain(
        &self,
        caller: &Caller,
        chat: &ChatState,
        events: Vec<NewEvent>,
        act: Act,
    ) -> Result<Option<Event>> {
        self.rate(Rate::Sends, &caller.user_id.to_string(), 1)?;
        let append = Append {
            chat_id: chat.chat_id,
            sender_id: caller.user_id,
            key: None,
            expects: Expects::Epoch(chat.membership_epoch),
            events,
        };
        match self.appender.append(append, act).await? {
            Appended::Stored(stored) => Ok(stored.events.into_iter().next()),
            Appended::Repeated(event) => Ok(Some(event)),
            Appended::Unchanged => Ok(None),
            Appended::NoTarget => Err(Error::NotFound),
            Appended::TargetDeleted => Err(Error::conflict("the message was deleted")),
            Appended::TooManyReactions => {
                Err(Error::conflict("the message has as many kinds of reaction as it may have"))
            }
            Appended::KeyConflict => Err(Error::key_conflict()),
            Appended::Stale | Appended::DirectExists(_) => Err(Error::unavailable()),
        }
    }

    pub(crate) fn page_limit(&self, limit: Option<u32>) -> Result<u32> {
        let most = self.settings.limits.page;
        let limit = limit.unwrap_or(DEFAULT_PAGE.min(most));
        if (1..=most).contains(&limit) {
            return Ok(limit);
        }
        let detail = format!("limit lies between 1 and {most}");
        Err(Invalid::with_code(parlor_proto::ErrorCode::OutOfRange, "limit", detail).into())
    }

    pub(crate) fn seal_page(&self, position: u64) -> String {
        self.sealer.seal(Purpose::Page, &position.to_be_bytes())
    }

    pub(crate) fn open_page(&self, cursor: &str) -> Result<u64> {
        let payload = self.sealer.open(Purpose::Page, cursor);
        let position = payload.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        position.ok_or_else(|| Invalid::new("cursor", "this is not a cursor of this list").into())
    }
}
