//! Accounts for a run: the first sign-up administers the server and makes all others.

use anyhow::Context;
use parlor_client::Client;
use parlor_proto::{
    DeviceId, UserId,
    accounts::{ManagedUser, SignUp},
};

/// A signed-in person of the run.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub user_id: UserId,
    /// Which device the client is.
    pub device_id: DeviceId,
    /// Calls in the person's name.
    pub client: Client,
}

impl Person {
    /// The same device on another way to the server.
    pub fn via(&self, url: &str) -> anyhow::Result<Self> {
        let token = self.client.token().context("the person is signed in")?;
        Ok(Self { client: Client::new(url)?.with_token(token), ..self.clone() })
    }
}

/// The administrator of a fresh server.
#[derive(Debug, Clone)]
pub struct Admin(Person);

impl Admin {
    /// Signs the first account of a fresh server up.
    pub async fn sign_up(server: &Client) -> anyhow::Result<Self> {
        let signed_in = server
            .sign_up(&SignUp {
                username: "runner".to_owned(),
                email: "runner@load.example".to_owned(),
                password: "quarry lantern ninefold 7".to_owned(),
                display_name: None,
                invite: None,
                device_name: Some("load".to_owned()),
            })
            .await
            .context("sign the administrator up")?;
        let token = signed_in.session.token.context("the session has no token")?;
        Ok(Self(Person {
            user_id: signed_in.user.user_id,
            device_id: signed_in.session.device_id,
            client: server.with_token(&token),
        }))
    }

    /// Makes a person with one signed-in device.
    pub async fn person(&self, name: &str) -> anyhow::Result<Person> {
        let request = ManagedUser { username: name.to_owned(), display_name: None };
        let user = self.0.client.create_managed_user(&request).await.context("make an account")?;
        self.device(user.user_id).await
    }

    /// Signs another device of a person in.
    pub async fn device(&self, user_id: UserId) -> anyhow::Result<Person> {
        let signed_in = self.0.client.create_managed_session(user_id).await;
        let signed_in = signed_in.context("open a session")?;
        let token = signed_in.session.token.context("the session has no token")?;
        let device_id = signed_in.session.device_id;
        Ok(Person { user_id, device_id, client: self.0.client.with_token(&token) })
    }

    /// Makes people named `stem1`, `stem2`, …, several at a time.
    pub async fn people(&self, stem: &str, n_people: usize) -> anyhow::Result<Vec<Person>> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        stream::iter(
            (1..=n_people).map(|n| async move { self.person(&format!("{stem}{n}")).await }),
        )
        .buffered(16)
        .try_collect()
        .await
    }
}
