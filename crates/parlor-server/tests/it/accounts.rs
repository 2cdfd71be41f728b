//! Accounts and sessions.

use reqwest::Method;
use serde_json::json;

use crate::world::{World, call, read};

#[tokio::test]
async fn the_first_account_administers_and_later_ones_do_not() {
    let world = World::start().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    assert_eq!(ann.get("/api/v1/users/me").await.body["admin"], true);
    assert_eq!(ben.get("/api/v1/users/me").await.body["admin"], false);
    let managed = json!({"username": "robot"});
    assert_eq!(ben.post("/api/v1/admin/users", managed.clone()).await.status, 403);
    let robot = ann.post("/api/v1/admin/users", managed).await;
    assert_eq!(robot.status, 201);
    let path = format!("/api/v1/admin/users/{}/sessions", robot.text("/user_id"));
    assert_eq!(ben.post(&path, json!({})).await.status, 403);
    assert_eq!(ann.post(&path, json!({})).await.status, 201);
    let own = format!("/api/v1/admin/users/{}/sessions", ben.user_id);
    assert_eq!(ann.post(&own, json!({})).await.status, 403, "ben has a password of his own");
}

#[tokio::test]
async fn names_and_addresses_are_taken_once() {
    let world = World::start().await;
    world.person("ann").await;
    let sign_up = |name: &str, email: &str, password: &str| {
        let body = json!({"username": name, "email": email, "password": password});
        call(world.address, Method::POST, "/api/v1/users", None, Some(body))
    };
    let strong = "correct horse battery";
    for (name, email, password, status, code, field) in [
        ("Ann", "other@example.org", strong, 409, "username_taken", None),
        ("other", "ANN@example.org", strong, 409, "email_taken", None),
        ("other", "no address", strong, 422, "invalid", Some("email")),
        ("other", "o@example.org", "short", 422, "invalid", Some("password")),
        ("other", "o@example.org", "password1", 422, "weak_password", Some("password")),
        (&"n".repeat(51), "o@example.org", strong, 422, "invalid", Some("username")),
        (" other", "o@example.org", strong, 422, "invalid", Some("username")),
    ] {
        let answer = sign_up(name, email, password).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{name} {email}");
        assert_eq!(answer.body["field"].as_str(), field);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    assert_eq!(sign_up("other", "o@example.org", strong).await.status, 201);
}

#[tokio::test]
async fn signing_in_answers_alike_for_a_wrong_name_and_a_wrong_password() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let sign_in = |login: &str, password: &str| {
        let body = json!({"login": login, "password": password, "device_name": "phone"});
        call(world.address, Method::POST, "/api/v1/sessions", None, Some(body))
    };
    for (login, password) in [("nobody", "correct horse battery"), ("ann", "wrong horse")] {
        let answer = sign_in(login, password).await;
        assert_eq!((answer.status, answer.code()), (401, "bad_credentials"));
    }
    assert_eq!(sign_in("ann@example.org", "correct horse battery").await.status, 201);
    assert_eq!(sign_in("ANN", "correct horse battery").await.status, 201);
    let devices = ann.get("/api/v1/sessions").await;
    assert_eq!(devices.body["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_revoked_session_ends_everywhere_and_others_stay() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let body = json!({"login": "ann", "password": "correct horse battery"});
    let other = call(world.address, Method::POST, "/api/v1/sessions", None, Some(body)).await;
    let mut phone = ann.clone();
    phone.token = other.text("/session/token");
    phone.device_id = other.text("/session/device_id");
    let mut socket = phone.connects().await;
    let path = format!("/api/v1/sessions/{}", phone.device_id);
    assert_eq!(ann.delete(&path).await.status, 204);
    assert_eq!(socket.close_code().await, 4005);
    assert_eq!(phone.get("/api/v1/users/me").await.status, 401);
    assert_eq!(ann.get("/api/v1/users/me").await.status, 200);
    assert_eq!(ann.delete(&path).await.status, 404);
    assert_eq!(ann.delete("/api/v1/sessions/current").await.status, 204);
    assert_eq!(ann.get("/api/v1/users/me").await.status, 401);
}

#[tokio::test]
async fn the_cookie_changes_nothing_without_its_header() {
    let world = World::start().await;
    let url = |path: &str| format!("http://{}{path}", world.address);
    let client = reqwest::Client::new();
    let body =
        json!({"username": "ann", "email": "a@example.org", "password": "correct horse battery"});
    let web = client.post(url("/api/v1/users")).header("X-Parlor-Client", "web").json(&body);
    let answer = read(web).await;
    assert_eq!(answer.status, 201);
    assert!(answer.body.pointer("/session/token").is_none(), "script never sees the token");
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("parlor=ps_") && cookie.contains("HttpOnly"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let me = read(client.get(url("/api/v1/users/me")).header("Cookie", &pair)).await;
    assert_eq!(me.status, 200);
    let patch = || {
        let change = json!({"display_name": "Ann"});
        client.patch(url("/api/v1/users/me")).header("Cookie", &pair).json(&change)
    };
    assert_eq!(read(patch()).await.code(), "csrf");
    let foreign = patch().header("X-Parlor-Client", "web").header("Sec-Fetch-Site", "cross-site");
    assert_eq!(read(foreign).await.code(), "csrf");
    assert_eq!(read(patch().header("X-Parlor-Client", "web")).await.status, 200);
}

#[tokio::test]
async fn a_deleted_account_is_shut_at_once() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    ben.says(&chat_id, "remember me").await;
    let delete = |password: &str| {
        let body = json!({"password": password});
        call(world.address, Method::DELETE, "/api/v1/users/me", Some(&ben.token), Some(body))
    };
    assert_eq!(delete("wrong").await.status, 422);
    assert_eq!(delete("correct horse battery").await.status, 202);
    assert_eq!(ben.get("/api/v1/users/me").await.status, 401);
    let profile = ann.get(&format!("/api/v1/users/{}", ben.user_id)).await;
    assert_eq!(
        (profile.body["deleted"].as_bool(), profile.text("/username")),
        (Some(true), String::new())
    );
    assert_eq!(ann.reads_texts(&chat_id).await, ["remember me"]);
    let found = ann.get("/api/v1/users?username=ben").await;
    assert_eq!(found.body["items"], json!([]));
}
