//! Chats: making, listing, changing and closing them.

use parlor_proto::{
    ChatId, UserId,
    chats::{Chat, ChatList, ChatPatch, ChatType, CreateChat, ListQuery},
};

use crate::{client::Client, error::Error};

impl Client {
    /// Makes a chat; for a pair that has one, returns that.
    pub async fn create_chat(&self, request: &CreateChat) -> Result<Chat, Error> {
        self.answer(self.post(&["chats"], request)?).await
    }

    /// Returns the one-to-one chat with a person, made if there is none.
    pub async fn direct(&self, user_id: UserId) -> Result<Chat, Error> {
        let participants = vec![user_id];
        self.create_chat(&CreateChat {
            kind: ChatType::OneOnOne,
            participants,
            title: None,
            client_id: None,
        })
        .await
    }

    /// Makes a group with the caller as its owner.
    pub async fn create_group(&self, title: &str, others: &[UserId]) -> Result<Chat, Error> {
        self.create_chat(&CreateChat {
            kind: ChatType::Group,
            participants: others.to_vec(),
            title: Some(title.to_owned()),
            client_id: None,
        })
        .await
    }

    /// Returns a page of the caller's chats, the most recent first.
    pub async fn chats(&self, query: &ListQuery) -> Result<ChatList, Error> {
        self.answer(self.get_with(&["chats"], query)?).await
    }

    /// Returns one chat as the caller sees it.
    pub async fn chat(&self, chat_id: ChatId) -> Result<Chat, Error> {
        self.answer(self.get(&["chats", &chat_id.to_string()])?).await
    }

    /// Changes title, topic or settings; what is absent stays.
    pub async fn update_chat(&self, chat_id: ChatId, patch: &ChatPatch) -> Result<Chat, Error> {
        self.answer(self.patch(&["chats", &chat_id.to_string()], patch)?).await
    }

    /// Clears and hides a one-to-one for the caller; closes any other chat for all.
    pub async fn delete_chat(&self, chat_id: ChatId) -> Result<(), Error> {
        self.done(self.delete(&["chats", &chat_id.to_string()])?).await
    }
}
