//! The description of the socket: AsyncAPI 3.0, its skeleton by hand, its schemas from the types.

use parlor_proto::{
    CloseCode, Event,
    chats::Head,
    frame::{
        AccountEvent, Ack, CursorFrame, ErrorFrame, EventsFrame, FocusFrame, Gap, Hello, PingFrame,
        Pong, Presence, Receipt, ReceiptFrame, ReconnectFrame, SendFrame, SyncFrame, Typing,
        TypingFrame, WatchFrame, Welcome,
    },
};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;

/// Builds the document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let client = [
        ("hello", "HelloFrame", schemas.incoming::<Hello>(), "The first frame."),
        ("send", "SendFrame", schemas.incoming::<SendFrame>(), "A message to store."),
        ("receipt", "ReceiptFrame", schemas.incoming::<ReceiptFrame>(), "A position reached."),
        ("typing", "TypingFrame", schemas.incoming::<TypingFrame>(), "Typing, or stopped."),
        ("focus", "FocusFrame", schemas.incoming::<FocusFrame>(), "What is on the screen."),
        ("watch", "WatchFrame", schemas.incoming::<WatchFrame>(), "Whose presence is wanted."),
        ("sync", "SyncFrame", schemas.incoming::<SyncFrame>(), "A page of a log."),
        ("ping", "PingFrame", schemas.incoming::<PingFrame>(), "A sign of life."),
    ];
    let server = [
        ("welcome", schemas.outgoing::<Welcome>(), "The answer to `hello`."),
        ("ack", schemas.outgoing::<Ack>(), "A send is durable."),
        ("event", schemas.outgoing::<Event>(), "Something happened in a chat."),
        ("events", schemas.outgoing::<EventsFrame>(), "The answer to `sync`."),
        ("head", schemas.outgoing::<Head>(), "A chat moved on; its events are not sent."),
        ("gap", schemas.outgoing::<Gap>(), "Events were left out: page the rest."),
        ("receipt", schemas.outgoing::<Receipt>(), "Somebody received or read."),
        ("presence", schemas.outgoing::<Presence>(), "Somebody came or went."),
        ("typing", schemas.outgoing::<Typing>(), "Somebody types, or stopped."),
        ("account", schemas.outgoing::<AccountEvent>(), "A step of the user's own stream."),
        ("cursor", schemas.outgoing::<CursorFrame>(), "The resume position."),
        ("reconnect", schemas.outgoing::<ReconnectFrame>(), "Go away and come back later."),
        ("error", schemas.outgoing::<ErrorFrame>(), "A frame was refused; the connection stays."),
        ("pong", schemas.outgoing::<Pong>(), "The answer to `ping`."),
    ];

    let mut messages = Map::new();
    let mut frames = Map::new();
    for (t, name, schema, summary) in &client {
        let key = format!("client_{t}");
        frames.insert(format!("Client{}", upper(t)), schema.clone());
        messages.insert(key.clone(), message(&format!("Client{}", upper(t)), t, summary));
        debug_assert!(name.ends_with("Frame"));
    }
    for (t, schema, summary) in &server {
        let tag = json!({"type": "object", "properties": {"t": {"const": t}}, "required": ["t"]});
        let name = format!("Server{}", upper(t));
        frames.insert(name.clone(), json!({"allOf": [tag, schema]}));
        messages.insert(format!("server_{t}"), message(&name, t, summary));
    }
    let one_of = |side: &str, names: Vec<&str>| {
        let refs = names.into_iter().map(|t| reference("schemas", &format!("{side}{}", upper(t))));
        json!({"oneOf": refs.collect::<Vec<_>>()})
    };
    let client_names: Vec<_> = client.iter().map(|(t, ..)| *t).collect();
    let server_names: Vec<_> = server.iter().map(|(t, ..)| *t).collect();
    frames.insert("ClientFrame".to_owned(), one_of("Client", client_names.clone()));
    frames.insert("ServerFrame".to_owned(), one_of("Server", server_names.clone()));

    let in_channel = |side: &str, names: &[&str]| -> Vec<Value> {
        let at = |t: &&str| json!({"$ref": format!("#/channels/socket/messages/{side}_{t}")});
        names.iter().map(at).collect()
    };
    let channel_messages: Map<String, Value> =
        messages.keys().map(|key| (key.clone(), reference("messages", key))).collect();
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parlor",
            "version": "1",
            "description": "Text frames, each one JSON object or an array of them that is \
                processed in order. `t` names the kind. The first frame is `hello`. A frame may \
                carry `id`; its answer carries it back. Clients ignore unknown fields and kinds.",
            "x-close-codes": close_codes(),
        },
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/api/v1/ws",
                "description": "The socket.",
                "messages": channel_messages,
                "bindings": {"ws": {"method": "GET"}},
            },
        },
        "operations": {
            "fromClient": {
                "action": "receive",
                "summary": "What a client may say.",
                "channel": {"$ref": "#/channels/socket"},
                "messages": in_channel("client", &client_names),
            },
            "fromServer": {
                "action": "send",
                "summary": "What the server says.",
                "channel": {"$ref": "#/channels/socket"},
                "messages": in_channel("server", &server_names),
            },
        },
        "components": {"messages": messages, "schemas": frames},
    });

    let definitions = schemas.finish(&mut document);
    if let Some(Value::Object(all)) = document.pointer_mut("/components/schemas") {
        for (t, ..) in &client {
            tag_client_frame(all, &definitions, t);
        }
        for (name, schema) in definitions {
            // Client frames stand under their own names already, with their `t`.
            if !all.values().any(|frame| frame.get("x-type") == Some(&json!(name))) {
                all.insert(name, schema);
            }
        }
        for frame in all.values_mut().filter_map(Value::as_object_mut) {
            frame.remove("x-type");
        }
    }
    document
}

/// Replaces the reference to a client frame by its definition with `t`: the definition refuses
/// unknown fields, so `t` must stand in it and not beside it.
fn tag_client_frame(all: &mut Map<String, Value>, definitions: &Map<String, Value>, t: &str) {
    let Some(frame) = all.get_mut(&format!("Client{}", upper(t))) else { return };
    let name = frame.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
    let Some((name, mut schema)) =
        name.and_then(|name| Some((name.to_owned(), definitions.get(name)?.clone())))
    else {
        return;
    };
    if let Some(object) = schema.as_object_mut() {
        let required = object.entry("required").or_insert_with(|| json!([]));
        if let Some(required) = required.as_array_mut() {
            required.insert(0, json!("t"));
        }
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            let mut tagged = Map::from_iter([("t".to_owned(), json!({"const": t}))]);
            tagged.append(properties);
            *properties = tagged;
        }
        object.insert("x-type".to_owned(), json!(name));
    }
    *frame = schema;
}

fn message(schema: &str, t: &str, summary: &str) -> Value {
    json!({
        "name": t,
        "summary": summary,
        "contentType": "application/json",
        "payload": reference("schemas", schema),
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn close_codes() -> Vec<Value> {
    let one = |code: &CloseCode| json!({"code": code.code(), "name": code.name(), "reconnect": code.reconnect()});
    CloseCode::ALL.iter().map(one).collect()
}

fn upper(t: &str) -> String {
    let mut letters = t.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
