// Stories about what views watch: rows, windows, ticks, presence, typing, members.

import { describe, expect, it } from "vitest";
import { messageStatus } from "../src/index";
import { follow, shown, texts, truth, World } from "./world/world";

describe("the list of chats", () => {
  it("is ordered by the last message, and changes only the rows that changed", async () => {
    const world = new World();
    const one = world.server.chat([world.ann, world.bob]);
    const two = world.server.chat([world.ann, world.cleo]);
    const client = await world.live();
    world.server.say(one, world.bob, "first");
    await world.rest(1_000);
    world.server.say(two, world.cleo, "second");
    await world.rest(1_000);
    expect(client.chats.order.get()).toEqual([two.chatId, one.chatId]);
    const before = client.chats.list.get();
    const orders = follow(client.chats.order);
    world.server.say(two, world.cleo, "third");
    await world.rest();
    const after = client.chats.list.get();
    expect(after[1]).toBe(before[1]);
    expect(after[0]).not.toBe(before[0]);
    expect(orders.values.length).toBe(1);
    expect(client.chats.totals.get()).toEqual({ unread: 3, mentions: 0, unreadChats: 2 });
  });

  it("does not move for ticks, typing and presence", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await client.messages.send(chat.chatId, { text: "hi" });
    await world.rest();
    const lists = follow(client.chats.list);
    const shownBefore = window.values.length;
    const [socket] = world.server.sockets;
    world.server.reads(chat, world.bob, 2);
    socket?.tell({ t: "typing", chat_id: chat.chatId, user_id: world.bob, active: true });
    socket?.tell({ t: "presence", user_id: world.bob, status: "online", last_seen: null });
    await world.rest();
    expect(lists.values.length).toBe(1);
    expect(window.values.length).toBe(shownBefore);
    expect(client.presence.typing(chat.chatId).get()).toEqual([world.bob]);
  });

  it("makes chats once, and renames by the log", async () => {
    const world = new World();
    const client = await world.live();
    const id = await client.chats.direct(world.bob);
    expect(await client.chats.direct(world.bob)).toBe(id);
    expect(client.chats.chat(id).get()).toMatchObject({ type: "one_on_one", name: "bob", peerId: world.bob });
    const self = await client.chats.direct(world.ann);
    expect(client.chats.chat(self).get()).toMatchObject({ name: null, peerId: null });
    const group = await client.chats.createGroup({ title: "x", participants: [world.bob, world.cleo] });
    const chat = world.server.chats.get(group);
    if (chat === undefined) throw new Error("no group");
    world.server.append(chat, "settings", { by: world.ann, changes: { title: "Crew", topic: "boats" } });
    world.server.append(chat, "leave", { user_id: world.cleo, by: world.cleo, reason: "left" });
    await world.rest();
    expect(client.chats.chat(group).get()).toMatchObject({
      name: "Crew",
      topic: "boats",
      participantsCount: 2,
    });
  });
});

describe("a window", () => {
  it("loads history page by page down to the first message", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    for (let i = 0; i < 120; i += 1) world.server.say(chat, world.bob, `m${i}`);
    // Another device of ann's stored it all: on this one it is history.
    chat.delivered.set(world.ann, chat.log.length);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    expect(window.values.at(-1)).toMatchObject({ state: "ready", hasOlder: true, hasNewer: false });
    expect(window.values.at(-1)?.entries.length).toBe(50);
    await client.messages.loadOlder(chat.chatId);
    await client.messages.loadOlder(chat.chatId);
    expect(window.values.at(-1)?.hasOlder).toBe(false);
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
    expect(window.values.at(-1)?.entries[60]).toBe(client.messages.of(chat.chatId).get().entries[60]);
  });

  it("stands apart after a far jump, hears edits there, and joins the log again", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    for (let i = 0; i < 300; i += 1) world.server.say(chat, world.bob, `m${i}`);
    chat.delivered.set(world.ann, chat.log.length);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    const old = [...chat.messages.values()][100]?.message_id ?? "";
    await client.messages.jumpTo(chat.chatId, old);
    expect(window.values.at(-1)).toMatchObject({ hasNewer: true, hasOlder: true });
    expect(
      window.values.at(-1)?.entries.some((entry) => entry.kind === "message" && entry.messageId === old),
    ).toBe(true);
    world.server.edit(chat, old, "edited");
    world.server.say(chat, world.bob, "news");
    await world.rest();
    expect(texts(window.values.at(-1)?.entries ?? [])).toContain("edited");
    expect(texts(window.values.at(-1)?.entries ?? [])).not.toContain("news");
    for (let i = 0; i < 10 && client.messages.of(chat.chatId).get().hasNewer; i += 1) {
      await client.messages.loadNewer(chat.chatId);
    }
    for (let i = 0; i < 10 && client.messages.of(chat.chatId).get().hasOlder; i += 1) {
      await client.messages.loadOlder(chat.chatId);
    }
    expect(window.values.at(-1)).toMatchObject({ hasNewer: false, hasOlder: false });
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
  });

  it("goes back to the newest, and jumps inside the cache without asking", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    for (let i = 0; i < 200; i += 1) world.server.say(chat, world.bob, `m${i}`);
    await world.rest(2_000);
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    const requests = world.server.requests.length;
    await client.messages.jumpTo(chat.chatId, [...chat.messages.values()][60]?.message_id ?? "");
    expect(world.server.requests.length).toBe(requests);
    expect(window.values.at(-1)).toMatchObject({ hasNewer: false, hasOlder: true });
    expect(texts(window.values.at(-1)?.entries ?? [])).toContain("m60");
    await client.messages.jumpToNewest(chat.chatId);
    expect(texts(window.values.at(-1)?.entries ?? []).at(-1)).toBe("m199");
    await expect(client.messages.jumpTo(chat.chatId, "999")).rejects.toMatchObject({ status: 404 });
  });

  it("says why it is empty when history cannot be had, and fills when it can", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    for (let i = 0; i < 3; i += 1) world.server.say(chat, world.bob, `m${i}`);
    chat.delivered.set(world.ann, chat.log.length);
    const client = await world.live();
    const answer = { status: 503, body: { code: "unavailable", detail: "busy" } };
    world.server.refusals.push({ match: /messages/, answer, times: 1 });
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    expect(window.values.at(-1)).toMatchObject({ state: "failed", problem: { code: "unavailable" } });
    await client.messages.loadOlder(chat.chatId);
    expect(window.values.at(-1)).toMatchObject({ state: "ready", problem: null });
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["m0", "m1", "m2"]);
  });

  it("shows joins and leaves as lines, and finds one message anywhere", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob, world.cleo]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    const dora = world.server.user("dora");
    world.server.append(chat, "join", { user_id: dora, by: world.bob, role: "member" });
    const said = world.server.say(chat, world.bob, "welcome");
    await world.rest();
    expect(window.values.at(-1)?.entries).toMatchObject([
      { kind: "notice", event: "join", userId: dora, byId: world.bob },
      { kind: "message", text: "welcome" },
    ]);
    expect(await client.messages.get(said.message_id)).toMatchObject({ text: "welcome" });
    expect(await client.messages.get("999")).toBeNull();
  });
});

describe("ticks", () => {
  it("show the lowest of all recipients, and never less for a later message", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob, world.cleo]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    const ticks = follow(client.receipts.ticks(chat.chatId));
    await client.messages.send(chat.chatId, { text: "hi" });
    await world.rest();
    const status = () => {
      const entry = window.values.at(-1)?.entries.at(-1);
      const now = ticks.values.at(-1);
      return entry?.kind === "message" && now !== undefined ? messageStatus(entry, now) : null;
    };
    expect(status()).toBe("sent");
    world.server.reads(chat, world.bob, 2);
    await world.rest();
    expect(status()).toBe("sent");
    world.server.reads(chat, world.cleo, 2, "delivered");
    await world.rest();
    expect(status()).toBe("delivered");
    world.server.reads(chat, world.cleo, 2);
    await world.rest();
    expect(status()).toBe("read");
    expect(ticks.values.at(-1)?.cursors.get(world.bob)).toEqual({ deliveredSeq: 2, readSeq: 2 });
  });

  it("catch up after a reconnect, since moves are not replayed", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const ticks = follow(client.receipts.ticks(chat.chatId));
    await client.messages.send(chat.chatId, { text: "hi" });
    await world.rest();
    client.networkChanged(false);
    world.server.reads(chat, world.bob, 2);
    client.networkChanged(true);
    await world.rest(2_000);
    expect(ticks.values.at(-1)?.readSeq).toBe(2);
  });

  it("read is said when the view says so, once, and again after a cut", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    for (const text of ["a", "b", "c"]) world.server.say(chat, world.bob, text);
    await world.rest();
    expect(chat.read.get(world.ann)).toBe(1);
    client.receipts.markRead(chat.chatId, 3);
    await world.rest();
    expect(chat.read.get(world.ann)).toBe(3);
    expect(client.chats.list.get()[0]).toMatchObject({ unread: 1, readSeq: 3 });
    const told = world.heard("receipt").length;
    client.receipts.markRead(chat.chatId, 2);
    await world.rest();
    expect(world.heard("receipt").length).toBe(told);
    client.networkChanged(false);
    client.receipts.markRead(chat.chatId, 4);
    await world.rest();
    expect(client.chats.list.get()[0]?.unread).toBe(0);
    client.networkChanged(true);
    await world.rest(2_000);
    expect(chat.read.get(world.ann)).toBe(4);
  });
});

describe("presence", () => {
  it("is watched for exactly the people on screen, and unknown without a connection", async () => {
    const world = new World();
    const client = await world.live();
    const bob = follow(client.presence.of(world.bob));
    const cleo = follow(client.presence.of(world.cleo));
    await world.rest();
    expect(world.heard("watch").at(-1)?.user_ids).toEqual([world.bob, world.cleo]);
    expect(bob.values.at(-1)?.status).toBe("online");
    cleo.stop();
    await world.rest(3_000);
    expect(world.heard("watch").at(-1)?.user_ids).toEqual([world.bob]);
    client.networkChanged(false);
    expect(bob.values.at(-1)).toEqual({ status: "unknown", lastSeen: null });
    client.networkChanged(true);
    await world.rest(2_000);
    expect(bob.values.at(-1)?.status).toBe("online");
  });

  it("of a stranger is asked for again once there is a chat", async () => {
    const world = new World();
    const client = await world.live();
    const bob = follow(client.presence.of(world.bob));
    await world.rest();
    const [socket] = world.server.sockets;
    socket?.tell({ t: "presence", user_id: world.bob, status: "hidden", last_seen: null });
    await world.rest();
    expect(bob.values.at(-1)?.status).toBe("hidden");
    const asked = world.heard("watch").length;
    await client.chats.direct(world.bob);
    await world.rest();
    expect(world.heard("watch").length).toBe(asked + 1);
    expect(bob.values.at(-1)?.status).toBe("online");
  });

  it("tells typing sparingly, and forgets who stopped without a word", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    for (let i = 0; i < 40; i += 1) {
      client.presence.setTyping(chat.chatId, true);
      await world.rest(100);
    }
    expect(world.heard("typing").length).toBe(2);
    await world.rest(6_000);
    expect(world.heard("typing").at(-1)).toMatchObject({ active: false });
    const [socket] = world.server.sockets;
    socket?.tell({ t: "typing", chat_id: chat.chatId, user_id: world.bob, active: true });
    await world.rest();
    expect(client.presence.typing(chat.chatId).get()).toEqual([world.bob]);
    world.server.say(chat, world.bob, "done");
    await world.rest();
    expect(client.presence.typing(chat.chatId).get()).toEqual([]);
    socket?.tell({ t: "typing", chat_id: chat.chatId, user_id: world.bob, active: true });
    await world.rest(9_000);
    expect(client.presence.typing(chat.chatId).get()).toEqual([]);
  });

  it("ends the own typing when the message is sent", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    client.presence.setTyping(chat.chatId, true);
    await client.messages.send(chat.chatId, { text: "there" });
    await world.rest();
    expect(world.heard("typing").at(-1)).toMatchObject({ active: false });
  });

  it("tells the focus, and again after a reconnect", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    client.setFocus(chat.chatId, true);
    client.setFocus(chat.chatId, true);
    await world.rest();
    expect(world.heard("focus")).toEqual([{ t: "focus", chat_id: chat.chatId, visible: true }]);
    client.networkChanged(false);
    client.networkChanged(true);
    await world.rest(2_000);
    expect(world.heard("focus").length).toBe(2);
  });
});

describe("members and people", () => {
  it("are loaded when looked at, and again when the log says so", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob, world.cleo]);
    const client = await world.live();
    const members = follow(client.members.of(chat.chatId));
    await world.rest();
    expect(members.values[0]?.state).toBe("loading");
    expect(members.values.at(-1)?.members.map((member) => member.user?.username)).toEqual([
      "ann",
      "bob",
      "cleo",
    ]);
    const dora = world.server.user("dora");
    chat.members.push(dora);
    world.server.append(chat, "join", { user_id: dora, by: world.bob, role: "member" });
    await world.rest(1_000);
    expect(members.values.at(-1)?.members.length).toBe(4);
  });

  it("asks for an unknown person once", async () => {
    const world = new World();
    const client = await world.live();
    const one = follow(client.accounts.user(world.cleo));
    const two = follow(client.accounts.user(world.cleo));
    await world.rest();
    expect(one.values.at(-1)).toMatchObject({ username: "cleo", displayName: "cleo", deleted: false });
    expect(two.values.at(-1)).toBe(one.values.at(-1));
    expect(world.server.requests.filter(({ path }) => path === `/users/${world.cleo}`).length).toBe(1);
  });
});
