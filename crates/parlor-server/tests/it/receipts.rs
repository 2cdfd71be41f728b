//! Receipts: cursors that move forward only, and the status derived from them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn ticks_go_from_sent_to_delivered_to_read_and_never_back() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let eve = world.person("eve").await;
    let mut socket = ann.connects().await;
    let first = ann.says(&chat_id, "one").await;
    let second = ann.says(&chat_id, "two").await;
    let path = |message: &serde_json::Value| {
        format!("/api/v1/messages/{}/status", message["message_id"].as_str().unwrap())
    };
    assert_eq!(ann.get(&path(&first)).await.body["status"], "sent");
    assert_eq!(ben.put(&path(&second), json!({"status": "delivered"})).await.status, 200);
    let receipt = socket.next("receipt").await;
    assert_eq!((&receipt["status"], &receipt["seq"]), (&json!("delivered"), &second["seq"]));
    assert_eq!(ann.get(&path(&first)).await.body["status"], "delivered", "covers earlier ones");
    assert_eq!(ben.put(&path(&first), json!({"status": "read"})).await.body["status"], "read");
    assert_eq!(ben.put(&path(&first), json!({"status": "delivered"})).await.body["status"], "read");
    assert_eq!(ann.get(&path(&second)).await.body["status"], "delivered");
    for status in ["sent", "seen"] {
        assert_eq!(ben.put(&path(&first), json!({"status": status})).await.status, 422);
    }
    assert_eq!(eve.put(&path(&first), json!({"status": "read"})).await.status, 404);
    let history = ann.get(&format!("/api/v1/chats/{chat_id}/messages")).await;
    assert_eq!(history.body["messages"][0]["status"], "read");
    assert_eq!(history.body["messages"][1]["status"], "delivered");
}

#[tokio::test]
async fn receipts_over_the_socket_stay_below_the_head() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let message = ann.says(&chat_id, "one").await;
    let mut socket = ben.connects().await;
    let receipt = |seq: u64| json!({"t": "receipt", "id": "r", "chat_id": chat_id, "status": "read", "seq": seq});
    socket.send(receipt(99)).await;
    let refused = socket.next("error").await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("out_of_range"), &json!("r")));
    socket.send(receipt(2)).await;
    let own = socket.find("receipt", |frame| frame["status"] == "read").await;
    assert_eq!(
        (&own["message_id"], &own["user_id"]),
        (&message["message_id"], &json!(ben.user_id))
    );
    assert_eq!(ben.get(&format!("/api/v1/chats/{chat_id}")).await.body["unread"], 0);
}

#[tokio::test]
async fn hidden_receipts_are_hidden_on_every_path() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let nobody = json!({"privacy": {"receipts": {"who": "nobody"}, "online": {"who": "nobody"}, "last_seen": {"who": "nobody"}}});
    assert_eq!(ben.patch("/api/v1/users/me", nobody).await.status, 200);
    let message = ann.says(&chat_id, "one").await;
    let path = format!("/api/v1/messages/{}/status", message["message_id"].as_str().unwrap());
    assert_eq!(ben.put(&path, json!({"status": "read"})).await.status, 200);
    let status = ann.get(&path).await;
    assert_eq!(
        (&status.body["status"], &status.body["recipients"][0]["status"]),
        (&json!("sent"), &json!("hidden"))
    );
    let members = ann.get(&format!("/api/v1/chats/{chat_id}/participants")).await;
    let ben_row = members.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["user_id"] == ben.user_id)
        .cloned()
        .unwrap();
    assert_eq!(ben_row["read_seq"], json!(null));
    let presence = ann.get(&format!("/api/v1/users/{}/status", ben.user_id)).await;
    assert_eq!(
        (&presence.body["status"], &presence.body["last_seen"]),
        (&json!("hidden"), &json!(null))
    );
}

#[tokio::test]
async fn each_move_has_its_time_and_keeps_it_over_a_restart() {
    let mut world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let message = ann.says(&chat_id, "one").await;
    let path = format!("/api/v1/messages/{}/status", message["message_id"].as_str().unwrap());
    world.advance(Duration::from_secs(60));
    assert_eq!(ben.put(&path, json!({"status": "delivered"})).await.status, 200);
    world.advance(Duration::from_secs(600));
    let read = ben.put(&path, json!({"status": "read"})).await;
    assert_eq!((read.status, read.body["status"].as_str()), (200, Some("read")));
    let before = ann.get(&path).await.body;
    let at = |field: &str| minutes(before["recipients"][0][field].as_str().unwrap());
    let sent_at = minutes(message["created_at"].as_str().unwrap());
    assert!((1..=2).contains(&(at("delivered_at") - sent_at)), "{before}");
    assert!((10..=11).contains(&(at("read_at") - at("delivered_at"))), "{before}");
    assert_eq!(before["recipients"][0]["updated_at"], before["recipients"][0]["read_at"]);
    assert_eq!(read.body["updated_at"], before["recipients"][0]["read_at"]);
    world.restart().await;
    assert_eq!(ann.get(&path).await.body, before);
    assert_eq!(ben.get(&format!("/api/v1/chats/{chat_id}")).await.body["unread"], 0);
}

/// Whole minutes since an arbitrary begin in the same month.
fn minutes(time: &str) -> i64 {
    let number = |from, to| time[from..to].parse::<i64>().unwrap();
    (number(8, 10) * 24 + number(11, 13)) * 60 + number(14, 16)
}

#[tokio::test]
async fn nobody_is_watched_who_does_not_exist_or_whom_nobody_wants_to_see() {
    let world = World::start().await;
    let (ann, ben, _chat_id) = world.friends().await;
    let mut socket = ann.connects().await;
    socket.send(json!({"t": "watch", "user_ids": [ben.user_id, ann.user_id, "12", "13"]})).await;
    assert_eq!(socket.next("presence").await["t"], "presence");
    assert_eq!(world.metric("parlor_people_watched").await, 2);
    socket.send(json!([{"t": "watch", "user_ids": []}, {"t": "ping"}])).await;
    socket.next("pong").await;
    assert_eq!(world.metric("parlor_people_watched").await, 0);
}

#[tokio::test]
async fn wrong_ids_in_a_watch_cost_look_ups_and_right_ones_do_not() {
    let world = World::with(|config| config.quotas.look_ups = 3).await;
    let (ann, ben, _chat_id) = world.friends().await;
    let mut socket = ann.connects().await;
    let mut watch = async |user_ids: &[&str]| {
        socket.send(json!({"t": "watch", "id": "w", "user_ids": user_ids})).await;
        let answer = socket.find_any(|frame| frame["t"] == "presence" || frame["t"] == "error");
        answer.await["code"].as_str().map(str::to_owned)
    };
    assert_eq!(watch(&[&ben.user_id, "11", "12", "13"]).await, None, "paid");
    assert_eq!(watch(&[&ben.user_id, "14"]).await.as_deref(), Some("rate_limited"));
    assert_eq!(watch(&[&ben.user_id]).await, None);
}

#[tokio::test]
async fn who_hides_is_hidden_from_those_who_watch_and_comes_back_when_shown() {
    let world = World::start().await;
    let (ann, ben, _chat_id) = world.friends().await;
    let eve = world.person("eve").await;
    let _ben_socket = ben.connects().await;
    let (mut watcher, mut stranger) = (ann.connects().await, eve.connects().await);
    for socket in [&mut watcher, &mut stranger] {
        socket.send(json!({"t": "watch", "user_ids": [ben.user_id]})).await;
    }
    assert_eq!(watcher.next("presence").await["status"], "online");
    assert_eq!(stranger.next("presence").await["status"], "hidden");
    for (who, status) in [("nobody", "hidden"), ("everyone", "online")] {
        let privacy = json!({"privacy": {"online": {"who": who}}});
        assert_eq!(ben.patch("/api/v1/users/me", privacy).await.status, 200);
        assert_eq!(watcher.next("presence").await["status"], status);
    }
    stranger.send(json!({"t": "ping"})).await;
    let next = stranger.find_any(|frame| frame["t"] == "presence" || frame["t"] == "pong").await;
    assert_eq!(next["t"], "pong", "whoever saw nothing hears nothing");
}

#[tokio::test]
async fn typing_and_focus_have_a_rate_even_where_they_are_refused() {
    let world = World::with(|config| config.quotas.signals_per_second = 1).await;
    let ann = world.person("ann").await;
    let mut socket = ann.connects().await;
    for frame in [
        json!({"t": "typing", "id": "typing", "chat_id": "123", "active": true}),
        json!({"t": "focus", "id": "focus", "chat_id": null, "visible": true}),
    ] {
        // A burst is five seconds' worth.
        socket.send(json!((0..20).map(|_| frame.clone()).collect::<Vec<_>>())).await;
        let is_refused =
            |error: &Value| error["id"] == frame["t"] && error["code"] == "rate_limited";
        socket.find("error", is_refused).await;
    }
}
