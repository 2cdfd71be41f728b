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
        Self::run(Command::new(env!("CARGO_BIN_EXE_parlor")), folder)
    }

    /// Starts a server none of whose files may grow above a size: a full disk, as it sees it.
    fn start_on_a_small_disk(folder: &Path, kib: u32) -> Self {
        let mut shell = Command::new("bash");
        let limited = format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_parlor")]);
        Self::run(shell, folder)
    }

    /// Gives the disk its space back.
    fn enlarge_the_disk(&self) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let none = Rlimit { current: None, maximum: None };
        prlimit(Some(pid), Resource::Fsize, none).unwrap();
    }

    fn run(mut command: Command, folder: &Path) -> Self {
        let mut child = command
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
    let log = read_log(&ben, &chat_id).await;
    let seqs: Vec<u64> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=201).collect::<Vec<u64>>());
    for (key, seq) in acked {
        let stored: Vec<_> =
            log.iter().filter(|event| event["message"]["message"] == key).collect();
        assert_eq!(stored.len(), 1, "{key}");
        assert_eq!(stored[0]["seq"], seq);
    }
}

async fn read_log(person: &Person, chat_id: &str) -> Vec<Value> {
    let mut log: Vec<Value> = Vec::new();
    loop {
        let after = log.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        let path = format!("/api/v1/chats/{chat_id}/events?limit=200&after_seq={after}");
        let page = person.get(&path).await;
        let events = page.body["events"].as_array().unwrap().clone();
        if events.is_empty() {
            return log;
        }
        log.extend(events);
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_that_it_did_not_keep() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Process::start_on_a_small_disk(&data, 1_500);
    let ann = sign_up(process.address, "ann").await;
    let ben = sign_up(process.address, "ben").await;
    let chat_id = ann.opens_chat_with(&ben).await;
    let text = "x".repeat(12_000);
    let send = async |key: String| {
        let body =
            json!({"chat_id": chat_id, "message": format!("{key} {text}"), "client_id": key});
        ann.post("/api/v1/messages", body).await
    };
    let (mut acked, mut refused) = (Vec::new(), Vec::new());
    for number in 0..400 {
        let answer = send(format!("key-{number}")).await;
        match answer.status {
            201 => acked.push((format!("key-{number}"), answer.body["seq"].clone())),
            503 => {
                assert_eq!(answer.code(), "unavailable");
                assert!(answer.headers.contains_key("retry-after"));
                refused.push(format!("key-{number}"));
            }
            other => panic!("{other}: {}", answer.body),
        }
        if refused.len() == 20 {
            break;
        }
    }
    assert!(acked.len() > 20, "only {} acknowledged: no evidence", acked.len());
    assert_eq!(refused.len(), 20, "the disk was never full");
    // What can be read is read while nothing can be written, and everybody stays signed in.
    assert_eq!(ben.get("/api/v1/chats").await.status, 200);
    process.enlarge_the_disk();
    // The same keys again: each is stored once, whatever became of the first attempt.
    for key in refused {
        let mut answer = send(key.clone()).await;
        while answer.status == 503 {
            tokio::task::yield_now().await;
            answer = send(key.clone()).await;
        }
        assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
        acked.push((key, answer.body["seq"].clone()));
    }
    process.kill();
    let process = Process::start(&data);
    let ben = Person { address: process.address, ..ben };
    let log = read_log(&ben, &chat_id).await;
    let seqs: Vec<u64> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=acked.len() as u64 + 1).collect::<Vec<u64>>(), "and nothing else");
    for (key, seq) in acked {
        let stored: Vec<_> =
            log.iter().filter(|event| event["message"]["client_id"] == key).collect();
        assert_eq!((stored.len(), &stored[0]["seq"]), (1, &seq), "{key}");
    }
}

#[tokio::test]
async fn receipts_stand_after_a_kill_where_the_last_answer_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut process = Process::start(&data);
    let (mut ann, mut ben) =
        (sign_up(process.address, "ann").await, sign_up(process.address, "ben").await);
    let chat_id = ann.opens_chat_with(&ben).await;
    for status in ["delivered", "read"] {
        let message = ann.says(&chat_id, status).await;
        let path = format!("/api/v1/messages/{}/status", message["message_id"].as_str().unwrap());
        let put = ben.put(&path, json!({"status": status})).await;
        assert_eq!(put.status, 200);
        process.kill();
        process = Process::start(&data);
        (ann.address, ben.address) = (process.address, process.address);
        let after = ann.get(&path).await.body;
        assert_eq!(after["status"], status);
        assert_eq!(after["recipients"][0]["updated_at"], put.body["updated_at"]);
    }
}

#[tokio::test]
async fn data_put_back_without_a_word_is_noticed_and_everybody_starts_again() {
    let mut world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let epoch = async |person: &Person| {
        person.get(&format!("/api/v1/chats/{chat_id}/events")).await.text("/epoch")
    };
    let before = epoch(&ann).await;
    let database = |data: &Path| data.join("parlor.db");
    world
        .restart_after(|data| {
            std::fs::copy(database(data), data.join("copy")).unwrap();
        })
        .await;
    assert_eq!(epoch(&ann).await, before, "a restart alone is no reason");
    let mut cursors = Vec::new();
    for person in [&ann, &ben] {
        person.says(&chat_id, "soon forgotten").await;
        if person.user_id == ben.user_id {
            // A step of Ben's own stream: with it his position lies ahead of the copy.
            world.signs_in("ben").await;
        }
        let mut socket = person.connects().await;
        cursors.push(socket.next("cursor").await["cursor"].as_str().unwrap().to_owned());
    }
    world
        .restart_after(|data| {
            std::fs::copy(data.join("copy"), database(data)).unwrap();
        })
        .await;
    // Ann's position alone proves nothing, Ben's does; then Ann is told too.
    for (person, cursor) in [(&ben, &cursors[1]), (&ann, &cursors[0])] {
        let socket = person.resumes(Some(cursor)).await;
        assert_eq!(socket.welcome["reset"], true);
    }
    assert_ne!(epoch(&ann).await, before);
    let after = epoch(&ben).await;
    world.restart().await;
    assert_eq!(epoch(&ben).await, after, "it is kept");
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
