//! Chats and members.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_pair_has_one_chat_that_nobody_else_can_see() {
    let world = World::start().await;
    let (ann, ben, chat_id) = world.friends().await;
    let eve = world.person("eve").await;
    assert_eq!(ben.opens_chat_with(&ann).await, chat_id);
    let message = ann.says(&chat_id, "secret").await;
    let message_id = message["message_id"].as_str().unwrap();
    for path in [
        format!("/api/v1/chats/{chat_id}"),
        format!("/api/v1/chats/{chat_id}/messages"),
        format!("/api/v1/chats/{chat_id}/events"),
        format!("/api/v1/chats/{chat_id}/participants"),
        format!("/api/v1/messages/{message_id}"),
        format!("/api/v1/messages/{message_id}/status"),
    ] {
        assert_eq!(ben.get(&path).await.status, 200, "{path}");
        let stranger = eve.get(&path).await;
        let absent = eve.get(&path.replace(&chat_id, "123").replace(message_id, "123")).await;
        assert_eq!((stranger.status, &stranger.body), (404, &absent.body), "{path}");
    }
    let send = json!({"chat_id": chat_id, "message": "let me in"});
    assert_eq!(eve.post("/api/v1/messages", send).await.status, 404);
    assert_eq!(eve.get("/api/v1/chats").await.body["items"], json!([]));
}

#[tokio::test]
async fn members_of_a_group_see_each_message_once_in_one_order() {
    let world = World::start().await;
    let mut people = Vec::new();
    for name in ["ann", "ben", "cleo", "dan", "eli"] {
        people.push(world.person(name).await);
    }
    let others: Vec<_> = people.iter().skip(1).collect();
    let chat_id = people[0].makes_group("Five", &others).await;
    for (round, person) in people.iter().cycle().take(15).enumerate() {
        person.says(&chat_id, &format!("{round}")).await;
    }
    let expected: Vec<String> = (0..15).map(|round| round.to_string()).collect();
    for person in &people {
        assert_eq!(person.reads_texts(&chat_id).await, expected);
    }
}

#[tokio::test]
async fn a_removed_member_gets_nothing_more_and_a_newcomer_nothing_earlier() {
    let world = World::start().await;
    let (ann, ben, cleo) =
        (world.person("ann").await, world.person("ben").await, world.person("cleo").await);
    let chat_id = ann.makes_group("Stand", &[&ben]).await;
    let participants = format!("/api/v1/chats/{chat_id}/participants");
    ann.says(&chat_id, "before").await;
    let added = json!({"user_ids": [cleo.user_id]});
    assert_eq!(ben.post(&participants, added.clone()).await.status, 403);
    assert_eq!(ann.post(&participants, added.clone()).await.status, 201);
    assert_eq!(ann.post(&participants, added).await.status, 200);
    let mut socket = ben.connects().await;
    let ben_path = format!("{participants}/{}", ben.user_id);
    assert_eq!(cleo.delete(&ben_path).await.status, 403);
    assert_eq!(ann.delete(&ben_path).await.status, 204);
    let removed = socket.find("account", |frame| frame["kind"] == "chat_removed").await;
    assert_eq!(removed["chat_id"], chat_id);
    ann.says(&chat_id, "after").await;
    assert_eq!(ben.get(&format!("/api/v1/chats/{chat_id}/messages")).await.status, 404);
    assert_eq!(cleo.reads_texts(&chat_id).await, ["after"]);
    socket.send(json!({"t": "sync", "id": "1", "chat_id": chat_id, "after_seq": 0})).await;
    assert_eq!(socket.next("error").await["code"], "not_found");
}

#[tokio::test]
async fn the_rule_of_the_chat_decides_what_a_newcomer_sees_and_joining_has_its_time() {
    let world = World::start().await;
    let (ann, ben, cleo) =
        (world.person("ann").await, world.person("ben").await, world.person("cleo").await);
    let chat_id = ann.makes_group("Stand", &[]).await;
    let participants = format!("/api/v1/chats/{chat_id}/participants");
    let add = |person: &crate::world::Person| json!({"user_ids": [person.user_id]});
    ann.says(&chat_id, "before").await;
    world.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(ann.post(&participants, add(&ben)).await.status, 201);
    let open = json!({"settings": {"history": "all"}});
    assert_eq!(ann.patch(&format!("/api/v1/chats/{chat_id}"), open).await.status, 200);
    assert_eq!(ann.post(&participants, add(&cleo)).await.status, 201);
    ann.says(&chat_id, "after").await;
    assert_eq!(ben.reads_texts(&chat_id).await, ["after"]);
    assert_eq!(cleo.reads_texts(&chat_id).await, ["before", "after"]);
    let rows = ann.get(&participants).await.body["items"].as_array().unwrap().clone();
    let joined_at = |person: &crate::world::Person| {
        let row = rows.iter().find(|row| row["user_id"] == person.user_id).unwrap();
        row["joined_at"].as_str().unwrap().to_owned()
    };
    assert!(joined_at(&ann) < joined_at(&ben) && joined_at(&ben) <= joined_at(&cleo));
}

#[tokio::test]
async fn the_last_owner_stays_until_another_is_named() {
    let world = World::start().await;
    let (ann, ben) = (world.person("ann").await, world.person("ben").await);
    let chat_id = ann.makes_group("Two", &[&ben]).await;
    let path = |user_id: &str| format!("/api/v1/chats/{chat_id}/participants/{user_id}");
    assert_eq!(ann.delete(&path(&ann.user_id)).await.code(), "last_owner");
    let owner = json!({"role": "owner"});
    assert_eq!(ben.patch(&path(&ben.user_id), owner.clone()).await.status, 403);
    assert_eq!(ann.patch(&path(&ben.user_id), owner).await.status, 200);
    assert_eq!(ann.delete(&path(&ann.user_id)).await.status, 204);
    assert_eq!(ann.get(&format!("/api/v1/chats/{chat_id}")).await.status, 404);
    let rename = json!({"title": "One"});
    let chat = ben.patch(&format!("/api/v1/chats/{chat_id}"), rename).await;
    assert_eq!((chat.status, chat.text("/title")), (200, "One".to_owned()));
}

#[tokio::test]
async fn the_list_is_ordered_by_activity_and_counts_what_is_unread() {
    let world = World::start().await;
    let (ann, ben, direct) = world.friends().await;
    let group = ann.makes_group("Group", &[&ben]).await;
    ann.says(&direct, "one").await;
    let two = ann.says(&direct, "two").await;
    ann.says(&group, "three").await;
    ben.says(&group, "four").await;
    let list = ben.get("/api/v1/chats").await;
    let items = list.body["items"].as_array().unwrap().clone();
    let shown: Vec<_> =
        items.iter().map(|chat| (chat["chat_id"].clone(), chat["unread"].clone())).collect();
    assert_eq!(shown, [(json!(group), json!(1)), (json!(direct), json!(2))]);
    assert_eq!(items[1]["last_message"]["message"], "two");
    assert_eq!(items[1]["peer"]["username"], "ann");
    let path = format!("/api/v1/messages/{}", two["message_id"].as_str().unwrap());
    assert_eq!(ann.delete(&path).await.status, 204);
    let chat = ben.get(&format!("/api/v1/chats/{direct}")).await;
    assert_eq!(chat.body["unread"], 1, "a deleted message is not unread");
    let page = ben.get("/api/v1/chats?limit=1").await;
    let next = page.text("/next");
    let rest = ben.get(&format!("/api/v1/chats?limit=1&cursor={next}")).await;
    assert_eq!((rest.text("/items/0/chat_id"), &rest.body["next"]), (group, &json!(null)));
}

#[tokio::test]
async fn the_last_member_who_leaves_closes_the_group() {
    let world = World::start().await;
    let (ann, ben, _chat_id) = world.friends().await;
    let group = ann.makes_group("Garden", &[&ben]).await;
    let is_closed = || {
        let select = "SELECT closed FROM chats WHERE chat_id = ?1";
        let database = world.database();
        database.query_row(select, [group.parse::<i64>().unwrap()], |row| row.get::<_, bool>(0))
    };
    for (person, closed) in [(&ben, false), (&ann, true)] {
        let path = format!("/api/v1/chats/{group}/participants/{}", person.user_id);
        assert_eq!(person.delete(&path).await.status, 204);
        assert_eq!(is_closed(), Ok(closed));
    }
}
