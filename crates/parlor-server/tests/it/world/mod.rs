//! `World` is one complete server in the test process; `Person` is a signed-in device with verbs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use parlor_core::{
    clock::{ManualClock, SystemClock},
    ports::{EngineResult, clock::Clock as _, passwords::Passwords},
};
use parlor_server::{
    App,
    config::{Config, Switch},
    wiring::{self, Overrides, Running, Storage},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A hasher that is fast instead of slow; the real one has its own tests.
pub struct PlainPasswords;

#[async_trait]
impl Passwords for PlainPasswords {
    async fn hash(&self, password: String) -> EngineResult<String> {
        Ok(format!("plain:{password}"))
    }

    async fn verify(&self, password: String, hash: Option<String>) -> EngineResult<bool> {
        Ok(hash == Some(format!("plain:{password}")))
    }
}

/// A server on a free port, on SQLite in a temporary folder, with a clock that can be moved.
pub struct World {
    running: Option<Running>,
    pub address: SocketAddr,
    clock: ManualClock,
    config: Config,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::with(|config| config.rate_limits = Switch::Off).await
    }

    /// Starts a server whose configuration was changed; rate limits are on unless that says so.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let limited = |config: &mut Config| {
            config.rate_limits = Switch::On;
            change(config);
        };
        Self::overridden(Overrides::default(), limited).await
    }

    /// Starts a server whose clock moves by hand.
    pub async fn on(clock: &ManualClock, change: impl FnOnce(&mut Config)) -> Self {
        let overrides = Overrides { clock: Some(Arc::new(clock.clone())), ..Overrides::default() };
        Self { clock: clock.clone(), ..Self::overridden(overrides, change).await }
    }

    /// Starts a server of other parts, without rate limits.
    pub async fn overridden(mut overrides: Overrides, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: folder.path().join("data"),
            rate_limits: Switch::Off,
            ..Config::default()
        };
        change(&mut config);
        let clock = running_clock();
        overrides.clock.get_or_insert_with(|| Arc::new(clock.clone()));
        Self::of(folder, config, clock, overrides).await
    }

    async fn of(
        folder: tempfile::TempDir,
        config: Config,
        clock: ManualClock,
        mut overrides: Overrides,
    ) -> Self {
        overrides.passwords.get_or_insert_with(|| Arc::new(PlainPasswords));
        let running = wiring::start(config.clone(), Storage::Sqlite, overrides).await.unwrap();
        Self { address: running.address, running: Some(running), clock, config, folder }
    }

    /// Lets time pass at once: whatever was to come meanwhile comes now.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Ends the server in order and starts it again on the same data and the same address.
    pub async fn restart(&mut self) {
        self.restart_after(|_| {}).await;
    }

    /// The same, with something done to the folder of the data meanwhile.
    pub async fn restart_after(&mut self, change: impl FnOnce(&std::path::Path)) {
        self.running.take().expect("it runs").stop().await;
        change(&self.config.data);
        self.config.listen = self.address;
        let overrides = Overrides {
            clock: Some(Arc::new(self.clock.clone())),
            passwords: Some(Arc::new(PlainPasswords)),
            ..Overrides::default()
        };
        let started = wiring::start(self.config.clone(), Storage::Sqlite, overrides).await;
        self.running = Some(started.unwrap());
    }

    /// Signs a new person up.
    pub async fn person(&self, name: &str) -> Person {
        let body = json!({
            "username": name,
            "email": format!("{name}@example.org"),
            "password": "correct horse battery",
        });
        let answer = call(self.address, Method::POST, "/api/v1/users", None, Some(body)).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        Person {
            address: self.address,
            user_id: answer.text("/user/user_id"),
            device_id: answer.text("/session/device_id"),
            token: answer.text("/session/token"),
        }
    }

    /// Signs a person in on one more device.
    pub async fn signs_in(&self, name: &str) -> Person {
        let body = json!({"login": name, "password": "correct horse battery"});
        let answer = call(self.address, Method::POST, "/api/v1/sessions", None, Some(body)).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
        Person {
            address: self.address,
            user_id: answer.text("/user/user_id"),
            device_id: answer.text("/session/device_id"),
            token: answer.text("/session/token"),
        }
    }

    /// Two people with a one-to-one chat.
    pub async fn friends(&self) -> (Person, Person, String) {
        let (ann, ben) = (self.person("ann").await, self.person("ben").await);
        let chat_id = ann.opens_chat_with(&ben).await;
        (ann, ben, chat_id)
    }

    /// What the doors of the server share.
    pub fn app(&self) -> &Arc<App> {
        &self.running.as_ref().unwrap().app
    }

    /// The file of the store, beside the server.
    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("data/parlor.db")).unwrap()
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> u64 {
        let answer = call(self.address, Method::GET, "/metrics", None, None).await;
        let text = answer.body.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// Ends in order.
    pub async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

/// A clock that keeps the pace of the real one and can be moved ahead of it.
#[expect(clippy::disallowed_methods, reason = "the real clock drives the one of the tests")]
fn running_clock() -> ManualClock {
    let clock = ManualClock::at(SystemClock::default().now());
    let driven = clock.clone();
    tokio::spawn(async move {
        let mut last = std::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = std::time::Instant::now();
            driven.advance(now - last);
            last = now;
        }
    });
    clock
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn text(&self, pointer: &str) -> String {
        let found = self.body.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.body)).to_owned()
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// Calls a route.
pub async fn call(
    address: SocketAddr,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> Answer {
    let mut request = reqwest::Client::new().request(method, format!("http://{address}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    read(request).await
}

/// Sends a request and reads its answer.
pub async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.timeout(PATIENCE).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

/// A signed-in device.
#[derive(Clone)]
pub struct Person {
    pub address: SocketAddr,
    pub user_id: String,
    pub device_id: String,
    pub token: String,
}

impl Person {
    pub async fn get(&self, path: &str) -> Answer {
        call(self.address, Method::GET, path, Some(&self.token), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        call(self.address, Method::POST, path, Some(&self.token), Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        call(self.address, Method::PUT, path, Some(&self.token), Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        call(self.address, Method::PATCH, path, Some(&self.token), Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        call(self.address, Method::DELETE, path, Some(&self.token), None).await
    }

    pub async fn opens_chat_with(&self, other: &Self) -> String {
        let body = json!({"type": "one_on_one", "participants": [other.user_id]});
        let answer = self.post("/api/v1/chats", body).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
        answer.text("/chat_id")
    }

    pub async fn makes_group(&self, title: &str, others: &[&Self]) -> String {
        let ids: Vec<_> = others.iter().map(|person| &person.user_id).collect();
        let body = json!({"type": "group", "participants": ids, "title": title});
        let answer = self.post("/api/v1/chats", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.text("/chat_id")
    }

    /// Sends over HTTP; returns the message.
    pub async fn says(&self, chat_id: &str, text: &str) -> Value {
        let body = json!({"chat_id": chat_id, "message": text});
        let answer = self.post("/api/v1/messages", body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body
    }

    /// The texts of the newest page.
    pub async fn reads_texts(&self, chat_id: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v1/chats/{chat_id}/messages?limit=200")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let messages = answer.body["messages"].as_array().unwrap().clone();
        messages.iter().map(|m| m["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Opens a socket and greets.
    pub async fn connects(&self) -> Socket {
        self.resumes(None).await
    }

    /// Opens a socket and resumes from a cursor.
    pub async fn resumes(&self, cursor: Option<&str>) -> Socket {
        let mut socket = Socket::open(self.address).await;
        let mut hello = json!({"t": "hello", "v": 1, "token": self.token});
        if let Some(cursor) = cursor {
            hello["cursor"] = json!(cursor);
        }
        socket.send(hello).await;
        socket.welcome = socket.next("welcome").await;
        socket
    }
}

/// A socket with its welcome.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub welcome: Value,
}

impl Socket {
    pub async fn open(address: SocketAddr) -> Self {
        let url = format!("ws://{address}/api/v1/ws");
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self { stream, welcome: Value::Null }
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// The next frame of a kind; others before it are passed over.
    pub async fn next(&mut self, kind: &str) -> Value {
        self.find(kind, |_| true).await
    }

    /// The next frame of a kind that fits.
    pub async fn find(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.find_any(|frame| frame["t"] == kind && fits(frame)).await
    }

    /// The next frame that fits, whatever its kind.
    #[expect(clippy::disallowed_methods, reason = "a limit that only a bug can reach")]
    pub async fn find_any(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let message = self.stream.next().await.expect("open").expect("readable");
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                if fits(&frame) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the frame comes")
    }

    /// The code with which the server closes.
    #[expect(clippy::disallowed_methods, reason = "a limit that only a bug can reach")]
    pub async fn close_code(&mut self) -> u16 {
        let search = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                    Some(Ok(_)) => {}
                    other => panic!("no close frame: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the server closes")
    }

    /// The text of the next message event.
    pub async fn hears(&mut self) -> String {
        let event = self.find("event", |frame| frame["kind"] == "message").await;
        event["message"]["message"].as_str().unwrap().to_owned()
    }
}
