//! Messages over HTTP: one send, a batch, history, the raw log, edits, reactions.
//!
//! A send that must survive a lost answer goes through the outbox (`outbox.rs`), or is repeated by
//! the caller with the same `client_id`.

use parlor_proto::{
    ChatId, MessageId,
    messages::{
        BatchResult, BatchResults, EditMessage, EventPage, EventsQuery, History, HistoryQuery,
        Message, SendBatch, SendMessage,
    },
};

use crate::{client::Client, error::Error};

impl Client {
    /// Sends a message; a repeat with the same `client_id` returns the message stored before.
    pub async fn send_message(&self, request: &SendMessage) -> Result<Message, Error> {
        self.answer(self.post(&["messages"], request)?).await
    }

    /// Sends up to 100 messages; the results are in the order of the requests.
    pub async fn send_batch(&self, request: &SendBatch) -> Result<Vec<BatchResult>, Error> {
        let answer: BatchResults = self.answer(self.post(&["messages", "batch"], request)?).await?;
        Ok(answer.results)
    }

    /// Returns a page of the history of a chat.
    pub async fn history(&self, chat_id: ChatId, query: &HistoryQuery) -> Result<History, Error> {
        let path = ["chats", &chat_id.to_string(), "messages"];
        self.answer(self.get_with(&path, query)?).await
    }

    /// Returns a page of the raw log of a chat.
    pub async fn events(&self, chat_id: ChatId, query: &EventsQuery) -> Result<EventPage, Error> {
        let path = ["chats", &chat_id.to_string(), "events"];
        self.answer(self.get_with(&path, query)?).await
    }

    /// Returns one message.
    pub async fn message(&self, message_id: MessageId) -> Result<Message, Error> {
        self.answer(self.get(&["messages", &message_id.to_string()])?).await
    }

    /// Replaces the text of an own message.
    pub async fn edit_message(&self, message_id: MessageId, text: &str) -> Result<Message, Error> {
        let body = EditMessage { message: text.to_owned() };
        self.answer(self.patch(&["messages", &message_id.to_string()], &body)?).await
    }

    /// Deletes a message for everyone.
    pub async fn delete_message(&self, message_id: MessageId) -> Result<(), Error> {
        self.done(self.delete(&["messages", &message_id.to_string()])?).await
    }

    /// Puts the caller's reaction on a message.
    pub async fn react(&self, message_id: MessageId, emoji: &str) -> Result<(), Error> {
        let path = ["messages", &message_id.to_string(), "reactions", emoji];
        self.done(self.put_nothing(&path)?).await
    }

    /// Takes the caller's reaction away.
    pub async fn unreact(&self, message_id: MessageId, emoji: &str) -> Result<(), Error> {
        let path = ["messages", &message_id.to_string(), "reactions", emoji];
        self.done(self.delete(&path)?).await
    }
}
