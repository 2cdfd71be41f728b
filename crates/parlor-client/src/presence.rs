//! Presence over HTTP: who is here now. Changes arrive over the socket, for those who watch.

use parlor_proto::{UserId, presence::UserStatus};

use crate::{client::Client, error::Error};

impl Client {
    /// Returns what the caller may know of a person's presence.
    pub async fn user_status(&self, user_id: UserId) -> Result<UserStatus, Error> {
        self.answer(self.get(&["users", &user_id.to_string(), "status"])?).await
    }
}
