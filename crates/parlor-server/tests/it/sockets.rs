//! The socket: greeting, live events, resume, close codes, and the long poll.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Socket, World, call};

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
    let metrics = call(world.address, reqwest::Method::GET, "/metrics", None, None);
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
