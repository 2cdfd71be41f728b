//! Accounts: sign-up, profiles, and the accounts that an administrator makes.

use parlor_proto::{
    UserId,
    accounts::{
        AccountDeletion, ManagedUser, SignUp, SignedIn, User, UserList, UserPatch, UserQuery,
    },
};

use crate::{client::Client, error::Error};

impl Client {
    /// Makes an account; the answer holds the session of this device.
    pub async fn sign_up(&self, request: &SignUp) -> Result<SignedIn, Error> {
        self.answer(self.post(&["users"], request)?).await
    }

    /// Returns the own profile.
    pub async fn me(&self) -> Result<User, Error> {
        self.answer(self.get(&["users", "me"])?).await
    }

    /// Changes the own profile; what is absent stays.
    pub async fn update_me(&self, patch: &UserPatch) -> Result<User, Error> {
        self.answer(self.patch(&["users", "me"], patch)?).await
    }

    /// Shuts the own account at once; erasure follows on the server.
    pub async fn delete_me(&self, password: &str) -> Result<(), Error> {
        let body = AccountDeletion { password: password.to_owned() };
        self.done(self.delete(&["users", "me"])?.json(&body)).await
    }

    /// Returns the public profile of a person.
    pub async fn user(&self, user_id: UserId) -> Result<User, Error> {
        self.answer(self.get(&["users", &user_id.to_string()])?).await
    }

    /// Finds a person by the exact username.
    pub async fn find_user(&self, username: &str) -> Result<Option<User>, Error> {
        let query = UserQuery { username: username.to_owned() };
        let list: UserList = self.answer(self.get_with(&["users"], &query)?).await?;
        Ok(list.items.into_iter().next())
    }

    /// Makes an account without a password; for administrators.
    pub async fn create_managed_user(&self, request: &ManagedUser) -> Result<User, Error> {
        self.answer(self.post(&["admin", "users"], request)?).await
    }

    /// Signs a device of a managed account in; for administrators.
    pub async fn create_managed_session(&self, user_id: UserId) -> Result<SignedIn, Error> {
        let path = ["admin", "users", &user_id.to_string(), "sessions"];
        self.answer(self.post(&path, &serde_json::json!({}))?).await
    }
}
