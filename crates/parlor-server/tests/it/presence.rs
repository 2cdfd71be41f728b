//! Presence: who is here, who was here, and who may know of it.

use std::time::Duration;

use parlor_core::clock::ManualClock;
use parlor_proto::Time;
use serde_json::{Value, json};

use crate::world::{Person, Socket, World};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_watcher_sees_a_friend_come_and_a_stranger_sees_nothing() {
    let world = World::start().await;
    let (ann, ben, _chat_id) = world.friends().await;
    let eve = world.person("eve").await;
    let mut watcher = ann.connects().await;
    watcher.send(json!({"t": "watch", "user_ids": [ben.user_id]})).await;
    assert_eq!(watcher.next("presence").await["status"], "offline");
    let _ben_socket = ben.connects().await;
    assert_eq!(watcher.next("presence").await["status"], "online");
    let path = format!("/api/v1/users/{}/status", ben.user_id);
    assert_eq!(ann.get(&path).await.body["status"], "online");
    assert_eq!(eve.get(&path).await.body["status"], "hidden");
    let many: Vec<String> = (1..=501).map(|id| id.to_string()).collect();
    watcher.send(json!({"t": "watch", "user_ids": many})).await;
    assert_eq!(watcher.next("error").await["code"], "out_of_range");
}

#[tokio::test]
async fn typing_is_told_to_the_others() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let (mut ann_socket, mut ben_socket) = (ann.connects().await, ben.connects().await);
    ann_socket.send(json!({"t": "typing", "chat_id": chat_id, "active": true})).await;
    let typing = ben_socket.next("typing").await;
    assert_eq!((&typing["user_id"], &typing["active"]), (&json!(ann.user_id), &json!(true)));
    ann_socket.send(json!({"t": "typing", "chat_id": "123", "active": true})).await;
    assert_eq!(ann_socket.next("error").await["code"], "not_found");
}

fn noon() -> ManualClock {
    ManualClock::at(Time::from_millis(1_800_000_000_000))
}

/// A socket of a person that watches another; it answers while time passes.
struct Watcher(Socket);

impl Watcher {
    async fn of(person: &Person, other: &Person) -> (Self, Value) {
        let mut socket = person.connects().await;
        socket.send(json!({"t": "watch", "user_ids": [other.user_id]})).await;
        let first = socket.next("presence").await["status"].clone();
        (Self(socket), first)
    }

    /// What is told next, without any time passing.
    async fn next(&mut self) -> Value {
        self.0.next("presence").await
    }

    /// Everything that was told while a second passed.
    async fn during_a_second(&mut self, world: &World) -> Vec<Value> {
        world.advance(SECOND);
        let mut told = Vec::new();
        // Twice, so that what the ticker began is over with the second answer.
        for id in ["1", "2"] {
            self.0.send(json!({"t": "ping", "id": id})).await;
            loop {
                let frame = self.0.find_any(|_| true).await;
                match frame["t"].as_str() {
                    Some("presence") => told.push(frame),
                    Some("pong") => break,
                    _ => {}
                }
            }
        }
        told
    }

    /// Seconds until a status was told, and all that was told before it.
    async fn until(&mut self, world: &World, status: &str) -> (u32, Vec<Value>) {
        let mut told = Vec::new();
        for second in 1..=120 {
            told.extend(self.during_a_second(world).await);
            if told.last().is_some_and(|last| last["status"] == status) {
                return (second, told);
            }
        }
        panic!("{status} was never told: {told:?}");
    }
}

#[tokio::test]
async fn a_short_drop_does_not_show_and_a_longer_one_does_within_ten_seconds() {
    let world = World::on(&noon(), |_| {}).await;
    let (ann, ben, _) = world.friends().await;
    let (mut watcher, first) = Watcher::of(&ann, &ben).await;
    assert_eq!(first, "offline");
    let socket = ben.connects().await;
    assert_eq!(watcher.next().await["status"], "online");
    drop(socket);
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(watcher.during_a_second(&world).await);
    }
    let mut socket = ben.connects().await;
    // Answered when the person is known to be back.
    socket.send(json!({"t": "ping", "id": "p"})).await;
    socket.next("pong").await;
    for _ in 0..8 {
        told.extend(watcher.during_a_second(&world).await);
    }
    assert_eq!(told, Vec::<Value>::new(), "a short drop");
    drop(socket);
    while world.metric("parlor_connections").await > 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..4 {
        told.extend(watcher.during_a_second(&world).await);
    }
    assert_eq!(told, Vec::<Value>::new(), "within the grace");
    // The rest of the ten seconds.
    world.advance(6 * SECOND);
    assert_eq!(watcher.next().await["status"], "offline");
}

#[tokio::test]
async fn a_silent_peer_is_closed_and_shown_offline() {
    let world = World::on(&noon(), |_| {}).await;
    let (ann, ben, _) = world.friends().await;
    let (mut watcher, _) = Watcher::of(&ann, &ben).await;
    // Nobody reads this socket, so nobody answers its pings.
    let mut silent = ben.connects().await;
    assert_eq!(watcher.next().await["status"], "online");
    let mut told = Vec::new();
    for _ in 0..44 {
        told.extend(watcher.during_a_second(&world).await);
    }
    assert_eq!(told, Vec::<Value>::new(), "three heartbeats of 15 s are not over");
    // And no grace on top; the ticker needs a second.
    world.advance(2 * SECOND);
    assert_eq!(watcher.next().await["status"], "offline");
    assert_eq!(silent.close_code().await, 4009);
    // Another device that answers stays.
    assert_eq!(watcher.during_a_second(&world).await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_status_is_the_same_over_http_and_socket() {
    let world = World::start().await;
    let (ann, ben, _) = world.friends().await;
    let eve = world.person("eve").await;
    let path = format!("/api/v1/users/{}/status", ben.user_id);
    let (mut watcher, _) = Watcher::of(&ann, &ben).await;
    let same = async |told: &Value, status: &str| {
        let asked = ann.get(&path).await.body;
        assert_eq!((&asked["status"], &asked["status"]), (&told["status"], &json!(status)));
        assert_eq!(asked["last_seen"], told["last_seen"]);
    };
    let mut socket = ben.connects().await;
    same(&watcher.next().await, "online").await;
    socket.send(json!({"t": "focus", "chat_id": null, "visible": false})).await;
    same(&watcher.next().await, "away").await;
    socket.send(json!({"t": "focus", "chat_id": null, "visible": true})).await;
    same(&watcher.next().await, "online").await;
    drop(socket);
    same(watcher.until(&world, "offline").await.1.last().unwrap(), "offline").await;
    let (_, hidden) = Watcher::of(&eve, &ben).await;
    assert_eq!(
        (&hidden, &eve.get(&path).await.body["status"]),
        (&json!("hidden"), &json!("hidden"))
    );
}

#[tokio::test]
async fn last_seen_follows_what_people_do_and_not_that_they_reconnect() {
    let mut world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let path = format!("/api/v1/users/{}/status", ben.user_id);
    ben.says(&chat_id, "here").await;
    let first = ann.get(&path).await.body["last_seen"].clone();
    assert!(first.is_string(), "{first}");
    world.advance(Duration::from_secs(3_600));
    drop(ben.connects().await);
    assert_eq!(ann.get(&path).await.body["last_seen"], first, "a reconnect says nothing");
    ben.says(&chat_id, "here again").await;
    let second = ann.get(&path).await.body["last_seen"].clone();
    assert!(second.as_str() > first.as_str(), "{first} {second}");
    world.restart().await;
    assert_eq!(ann.get(&path).await.body["last_seen"], second);
}
