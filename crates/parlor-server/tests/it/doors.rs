//! What every call passes before a rule of chat is asked: shapes of refusals, the cookie and what
//! protects it, origins, proxies, limits on heads, and the ways in which the server describes itself.

use parlor_server::{config::Switch, http::router::routes};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{Answer, Person, World, call, read};

fn request(world: &World, method: Method, path: &str) -> RequestBuilder {
    Client::new().request(method, format!("http://{}{path}", world.address))
}

/// Sends bytes as they are and returns what comes back.
async fn raw(world: &World, text: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn cookie_of(answer: &Answer) -> String {
    answer.headers["set-cookie"].to_str().unwrap().to_owned()
}

/// Signs a new person up as the web app does; returns the whole `Set-Cookie`.
async fn signs_up_in_a_browser(world: &World, name: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({
        "username": name,
        "email": format!("{name}@example.org"),
        "password": "correct horse battery",
    });
    let mut call = request(world, Method::POST, "/api/v1/users").header("X-Parlor-Client", "web");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    read(call.json(&body)).await
}

#[tokio::test]
async fn every_refusal_is_a_problem_that_names_its_field() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let messages = |content: &str, body: &str| {
        request(&world, Method::POST, "/api/v1/messages")
            .bearer_auth(&ann.token)
            .header("Content-Type", content)
            .body(body.to_owned())
    };
    let get = |path: &str| request(&world, Method::GET, path).bearer_auth(&ann.token);
    let large = format!("{{\"message\":\"{}\"}}", "x".repeat(1024 * 1024));
    let json = "application/json";
    for (call, status, code, field) in [
        (messages(json, "{"), 400, "bad_json", None),
        (messages(json, "{\"chat_id\":\"\u{fffd}\"}"), 422, "invalid", Some("chat_id")),
        (messages(json, "{\"chat_id\":5}"), 422, "invalid", Some("chat_id")),
        (messages(json, "{}"), 422, "invalid", Some("chat_id")),
        (messages(json, "{\"chat_id\":\"1\",\"hat\":1}"), 422, "unknown_field", Some("hat")),
        (messages("text/plain", "{}"), 415, "unsupported_media_type", None),
        (messages("", "{}"), 415, "unsupported_media_type", None),
        (messages(json, &large), 413, "too_large", Some("body")),
        (get("/api/v1/chats?limit=x"), 422, "invalid", Some("limit")),
        (get("/api/v1/chats?limit=0"), 422, "out_of_range", Some("limit")),
        (get("/api/v1/chats?limit=201"), 422, "out_of_range", Some("limit")),
        (get("/api/v1/chats?hat=1"), 422, "unknown_field", Some("hat")),
        (get("/api/v1/chats?limit=1&limit=2"), 422, "invalid", Some("limit")),
        (get("/api/v1/chats?cursor=%ff"), 422, "invalid", Some("cursor")),
        (get("/api/v1/chats/abc"), 404, "not_found", None),
        (get("/api/v1/chats/%ff"), 404, "not_found", None),
        (get("/api/v1/channels"), 404, "not_found", None),
        (get("/api"), 404, "not_found", None),
    ] {
        let call = call.build().unwrap();
        let what = format!("{} {}", call.method(), call.url());
        let answer = read(RequestBuilder::from_parts(Client::new(), call)).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{what} {}", answer.body);
        assert_eq!(answer.body["field"].as_str(), field, "{what} {}", answer.body);
        assert_eq!(answer.body["status"], status, "{what}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
        for part in ["type", "title", "detail"] {
            assert!(answer.body[part].as_str().is_some_and(|text| !text.is_empty()), "{what}");
        }
    }
}

#[tokio::test]
async fn a_path_without_the_method_names_those_it_has() {
    let world = World::start().await;
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/messages", "POST"),
        (Method::PUT, "/api/v1/chats", "POST, GET, HEAD"),
        (Method::POST, "/api/v1/users/me", "GET, PATCH, DELETE, HEAD"),
        (Method::OPTIONS, "/api/v1/chats", "POST, GET, HEAD"),
        (Method::POST, "/", "GET, HEAD"),
    ] {
        let answer = read(request(&world, method, path)).await;
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    for path in ["/healthz", "/readyz", "/api/v1/server", "/"] {
        assert_eq!(read(request(&world, Method::HEAD, path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_web_app_gets_a_cookie_and_no_token() {
    let world = World::start().await;
    let answer = signs_up_in_a_browser(&world, "ann", &[]).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(answer.body["session"].get("token").is_none());
    let cookie = cookie_of(&answer);
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with("parlor=ps_"), "plain HTTP has a plain name");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=15552000"] {
        assert!(attributes.split("; ").any(|one| one == attribute), "{attribute} in {cookie}");
    }
    assert!(!attributes.contains("Secure"));

    let me = || request(&world, Method::GET, "/api/v1/users/me").header("Cookie", pair);
    assert_eq!(read(me()).await.status, 200, "reading needs the cookie alone");
    let change = |headers: &[(&str, &str)]| {
        let call = request(&world, Method::PATCH, "/api/v1/users/me").header("Cookie", pair);
        let call = headers.iter().fold(call, |call, (name, value)| call.header(*name, *value));
        read(call.json(&json!({"display_name": "Ann"})))
    };
    let web = ("X-Parlor-Client", "web");
    let own = format!("http://{}", world.address);
    for (headers, status, code) in [
        (vec![], 403, "csrf"),
        (vec![("X-Parlor-Client", "other")], 403, "csrf"),
        (vec![web, ("Sec-Fetch-Site", "cross-site")], 403, "csrf"),
        (vec![web, ("Sec-Fetch-Site", "same-site")], 403, "csrf"),
        (vec![web, ("Origin", "http://evil.example")], 401, "unauthenticated"),
        (vec![web, ("Origin", "null")], 401, "unauthenticated"),
        (vec![web], 200, ""),
        (vec![web, ("Sec-Fetch-Site", "same-origin"), ("Origin", own.as_str())], 200, ""),
    ] {
        let answer = change(&headers).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{headers:?}");
    }

    let out = request(&world, Method::DELETE, "/api/v1/sessions/current").header("Cookie", pair);
    let out = read(out.header("X-Parlor-Client", "web")).await;
    assert_eq!(out.status, 204);
    assert!(cookie_of(&out).starts_with("parlor=; ") && cookie_of(&out).contains("Max-Age=0"));
    assert_eq!(read(me()).await.status, 401);
}

#[tokio::test]
async fn every_change_with_the_cookie_alone_is_refused() {
    let world = World::start().await;
    let cookie = cookie_of(&signs_up_in_a_browser(&world, "ann", &[]).await);
    let pair = cookie.split(';').next().unwrap();
    let mut tried = 0;
    for route in routes().into_iter().filter(|route| route.auth.is_needed()) {
        if route.method == "GET" {
            continue;
        }
        let parts =
            route.path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        let method = Method::from_bytes(route.method.as_str().as_bytes()).unwrap();
        let call = request(&world, method, &path).header("Cookie", pair).json(&json!({}));
        let answer = read(call).await;
        assert_eq!((answer.status, answer.code()), (403, "csrf"), "{} {path}", route.method);
        tried += 1;
    }
    assert!(tried >= 18, "only {tried} routes");
}

#[tokio::test]
async fn a_page_of_another_site_signs_nobody_in() {
    let world = World::start().await;
    let foreign = [("Sec-Fetch-Site", "cross-site")];
    let answer = signs_up_in_a_browser(&world, "ann", &foreign).await;
    assert_eq!((answer.status, answer.code()), (403, "csrf"));
    assert_eq!(signs_up_in_a_browser(&world, "ann", &[]).await.status, 201);
}

#[tokio::test]
async fn behind_an_encrypting_proxy_the_cookie_is_bound_to_the_host() {
    let world = World::with(|config| {
        config.rate_limits = Switch::Off;
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    // The first account comes through the proxy, so its caller is not local and needs the code.
    let forwarded = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")];
    let answer = signs_up_in_a_browser(&world, "ann", &forwarded).await;
    assert_eq!((answer.status, answer.code()), (403, "setup_code_required"));
    let server = request(&world, Method::GET, "/api/v1/server");
    let server = read(server.header("X-Forwarded-For", "203.0.113.9")).await;
    assert_eq!(server.body["registration"], "setup");
    world.person("root").await;

    let answer = signs_up_in_a_browser(&world, "ann", &forwarded).await;
    let cookie = cookie_of(&answer);
    assert!(cookie.starts_with("__Host-parlor=ps_") && cookie.ends_with("; Secure"), "{cookie}");
    let year = "max-age=31536000; includeSubDomains";
    assert_eq!(answer.headers["strict-transport-security"], year);
    let value = cookie.split([';', '=']).nth(1).unwrap();
    let me = |pair: String, proto: &'static str| {
        let call = request(&world, Method::GET, "/api/v1/users/me");
        read(call.header("Cookie", pair).header("X-Forwarded-Proto", proto))
    };
    assert_eq!(me(format!("__Host-parlor={value}"), "https").await.status, 200);
    assert_eq!(me(format!("parlor={value}"), "https").await.status, 401, "the plain name");
    assert_eq!(me(format!("__Host-parlor={value}"), "http").await.status, 401);
    let gateway = request(&world, Method::GET, "/api/v1/gateway")
        .header("Cookie", format!("__Host-parlor={value}"))
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "chat.example");
    assert_eq!(read(gateway).await.body["url"], "wss://chat.example/api/v1/ws");
}

#[tokio::test]
async fn a_proxy_that_nobody_named_does_not_make_its_callers_local() {
    let world = World::start().await;
    let answer = signs_up_in_a_browser(&world, "ann", &[("X-Forwarded-For", "127.0.0.1")]).await;
    assert_eq!((answer.status, answer.code()), (403, "setup_code_required"));
    let server = call(world.address, Method::GET, "/api/v1/server", None, None).await;
    assert_eq!(server.body["registration"], "open", "at the machine itself");
}

#[tokio::test]
async fn other_origins_are_answered_where_they_are_allowed() {
    let world = World::with(|config| {
        config.rate_limits = Switch::Off;
        config.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let ann = world.person("ann").await;
    let preflight = |origin: &'static str| {
        let call = request(&world, Method::OPTIONS, "/api/v1/messages").header("Origin", origin);
        read(call.header("Access-Control-Request-Method", "POST"))
    };
    let answer = preflight("https://app.example").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    let headers = answer.headers["access-control-allow-headers"].to_str().unwrap();
    assert!(headers.contains("authorization") && headers.contains("idempotency-key"));
    for origin in ["https://app.example.evil.example", "http://app.example", "null"] {
        let answer = preflight(origin).await;
        assert!(answer.headers.get("access-control-allow-origin").is_none(), "{origin}");
        assert_eq!(answer.status, 405, "{origin}");
    }
    let me = request(&world, Method::GET, "/api/v1/users/me").bearer_auth(&ann.token);
    let me = read(me.header("Origin", "https://app.example")).await;
    assert_eq!(me.status, 200);
    assert_eq!(me.headers["access-control-allow-origin"], "https://app.example");
    assert!(me.headers.get("access-control-allow-credentials").is_none());

    let cookie = cookie_of(&signs_up_in_a_browser(&world, "ben", &[]).await);
    let me = request(&world, Method::GET, "/api/v1/users/me").header("Cookie", cookie);
    let me = read(me.header("Origin", "https://app.example")).await;
    assert_eq!(me.status, 401, "never with the cookie");
}

#[tokio::test]
async fn a_key_in_the_header_and_one_in_the_body_are_the_same_key() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let send = |key: &'static str, body: serde_json::Value| {
        let call = request(&world, Method::POST, "/api/v1/messages").bearer_auth(&ann.token);
        read(call.header("Idempotency-Key", key).json(&body))
    };
    let body = json!({"chat_id": chat_id, "message": "hello"});
    let mut with_id = body.clone();
    with_id["client_id"] = json!("one");
    let first = send("one", body.clone()).await;
    assert_eq!((first.status, first.body["client_id"].as_str()), (201, Some("one")));
    let repeat = send("one", with_id.clone()).await;
    assert_eq!((repeat.status, &repeat.body["message_id"]), (200, &first.body["message_id"]));
    let other = send("two", with_id).await;
    assert_eq!((other.status, other.body["field"].as_str()), (422, Some("client_id")));
    for key in ["", "0123456789012345678901234567890123456789012345678901234567890123456789"] {
        let answer = send(key, body.clone()).await;
        assert_eq!(answer.body["field"], "Idempotency-Key", "{key} {}", answer.body);
        assert_eq!(answer.status, 422);
    }
    let group = json!({"type": "group", "participants": [ben.user_id], "title": "Bikes"});
    let make = || {
        let call = request(&world, Method::POST, "/api/v1/chats").bearer_auth(&ann.token);
        read(call.header("Idempotency-Key", "three").json(&group))
    };
    let (first, repeat) = (make().await, make().await);
    assert_eq!((first.status, repeat.status), (201, 200));
    assert_eq!(first.body["chat_id"], repeat.body["chat_id"]);
}

#[tokio::test]
async fn limits_of_rate_say_how_long_to_wait() {
    let world = World::with(|config| config.quotas.sign_ins_per_account = 2).await;
    world.person("ann").await;
    let sign_in = || {
        let body = json!({"login": "ann", "password": "wrong horse battery"});
        call(world.address, Method::POST, "/api/v1/sessions", None, Some(body))
    };
    for _ in 0..2 {
        let answer = sign_in().await;
        assert_eq!((answer.status, answer.code()), (401, "bad_credentials"));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let answer = sign_in().await;
    assert_eq!((answer.status, answer.code()), (429, "rate_limited"));
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(answer.body["retry_after"], seconds);
    assert!((1..=900).contains(&seconds));
}

#[tokio::test]
async fn heads_over_their_limit_are_refused() {
    let world = World::start().await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    assert!(raw(&world, &long).await.starts_with("HTTP/1.1 431"));
    let lines: String = (0..80).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    assert!(raw(&world, &many).await.starts_with("HTTP/1.1 431"));
    let fine = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(raw(&world, fine).await.starts_with("HTTP/1.1 200"));
    let strange = "GET / HTTP/1.1\r\nHost: x;script-src *\r\nConnection: close\r\n\r\n";
    let answer = raw(&world, strange).await;
    assert!(answer.contains("connect-src 'self'; worker-src"), "{answer}");
}

#[tokio::test]
async fn reports_of_browsers_need_neither_session_nor_json() {
    let world = World::start().await;
    let report = |kind: &'static str, body: String| {
        let call = request(&world, Method::POST, "/api/v1/csp-reports");
        read(call.header("Content-Type", kind).body(body))
    };
    assert_eq!(report("application/csp-report", "{}".to_owned()).await.status, 204);
    assert_eq!(report("application/reports+json", "[]".to_owned()).await.status, 204);
    let answer = report("text/plain", "{}".to_owned()).await;
    assert_eq!((answer.status, answer.code()), (415, "unsupported_media_type"));
    let answer = report("application/csp-report", "x".repeat(70_000)).await;
    assert_eq!((answer.status, answer.code()), (413, "too_large"));
    let metrics = call(world.address, Method::GET, "/metrics", None, None).await;
    assert!(metrics.body.as_str().unwrap().contains("parlor_policy_reports_total 2"));
}

#[tokio::test]
async fn the_metrics_may_have_an_address_of_their_own() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::with(|config| config.metrics_listen = Some(free)).await;
    let here = call(world.address, Method::GET, "/metrics", None, None).await;
    assert_eq!((here.status, here.code()), (404, "not_found"));
    let there = call(free, Method::GET, "/metrics", None, None).await;
    assert_eq!(there.status, 200);
    let text = there.body.as_str().unwrap();
    for name in ["parlor_http_requests_total{", "parlor_messages_stored_total", "# EOF"] {
        assert!(text.contains(name), "{name}");
    }
}

#[tokio::test]
async fn each_answer_has_an_id_of_its_own() {
    let world = World::start().await;
    let id = || async {
        let answer = call(world.address, Method::GET, "/healthz", None, None).await;
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    let (one, two) = (id().await, id().await);
    assert!(one != two && one.len() == 16);
}

#[tokio::test]
async fn signing_out_the_own_device_takes_the_cookie_away() {
    let world = World::start().await;
    let answer = signs_up_in_a_browser(&world, "ann", &[]).await;
    let (cookie, device_id) = (cookie_of(&answer), answer.text("/session/device_id"));
    let path = format!("/api/v1/sessions/{device_id}");
    let call = request(&world, Method::DELETE, &path).header("Cookie", &cookie);
    let out = read(call.header("X-Parlor-Client", "web")).await;
    assert_eq!(out.status, 204);
    assert!(cookie_of(&out).contains("Max-Age=0"));
}

#[tokio::test]
async fn only_an_administrator_makes_accounts_without_a_password() {
    let world = World::start().await;
    let (root, ben): (Person, Person) = (world.person("root").await, world.person("ben").await);
    let body = || json!({"username": "bot"});
    let refused = ben.post("/api/v1/admin/users", body()).await;
    assert_eq!((refused.status, refused.code()), (403, "forbidden"));
    let made = root.post("/api/v1/admin/users", body()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("/api/v1/admin/users/{}/sessions", made.text("/user_id"));
    assert_eq!(ben.post(&path, json!({})).await.status, 403);
    let session = root.post(&path, json!({})).await;
    assert_eq!(session.status, 201, "{}", session.body);
    assert!(session.text("/session/token").starts_with("ps_"));
}
