// Stories about sending: stored first, sent until acknowledged, once, in order.

import { describe, expect, it } from "vitest";
import { type Client, type MessageEntry, memoryStore } from "../src/index";
import { follow, texts, World } from "./world/world";

function last(client: Client, chatId: string): MessageEntry | undefined {
  const entry = client.messages.of(chatId).get().entries.at(-1);
  return entry?.kind === "message" ? entry : undefined;
}

describe("the outbox", () => {
  it("shows a message in the same turn, and it becomes the log's under the same key", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    follow(client.messages.of(chat.chatId));
    await world.rest();
    const stored = client.messages.send(chat.chatId, { text: "hello" });
    const shown = last(client, chat.chatId);
    expect(shown).toMatchObject({
      text: "hello",
      sending: "waiting",
      messageId: null,
      seq: null,
      mine: true,
    });
    const key = await stored;
    expect(key).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    await world.rest();
    expect(last(client, chat.chatId)).toMatchObject({ sending: "accepted", seq: 2, key: shown?.key });
    expect(
      client.messages
        .of(chat.chatId)
        .get()
        .entries.filter(({ kind }) => kind === "message").length,
    ).toBe(1);
    expect(client.chats.list.get()[0]).toMatchObject({
      waiting: 0,
      unread: 0,
      lastMessage: { text: "hello" },
    });
  });

  it("waits while offline and sends in the order of the calls", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    client.networkChanged(false);
    const all = Array.from({ length: 10 }, (_, i) => `m${i}`);
    await Promise.all(all.map((text) => client.messages.send(chat.chatId, { text })));
    await world.rest(5_000);
    expect(chat.messages.size).toBe(0);
    expect(client.chats.list.get()[0]?.waiting).toBe(10);
    client.networkChanged(true);
    await world.rest(2_000);
    expect([...chat.messages.values()].map((message) => message.message)).toEqual(all);
    expect(client.chats.list.get()[0]?.waiting).toBe(0);
  });

  it("has one message of a chat in flight, and chats do not wait for each other", async () => {
    const world = new World();
    const one = world.server.chat([world.ann, world.bob]);
    const two = world.server.chat([world.ann, world.cleo]);
    const client = await world.live();
    world.server.refuseSend = (frame) => (frame.chat_id === one.chatId ? "silence" : null);
    for (const text of ["a", "b"]) {
      await client.messages.send(one.chatId, { text });
      await client.messages.send(two.chatId, { text });
    }
    await world.rest();
    expect(world.heard("send").filter((frame) => frame.chat_id === one.chatId).length).toBe(1);
    expect(two.messages.size).toBe(2);
    world.server.refuseSend = null;
    // The lost answer is noticed, and the same key is sent again.
    await world.rest(21_000);
    expect([...one.messages.values()].map((message) => message.message)).toEqual(["a", "b"]);
  });

  it("survives a reload with exactly one message for each key", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    let client = await world.live(store);
    const keys: string[] = [];
    for (let i = 0; i < 30; i += 1) {
      // A third of the answers is cut, and the page is reloaded again and again.
      world.server.refuseSend = i % 3 === 0 ? null : world.random.chance(0.5) ? () => "silence" : null;
      keys.push(await client.messages.send(chat.chatId, { text: `m${i}` }));
      await world.rest(world.random.below(50));
      if (i % 5 === 4) {
        for (const socket of [...world.server.sockets]) socket.cut();
        await client.stop();
        client = await world.live(store);
      }
    }
    world.server.refuseSend = null;
    await world.rest(60_000);
    const stored = [...chat.messages.values()];
    expect(stored.map((message) => message.client_id)).toEqual(keys);
    expect(client.chats.list.get()[0]).toMatchObject({ waiting: 0, failed: 0 });
  });

  it("needs no second send when the answer was lost but the event came", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    world.server.refuseSend = (frame) => {
      world.server.say(chat, world.ann, String(frame.message), String(frame.client_id));
      return "silence";
    };
    await client.messages.send(chat.chatId, { text: "once" });
    await world.rest(60_000);
    expect(chat.messages.size).toBe(1);
    expect(world.heard("send").length).toBe(1);
  });

  it("keeps what was refused for good, with code and text, until it is sent again or thrown away", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    let client = await world.live(store);
    follow(client.messages.of(chat.chatId));
    world.server.refuseSend = () => ({ t: "error", code: "forbidden", detail: "only admins post here" });
    const first = await client.messages.send(chat.chatId, { text: "no" });
    const second = await client.messages.send(chat.chatId, { text: "nor this" });
    await world.rest();
    expect(last(client, chat.chatId)).toMatchObject({
      sending: "failed",
      text: "nor this",
      failure: { code: "forbidden", detail: "only admins post here" },
    });
    await client.stop();
    client = await world.live(store);
    follow(client.messages.of(chat.chatId));
    await world.rest();
    expect(client.chats.list.get()[0]?.failed).toBe(2);
    world.server.refuseSend = null;
    await client.messages.retry(first);
    await client.messages.discard(second);
    await world.rest();
    expect(texts(client.messages.of(chat.chatId).get().entries)).toEqual(["no"]);
    expect([...chat.messages.values()].map((message) => message.client_id)).toEqual([first]);
    expect(client.chats.list.get()[0]).toMatchObject({ failed: 0, waiting: 0 });
  });

  it("takes a new key when the old one stands for another text", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    world.server.refuseSend = () => ({ t: "error", code: "idempotency_conflict", detail: "another body" });
    const key = await client.messages.send(chat.chatId, { text: "x" });
    await world.rest();
    world.server.refuseSend = null;
    await client.messages.retry(key);
    await world.rest();
    const [message] = [...chat.messages.values()];
    expect(message?.message).toBe("x");
    expect(message?.client_id).not.toBe(key);
  });

  for (const code of ["rate_limited", "unavailable", "internal"]) {
    it(`tries again after ${code}, when the server said`, async () => {
      const world = new World();
      const chat = world.server.chat([world.ann, world.bob]);
      const client = await world.live();
      world.server.refuseSend = () => ({ t: "error", code, detail: "later", retry_after_ms: 3_000 });
      await client.messages.send(chat.chatId, { text: "patience" });
      await world.rest(500);
      world.server.refuseSend = null;
      await world.rest(2_000);
      expect(chat.messages.size).toBe(0);
      await world.rest(1_000);
      expect(chat.messages.size).toBe(1);
    });
  }

  it("clears the draft in the step that stores the message, and keeps others", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const other = world.server.chat([world.ann, world.cleo]);
    const store = memoryStore();
    let client = await world.live(store);
    client.messages.setDraft(chat.chatId, "hel");
    client.messages.setDraft(other.chatId, "later");
    await world.rest(1_000);
    await client.messages.send(chat.chatId, { text: "hello" });
    await client.stop();
    client = await world.live(store);
    expect(client.messages.draft(chat.chatId).get()).toBe("");
    expect(client.messages.draft(other.chatId).get()).toBe("later");
    expect(client.chats.chat(other.chatId).get()?.draft).toBe("later");
  });
});
