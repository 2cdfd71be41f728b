//! Hostile input on every route and frame: always a 4xx problem or an `error` frame, never a 5xx,
//! never a hang, never somebody else's data.

use parlor_server::http::router::{Auth, routes};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{World, read};

/// Bodies that no route takes.
fn bodies() -> Vec<Vec<u8>> {
    let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    let wide =
        format!("{{{}}}", (0..500).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","));
    vec![
        Vec::new(),
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"17".to_vec(),
        b"\"text\"".to_vec(),
        b"{\"\xff\xfe\":1}".to_vec(),
        b"{\"a\":\"\\ud800\"}".to_vec(),
        b"{\"__proto__\":{}}".to_vec(),
        b"{\"a\":1e400}".to_vec(),
        b"{\"chat_id\":{\"$gt\":\"\"}}".to_vec(),
        deep.into_bytes(),
        wide.into_bytes(),
    ]
}

#[tokio::test]
async fn no_route_breaks_on_a_hostile_body_path_or_query() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let client = reqwest::Client::new();
    let mut tried = 0;
    for route in routes() {
        for part in ["1", "0", "-1", "99999999999999999999", "x", "%00", "..%2f", "%F0%9F%91%8D"] {
            let path = route.path.split('/').map(|p| if p.starts_with('{') { part } else { p });
            let url = format!("http://{}{}", world.address, path.collect::<Vec<_>>().join("/"));
            let method = Method::from_bytes(route.method.as_str().as_bytes()).unwrap();
            let call = || client.request(method.clone(), &url).bearer_auth(&ann.token);
            if route.body.is_some() {
                for body in bodies() {
                    let answer =
                        read(call().header("Content-Type", "application/json").body(body.clone()))
                            .await;
                    let is_ticket = route.path.ends_with("/tickets");
                    // An empty object is a fine request for a ticket; nothing else here is.
                    assert!(
                        (400..500).contains(&answer.status) || is_ticket,
                        "{url} {body:?} {}",
                        answer.status
                    );
                    assert!(answer.status < 500);
                    tried += 1;
                }
                let wrong = read(call().header("Content-Type", "text/plain").body("{}")).await;
                assert!(matches!(wrong.status, 404 | 415), "{url} {}", wrong.status);
            }
            if route.query.is_some() {
                for query in [
                    "?colour=1",
                    "?limit=x",
                    "?limit=-1",
                    "?limit=1&limit=2",
                    "?%ff=%ff",
                    "?cursor=junk&colour",
                ] {
                    let answer = read(
                        call()
                            .try_clone()
                            .unwrap()
                            .build()
                            .map(|request| {
                                let url = format!("{}{query}", request.url());
                                client.request(method.clone(), url).bearer_auth(&ann.token)
                            })
                            .unwrap(),
                    )
                    .await;
                    assert!((400..500).contains(&answer.status), "{url}{query} {}", answer.status);
                    tried += 1;
                }
            }
            if !route.path.contains('{') {
                break;
            }
        }
    }
    assert!(tried > 400, "only {tried} tries");
}

#[tokio::test]
async fn bodies_over_their_limit_and_wrong_methods_are_said_so() {
    let world = World::start().await;
    let ann = world.person("ann").await;
    let url = |path: &str| format!("http://{}{path}", world.address);
    let client = reqwest::Client::new();
    let big = format!("{{\"message\":\"{}\"}}", "x".repeat(1024 * 1024));
    let send = client.post(url("/api/v1/messages")).bearer_auth(&ann.token);
    let answer = read(send.header("Content-Type", "application/json").body(big)).await;
    assert_eq!((answer.status, answer.code()), (413, "too_large"));
    let answer = read(client.delete(url("/api/v1/messages")).bearer_auth(&ann.token)).await;
    assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"));
    assert_eq!(answer.headers["allow"], "POST");
    let answer = read(client.get(url("/api/v1/nothing"))).await;
    assert_eq!((answer.status, answer.code()), (404, "not_found"));
}

#[tokio::test]
async fn every_call_without_a_session_is_refused_alike() {
    let world = World::start().await;
    let client = reqwest::Client::new();
    for route in routes().into_iter().filter(|route| route.auth != Auth::None) {
        let path = route.path.split('/').map(|p| if p.starts_with('{') { "1" } else { p });
        let url = format!("http://{}{}", world.address, path.collect::<Vec<_>>().join("/"));
        let method = Method::from_bytes(route.method.as_str().as_bytes()).unwrap();
        for token in [None, Some("ps_wrong"), Some("junk")] {
            let mut request = client.request(method.clone(), &url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = read(request).await;
            assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{url}");
        }
    }
}

#[tokio::test]
async fn no_frame_breaks_the_socket() {
    let world = World::start().await;
    let (ann, _ben, chat_id) = world.friends().await;
    let mut socket = ann.connects().await;
    let deep = format!("{{\"t\":\"send\",\"x\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let mut frames = vec![
        "".to_owned(),
        "nonsense".to_owned(),
        "17".to_owned(),
        "[[]]".to_owned(),
        "[1]".to_owned(),
        "{}".to_owned(),
        r#"{"t":5}"#.to_owned(),
        deep,
    ];
    for t in ["send", "receipt", "typing", "focus", "watch", "sync"] {
        for body in [
            json!({}),
            json!({"chat_id": 5}),
            json!({"chat_id": "0"}),
            json!({"chat_id": chat_id, "colour": 1}),
            json!({"id": 5}),
        ] {
            let mut frame = body;
            frame["t"] = json!(t);
            frames.push(frame.to_string());
        }
    }
    let count = frames.len();
    for frame in frames {
        socket.send_raw(Message::text(frame)).await;
    }
    for _ in 0..count {
        let error = socket.next("error").await;
        assert!(
            matches!(
                error["code"].as_str(),
                Some("bad_json" | "invalid" | "unknown_field" | "unknown_frame")
            ),
            "{error}"
        );
    }
    socket.send(json!({"t": "ping", "id": "alive"})).await;
    assert_eq!(socket.next("pong").await["id"], "alive");
    for (t, rest) in [
        ("send", json!({"message": "x"})),
        ("receipt", json!({"status": "read", "seq": 1})),
        ("typing", json!({"active": true})),
        ("focus", json!({"visible": true})),
        ("sync", json!({"after_seq": 0})),
    ] {
        let mut frame: Value = rest;
        frame["t"] = json!(t);
        frame["chat_id"] = json!("12345");
        frame["id"] = json!(t);
        socket.send(frame).await;
        let error = socket.next("error").await;
        assert_eq!((&error["code"], &error["id"]), (&json!("not_found"), &json!(t)));
    }
}
