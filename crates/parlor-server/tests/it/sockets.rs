//! The socket: greeting, live events, resume, close codes, and the long poll.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parlor_core::{
    clock::ManualClock,
    ports::{EngineResult, clock::Clock as _, passwords::Passwords},
};
use parlor_proto::{Time, frame::Hello};
use parlor_server::wiring::Overrides;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{PATIENCE, Person, Socket, World, call};

fn noon() -> ManualClock {
    ManualClock::at(Time::from_millis(1_800_000_000_000))
}

/// The path of a poll that waits because nothing is new.
async fn waiting(person: &Person, wait: u64) -> String {
    let cursor = person.get("/api/v1/sync").await.text("/cursor");
    format!("/api/v1/sync?wait={wait}&cursor={cursor}")
}

#[expect(clippy::disallowed_methods, reason = "a limit that only a bug can reach")]
async fn until_connected(world: &World, count: u64) {
    let search = async {
        while world.metric("parlor_connections").await != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.expect("so many are connected");
}

#[tokio::test]
async fn a_message_is_heard_without_asking_and_the_ack_comes_first() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let (mut ann_socket, mut ben_socket) = (ann.connects().await, ben.connects().await);
    ann_socket.next("cursor").await;
    ann_socket
        .send(
            json!({"t": "send", "id": "1", "chat_id": chat_id, "message": "hi", "client_id": "k"}),
        )
        .await;
    let ack = ann_socket.next("ack").await;
    assert_eq!((&ack["status"], &ack["seq"]), (&json!("sent"), &json!(2)));
    let own = ann_socket.next("event").await;
    assert_eq!(own["message"]["client_id"], "k");
    assert_eq!(ben_socket.hears().await, "hi");
}

#[tokio::test]
async fn who_was_away_gets_all_in_order_once() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let mut socket = ben.connects().await;
    ann.says(&chat_id, "zero").await;
    assert_eq!(socket.hears().await, "zero");
    let cursor = socket.next("cursor").await["cursor"].as_str().unwrap().to_owned();
    drop(socket);
    for text in ["one", "two", "three"] {
        ann.says(&chat_id, text).await;
    }
    let mut socket = ben.resumes(Some(&cursor)).await;
    assert_eq!(socket.welcome.get("reset"), None);
    assert_eq!(socket.welcome["heads"][0]["seq"], 5);
    let mut texts = Vec::new();
    while texts.last().map(String::as_str) != Some("three") {
        texts.push(socket.hears().await);
    }
    // The position may lie a little before what was heard: repeats are dropped by `seq`.
    texts.dedup();
    assert!(
        texts.ends_with(&["one".to_owned(), "two".to_owned(), "three".to_owned()]),
        "{texts:?}"
    );
}

#[tokio::test]
async fn a_long_absence_is_told_as_a_gap() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let mut socket = ben.connects().await;
    let cursor = socket.next("cursor").await["cursor"].as_str().unwrap().to_owned();
    drop(socket);
    let batch: Vec<_> =
        (0..100).map(|n| json!({"chat_id": chat_id, "message": n.to_string()})).collect();
    for _ in 0..2 {
        let answer = ann.post("/api/v1/messages/batch", json!({"messages": batch})).await;
        assert_eq!(answer.status, 200);
    }
    let mut socket = ben.resumes(Some(&cursor)).await;
    let gap = socket.next("gap").await;
    assert_eq!(gap["head_seq"], 201);
    let after = gap["after_seq"].as_u64().unwrap();
    assert!((100..=101).contains(&after), "{after}");
    socket
        .send(json!({"t": "sync", "id": "s", "chat_id": chat_id, "after_seq": after, "limit": 200}))
        .await;
    let page = socket.next("events").await;
    assert_eq!(page["events"].as_array().unwrap().len() as u64, 201 - after);
    socket.send(json!({"t": "sync", "id": "s", "chat_id": chat_id, "after_seq": 999})).await;
    assert_eq!(socket.next("error").await["code"], "reset");
}

#[tokio::test]
async fn a_cursor_of_somebody_else_or_a_damaged_one_means_reset() {
    let world = World::start().await;
    let (ann, ben, _chat_id) = world.friends().await;
    let mut socket = ann.connects().await;
    let cursor = socket.next("cursor").await["cursor"].as_str().unwrap().to_owned();
    for (person, cursor, reset) in [
        (&ann, cursor.clone(), false),
        (&ben, cursor.clone(), true),
        (&ann, cursor[1..].to_owned(), true),
        (&ann, "junk".to_owned(), true),
    ] {
        let socket = person.resumes(Some(&cursor)).await;
        assert_eq!(socket.welcome["reset"] == true, reset, "{cursor}");
    }
}

#[tokio::test]
async fn each_wrong_greeting_has_its_close_code() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let hello = |v: u32, token: &str| {
        Message::text(json!({"t": "hello", "v": v, "token": token}).to_string())
    };
    for (message, code) in [
        (Message::text(r#"{"t":"ping"}"#), 4001),
        (Message::text("nonsense"), 4001),
        (hello(2, &ann.token), 4002),
        (hello(1, "ps_wrong"), 4003),
        (Message::text(json!({"t": "hello", "v": 1}).to_string()), 4003),
        (Message::binary(vec![1, 2, 3]), 1003),
        (Message::text("x".repeat(70 * 1024)), 1009),
    ] {
        let mut socket = Socket::open(world.address).await;
        socket.send_raw(message).await;
        assert_eq!(socket.close_code().await, code);
    }
}

#[tokio::test]
async fn a_ticket_is_good_once() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let ticket = ann.post("/api/v1/ws/tickets", json!({})).await.text("/ticket");
    for expected in [true, false] {
        let mut socket = Socket::open(world.address).await;
        socket.send(json!({"t": "hello", "v": 1, "ticket": ticket})).await;
        if expected {
            assert_eq!(socket.next("welcome").await["user_id"], ann.user_id);
        } else {
            assert_eq!(socket.close_code().await, 4003);
        }
    }
}

#[tokio::test]
async fn the_oldest_connection_goes_when_there_are_too_many() {
    let world = World::with(|config| config.limits.connections_per_user = 2).await;
    let ann = world.person("ann").await;
    let mut first = ann.connects().await;
    let (_second, _third) = (ann.connects().await, ann.connects().await);
    assert_eq!(first.close_code().await, 4006);
}

#[tokio::test]
async fn a_ping_is_answered_and_the_gauge_counts_connections() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let mut socket = ann.connects().await;
    socket.send(json!({"t": "ping", "id": "p"})).await;
    assert_eq!(socket.next("pong").await["id"], "p");
    let metrics = crate::world::call(world.address, reqwest::Method::GET, "/metrics", None, None);
    assert!(metrics.await.body.as_str().unwrap().contains("parlor_connections 1\n"));
}

#[tokio::test]
async fn an_array_of_frames_is_processed_in_order_and_a_bad_one_spoils_nothing() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let mut socket = ann.connects().await;
    let send = |text: &str| json!({"t": "send", "chat_id": chat_id, "message": text});
    socket.send(json!([send("one"), {"t": "dance"}, send("two"), {"t": "hello", "v": 1}])).await;
    assert_eq!(socket.next("error").await["code"], "unknown_frame");
    assert_eq!(socket.next("error").await["code"], "already_greeted");
    while ben.reads_texts(&chat_id).await.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ben.reads_texts(&chat_id).await, ["one", "two"]);
}

#[tokio::test]
async fn the_long_poll_says_what_the_socket_would_have() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let first = ben.get("/api/v1/sync").await;
    assert_eq!(first.body["frames"][0]["t"], "welcome");
    let cursor = first.text("/cursor");
    let path = format!("/api/v1/sync?wait=20&cursor={cursor}");
    let poll = ben.get(&path);
    let (answer, _) = tokio::join!(poll, ann.says(&chat_id, "hi"));
    let frames = answer.body["frames"].as_array().unwrap().clone();
    let heard =
        |frames: &[serde_json::Value]| frames.iter().any(|f| f["message"]["message"] == "hi");
    if !heard(&frames) {
        let next =
            ben.get(&format!("/api/v1/sync?wait=20&cursor={}", answer.text("/cursor"))).await;
        assert!(heard(next.body["frames"].as_array().unwrap()), "{}", next.body);
    }
    assert_eq!(ben.get("/api/v1/sync?wait=61").await.status, 422);
}

#[tokio::test]
async fn an_orderly_end_tells_clients_to_come_back_and_keeps_everything() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    ann.says(&chat_id, "kept").await;
    let mut socket = ann.connects().await;
    let ends = async {
        let reconnect = socket.next("reconnect").await;
        assert!(reconnect["after_ms"].as_u64().is_some());
        socket.close_code().await
    };
    let ((), code) = tokio::join!(world.stop(), ends);
    assert_eq!(code, 4008);
}

#[tokio::test]
async fn a_poll_that_waits_while_the_server_ends_is_told_to_come_back() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let path = waiting(&ann, 60).await;
    let ends = async {
        until_connected(&world, 1).await;
        world.stop().await;
    };
    let (answer, ()) = tokio::join!(ann.get(&path), ends);
    assert_eq!((answer.status, answer.code()), (503, "unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn polls_and_sockets_do_not_push_each_other_out_and_only_a_sign_out_is_401() {
    let world = World::with(|config| config.limits.connections_per_user = 1).await;
    let ann = world.person("ann").await;
    let path = waiting(&ann, 60).await;
    let others = async {
        until_connected(&world, 1).await;
        let mut socket = ann.connects().await;
        let refused = ann.get(&path).await;
        assert_eq!((refused.status, refused.code()), (429, "rate_limited"));
        socket.send(json!({"t": "ping"})).await;
        socket.next("pong").await;
        assert_eq!(ann.delete("/api/v1/sessions/current").await.status, 204);
    };
    let (answer, ()) = tokio::join!(ann.get(&path), others);
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_poll_waits_as_long_as_it_was_asked_to() {
    let clock = noon();
    let world = World::on(&clock, |config| config.heartbeat_ms = 1_000).await;
    let ann = world.person("ann").await;
    let path = waiting(&ann, 20).await;
    let poll = async {
        let answer = ann.get(&path).await;
        (answer, clock.monotonic())
    };
    let time = async {
        until_connected(&world, 1).await;
        for _ in 0..20 {
            // A call over HTTP gives the poll the time to answer, if it wanted to.
            until_connected(&world, 1).await;
            clock.advance(Duration::from_secs(1));
        }
    };
    let ((answer, at), ()) = tokio::join!(poll, time);
    assert_eq!((answer.status, &answer.body["frames"]), (200, &json!([])));
    assert_eq!(at, Duration::from_secs(20));
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_closed_and_may_resume() {
    let clock = noon();
    let world = World::on(&clock, |config| config.heartbeat_ms = 240_000).await;
    let (ann, _ben, chat_id) = world.friends().await;
    let batch = vec![json!({"chat_id": chat_id, "message": "x".repeat(16_000)}); 100];
    let answer = ann.post("/api/v1/messages/batch", json!({"messages": batch})).await;
    assert_eq!(answer.status, 200);
    let mut socket = ann.connects().await;
    let sync = json!({"t": "sync", "chat_id": chat_id, "after_seq": 0, "limit": 200});
    socket.send(sync.clone()).await;
    let page = socket.next("events").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 101, "a page of long messages is whole");
    socket.send(json!(vec![sync; 20])).await;
    // More than the buffers of the system take: the server cannot write on. Time goes slowly, since
    // a server that is still busy must not count as silence of the client.
    for _ in 0..6_000 {
        if world.metric("parlor_connections").await == 0 {
            break;
        }
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(socket.close_code().await, 4007);
}

/// A hasher that says when it was asked, and waits for its turn.
struct Gate {
    asked: Semaphore,
    turn: Semaphore,
}

#[async_trait]
impl Passwords for Gate {
    async fn hash(&self, password: String) -> EngineResult<String> {
        self.asked.add_permits(1);
        self.turn.acquire().await.unwrap().forget();
        Ok(password)
    }

    async fn verify(&self, password: String, hash: Option<String>) -> EngineResult<bool> {
        Ok(hash == Some(password))
    }
}

#[tokio::test]
async fn a_call_in_flight_is_answered_before_the_server_ends() {
    let gate = Arc::new(Gate { asked: Semaphore::new(0), turn: Semaphore::new(0) });
    let overrides = Overrides { passwords: Some(gate.clone()), ..Overrides::default() };
    let world = World::overridden(overrides, |_| {}).await;
    let (address, app) = (world.address, world.app().clone());
    let body =
        json!({"username": "ann", "email": "ann@example.org", "password": "correct horse battery"});
    let sign_up = call(address, Method::POST, "/api/v1/users", None, Some(body));
    let opens = async {
        app.hub.drained().await;
        // Whoever does not wait for the call has ended long before.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        gate.turn.add_permits(1);
    };
    let ends = async {
        gate.asked.acquire().await.unwrap().forget();
        world.stop().await;
    };
    let (answer, (), ()) = tokio::join!(sign_up, ends, opens);
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[tokio::test]
async fn who_has_not_greeted_when_the_server_ends_is_sent_away_too() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let mut socket = Socket::open(world.address).await;
    world.app().hub.drain(Duration::from_secs(5));
    assert!(socket.next("reconnect").await["after_ms"].as_u64().unwrap() <= 5_000);
    assert_eq!(socket.close_code().await, 4008);
    let url = format!("ws://{}/api/v1/ws", world.address);
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(answer) = refused else { panic!("{refused}") };
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(ann.get("/api/v1/sync?wait=60").await.status, 503);
}

#[tokio::test]
async fn a_ping_of_the_protocol_is_a_sign_of_life_and_may_come_before_hello() {
    let clock = noon();
    let world = World::on(&clock, |config| config.heartbeat_ms = 1_000).await;
    let ann = world.person("ann").await;
    let mut socket = Socket::open(world.address).await;
    socket.send_raw(Message::Ping(Vec::new().into())).await;
    socket.send(json!({"t": "hello", "v": 1, "token": ann.token})).await;
    socket.next("cursor").await;
    for _ in 0..10 {
        // Nothing is read, so the server's pings stay without an answer.
        socket.send_raw(Message::Ping(Vec::new().into())).await;
        for _ in 0..3 {
            world.metric("parlor_connections").await;
        }
        clock.advance(Duration::from_secs(1));
    }
    socket.send(json!({"t": "ping", "id": "alive"})).await;
    assert_eq!(socket.next("pong").await["id"], "alive");
}

#[tokio::test]
async fn a_session_that_ends_during_the_greeting_does_not_stand() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let session = world.app().core.session();
    let greets = |body: Value| serde_json::from_value::<Hello>(body).unwrap();
    let ticket = ann.post("/api/v1/ws/tickets", json!({})).await.text("/ticket");
    let hellos =
        [greets(json!({"v": 1, "ticket": ticket})), greets(json!({"v": 1, "token": ann.token}))];
    let mut callers = Vec::new();
    for hello in &hellos {
        let caller = session.authenticate(hello).await.unwrap();
        assert_eq!(session.still_stands(hello, &caller).await, Ok(true));
        callers.push(caller);
    }
    assert_eq!(ann.delete("/api/v1/sessions/current").await.status, 204);
    for (hello, caller) in hellos.iter().zip(&callers) {
        assert_eq!(session.still_stands(hello, caller).await, Ok(false));
    }
}

#[tokio::test]
async fn own_steps_come_in_order_without_a_hole_however_many_happen_at_once() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let mut sockets = [ann.connects().await, ann.connects().await];
    for socket in &mut sockets {
        socket.next("cursor").await;
    }
    let changes = (0..24).map(|n| {
        let (ann, world) = (&ann, &world);
        async move {
            if n % 2 == 0 {
                world.signs_in("ann").await;
            } else {
                let body = json!({"display_name": format!("Ann {n}")});
                assert_eq!(ann.patch("/api/v1/users/me", body).await.status, 200);
            }
        }
    });
    futures_util::future::join_all(changes).await;
    for socket in &mut sockets {
        // The first step was the sign-up's own device.
        for seq in 2..=25 {
            assert_eq!(socket.next("account").await["seq"], seq);
        }
    }
}

#[tokio::test]
async fn a_change_of_password_says_which_devices_it_signed_out() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let other = world.signs_in("ann").await;
    let (mut socket, mut other_socket) = (ann.connects().await, other.connects().await);
    socket.next("cursor").await;
    let change = json!({"password": {"current": "correct horse battery", "new": "wrong donkey accumulator"}});
    assert_eq!(ann.patch("/api/v1/users/me", change).await.status, 200);
    assert_eq!(socket.next("account").await["kind"], "settings");
    let step = socket.next("account").await;
    assert_eq!(
        (&step["kind"], &step["device_id"], &step["added"]),
        (&json!("device"), &json!(other.device_id), &json!(false))
    );
    assert_eq!(other_socket.close_code().await, 4005);
}

#[tokio::test]
async fn a_failure_of_the_store_is_not_blamed_on_the_reader() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    world.database().execute_batch("DROP TABLE user_events").unwrap();
    let mut socket = Socket::open(world.address).await;
    socket.send(json!({"t": "hello", "id": "h", "v": 1, "token": ann.token})).await;
    let error = socket.next("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!("unavailable"), &json!("h")));
    assert_eq!(socket.close_code().await, 1011);
}

#[tokio::test]
async fn a_new_chat_is_added_before_its_first_event() {
    let world = World::start().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let mut socket = ben.connects().await;
    socket.next("cursor").await;
    ann.opens_chat_with(&ben).await;
    let first = socket.find_any(|frame| frame["t"] == "account" || frame["t"] == "event").await;
    assert_eq!(first["kind"], "chat_added");
    assert_eq!(socket.next("event").await["kind"], "created");
}

#[tokio::test]
async fn repeats_of_a_key_are_counted() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    let body = json!({"chat_id": chat_id, "message": "hi", "client_id": "k"});
    for status in [201, 200, 200] {
        assert_eq!(ann.post("/api/v1/messages", body.clone()).await.status, status);
    }
    assert_eq!(world.metric("parlor_repeats_total").await, 2);
}

#[tokio::test]
async fn a_greeting_may_name_the_device() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    for (given, name) in [
        (json!("Kitchen"), "Kitchen"),
        (json!("Kitchen"), "Kitchen"),
        (json!("x".repeat(101)), "Kitchen"),
        (json!(""), "Kitchen"),
        (json!(null), "Kitchen"),
        (json!("Attic"), "Attic"),
    ] {
        let mut socket = Socket::open(world.address).await;
        let hello = json!({"t": "hello", "v": 1, "token": ann.token, "device_name": given});
        socket.send(hello).await;
        socket.next("welcome").await;
        let devices = ann.get("/api/v1/sessions").await;
        assert_eq!(devices.body["items"][0]["name"], name, "{given}");
    }
}

#[tokio::test]
async fn sends_and_pages_cross_on_one_socket() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let long = "long ".repeat(2_000);
    for _ in 0..30 {
        ann.says(&chat_id, &long).await;
    }
    let mut socket = ben.connects().await;
    // A page of 300 KB is asked for between two sends, and somebody else writes meanwhile.
    let send = |id: &str| json!({"t": "send", "id": id, "chat_id": chat_id, "message": id});
    let page = json!({"t": "sync", "id": "page", "chat_id": chat_id, "after_seq": 1, "limit": 100});
    socket.send(json!([send("one"), page, send("two")])).await;
    let (_, mut open) = (
        ann.says(&chat_id, "meanwhile").await,
        std::collections::BTreeSet::from(["one", "two", "page", "meanwhile"]),
    );
    while !open.is_empty() {
        let frame = socket.find_any(|_| true).await;
        match frame["t"].as_str().unwrap() {
            "ack" => assert!(open.remove(frame["id"].as_str().unwrap()), "acknowledged once"),
            "events" => {
                assert!(frame["events"].as_array().unwrap().len() >= 30);
                assert!(open.remove(frame["id"].as_str().unwrap()), "answered once");
            }
            "event" if frame["message"]["message"] == "meanwhile" => drop(open.remove("meanwhile")),
            _ => {}
        }
    }
}

#[tokio::test]
async fn two_sockets_of_one_person_both_hear_and_are_counted() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let second = world.signs_in("ben").await;
    let (mut one, mut same, mut other) =
        (ben.connects().await, ben.connects().await, second.connects().await);
    ann.says(&chat_id, "to all of you").await;
    for socket in [&mut one, &mut same, &mut other] {
        assert_eq!(socket.hears().await, "to all of you");
    }
    let metrics = call(world.address, reqwest::Method::GET, "/metrics", None, None).await;
    assert!(metrics.body.as_str().unwrap().contains("parlor_connections 3\n"), "{}", metrics.body);
    drop(one);
    while !call(world.address, reqwest::Method::GET, "/metrics", None, None)
        .await
        .body
        .as_str()
        .unwrap()
        .contains("parlor_connections 2\n")
    {
        tokio::task::yield_now().await;
    }
}
