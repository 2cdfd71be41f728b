//! The real binary, killed and started again: nothing that was acknowledged is lost or doubled.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Person, World, call};

/// A server process; killed when dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_parlor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .env("PARLOR_RATE_LIMITS", "off")
            .env("PARLOR_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("http://").expect("ready").1.parse().unwrap();
        Self { child, address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone after `kill`.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn sign_up(address: SocketAddr, name: &str) -> Person {
    let body = json!({"username": name, "email": format!("{name}@example.org"), "password": "correct horse battery"});
    let answer = call(address, Method::POST, "/api/v1/users", None, Some(body)).await;
    Person {
        address,
        user_id: answer.text("/user/user_id"),
        device_id: answer.text("/session/device_id"),
        token: answer.text("/session/token"),
    }
}

#[tokio::test]
async fn acknowledged_messages_survive_kill_nine() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut process = Process::start(&data);
    let mut ann = sign_up(process.address, "ann").await;
    let mut ben = sign_up(process.address, "ben").await;
    let chat_id = ann.opens_chat_with(&ben).await;
    let mut acked: Vec<(String, Value)> = Vec::new();
    for round in 0..5 {
        let client = reqwest::Client::new();
        for number in 0..40 {
            let key = format!("{round}-{number}");
            let body = json!({"chat_id": chat_id, "message": key, "client_id": key});
            let url = format!("http://{}/api/v1/messages", process.address);
            // Each is sent twice at once; one of them is killed in the middle now and then.
            let send = || client.post(&url).bearer_auth(&ann.token).json(&body).send();
            let (one, two) = tokio::join!(send(), send());
            let one: Value = one.unwrap().json().await.unwrap();
            let two: Value = two.unwrap().json().await.unwrap();
            assert_eq!(one["message_id"], two["message_id"]);
            acked.push((key, one["seq"].clone()));
        }
        process.kill();
        process = Process::start(&data);
        ann.address = process.address;
        ben.address = process.address;
        let (key, seq) = acked.last().unwrap();
        let again = json!({"chat_id": chat_id, "message": key, "client_id": key});
        let repeat = ann.post("/api/v1/messages", again).await;
        assert_eq!((repeat.status, &repeat.body["seq"]), (200, seq));
    }
    let mut log: Vec<Value> = Vec::new();
    loop {
        let after = log.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        let page =
            ben.get(&format!("/api/v1/chats/{chat_id}/events?limit=200&after_seq={after}")).await;
        let events = page.body["events"].as_array().unwrap().clone();
        if events.is_empty() {
            break;
        }
        log.extend(events);
    }
    let seqs: Vec<u64> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=201).collect::<Vec<u64>>());
    for (key, seq) in acked {
        let stored: Vec<_> =
            log.iter().filter(|event| event["message"]["message"] == key).collect();
        assert_eq!(stored.len(), 1, "{key}");
        assert_eq!(stored[0]["seq"], seq);
    }
}

#[test]
fn a_folder_in_use_and_a_newer_folder_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Process::start(&data);
    let second = || {
        Command::new(env!("CARGO_BIN_EXE_parlor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .output()
            .unwrap()
    };
    let refused = second();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by another running server"));
    process.kill();
    let db = rusqlite::Connection::open(data.join("parlor.db")).unwrap();
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) \
                 VALUES (999, 'future', '', '0')";
    db.execute(newer, []).unwrap();
    drop(db);
    let refused = second();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("newer version of Parlor"));
}

#[test]
fn a_wrong_value_is_named_with_its_source() {
    let run = |key: &str, value: &str| {
        Command::new(env!("CARGO_BIN_EXE_parlor")).arg("check").env(key, value).output().unwrap()
    };
    assert!(run("PARLOR_LIMITS__PAGE", "100").status.success());
    for (key, value, name) in [
        ("PARLOR_LIMITS__PAGE", "many", "limits.page"),
        ("PARLOR_HEARTBEAT_MS", "5", "heartbeat_ms"),
        ("PARLOR_COLOUR", "red", "colour"),
        ("PARLOR_LISTEN", "nowhere", "listen"),
    ] {
        let output = run(key, value);
        assert!(!output.status.success(), "{key}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_unknown_event_and_counted() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    ann.says(&chat_id, "hi").await;
    world.database().execute("UPDATE messages SET body = x'00' WHERE seq = 2", []).unwrap();
    let log = ann.get(&format!("/api/v1/chats/{chat_id}/events?after_seq=1")).await;
    assert_eq!(log.body["events"][0]["kind"], "unknown", "{}", log.body);
    assert!(world.metric("parlor_unreadable_rows_total").await > 0);
}
