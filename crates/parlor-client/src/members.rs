//! Members: who is in a chat, adding, removing, roles.

use parlor_proto::{
    ChatId, UserId,
    chats::ListQuery,
    members::{AddParticipants, Participant, ParticipantList, ParticipantPatch, Role},
};

use crate::{client::Client, error::Error};

impl Client {
    /// Returns a page of the members of a chat.
    pub async fn participants(
        &self,
        chat_id: ChatId,
        query: &ListQuery,
    ) -> Result<ParticipantList, Error> {
        let path = ["chats", &chat_id.to_string(), "participants"];
        self.answer(self.get_with(&path, query)?).await
    }

    /// Adds people; members already in are left as they are.
    pub async fn add_participants(
        &self,
        chat_id: ChatId,
        request: &AddParticipants,
    ) -> Result<ParticipantList, Error> {
        let path = ["chats", &chat_id.to_string(), "participants"];
        self.answer(self.post(&path, request)?).await
    }

    /// Changes the role of a member.
    pub async fn set_role(
        &self,
        chat_id: ChatId,
        user_id: UserId,
        role: Role,
    ) -> Result<Participant, Error> {
        let path = ["chats", &chat_id.to_string(), "participants", &user_id.to_string()];
        self.answer(self.patch(&path, &ParticipantPatch { role })?).await
    }

    /// Removes a member; with the own id, leaves.
    pub async fn remove_participant(&self, chat_id: ChatId, user_id: UserId) -> Result<(), Error> {
        let path = ["chats", &chat_id.to_string(), "participants", &user_id.to_string()];
        self.done(self.delete(&path)?).await
    }
}
