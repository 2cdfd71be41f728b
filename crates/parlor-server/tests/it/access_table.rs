//! The access table: every route and frame × every kind of caller, with the expected answer.
//!
//! The rows are compared with the table of routes and with the frames of the description: one that
//! is missing fails. Each cell has a group of its own, so that no cell spoils another.

use std::collections::BTreeSet;

use parlor_server::http::{asyncapi, router::routes};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, Person, World, call};

/// The columns: never a member; removed from the group; member and author of the message; owner of
/// the group; administrator of the server, who is no member.
const CALLERS: [&str; 5] = ["stranger", "former", "member", "owner", "administrator"];

const ALL: [u16; 5] = [200; 5];
const MEMBERS: [u16; 5] = [404, 404, 200, 200, 404];
const OWNER: [u16; 5] = [404, 404, 403, 200, 404];

#[rustfmt::skip]
const ROUTES: &[(&str, [u16; 5])] = &[
    ("POST /api/v1/users", [201; 5]),
    ("GET /api/v1/users", ALL),
    ("GET /api/v1/users/me", ALL),
    ("PATCH /api/v1/users/me", ALL),
    ("DELETE /api/v1/users/me", [202; 5]),
    ("GET /api/v1/users/{user_id}", ALL),
    ("GET /api/v1/users/{user_id}/status", ALL),
    ("POST /api/v1/admin/users", [403, 403, 403, 403, 201]),
    ("POST /api/v1/admin/users/{user_id}/sessions", [403, 403, 403, 403, 201]),
    ("POST /api/v1/sessions", [201; 5]),
    ("GET /api/v1/sessions", ALL),
    ("DELETE /api/v1/sessions/current", [204; 5]),
    ("DELETE /api/v1/sessions/{device_id}", [404, 404, 404, 204, 404]),
    ("POST /api/v1/chats", [201; 5]),
    ("GET /api/v1/chats", ALL),
    ("GET /api/v1/chats/{chat_id}", MEMBERS),
    ("PATCH /api/v1/chats/{chat_id}", OWNER),
    ("DELETE /api/v1/chats/{chat_id}", [404, 404, 403, 204, 404]),
    ("GET /api/v1/chats/{chat_id}/participants", MEMBERS),
    ("POST /api/v1/chats/{chat_id}/participants", [404, 404, 403, 201, 404]),
    ("PATCH /api/v1/chats/{chat_id}/participants/{user_id}", OWNER),
    ("DELETE /api/v1/chats/{chat_id}/participants/{user_id}", [404, 404, 403, 204, 404]),
    ("POST /api/v1/messages", [404, 404, 201, 201, 404]),
    ("POST /api/v1/messages/batch", [404, 404, 201, 201, 404]),
    ("GET /api/v1/chats/{chat_id}/messages", MEMBERS),
    ("GET /api/v1/chats/{chat_id}/events", MEMBERS),
    ("GET /api/v1/messages/{message_id}", MEMBERS),
    ("PATCH /api/v1/messages/{message_id}", [404, 404, 200, 403, 404]),
    ("DELETE /api/v1/messages/{message_id}", [404, 404, 204, 204, 404]),
    ("PUT /api/v1/messages/{message_id}/status", MEMBERS),
    ("GET /api/v1/messages/{message_id}/status", MEMBERS),
    ("PUT /api/v1/messages/{message_id}/reactions/{emoji}", MEMBERS),
    ("DELETE /api/v1/messages/{message_id}/reactions/{emoji}", [404, 404, 204, 204, 404]),
    ("GET /api/v1/gateway", ALL),
    ("POST /api/v1/ws/tickets", ALL),
    ("GET /api/v1/ws", [400; 5]),
    ("GET /api/v1/sync", ALL),
    ("GET /api/v1/server", ALL),
    ("GET /api/v1/openapi.json", ALL),
    ("GET /api/v1/asyncapi.json", ALL),
    ("POST /api/v1/csp-reports", [204; 5]),
    ("GET /healthz", ALL),
    ("GET /readyz", ALL),
    ("GET /metrics", ALL),
];

/// Frames: what is answered; `ok` is no error.
const FRAMES: &[(&str, [&str; 5])] = &[
    ("hello", ["already_greeted"; 5]),
    ("send", ["not_found", "not_found", "ok", "ok", "not_found"]),
    ("receipt", ["not_found", "not_found", "ok", "ok", "not_found"]),
    ("typing", ["not_found", "not_found", "ok", "ok", "not_found"]),
    ("focus", ["not_found", "not_found", "ok", "ok", "not_found"]),
    ("watch", ["ok"; 5]),
    ("sync", ["not_found", "not_found", "ok", "ok", "not_found"]),
    ("ping", ["ok"; 5]),
];

/// What nobody but members may see anywhere.
const CANARY: &str = "canary-7f3a91";

/// The people of all cells, and what differs from cell to cell.
struct Cast {
    world: World,
    stranger: Person,
    former: Person,
    member: Person,
    owner: Person,
    administrator: Person,
    target: Person,
    managed_id: String,
}

struct Cell {
    chat_id: String,
    message_id: String,
    device_id: String,
    number: usize,
}

impl Cast {
    async fn meet() -> Self {
        let world = World::start().await;
        let administrator = world.person("administrator").await;
        let managed = administrator.post("/api/v1/admin/users", json!({"username": "robot"})).await;
        Self {
            stranger: world.person("stranger").await,
            former: world.person("former").await,
            member: world.person("member").await,
            owner: world.person("owner").await,
            target: world.person("target").await,
            managed_id: managed.text("/user_id"),
            administrator,
            world,
        }
    }

    fn caller(&self, name: &str) -> &Person {
        match name {
            "stranger" => &self.stranger,
            "former" => &self.former,
            "member" => &self.member,
            "owner" => &self.owner,
            _ => &self.administrator,
        }
    }

    /// A new group with a message of the member; the former member is gone again.
    async fn cell(&self, number: usize) -> Cell {
        let chat_id =
            self.owner.makes_group("Cell", &[&self.member, &self.former, &self.target]).await;
        let message = self.member.says(&chat_id, CANARY).await;
        let former = format!("/api/v1/chats/{chat_id}/participants/{}", self.former.user_id);
        assert_eq!(self.owner.delete(&former).await.status, 204);
        let device = self.world.signs_in("owner").await;
        let message_id = message["message_id"].as_str().unwrap().to_owned();
        Cell { chat_id, message_id, device_id: device.device_id, number }
    }

    async fn call(&self, route: &str, cell: &Cell, caller: &Person) -> Answer {
        let (method, path) = route.split_once(' ').unwrap();
        let is_member_path = path.contains("/participants/");
        let user_id = match path {
            _ if is_member_path => &self.target.user_id,
            "/api/v1/admin/users/{user_id}/sessions" => &self.managed_id,
            _ => &self.owner.user_id,
        };
        let concrete = path
            .replace("{chat_id}", &cell.chat_id)
            .replace("{message_id}", &cell.message_id)
            .replace("{user_id}", user_id)
            .replace("{device_id}", &cell.device_id)
            .replace("{emoji}", "%F0%9F%91%8D");
        let concrete = match path {
            "/api/v1/users" if method == "GET" => format!("{concrete}?username=owner"),
            _ => concrete,
        };
        let name = format!("new{}", cell.number);
        let send = json!({"chat_id": cell.chat_id, "message": "x"});
        let body = match route {
            "POST /api/v1/users" => Some(json!({
                "username": name, "email": format!("{name}@example.org"), "password": "correct horse battery",
            })),
            "PATCH /api/v1/users/me" => Some(json!({"display_name": "Somebody"})),
            "DELETE /api/v1/users/me" => Some(json!({"password": "correct horse battery"})),
            "POST /api/v1/admin/users" => Some(json!({"username": name})),
            "POST /api/v1/sessions" => {
                Some(json!({"login": "owner", "password": "correct horse battery"}))
            }
            "POST /api/v1/chats" => Some(json!({"type": "group", "title": "New"})),
            "PATCH /api/v1/chats/{chat_id}" => Some(json!({"title": "Other"})),
            "POST /api/v1/chats/{chat_id}/participants" => {
                Some(json!({"user_ids": [self.stranger.user_id]}))
            }
            "PATCH /api/v1/chats/{chat_id}/participants/{user_id}" => {
                Some(json!({"role": "admin"}))
            }
            "POST /api/v1/messages" => Some(send),
            "POST /api/v1/messages/batch" => Some(json!({"messages": [send]})),
            "PATCH /api/v1/messages/{message_id}" => Some(json!({"message": "y"})),
            "PUT /api/v1/messages/{message_id}/status" => Some(json!({"status": "read"})),
            "POST /api/v1/ws/tickets" | "POST /api/v1/csp-reports" => Some(json!({})),
            _ => None,
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut answer =
            call(self.world.address, method, &concrete, Some(&caller.token), body).await;
        if path.ends_with("/batch") {
            // The call itself succeeds; each message has its own answer.
            answer.status =
                u16::try_from(answer.body["results"][0]["status"].as_u64().unwrap()).unwrap();
        }
        answer
    }
}

#[tokio::test]
async fn every_route_answers_every_caller_as_the_table_says() {
    let known: BTreeSet<String> =
        routes().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let rows: BTreeSet<String> = ROUTES.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(known, rows, "every route has a row");
    let cast = Cast::meet().await;
    let mut number = 0;
    for (route, expected) in ROUTES {
        for (name, expected) in CALLERS.iter().zip(expected) {
            number += 1;
            let cell = cast.cell(number).await;
            // What ends the caller's session or account is done by a double.
            let double;
            let caller = match *route {
                "DELETE /api/v1/users/me" => {
                    double = cast.world.person(&format!("double{number}")).await;
                    &double
                }
                "DELETE /api/v1/sessions/current" => {
                    double = cast.world.signs_in(name).await;
                    &double
                }
                _ => cast.caller(name),
            };
            let answer = cast.call(route, &cell, caller).await;
            assert_eq!(answer.status, *expected, "{route} by {name}: {}", answer.body);
            if matches!(*name, "stranger" | "former" | "administrator") {
                let text = answer.body.to_string();
                assert!(!text.contains(CANARY), "{route} tells {name} the message");
            }
        }
    }
}

#[tokio::test]
async fn every_frame_answers_every_caller_as_the_table_says() {
    let document = asyncapi::document();
    let messages = document["components"]["messages"].as_object().unwrap();
    let known: BTreeSet<&str> =
        messages.keys().filter_map(|name| name.strip_prefix("client_")).collect();
    let rows: BTreeSet<&str> = FRAMES.iter().map(|(frame, _)| *frame).collect();
    assert_eq!(known, rows, "every frame has a row");
    let cast = Cast::meet().await;
    for (t, expected) in FRAMES {
        for (name, expected) in CALLERS.iter().zip(expected) {
            let cell = cast.cell(0).await;
            let mut socket = cast.caller(name).connects().await;
            let rest = match *t {
                "hello" => json!({"v": 1}),
                "send" => json!({"chat_id": cell.chat_id, "message": "x"}),
                "receipt" => json!({"chat_id": cell.chat_id, "status": "read", "seq": 1}),
                "typing" => json!({"chat_id": cell.chat_id, "active": true}),
                "focus" => json!({"chat_id": cell.chat_id, "visible": true}),
                "watch" => json!({"user_ids": [cast.owner.user_id]}),
                "sync" => json!({"chat_id": cell.chat_id, "after_seq": 0}),
                _ => json!({}),
            };
            let mut frame: Value = rest;
            frame["t"] = json!(t);
            frame["id"] = json!("asked");
            socket.send(frame).await;
            socket.send(json!({"t": "ping", "id": "end"})).await;
            let answer = socket
                .find_any(|frame| {
                    (frame["t"] == "error" && frame["id"] == "asked")
                        || (frame["t"] == "pong" && frame["id"] == "end")
                })
                .await;
            let told = answer["code"].as_str().unwrap_or("ok");
            assert_eq!(told, *expected, "{t} by {name}");
        }
    }
}
