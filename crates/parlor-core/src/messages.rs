//! Messages: send, page, edit, delete, react.
//!
//! `send` is the line that everything else serves: access → limits → event → append → answer.

use parlor_proto::{
    ChatId, ClientId, Event, EventBody, Invalid, MessageId, Seq,
    messages::{
        EditMessage, EventPage, EventsQuery, History, HistoryQuery, Message, SendMessage,
        check_emoji, check_send, check_text,
    },
    receipts::Status,
};
use serde::Serialize;

use crate::{
    Caller, Core, Fresh,
    access::{self, Act},
    appender::Done,
    chats::first_visible,
    error::{Error, Result},
    planted::is_planted,
    ports::{
        chats::{ChatEntry, ChatState},
        messages::{Anchor, Append, AppendKey, Appended, Expects, NewEvent},
        rates::Rate,
    },
    stats,
};

/// The actions on messages.
pub struct Messages<'a>(pub(crate) &'a Core);

impl Messages<'_> {
    /// Stores a message durably, then answers; the same key is stored once (invariants I2, I3).
    pub async fn send(&self, caller: &Caller, send: SendMessage) -> Result<(Message, Fresh)> {
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let done = move |result| drop(answer.send(result));
        self.enqueue(caller, send, Box::new(done)).await;
        // Without an answer the appender is gone: nobody knows whether the message was written.
        outcome.await.unwrap_or(Err(Error::unavailable())).and_then(sent)
    }

    /// Stores several messages in their order; each has its own result.
    pub async fn send_batch(
        &self,
        caller: &Caller,
        sends: Vec<SendMessage>,
    ) -> Vec<Result<(Message, Fresh)>> {
        let mut outcomes = Vec::with_capacity(sends.len());
        for send in sends {
            let (answer, outcome) = tokio::sync::oneshot::channel();
            let done = move |result| drop(answer.send(result));
            self.enqueue(caller, send, Box::new(done)).await;
            outcomes.push(outcome);
        }
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let outcome = outcome.await.unwrap_or(Err(Error::unavailable()));
            results.push(outcome.and_then(sent));
        }
        results
    }

    /// Queues a message; `done` gets the outcome before anybody is told of the message. Messages of
    /// one caller keep their order as long as the calls are awaited one after the other.
    pub async fn enqueue(&self, caller: &Caller, send: SendMessage, done: Done) {
        match self.prepare(caller, send).await {
            Ok(Prepared::Unit(append)) => self.0.appender.enqueue(append, Act::Post, done),
            Ok(Prepared::Repeat(event)) => {
                stats::add(&self.0.stats.repeats, 1);
                done(Ok(Appended::Repeated(event)));
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Pages the messages of a chat in ascending `seq`.
    pub async fn history(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        query: HistoryQuery,
    ) -> Result<History> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::See)?;
        let limit = core.page_limit(query.limit)?;
        let anchor = self.anchor(chat_id, &query).await?;
        let mut entry = self.entry(caller, chat_id).await?;
        let (head, page) = loop {
            let from = first_visible(&entry);
            // The head first: the page then holds at least the state as of it.
            let head = core.ports.messages.head(chat_id).await?.ok_or(Error::NotFound)?;
            let page = core.ports.messages.history(chat_id, from, anchor, limit).await?;
            let newest = page.messages.iter().map(|message| message.state_seq).max();
            match self.moved(caller, &entry, newest.unwrap_or_default()).await? {
                None => break (head, page),
                Some(moved) => entry = moved,
            }
        };
        let messages = core.receipts().with_statuses(caller, &chat, page.messages).await?;
        Ok(History { messages, has_more: page.has_more, head_seq: head.seq })
    }

    /// Pages the raw log of a chat.
    pub async fn events(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        query: EventsQuery,
    ) -> Result<EventPage> {
        let core = self.0;
        let limit = core.page_limit(query.limit)?;
        let after = Seq::new(query.after_seq.unwrap_or(0));
        let (events, head_seq) = self.page_events(caller, chat_id, after, limit).await?;
        Ok(EventPage { events, head_seq, epoch: core.epoch() })
    }

    /// Returns events after a position that the caller may see, and the head.
    pub(crate) async fn page_events(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        after: Seq,
        limit: u32,
    ) -> Result<(Vec<Event>, Seq)> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::See)?;
        let head = core.ports.messages.head(chat_id).await?.ok_or(Error::NotFound)?;
        if after > head.seq {
            return Err(Error::Conflict {
                code: parlor_proto::ErrorCode::Reset,
                detail: "the log ends before this position: start again",
            });
        }
        let mut entry = self.entry(caller, chat_id).await?;
        let events = loop {
            let from = first_visible(&entry).prev();
            let from = if is_planted("page_from_start") { after } else { after.max(from) };
            let events = core.ports.messages.events(chat_id, from, limit).await?;
            let newest = events.iter().map(|event| match &event.body {
                EventBody::Message { message } => message.state_seq.max(event.seq),
                _ => event.seq,
            });
            match self.moved(caller, &entry, newest.max().unwrap_or_default()).await? {
                None => break events,
                Some(moved) => entry = moved,
            }
        };
        Ok((events, head.seq))
    }

    /// Returns where a present member stands, from the store: the cache of chat states follows a
    /// removal a moment later.
    async fn entry(&self, caller: &Caller, chat_id: ChatId) -> Result<ChatEntry> {
        let entry = self.0.ports.chats.entry(chat_id, caller.user_id).await?;
        entry.ok_or(Error::NotFound)
    }

    /// Tells whether something read after `entry` may be handed out: what is not newer than its
    /// head is for the member of then. Newer things may have come after a removal (promises P7), so
    /// the store is asked again: nothing is handed out to who left, and who came back meanwhile
    /// gets the new entry, to read once more.
    pub(crate) async fn moved(
        &self,
        caller: &Caller,
        entry: &ChatEntry,
        newest: Seq,
    ) -> Result<Option<ChatEntry>> {
        if newest <= entry.head_seq {
            return Ok(None);
        }
        let now = self.entry(caller, entry.chat_id).await?;
        Ok((now.visible_seq != entry.visible_seq).then_some(now))
    }

    /// Returns one message.
    pub async fn load(&self, caller: &Caller, message_id: MessageId) -> Result<Message> {
        let (chat, message) = self.visible(caller, message_id).await?;
        self.with_status(caller, &chat, message).await
    }

    /// Replaces the text of an own message.
    pub async fn edit(
        &self,
        caller: &Caller,
        message_id: MessageId,
        edit: EditMessage,
    ) -> Result<Message> {
        let (chat, message) = self.visible(caller, message_id).await?;
        let act = Act::Edit { author: message.sender_id };
        access::check(&chat, caller.user_id, &act)?;
        check_text("message", &edit.message, &self.0.settings.limits)?;
        if edit.message.trim().is_empty() && message.attachments.is_empty() {
            return Err(Invalid::new("message", "a message without attachments has a text").into());
        }
        if edit.message != message.message || message.deleted {
            let event = NewEvent::Edit { target_id: message_id, text: edit.message };
            self.0.append_plain(caller, &chat, vec![event], act).await?;
        }
        self.load(caller, message_id).await
    }

    /// Deletes a message for everyone; deleting it again is fine.
    pub async fn remove(&self, caller: &Caller, message_id: MessageId) -> Result<()> {
        let (chat, message) = self.visible(caller, message_id).await?;
        let act = Act::Delete { author: message.sender_id };
        access::check(&chat, caller.user_id, &act)?;
        if message.deleted {
            return Ok(());
        }
        let event = NewEvent::Delete { target_id: message_id };
        match self.0.append_plain(caller, &chat, vec![event], act).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds the caller's reaction.
    pub async fn react(
        &self,
        caller: &Caller,
        message_id: MessageId,
        emoji: &str,
        added: bool,
    ) -> Result<Message> {
        check_emoji(emoji)?;
        let (chat, _) = self.visible(caller, message_id).await?;
        let event = NewEvent::Reaction { target_id: message_id, emoji: emoji.to_owned(), added };
        self.0.append_plain(caller, &chat, vec![event], Act::React).await?;
        self.load(caller, message_id).await
    }

    /// Puts the status that the caller may see on a message.
    pub(crate) async fn with_status(
        &self,
        caller: &Caller,
        chat: &ChatState,
        message: Message,
    ) -> Result<Message> {
        let messages = self.0.receipts().with_statuses(caller, chat, vec![message]).await?;
        messages.into_iter().next().ok_or(Error::Internal)
    }

    /// Returns a message with its chat if the caller may see it.
    pub(crate) async fn visible(
        &self,
        caller: &Caller,
        message_id: MessageId,
    ) -> Result<(std::sync::Arc<ChatState>, Message)> {
        let core = self.0;
        let message = core.ports.messages.load(message_id).await?.ok_or(Error::NotFound)?;
        let chat = core.chats.load(message.chat_id).await?;
        access::check(&chat, caller.user_id, &Act::See)?;
        // After the message: who was removed before it was read is no member here any more.
        if message.seq < first_visible(&self.entry(caller, message.chat_id).await?) {
            return Err(Error::NotFound);
        }
        Ok((chat, message))
    }

    async fn prepare(&self, caller: &Caller, send: SendMessage) -> Result<Prepared> {
        let core = self.0;
        check_send(&send, &core.settings.limits)?;
        core.rate(Rate::Sends, &caller.user_id.to_string(), 1)?;
        let key = send.client_id.clone().map(|id| core.append_key(id, &Request::from(&send)));
        let chat = core.chats.load(send.chat_id).await;
        let allowed = match chat {
            Ok(chat) => access::check(&chat, caller.user_id, &Act::Post).map(|_| chat),
            Err(error) => Err(error),
        };
        let chat = match allowed {
            Ok(chat) => chat,
            // A former member who repeats a send gets the answer of the first time.
            Err(refusal) => return self.repeat(caller, key.as_ref(), refusal).await,
        };
        if !send.attachments.is_empty() {
            return Err(Error::NotFound);
        }
        if let Some(reply_to) = send.reply_to {
            match self.visible(caller, reply_to).await {
                Ok((_, message)) if message.chat_id == send.chat_id => {}
                Ok(_) | Err(Error::NotFound) => {
                    let detail = "the answered message is not in this chat";
                    return Err(Invalid::new("reply_to", detail).into());
                }
                Err(error) => return Err(error),
            }
        }
        core.presence().note_activity(caller.user_id);
        Ok(Prepared::Unit(Append {
            chat_id: send.chat_id,
            sender_id: caller.user_id,
            key,
            expects: Expects::Epoch(chat.membership_epoch),
            events: vec![NewEvent::Message {
                kind: send.kind,
                text: send.message,
                attachments: send.attachments,
                reply_to: send.reply_to,
            }],
        }))
    }

    async fn repeat(
        &self,
        caller: &Caller,
        key: Option<&AppendKey>,
        refusal: Error,
    ) -> Result<Prepared> {
        let Some(key) = key else { return Err(refusal) };
        match self.0.ports.messages.find_key(caller.user_id, &key.client_id).await? {
            Some((event, body_mac)) if body_mac == key.body_mac => Ok(Prepared::Repeat(event)),
            _ => Err(refusal),
        }
    }

    async fn anchor(&self, chat_id: ChatId, query: &HistoryQuery) -> Result<Anchor> {
        let (make, id, field): (fn(Seq) -> Anchor, _, _) =
            match (query.before, query.after, query.around) {
                (None, None, None) => return Ok(Anchor::Newest),
                (Some(id), None, None) => (Anchor::Before, id, "before"),
                (None, Some(id), None) => (Anchor::After, id, "after"),
                (None, None, Some(id)) => (Anchor::Around, id, "around"),
                _ => {
                    let detail = "a page has one anchor: before, after or around";
                    return Err(Invalid::new("before", detail).into());
                }
            };
        match self.0.ports.messages.locate(id).await? {
            Some((found, seq)) if found == chat_id => Ok(make(seq)),
            _ => Err(Invalid::new(field, "this message is not in this chat").into()),
        }
    }
}

enum Prepared {
    Unit(Append),
    Repeat(Event),
}

/// The part of a send that a repeat must have in common with the first.
#[derive(Serialize)]
struct Request<'a>(
    &'a str,
    ChatId,
    &'a str,
    parlor_proto::messages::MessageType,
    &'a [parlor_proto::MediaId],
    Option<MessageId>,
);

impl<'a> From<&'a SendMessage> for Request<'a> {
    fn from(send: &'a SendMessage) -> Self {
        Self("message", send.chat_id, &send.message, send.kind, &send.attachments, send.reply_to)
    }
}

/// Reads the outcome of a send: the message, and whether it is new.
pub fn sent(outcome: Appended) -> Result<(Message, Fresh)> {
    let (event, fresh) = match outcome {
        Appended::Stored(stored) => (stored.events.into_iter().next(), Fresh::New),
        Appended::Repeated(event) => (Some(event), Fresh::Repeated),
        Appended::KeyConflict => return Err(Error::key_conflict()),
        _ => return Err(Error::unavailable()),
    };
    match event.map(|event| event.body) {
        Some(EventBody::Message { message }) => {
            Ok((Message { status: Status::Sent, ..*message }, fresh))
        }
        // The key belongs to another kind of call of the same user.
        Some(_) => Err(Error::key_conflict()),
        None => Err(Error::Internal),
    }
}

impl Core {
    /// Makes the idempotency key of a request.
    pub(crate) fn append_key(&self, client_id: ClientId, body: &impl Serialize) -> AppendKey {
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        AppendKey { client_id, body_mac: self.sealer.digest(&bytes) }
    }
}
