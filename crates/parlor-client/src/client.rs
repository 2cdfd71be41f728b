//! The HTTP door: one server, one token, and the way a call is made and its answer is read.
//!
//! What can be called stands in the file of its noun (`accounts.rs`, `chats.rs`, …), as methods of
//! [`Client`]. The socket is in `connection.rs`, what keeps a device in step in `replica.rs`.

use std::{sync::Arc, time::Duration};

use parlor_proto::{
    Problem,
    frame::{SyncAnswer, SyncQuery},
};
use reqwest::{Method, RequestBuilder, Url, header::RETRY_AFTER};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Error;

/// How long a call may take, unless it is a long poll.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A server as one caller sees it: signed out, or signed in by a token. A clone shares connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Arc<str>>,
}

impl std::fmt::Debug for Client {
    // Without the token: it is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// Names the server by its origin, as `http://127.0.0.1:8080`; a path prefix is kept.
    pub fn new(server: &str) -> Result<Self, Error> {
        let address = |why: String| Error::Address(format!("{server}: {why}"));
        let mut base = Url::parse(server).map_err(|error| address(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(address("it begins with http:// or https:// and a host".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http =
            reqwest::Client::builder().timeout(CALL_LIMIT).build().map_err(Error::Network)?;
        Ok(Self { http, base, token: None })
    }

    /// Returns the same server seen by the owner of a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// Returns the origin of the server, with a slash at its end.
    pub fn server(&self) -> &Url {
        &self.base
    }

    /// Returns the token of a signed-in caller.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns the address of the socket.
    pub fn socket_url(&self) -> Result<String, Error> {
        let mut url = self.url(&["ws"])?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).map_err(|()| Error::Address(self.base.to_string()))?;
        Ok(url.into())
    }

    /// Tells whether the server says that it is able to serve.
    pub async fn is_ready(&self) -> bool {
        let Ok(url) = self.base.join("readyz") else { return false };
        self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Makes one step of the long poll: the frames that the socket would have sent since the cursor.
    pub async fn poll(&self, query: &SyncQuery) -> Result<SyncAnswer, Error> {
        let wait = Duration::from_secs(query.wait.unwrap_or(0));
        let call = self.get_with(&["sync"], query)?.timeout(CALL_LIMIT + wait);
        self.answer(call).await
    }

    pub(crate) fn get(&self, path: &[&str]) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::GET, self.url(path)?))
    }

    pub(crate) fn get_with(
        &self,
        path: &[&str],
        query: &impl Serialize,
    ) -> Result<RequestBuilder, Error> {
        let mut url = self.url(path)?;
        put_query(&mut url, query)?;
        Ok(self.call(Method::GET, url))
    }

    pub(crate) fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::POST, self.url(path)?).json(body))
    }

    pub(crate) fn put(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::PUT, self.url(path)?).json(body))
    }

    pub(crate) fn put_nothing(&self, path: &[&str]) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::PUT, self.url(path)?))
    }

    pub(crate) fn patch(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::PATCH, self.url(path)?).json(body))
    }

    pub(crate) fn delete(&self, path: &[&str]) -> Result<RequestBuilder, Error> {
        Ok(self.call(Method::DELETE, self.url(path)?))
    }

    /// Makes the call and reads its answer.
    pub(crate) async fn answer<T: DeserializeOwned>(
        &self,
        call: RequestBuilder,
    ) -> Result<T, Error> {
        let (status, body) = self.exchange(call).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Unreadable { status, detail: error.to_string() })
    }

    /// Makes a call whose answer says nothing but that it worked.
    pub(crate) async fn done(&self, call: RequestBuilder) -> Result<(), Error> {
        self.exchange(call).await.map(|_| ())
    }

    async fn exchange(&self, call: RequestBuilder) -> Result<(u16, bytes::Bytes), Error> {
        let answer = call.send().await.map_err(Error::Network)?;
        let status = answer.status();
        let header = answer.headers().get(RETRY_AFTER);
        let wait = header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let body = answer.bytes().await.map_err(Error::Network)?;
        if status.is_success() {
            return Ok((status.as_u16(), body));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(mut problem) => {
                problem.retry_after = problem.retry_after.or(wait);
                Err(Error::Problem(Box::new(problem)))
            }
            Err(error) => Err(Error::Unreadable {
                status: status.as_u16(),
                detail: format!("it is no problem document: {error}"),
            }),
        }
    }

    fn call(&self, method: Method, url: Url) -> RequestBuilder {
        let call = self.http.request(method, url);
        match &self.token {
            Some(token) => call.bearer_auth(token),
            None => call,
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Address(self.base.to_string()))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        Ok(url)
    }
}

/// Writes the fields of a query that are there; each is a string or a number.
fn put_query(url: &mut Url, query: &impl Serialize) -> Result<(), Error> {
    let unfit = || Error::Address("a query is an object of strings and numbers".to_owned());
    let serde_json::Value::Object(fields) = serde_json::to_value(query).map_err(|_| unfit())?
    else {
        return Err(unfit());
    };
    let mut pairs = url.query_pairs_mut();
    for (name, value) in fields {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => {
                pairs.append_pair(&name, &text);
            }
            serde_json::Value::Number(number) => {
                pairs.append_pair(&name, &number.to_string());
            }
            _ => return Err(unfit()),
        }
    }
    drop(pairs);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use parlor_proto::{MessageId, accounts::UserQuery, messages::HistoryQuery};

    use super::*;

    #[test]
    fn addresses_keep_their_prefix_and_escape_what_callers_give() {
        let client = Client::new("http://127.0.0.1:8080/chat").unwrap();
        let url = client.url(&["messages", "7", "reactions", "👍/?"]).unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:8080/chat/api/v1/messages/7/reactions/%F0%9F%91%8D%2F%3F"
        );
        assert_eq!(client.socket_url().unwrap(), "ws://127.0.0.1:8080/chat/api/v1/ws");
        assert!(Client::new("ftp://x").is_err() && Client::new("nonsense").is_err());
    }

    #[test]
    fn queries_hold_what_is_there_and_nothing_else() {
        let mut url = Url::parse("http://h/").unwrap();
        let before = Some(MessageId::from_raw(9));
        put_query(&mut url, &HistoryQuery { limit: Some(3), before, ..HistoryQuery::default() })
            .unwrap();
        assert_eq!(url.query(), Some("limit=3&before=9"));
        let mut url = Url::parse("http://h/").unwrap();
        put_query(&mut url, &UserQuery { username: "a&b=ü".to_owned() }).unwrap();
        assert_eq!(url.query(), Some("username=a%26b%3D%C3%BC"));
    }
}
