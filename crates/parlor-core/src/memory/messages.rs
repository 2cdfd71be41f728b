//! The twin of `ports::messages`: the log of a chat as a list, and what follows from each event.

use std::collections::BTreeSet;

use async_trait::async_trait;
use parlor_proto::{
    ChatId, ClientId, Event, EventBody, MediaId, MessageId, Seq, Time, UserId,
    chats::HistoryRule,
    event::SettingsChanges,
    frame::AccountEventBody,
    limits::{REACTION_KINDS, REACTION_USERS},
    members::{LeaveReason, Role},
    messages::{Message, MessageType, Reaction},
    receipts::Status,
};

use super::{
    Memory, State,
    chats::{Chat, Member},
};
use crate::{
    clock::Ids,
    planted::is_planted,
    ports::{
        EngineError, EngineResult,
        messages::{
            Anchor, Append, Appended, Expects, HistoryPage, LogHead, Messages, NewEvent, Stored,
        },
        receipts::Cursors,
    },
};

/// What a key stored.
#[derive(Clone, Copy)]
pub(super) struct KeyPlace {
    chat_id: ChatId,
    seq: Seq,
    body_mac: [u8; 8],
}

/// One event of a log.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) event_id: MessageId,
    /// Number of message events up to here, this one included.
    pub(super) n: u64,
    sender_id: UserId,
    client_id: Option<ClientId>,
    act: Act,
}

#[derive(Clone)]
enum Act {
    Created,
    Message(Kept),
    Edit { target_id: MessageId, text: Option<String> },
    Delete { target_id: MessageId },
    Reaction { target_id: MessageId, emoji: String, added: bool },
    Join { user_id: UserId, role: Role },
    Leave { user_id: UserId, reason: LeaveReason },
    Role { user_id: UserId, role: Role },
    Settings { changes: SettingsChanges },
}

/// A message in its present state.
#[derive(Clone)]
struct Kept {
    kind: MessageType,
    text: String,
    attachments: Vec<MediaId>,
    reply_to: Option<MessageId>,
    edited_at: Option<Time>,
    deleted: bool,
    /// Present ones, the oldest first.
    reactions: Vec<(String, UserId)>,
    state_seq: Seq,
}

impl Kept {
    fn emojis(&self) -> Vec<&str> {
        let mut emojis: Vec<&str> = Vec::new();
        for (emoji, _) in &self.reactions {
            if !emojis.contains(&emoji.as_str()) {
                emojis.push(emoji);
            }
        }
        emojis
    }

    fn reactions(&self) -> Vec<Reaction> {
        let people = |emoji: &str| {
            let of_emoji = self.reactions.iter().filter(|(e, _)| e == emoji);
            of_emoji.map(|(_, user_id)| *user_id).collect::<Vec<_>>()
        };
        let reaction = |emoji: &str| {
            let mut user_ids = people(emoji);
            let count = user_ids.len() as u64;
            user_ids.truncate(REACTION_USERS);
            Reaction { emoji: emoji.to_owned(), count, user_ids }
        };
        self.emojis().into_iter().map(reaction).collect()
    }
}

impl Entry {
    pub(super) fn created_at(&self) -> Time {
        Time::from_millis(self.event_id.millis())
    }

    fn message(&self, chat_id: ChatId, seq: Seq) -> Option<Message> {
        let Act::Message(kept) = &self.act else { return None };
        Some(Message {
            message_id: self.event_id,
            chat_id,
            seq,
            sender_id: self.sender_id,
            kind: kept.kind,
            message: kept.text.clone(),
            attachments: kept.attachments.clone(),
            client_id: self.client_id.clone(),
            reply_to: kept.reply_to,
            created_at: self.created_at(),
            edited_at: kept.edited_at,
            deleted: kept.deleted,
            reactions: kept.reactions(),
            status: Status::Sent,
            state_seq: kept.state_seq,
        })
    }
}

impl Chat {
    fn head_seq(&self) -> Seq {
        Seq::new(self.log.len() as u64)
    }

    fn head_n(&self) -> u64 {
        self.log.last().map_or(0, |entry| entry.n)
    }

    /// The log with its positions, in ascending order.
    fn entries(&self) -> impl DoubleEndedIterator<Item = (Seq, &Entry)> {
        self.log.iter().enumerate().map(|(i, entry)| (Seq::new(i as u64 + 1), entry))
    }

    fn entry_at(&self, seq: Seq) -> Option<&Entry> {
        self.log.get(usize::try_from(seq.get()).ok()?.checked_sub(1)?)
    }

    fn target(&self, target_id: MessageId) -> Result<&Kept, Appended> {
        let target = self.log.iter().find_map(|entry| match &entry.act {
            Act::Message(kept) if entry.event_id == target_id => Some(kept),
            _ => None,
        });
        match target {
            None => Err(Appended::NoTarget),
            Some(kept) if kept.deleted => Err(Appended::TargetDeleted),
            Some(kept) => Ok(kept),
        }
    }

    /// Folds an event into the message it is about.
    fn change_target(&mut self, target_id: MessageId, change: impl FnOnce(&mut Kept)) {
        let state_seq = self.head_seq();
        for entry in &mut self.log {
            if let Act::Message(kept) = &mut entry.act
                && entry.event_id == target_id
            {
                change(kept);
                kept.state_seq = state_seq;
                return;
            }
        }
    }

    /// Says why an event cannot be appended.
    fn check(&self, sender_id: UserId, event: &NewEvent) -> Result<(), Appended> {
        let unchanged_if = |same: bool| if same { Err(Appended::Unchanged) } else { Ok(()) };
        match event {
            NewEvent::Created | NewEvent::Message { .. } | NewEvent::Settings { .. } => Ok(()),
            NewEvent::Edit { target_id, .. } | NewEvent::Delete { target_id } => {
                self.target(*target_id).map(|_| ())
            }
            NewEvent::Reaction { target_id, emoji, added } => {
                let kept = self.target(*target_id)?;
                let is_there = kept.reactions.contains(&(emoji.clone(), sender_id));
                unchanged_if(is_there == *added)?;
                let emojis = kept.emojis();
                if *added && emojis.len() >= REACTION_KINDS && !emojis.contains(&emoji.as_str()) {
                    return Err(Appended::TooManyReactions);
                }
                Ok(())
            }
            NewEvent::Join { user_id, .. } => unchanged_if(self.member(*user_id).is_some()),
            NewEvent::Leave { user_id, .. } => unchanged_if(self.member(*user_id).is_none()),
            NewEvent::Role { user_id, role } => {
                unchanged_if(self.member(*user_id).is_none_or(|member| member.role == *role))
            }
        }
    }

    /// Appends the events of a unit, or says which outcome the first refused one has.
    fn append(
        &mut self,
        ids: &Ids,
        chat_id: ChatId,
        sender_id: UserId,
        mut client_id: Option<ClientId>,
        events: Vec<NewEvent>,
    ) -> Result<Vec<(UserId, AccountEventBody, Time)>, Appended> {
        let mut own = Vec::new();
        for event in events {
            self.check(sender_id, &event)?;
            let event_id = ids.message_id(chat_id, self.log.last().map(|entry| entry.event_id));
            let at = Time::from_millis(event_id.millis());
            let steps = self.own_steps(chat_id, &event);
            own.extend(steps.into_iter().map(|(user_id, body)| (user_id, body, at)));
            self.push(event_id, sender_id, client_id.take(), event);
        }
        Ok(own)
    }

    /// Appends a checked event and everything that follows from it inside the chat.
    fn push(
        &mut self,
        event_id: MessageId,
        sender_id: UserId,
        client_id: Option<ClientId>,
        event: NewEvent,
    ) {
        let at = Time::from_millis(event_id.millis());
        let seq = self.head_seq().next();
        let n = self.head_n() + u64::from(matches!(event, NewEvent::Message { .. }));
        if event.changes_membership() {
            self.membership_epoch += 1;
        }
        let act = match event {
            NewEvent::Created => {
                self.created_at = at;
                for founder in self.founders.clone() {
                    self.admit(founder.user_id, founder.role, at, seq, seq);
                }
                Act::Created
            }
            NewEvent::Message { kind, text, attachments, reply_to } => Act::Message(Kept {
                kind,
                text,
                attachments,
                reply_to,
                edited_at: None,
                deleted: false,
                reactions: Vec::new(),
                state_seq: seq,
            }),
            NewEvent::Edit { target_id, text } => Act::Edit { target_id, text: Some(text) },
            NewEvent::Delete { target_id } => Act::Delete { target_id },
            NewEvent::Reaction { target_id, emoji, added } => {
                Act::Reaction { target_id, emoji, added }
            }
            NewEvent::Join { user_id, role, history } => {
                let visible_seq = match history {
                    HistoryRule::Joined => seq,
                    HistoryRule::All => Seq::new(1),
                };
                self.admit(user_id, role, at, seq, visible_seq);
                Act::Join { user_id, role }
            }
            NewEvent::Leave { user_id, reason } => {
                if let Some(member) = self.member_mut(user_id) {
                    member.present = false;
                }
                self.closed |= !self.members.values().any(|member| member.present);
                Act::Leave { user_id, reason }
            }
            NewEvent::Role { user_id, role } => {
                if let Some(member) = self.member_mut(user_id) {
                    member.role = role;
                }
                Act::Role { user_id, role }
            }
            NewEvent::Settings { changes } => {
                self.change_settings(&changes);
                Act::Settings { changes }
            }
        };
        self.erase_what_is_past(&act);
        self.log.push(Entry { event_id, n, sender_id, client_id, act: act.clone() });
        match act {
            Act::Edit { target_id, text: Some(text) } => self.change_target(target_id, |kept| {
                kept.text = text;
                kept.edited_at = Some(at);
            }),
            Act::Delete { target_id } => self.change_target(target_id, |kept| {
                kept.text.clear();
                kept.attachments.clear();
                kept.reactions.clear();
                kept.deleted = true;
            }),
            Act::Reaction { target_id, emoji, added: true } => {
                self.change_target(target_id, |kept| kept.reactions.push((emoji, sender_id)));
            }
            Act::Reaction { target_id, emoji, added: false } => {
                self.change_target(target_id, |kept| {
                    kept.reactions.retain(|reaction| *reaction != (emoji.clone(), sender_id));
                });
            }
            _ => {}
        }
    }

    /// Takes away from earlier events what this one replaces or erases.
    fn erase_what_is_past(&mut self, act: &Act) {
        let (Act::Edit { target_id: about, .. } | Act::Delete { target_id: about }) = act else {
            return;
        };
        let erases = matches!(act, Act::Delete { .. });
        for entry in &mut self.log {
            match &mut entry.act {
                Act::Edit { target_id, text } if target_id == about => *text = None,
                Act::Reaction { target_id, emoji, .. } if erases && target_id == about => {
                    emoji.clear();
                }
                _ => {}
            }
        }
    }

    fn admit(&mut self, user_id: UserId, role: Role, at: Time, joined_seq: Seq, visible_seq: Seq) {
        // Who comes back starts anew, but what they cleared away stays away.
        let cleared_seq = self.members.get(&user_id).map_or(Seq::ZERO, |m| m.cleared_seq);
        self.members.insert(
            user_id,
            Member {
                present: true,
                role,
                joined_at: at,
                joined_seq,
                visible_seq,
                cleared_seq,
                cursors: Cursors { delivered_seq: joined_seq, read_seq: joined_seq },
            },
        );
    }

    fn change_settings(&mut self, changes: &SettingsChanges) {
        if let Some(title) = &changes.title {
            self.title = Some(title.clone());
        }
        if let Some(topic) = &changes.topic {
            self.topic = Some(topic.clone()).filter(|topic| !topic.is_empty());
        }
        if let Some(settings) = changes.settings {
            self.settings = settings;
        }
        self.closed |= changes.closed;
    }

    fn event(&self, chat_id: ChatId, seq: Seq) -> Option<Event> {
        let entry = self.entry_at(seq)?;
        let by = entry.sender_id;
        let body = match entry.act.clone() {
            Act::Created => EventBody::Created { by, members: self.founders.clone() },
            Act::Message(_) => {
                EventBody::Message { message: Box::new(entry.message(chat_id, seq)?) }
            }
            Act::Edit { target_id, text } => EventBody::Edit {
                message_id: target_id,
                message: text,
                edited_at: entry.created_at(),
                by,
            },
            Act::Delete { target_id } => EventBody::Delete { message_id: target_id, by },
            Act::Reaction { target_id, emoji, added } => {
                EventBody::Reaction { message_id: target_id, user_id: by, emoji, added }
            }
            Act::Join { user_id, role } => EventBody::Join { user_id, by, role },
            Act::Leave { user_id, reason } => EventBody::Leave { user_id, by, reason },
            Act::Role { user_id, role } => EventBody::Role { user_id, role, by },
            Act::Settings { changes } => EventBody::Settings { changes, by },
        };
        let created_at = entry.created_at();
        Some(Event { chat_id, seq, event_id: entry.event_id, created_at, body })
    }

    /// The steps of users' own streams that follow from the event.
    fn own_steps(&self, chat_id: ChatId, event: &NewEvent) -> Vec<(UserId, AccountEventBody)> {
        let added = AccountEventBody::ChatAdded { chat_id };
        match event {
            NewEvent::Created => self.founders.iter().map(|m| (m.user_id, added.clone())).collect(),
            NewEvent::Join { user_id, .. } => vec![(*user_id, added)],
            NewEvent::Leave { user_id, reason } => {
                vec![(*user_id, AccountEventBody::ChatRemoved { chat_id, reason: *reason })]
            }
            _ => Vec::new(),
        }
    }
}

impl State {
    fn append(&mut self, ids: &Ids, unit: Append, sender_is_stale: bool) -> Appended {
        let Append { chat_id, sender_id, key, expects, events } = unit;
        if let Some(key) = &key
            && !is_planted("no_dedup")
            && let Some(place) = self.keys.get(&(sender_id, key.client_id.clone()))
            && !(is_planted("dedup_short") && ids.passed_ms() > self.made_ms(place) + 200)
        {
            let event =
                self.chats.get(&place.chat_id).and_then(|c| c.event(place.chat_id, place.seq));
            return match event {
                Some(event) if place.body_mac == key.body_mac => Appended::Repeated(event),
                _ => Appended::KeyConflict,
            };
        }
        if sender_is_stale {
            return Appended::Stale;
        }
        let exists = self.chats.contains_key(&chat_id);
        let mut chat = match expects {
            Expects::NewChat(new) => {
                if let Some(existing) = new.direct_key.as_deref().and_then(|k| self.find_direct(k))
                {
                    return Appended::DirectExists(existing);
                }
                if exists {
                    return Appended::Stale;
                }
                Chat::new(new)
            }
            Expects::Epoch(epoch) => {
                let fits = self.chats.get(&chat_id).is_some_and(|c| c.membership_epoch == epoch);
                match self.chats.remove(&chat_id) {
                    Some(chat) if fits => chat,
                    other => {
                        self.chats.extend(other.map(|chat| (chat_id, chat)));
                        return Appended::Stale;
                    }
                }
            }
        };
        // One event is checked before it changes anything; a longer unit may be refused half way.
        let undo = (events.len() > 1).then(|| chat.clone());
        let first_seq = chat.head_seq().next();
        let client_id = key.as_ref().map(|key| key.client_id.clone());
        let own = match chat.append(ids, chat_id, sender_id, client_id, events) {
            Ok(own) => own,
            Err(refusal) => {
                if exists {
                    self.chats.insert(chat_id, undo.unwrap_or(chat));
                }
                return refusal;
            }
        };
        let mut handed_out = Vec::new();
        for seq in (first_seq.get()..=chat.head_seq().get()).map(Seq::new) {
            let event = chat.event(chat_id, seq);
            self.places.extend(event.as_ref().map(|event| (event.event_id, (chat_id, seq))));
            handed_out.extend(event);
        }
        self.chats.insert(chat_id, chat);
        if let Some(key) = key {
            let place = KeyPlace { chat_id, seq: first_seq, body_mac: key.body_mac };
            self.keys.insert((sender_id, key.client_id), place);
        }
        let own = own
            .into_iter()
            .map(|(user_id, body, at)| (user_id, self.append_own(user_id, body, at)))
            .collect();
        Appended::Stored(Stored { events: handed_out, own })
    }

    /// When the event under a key was made.
    fn made_ms(&self, place: &KeyPlace) -> u64 {
        let chat = self.chats.get(&place.chat_id);
        chat.and_then(|chat| chat.entry_at(place.seq)).map_or(0, |entry| entry.event_id.millis())
    }

    fn messages(&self, chat_id: ChatId) -> impl DoubleEndedIterator<Item = Message> {
        let entries = self.chats.get(&chat_id).into_iter().flat_map(Chat::entries);
        entries.filter_map(move |(seq, entry)| entry.message(chat_id, seq))
    }
}

#[async_trait]
impl Messages for Memory {
    async fn write_batch(&self, batch: Vec<Append>) -> EngineResult<Vec<Appended>> {
        if !batch.iter().all(Append::is_well_formed) {
            return Err(EngineError::broken("a unit of the batch is not well formed"));
        }
        self.write(|state| {
            let mut stale = BTreeSet::new();
            let mut outcomes = Vec::with_capacity(batch.len());
            for unit in batch {
                let lane = (unit.sender_id, unit.chat_id);
                let outcome = state.append(&self.ids, unit, stale.contains(&lane));
                if matches!(outcome, Appended::Stale) {
                    stale.insert(lane);
                }
                outcomes.push(outcome);
            }
            outcomes
        })
        .await
    }

    async fn find_key(
        &self,
        sender_id: UserId,
        client_id: &ClientId,
    ) -> EngineResult<Option<(Event, [u8; 8])>> {
        let state = self.state.lock();
        let Some(place) = state.keys.get(&(sender_id, client_id.clone())) else { return Ok(None) };
        let chat = state.chats.get(&place.chat_id);
        Ok(chat.and_then(|c| c.event(place.chat_id, place.seq)).map(|e| (e, place.body_mac)))
    }

    async fn head(&self, chat_id: ChatId) -> EngineResult<Option<LogHead>> {
        let state = self.state.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(None) };
        Ok(chat.log.last().map(|entry| LogHead {
            seq: chat.head_seq(),
            event_id: entry.event_id,
            n: entry.n,
        }))
    }

    async fn events(&self, chat_id: ChatId, after: Seq, limit: u32) -> EngineResult<Vec<Event>> {
        let state = self.state.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(Vec::new()) };
        let seqs = (after.get().saturating_add(1)..=chat.head_seq().get()).take(limit as usize);
        Ok(seqs.filter_map(|seq| chat.event(chat_id, Seq::new(seq))).collect())
    }

    async fn history(
        &self,
        chat_id: ChatId,
        from: Seq,
        anchor: Anchor,
        limit: u32,
    ) -> EngineResult<HistoryPage> {
        let state = self.state.lock();
        let visible: Vec<_> = state.messages(chat_id).filter(|m| m.seq >= from).collect();
        let (older, newer): (Vec<_>, Vec<_>) = match anchor {
            Anchor::Newest => (visible, Vec::new()),
            Anchor::Before(seq) => visible.into_iter().partition(|m| m.seq < seq),
            Anchor::After(seq) => visible.into_iter().partition(|m| m.seq <= seq),
            Anchor::Around(seq) => visible.into_iter().partition(|m| m.seq < seq),
        };
        let limit = limit as usize;
        let (n_older, n_newer) = match anchor {
            Anchor::Newest | Anchor::Before(_) => (limit, 0),
            Anchor::After(_) => (0, limit),
            Anchor::Around(_) => (limit / 2, limit - limit / 2),
        };
        let more_older = older.len() > n_older;
        let more_newer = newer.len() > n_newer;
        let has_more = match anchor {
            Anchor::Newest | Anchor::Before(_) => more_older,
            Anchor::After(_) => more_newer,
            Anchor::Around(_) => more_older || more_newer,
        };
        let skipped = older.len().saturating_sub(n_older);
        let mut messages: Vec<_> = older.into_iter().skip(skipped).collect();
        messages.extend(newer.into_iter().take(n_newer));
        Ok(HistoryPage { messages, has_more })
    }

    async fn load(&self, message_id: MessageId) -> EngineResult<Option<Message>> {
        let state = self.state.lock();
        let Some((chat_id, seq)) = state.places.get(&message_id).copied() else { return Ok(None) };
        let entry = state.chats.get(&chat_id).and_then(|chat| chat.entry_at(seq));
        Ok(entry.and_then(|entry| entry.message(chat_id, seq)))
    }

    async fn locate(&self, event_id: MessageId) -> EngineResult<Option<(ChatId, Seq)>> {
        Ok(self.state.lock().places.get(&event_id).copied())
    }

    async fn event_id(&self, chat_id: ChatId, seq: Seq) -> EngineResult<Option<MessageId>> {
        let state = self.state.lock();
        let chat = state.chats.get(&chat_id);
        Ok(chat.and_then(|chat| chat.entry_at(seq)).map(|entry| entry.event_id))
    }

    async fn seq_before(&self, chat_id: ChatId, id: MessageId) -> EngineResult<Seq> {
        let state = self.state.lock();
        let log = state.chats.get(&chat_id).into_iter().flat_map(|chat| &chat.log);
        Ok(Seq::new(log.take_while(|entry| entry.event_id < id).count() as u64))
    }

    async fn last_message(&self, chat_id: ChatId, from: Seq) -> EngineResult<Option<Message>> {
        Ok(self.state.lock().messages(chat_id).rfind(|message| message.seq >= from))
    }

    async fn count_unread(&self, chat_id: ChatId, reader: UserId, after: Seq) -> EngineResult<u64> {
        let state = self.state.lock();
        let unread = state
            .messages(chat_id)
            .filter(|m| m.seq > after && m.sender_id != reader)
            .filter(|m| !m.deleted || is_planted("unread_counts_deleted"));
        Ok(unread.count() as u64)
    }
}
