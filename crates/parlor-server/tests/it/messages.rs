//! Messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_key_stores_once_over_http_and_socket() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    let body = json!({"chat_id": chat_id, "message": "once", "client_id": "key-1"});
    let first = ann.post("/api/v1/messages", body.clone()).await;
    let again = ann.post("/api/v1/messages", body).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body, again.body);
    let mut socket = ann.connects().await;
    let frame = json!({"t": "send", "id": "7", "chat_id": chat_id, "message": "once", "client_id": "key-1"});
    socket.send(frame).await;
    let ack = socket.next("ack").await;
    assert_eq!((ack["id"].as_str(), &ack["message_id"]), (Some("7"), &first.body["message_id"]));
    let other = json!({"chat_id": chat_id, "message": "twice", "client_id": "key-1"});
    let conflict = ann.post("/api/v1/messages", other).await;
    assert_eq!((conflict.status, conflict.code()), (409, "idempotency_conflict"));
    assert_eq!(ann.reads_texts(&chat_id).await, ["once"]);
}

#[tokio::test]
async fn pages_meet_without_gap_or_overlap() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    for number in 0..25 {
        ann.says(&chat_id, &number.to_string()).await;
    }
    let mut seen: Vec<Value> = Vec::new();
    let mut path = format!("/api/v1/chats/{chat_id}/messages?limit=10");
    loop {
        let page = ben.get(&path).await;
        let messages = page.body["messages"].as_array().unwrap().clone();
        let first = messages.first().unwrap()["message_id"].as_str().unwrap().to_owned();
        seen.splice(0..0, messages);
        if page.body["has_more"] == false {
            break;
        }
        // Others send while the reader pages, and the anchor is deleted.
        ann.says(&chat_id, "later").await;
        assert_eq!(ann.delete(&format!("/api/v1/messages/{first}")).await.status, 204);
        path = format!("/api/v1/chats/{chat_id}/messages?limit=10&before={first}");
    }
    let seqs: Vec<u64> = seen.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (2..=26).collect::<Vec<u64>>());
}

#[tokio::test]
async fn any_unicode_comes_back_identical_and_limits_are_kept() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    for text in ["a\u{0}b", "\u{202e}abc", "👩‍👩‍👧‍👦", "e\u{301}", "\u{feff}", "\"\\\n\t"]
    {
        assert_eq!(ann.says(&chat_id, text).await["message"], text);
    }
    let send = |body: Value| ann.post("/api/v1/messages", body);
    let long = "x".repeat(16 * 1024);
    assert_eq!(send(json!({"chat_id": chat_id, "message": long})).await.status, 201);
    for (body, status, field) in [
        (json!({"chat_id": chat_id, "message": format!("{long}x")}), 413, "message"),
        (json!({"chat_id": chat_id, "message": ""}), 422, "message"),
        (json!({"chat_id": chat_id, "message": "x", "type": "poll"}), 422, "type"),
        (json!({"chat_id": chat_id, "message": "x", "colour": 1}), 422, "colour"),
        (json!({"chat_id": 5, "message": "x"}), 422, "chat_id"),
        (json!({"chat_id": chat_id, "message": "x", "client_id": ""}), 422, "client_id"),
        (json!({"chat_id": chat_id, "message": "x", "reply_to": "5"}), 422, "reply_to"),
    ] {
        let answer = send(body).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (status, Some(field)));
    }
    for limit in ["0", "-1", "201", "x"] {
        let path = format!("/api/v1/chats/{chat_id}/messages?limit={limit}");
        let answer = ann.get(&path).await;
        assert_eq!((answer.status, answer.body["field"].as_str()), (422, Some("limit")));
    }
    let attached = json!({"chat_id": chat_id, "message": "x", "attachments": ["77"]});
    assert_eq!(send(attached).await.status, 404);
    let empty = json!({"chat_id": chat_id, "message": "x", "type": "image", "attachments": []});
    assert_eq!(send(empty).await.status, 201);
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_message_in_order() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let messages = json!([
        {"chat_id": chat_id, "message": "one"},
        {"chat_id": "123", "message": "lost"},
        {"chat_id": chat_id, "message": ""},
        {"chat_id": chat_id, "message": "two"},
    ]);
    let answer = ann.post("/api/v1/messages/batch", json!({"messages": messages})).await;
    let results = answer.body["results"].as_array().unwrap().clone();
    let statuses: Vec<_> =
        results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 404, 422, 201]);
    assert_eq!(results[2]["problem"]["field"], "message");
    assert_eq!(ben.reads_texts(&chat_id).await, ["one", "two"]);
    let many = json!({"messages": vec![json!({"chat_id": chat_id, "message": "x"}); 101]});
    assert_eq!(ann.post("/api/v1/messages/batch", many).await.status, 422);
}

#[tokio::test]
async fn edits_deletions_and_reactions_are_folded_for_everybody() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let mut socket = ben.connects().await;
    let message = ann.says(&chat_id, "teh").await;
    let path = format!("/api/v1/messages/{}", message["message_id"].as_str().unwrap());
    assert_eq!(ben.patch(&path, json!({"message": "mine"})).await.status, 403);
    let edited = ann.patch(&path, json!({"message": "the"})).await;
    assert_eq!(
        (edited.text("/message"), edited.body["state_seq"].as_u64()),
        ("the".to_owned(), Some(3))
    );
    let event = socket.find("event", |frame| frame["kind"] == "edit").await;
    assert_eq!((event["message"].as_str(), event["seq"].as_u64()), (Some("the"), Some(3)));
    let reacted = ben.put(&format!("{path}/reactions/%F0%9F%91%8D"), json!({})).await;
    assert_eq!(
        reacted.body["reactions"],
        json!([{"emoji": "👍", "count": 1, "user_ids": [ben.user_id]}])
    );
    assert_eq!(ben.put(&format!("{path}/reactions/x"), json!({})).await.status, 422);
    assert_eq!(ben.delete(&path).await.status, 403);
    assert_eq!(ann.delete(&path).await.status, 204);
    assert_eq!(ann.delete(&path).await.status, 204, "deleting again is fine");
    assert_eq!(ann.patch(&path, json!({"message": "back"})).await.status, 409);
    let gone = ben.get(&path).await;
    assert_eq!(
        (gone.body["deleted"].as_bool(), gone.text("/message")),
        (Some(true), String::new())
    );
    assert_eq!(gone.body["reactions"], json!([]));
    let log = ben.get(&format!("/api/v1/chats/{chat_id}/events?after_seq=0")).await;
    assert!(!log.body.to_string().contains("teh") && !log.body.to_string().contains("\"the\""));
    let seqs: Vec<_> =
        log.body["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn text_image_and_file_are_types_and_nothing_else_is_taken_for_one() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let send = |kind: Value| json!({"chat_id": chat_id, "message": "look", "type": kind});
    for kind in ["text", "image", "file", "voice", "video"] {
        let answer = ann.post("/api/v1/messages", send(json!(kind))).await;
        assert_eq!((answer.status, &answer.body["type"]), (201, &json!(kind)), "{}", answer.body);
    }
    let plain = json!({"chat_id": chat_id, "message": "look", "attachments": []});
    assert_eq!(ann.post("/api/v1/messages", plain).await.body["type"], "text");
    // Nor can anybody write what only the server says.
    for kind in [json!("join"), json!("created"), json!("system"), json!("Text"), json!(1)] {
        let answer = ann.post("/api/v1/messages", send(kind.clone())).await;
        assert_eq!((answer.status, &answer.body["field"]), (422, &json!("type")), "{kind}");
    }
    assert_eq!(ben.reads_texts(&chat_id).await.len(), 6);
}

#[tokio::test]
async fn the_sender_is_always_the_caller() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let forged = json!({"chat_id": chat_id, "message": "I, Ann", "sender_id": ann.user_id});
    let answer = ben.post("/api/v1/messages", forged).await;
    assert_eq!((answer.status, &answer.body["field"]), (422, &json!("sender_id")));
    let mut socket = ben.connects().await;
    socket
        .send(json!({"t": "send", "id": "1", "chat_id": chat_id, "message": "I, Ann", "sender_id": ann.user_id}))
        .await;
    assert_eq!(socket.next("error").await["field"], "sender_id");
    let message = ben.says(&chat_id, "I, Ben").await;
    assert_eq!(
        (&message["sender_id"], &message["chat_id"]),
        (&json!(ben.user_id), &json!(chat_id))
    );
    assert_eq!(ann.reads_texts(&chat_id).await, ["I, Ben"]);
}

#[tokio::test]
async fn a_message_waits_thirty_days_for_who_is_offline() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let mut socket = ben.connects().await;
    let cursor = socket.next("cursor").await["cursor"].as_str().unwrap().to_owned();
    drop(socket);
    ann.says(&chat_id, "see you").await;
    world.advance(Duration::from_secs(30 * 86_400 - 3_600));
    let mut socket = ben.resumes(Some(&cursor)).await;
    assert_ne!(socket.welcome["reset"], true);
    assert_eq!(socket.hears().await, "see you");
    drop(socket);
    // The session ends with its time; the message does not.
    world.advance(Duration::from_secs(40 * 86_400));
    assert_eq!(ben.get("/api/v1/users/me").await.status, 401);
    let ben = world.signs_in("ben").await;
    assert_eq!(ben.reads_texts(&chat_id).await, ["see you"]);
}
