// Stories about the replica: what comes is applied once, in order, and nothing is missing.

import { describe, expect, it } from "vitest";
import { memoryStore } from "../src/index";
import { Random, seeds } from "./world/random";
import { follow, shown, texts, truth, World } from "./world/world";

describe("the replica of a chat", () => {
  it("shows what others say, in order, and says that it was delivered", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    for (const text of ["one", "two", "three"]) world.server.say(chat, world.bob, text);
    await world.rest();
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["one", "two", "three"]);
    expect(chat.delivered.get(world.ann)).toBe(4);
    expect(chat.read.get(world.ann)).toBe(1);
    expect(client.chats.list.get()[0]?.unread).toBe(3);
  });

  it("pages the hole when an event was lost, and drops what comes twice", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    const fates = ["drop", "drop", "pass", "repeat"] as const;
    let next = 0;
    world.server.eventFault = () => fates[next++] ?? "pass";
    for (const text of ["a", "b", "c", "d"]) world.server.say(chat, world.bob, text);
    await world.rest();
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["a", "b", "c", "d"]);
    expect(world.heard("sync").length).toBeGreaterThan(0);
  });

  it("pages what lies beyond the replay, many pages long", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const client = await world.live(store);
    await client.stop();
    for (let i = 0; i < 700; i += 1) world.server.say(chat, world.bob, `m${i}`);
    const again = await world.live(store);
    await world.rest(5_000);
    expect(chat.delivered.get(world.ann)).toBe(701);
    expect(again.chats.list.get()[0]?.headSeq).toBe(701);
    expect(again.chats.list.get()[0]?.unread).toBe(700);
    const window = follow(again.messages.of(chat.chatId));
    await world.rest();
    expect(window.values.at(-1)?.entries.length).toBe(50);
    expect(window.values.at(-1)?.hasOlder).toBe(true);
    await again.messages.loadOlder(chat.chatId);
    expect(window.values.at(-1)?.entries.length).toBe(100);
  });

  it("folds edits, deletions and reactions, and applies none of them twice", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    const one = world.server.say(chat, world.bob, "one").message_id;
    const two = world.server.say(chat, world.bob, "two").message_id;
    await world.rest();
    world.server.eventFault = () => "repeat";
    world.server.edit(chat, one, "uno");
    world.server.react(chat, one, world.bob, "👍");
    world.server.react(chat, one, world.ann, "👍");
    world.server.delete(chat, two);
    await world.rest();
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
    const entry = window.values.at(-1)?.entries[0];
    expect(entry?.kind === "message" && entry.reactions).toEqual([
      { emoji: "👍", count: 2, userIds: [world.bob, world.ann], mine: true },
    ]);
    expect(client.chats.list.get()[0]?.unread).toBe(1);
  });

  it("takes the state of an own change from the answer, and the event then changes nothing", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    await client.messages.send(chat.chatId, { text: "teh" });
    await world.rest();
    const id = [...chat.messages.keys()][0] ?? "";
    await client.messages.edit(id, "the");
    await client.messages.react(id, "🎉");
    await world.rest();
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
    await client.messages.delete(id);
    await world.rest();
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
  });

  it("keeps an event of an unknown kind, moves on, and shows it only with a fallback", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    world.server.append(chat, "hologram", { beam: 7 });
    world.server.append(chat, "poll", { fallback: "Bob asks: tea?" });
    world.server.append(chat, "hidden", {});
    world.server.say(chat, world.bob, "after");
    await world.rest();
    const entries = window.values.at(-1)?.entries ?? [];
    expect(entries.map((entry) => (entry.kind === "notice" ? entry.fallback : entry.text))).toEqual([
      "Bob asks: tea?",
      "after",
    ]);
    expect(chat.delivered.get(world.ann)).toBe(5);
  });

  it("learns of new chats, of removals, and of its own part", async () => {
    const world = new World();
    const client = await world.live();
    expect(client.chats.ready.get()).toBe(true);
    const chat = world.server.chat([world.ann, world.bob, world.cleo]);
    await world.rest();
    expect(client.chats.order.get()).toEqual([chat.chatId]);
    world.server.say(chat, world.bob, "hi");
    await world.rest();
    chat.members = chat.members.filter((id) => id !== world.ann);
    world.server.tellOwn(world.ann, { kind: "chat_removed", chat_id: chat.chatId, reason: "removed" });
    await world.rest();
    expect(client.chats.order.get()).toEqual([]);
    expect(client.chats.chat(chat.chatId).get()).toBeNull();
  });

  it("sees only the new part after leaving and coming back", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob, world.cleo]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    world.server.say(chat, world.bob, "before");
    await world.rest();
    // The removal and the return both fall into one gap: the log this member may see has an unseen stretch.
    const fault = world.server.eventFault;
    world.server.eventFault = () => "drop";
    for (let i = 0; i < 3; i += 1) world.server.say(chat, world.bob, "secret");
    chat.joinedSeq.set(world.ann, 6);
    world.server.append(chat, "join", { user_id: world.ann, by: world.bob, role: "member" });
    world.server.eventFault = fault;
    world.server.say(chat, world.bob, "after");
    await world.rest();
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["after"]);
  });

  it("starts again when the server's store was restored, and keeps outbox and drafts", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    for (let i = 0; i < 6; i += 1) world.server.say(chat, world.bob, `m${i}`);
    await world.rest();
    world.server.online = false;
    world.server.restore("epoch-2", 3);
    await client.messages.send(chat.chatId, { text: "still mine" });
    client.messages.setDraft(chat.chatId, "half a thought");
    await world.rest();
    world.server.online = true;
    await world.rest(70_000);
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["m0", "m1", "m2", "still mine"]);
    expect(client.messages.draft(chat.chatId).get()).toBe("half a thought");
    expect(client.chats.ready.get()).toBe(true);
  });

  it("starts again when a page names another epoch", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    follow(client.messages.of(chat.chatId));
    world.server.eventFault = () => "drop";
    world.server.say(chat, world.bob, "lost on the way");
    world.server.eventFault = null;
    world.server.say(chat, world.bob, "x");
    await world.rest();
    world.server.epoch = "epoch-2";
    world.server.eventFault = () => "drop";
    world.server.say(chat, world.bob, "lost too");
    world.server.eventFault = null;
    world.server.say(chat, world.bob, "y");
    await world.rest(5_000);
    expect(world.heard("hello").length).toBe(2);
    expect(shown(client.messages.of(chat.chatId).get().entries)).toEqual(truth(chat));
  });

  it("never throws at frames that make no sense", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const client = await world.live();
    const window = follow(client.messages.of(chat.chatId));
    const [socket] = world.server.sockets;
    const random = new Random(7);
    const junk: unknown[] = [
      "",
      "nonsense",
      "null",
      "[]",
      "[null,1,[],{}]",
      '{"t":"event"}',
      '{"t":"event","chat_id":5,"seq":1,"kind":"message"}',
      '{"t":"welcome"}',
      '{"t":"events","chat_id":"1","head_seq":-1}',
      '{"t":"receipt","chat_id":"x","user_id":"1","status":"eaten","seq":1}',
      '{"t":"hologram"}',
      '{"t":"head","chat_id":"1","seq":1e400}',
      '{"t":"error"}',
      '{"t":"account"}',
      '{"t":"cursor","cursor":7}',
      new Uint8Array([1, 2, 3]),
    ];
    for (const data of junk) socket?.raw(data);
    // A known kind in a shape that cannot be read is an unknown event: stored, passed over.
    world.server.append(chat, "edit", { message_id: 5 });
    world.server.append(chat, "reaction", { message_id: "77", emoji: {}, user_id: null });
    world.server.append(chat, "settings", { changes: "what" });
    world.server.append(chat, "role", {});
    for (let i = 0; i < 200; i += 1)
      socket?.raw(scramble(JSON.stringify(world.server.head(chat, world.ann)), random));
    world.server.say(chat, world.bob, "fine");
    await world.rest(3_000);
    expect(texts(window.values.at(-1)?.entries ?? [])).toEqual(["fine"]);
    expect(client.connection.get().state).toBe("live");
  });
});

describe("any network", () => {
  for (const seed of seeds(25)) {
    it(`gives each reader the log (seed ${seed})`, async () => {
      const world = new World(seed);
      const { random, server } = world;
      const chats = [
        server.chat([world.ann, world.bob]),
        server.chat([world.ann, world.bob, world.cleo]),
        server.chat([world.ann, world.cleo]),
      ];
      server.replayLimit = 1 + random.below(20);
      const store = memoryStore();
      let client = await world.live(store);
      let windows = chats.map((chat) => follow(client.messages.of(chat.chatId)));
      const sent = new Map<string, string[]>();
      let epoch = 1;
      server.eventFault = () => random.pick(["pass", "pass", "pass", "drop", "repeat", "delay"] as const);
      for (let step = 0; step < 120; step += 1) {
        const chat = random.pick(chats);
        const other = random.pick(chat.members.filter((id) => id !== world.ann));
        const message = random.pick([...chat.messages.keys(), ""]);
        const dice = random.below(100);
        if (dice < 40) server.say(chat, other, `s${step}`);
        else if (dice < 50) server.edit(chat, message, `e${step}`);
        else if (dice < 55) server.delete(chat, message);
        else if (dice < 65) server.react(chat, message, random.pick(chat.members), random.pick(["👍", "🎉"]));
        else if (dice < 80) {
          const key = await client.messages.send(chat.chatId, { text: `mine${step}` });
          sent.set(chat.chatId, [...(sent.get(chat.chatId) ?? []), key]);
        } else if (dice < 85) for (const socket of [...server.sockets]) socket.cut();
        else if (dice < 88) server.online = !server.online;
        else if (dice < 90) server.tellCursors();
        else if (dice < 92) client.messages.loadOlder(chat.chatId).catch(() => {});
        else if (dice < 94) client.receipts.markRead(chat.chatId, random.below(chat.log.length + 1));
        else if (dice < 96) {
          await client.stop();
          client = world.client(store);
          await client.start();
          windows = chats.map((one) => follow(client.messages.of(one.chatId)));
        } else if (dice < 97) {
          epoch += 1;
          server.restore(`epoch-${epoch}`, random.below(3));
        } else await world.time.advance(random.below(5_000));
        if (random.chance(0.5)) await world.time.advance(random.below(300));
      }
      // Heal the network, let one more message pass through each chat, and wait.
      server.eventFault = null;
      server.online = true;
      client.connectNow();
      await world.time.advance(130_000);
      for (const chat of chats) server.say(chat, chat.members[1] ?? "", "end");
      await world.time.advance(130_000);

      expect(client.connection.get()).toMatchObject({ state: "live", catchingUp: false });
      for (const [i, chat] of chats.entries()) {
        const window = windows[i]?.values.at(-1);
        while (client.messages.of(chat.chatId).get().hasOlder) await client.messages.loadOlder(chat.chatId);
        expect(shown(client.messages.of(chat.chatId).get().entries)).toEqual(truth(chat));
        expect(window?.chatId).toBe(chat.chatId);
        const row = client.chats.chat(chat.chatId).get();
        expect(row?.headSeq).toBe(chat.log.length);
        expect(chat.delivered.get(world.ann)).toBe(chat.log.length);
        const unread = [...chat.messages.values()].filter(
          (one) => !one.deleted && one.sender_id !== world.ann && one.seq > (row?.readSeq ?? 0),
        );
        expect(row?.unread).toBe(unread.length);
        // Each own message once; a restored backup brings back what it had lost, so all of them are there.
        expect(row).toMatchObject({ waiting: 0, failed: 0 });
        const keys = [...chat.messages.values()].map((one) => one.client_id).filter((key) => key !== null);
        expect(new Set(keys).size).toBe(keys.length);
      }
      if (epoch === 1) {
        for (const chat of chats) {
          // Own messages stand in the order of the calls (P4).
          const inLog = [...chat.messages.values()].sort((a, b) => a.seq - b.seq).map((one) => one.client_id);
          expect(inLog.filter((key) => key !== null)).toEqual(sent.get(chat.chatId) ?? []);
        }
      }
      await client.stop();
    });
  }
});

function scramble(text: string, random: Random): string {
  const at = random.below(text.length);
  return (
    text.slice(0, at) + random.pick(["", '"', "}", "null", "-1", "9e99"]) + text.slice(at + random.below(4))
  );
}
