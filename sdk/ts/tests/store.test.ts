// One suite for both engines of the store: what sync.ts and outbox.ts rely on.

import "fake-indexeddb/auto";
import { describe, expect, it } from "vitest";
import { indexedDbStore, memoryStore, type StoreProvider } from "../src/index";
import { CACHE, type ChatRecord, type EntryRecord, StaleStoreError, trimHistory } from "../src/store";
import { entryOf } from "../src/sync";
import { readChat, readMessage } from "../src/wire";
import { follow, shown, truth, World } from "./world/world";

const CHAT = "1152921504606846976";

function entry(seq: number, stateSeq = seq): EntryRecord {
  const message = readMessage({
    message_id: String(9_000 + seq),
    chat_id: CHAT,
    sender_id: "5",
    seq,
    message: `m${seq} at ${stateSeq}`,
    state_seq: stateSeq,
  });
  if (message === null) throw new Error("unreadable");
  return entryOf(message, []);
}

function record(knownSeq: number, fromSeq = 1): ChatRecord {
  const chat = readChat({ chat_id: CHAT, head_seq: knownSeq, joined_seq: 1 });
  if (chat === null) throw new Error("unreadable");
  return {
    chatId: CHAT,
    chat,
    headSeq: knownSeq,
    knownSeq,
    fromSeq,
    readSeq: 0,
    toldReadSeq: 0,
    toldDeliveredSeq: 0,
    unread: 0,
    mentions: 0,
    countedSeq: knownSeq,
    last: null,
    ownSeq: 0,
    cursors: {},
    recipients: null,
  };
}

let n = 0;
const engines: [string, () => StoreProvider][] = [
  ["memory", memoryStore],
  ["IndexedDB", indexedDbStore],
];

for (const [name, make] of engines) {
  describe(`the store in ${name}`, () => {
    const fresh = async () => {
      const provider = make();
      n += 1;
      const server = `https://s${n}.example`;
      return { provider, server, store: await provider.open(server, "5") };
    };

    it("gives back what a step stored, and nothing of a step that failed", async () => {
      const { provider, server, store } = await fresh();
      await store.write(1, async (step) => {
        await step.putMeta({ cursor: "c1" });
        await step.putChat(record(2));
        await step.putEntry(entry(1));
        await step.putEntry(entry(2));
        await step.putDraft(CHAT, "hm");
      });
      const failed = store.write(1, async (step) => {
        await step.putMeta({ cursor: "c2" });
        await step.putEntry(entry(3));
        await step.removeChat(CHAT);
        throw new Error("on purpose");
      });
      await expect(failed).rejects.toThrow("on purpose");
      store.close();
      const again = await provider.open(server, "5");
      const snapshot = await again.load();
      expect(snapshot.meta.cursor).toBe("c1");
      expect(snapshot.chats.map(({ knownSeq }) => knownSeq)).toEqual([2]);
      expect(snapshot.drafts.get(CHAT)).toBe("hm");
      expect((await again.entriesBefore(CHAT, 100, 10)).map(({ seq }) => seq)).toEqual([1, 2]);
    });

    it("pages both ways, finds by message, and sees its own step", async () => {
      const { store } = await fresh();
      await store.write(1, async (step) => {
        for (let seq = 1; seq <= 20; seq += 1) await step.putEntry(entry(seq));
        expect((await step.entry(CHAT, 7))?.seq).toBe(7);
        expect((await step.entryOfMessage("9007"))?.seq).toBe(7);
        expect((await step.entriesAfter(CHAT, 17, 10)).map(({ seq }) => seq)).toEqual([18, 19, 20]);
      });
      expect((await store.entriesBefore(CHAT, 11, 3)).map(({ seq }) => seq)).toEqual([8, 9, 10]);
      expect((await store.entriesAfter(CHAT, 5, 2)).map(({ seq }) => seq)).toEqual([6, 7]);
      expect((await store.entryOfMessage("9003"))?.seq).toBe(3);
      expect(await store.entryOfMessage("1")).toBeUndefined();
    });

    it("never takes a state or a position back", async () => {
      const { store } = await fresh();
      await store.write(1, async (step) => {
        await step.putChat(record(10));
        await step.putEntry(entry(3, 9));
      });
      await store.write(1, async (step) => {
        await step.putChat(record(6, 4));
        await step.putEntry(entry(3, 5));
      });
      expect((await store.load()).chats[0]).toMatchObject({ knownSeq: 10, fromSeq: 1 });
      expect((await store.entryOfMessage("9003"))?.stateSeq).toBe(9);
    });

    it("drops the cache but not the user's own words, and refuses those who slept through it", async () => {
      const { store } = await fresh();
      await store.write(1, async (step) => {
        await step.putChat(record(1));
        await step.putEntry(entry(1));
        await step.putDraft(CHAT, "mine");
      });
      const generation = await store.write(1, (step) => step.clearCache());
      expect(generation).toBe(2);
      const snapshot = await store.load();
      expect(snapshot).toMatchObject({ generation: 2, chats: [], meta: { cursor: null, listed: false } });
      expect(snapshot.drafts.get(CHAT)).toBe("mine");
      expect(await store.entriesBefore(CHAT, 100, 10)).toEqual([]);
      const late = store.write(1, (step) => step.putChat(record(1)));
      await expect(late).rejects.toBeInstanceOf(StaleStoreError);
      await store.write(null, (step) => step.putDraft(CHAT, "still mine"), "durable");
      expect((await store.load()).drafts.get(CHAT)).toBe("still mine");
    });

    it("cuts the older part away, and forgets a chat with its entries", async () => {
      const { store } = await fresh();
      await store.write(1, async (step) => {
        for (let seq = 1; seq <= 5; seq += 1) await step.putEntry(entry(seq));
        await step.putChat(record(5));
      });
      await store.write(1, (step) => step.removeEntriesBefore(record(5, 4)));
      expect((await store.entriesBefore(CHAT, 100, 10)).map(({ seq }) => seq)).toEqual([4, 5]);
      expect(await store.entryOfMessage("9001")).toBeUndefined();
      await store.write(1, (step) => step.removeChat(CHAT));
      expect(await store.entriesBefore(CHAT, 100, 10)).toEqual([]);
      expect((await store.load()).chats).toEqual([]);
    });

    it("keeps the newest of a long history, and makes other windows load anew", async () => {
      const { store } = await fresh();
      const bounds = { positions: 20, slack: 5 };
      const all = 26;
      await store.write(1, async (step) => {
        for (let seq = 1; seq <= all; seq += 1) await step.putEntry(entry(seq));
        await step.putChat(record(all));
        await step.putDraft(CHAT, "mine");
      });
      const cut = await trimHistory(store, await store.load(), bounds);
      expect(cut.generation).toBe(2);
      expect(cut.chats[0]).toMatchObject({ knownSeq: all, fromSeq: 7 });
      expect(cut.drafts.get(CHAT)).toBe("mine");
      const kept = await store.entriesBefore(CHAT, all + 1, all);
      expect(kept.map(({ seq }) => seq)).toEqual(Array.from({ length: 20 }, (_, i) => 7 + i));
      expect(await store.load()).toEqual(cut);
      const late = store.write(1, (step) => step.putChat(record(all)));
      await expect(late).rejects.toBeInstanceOf(StaleStoreError);
      // Once cut, nothing is to do until much has come again.
      expect(await trimHistory(store, cut, bounds)).toBe(cut);
    });

    it("keeps accounts apart and remembers the last one", async () => {
      const { provider, server, store } = await fresh();
      const other = await provider.open(server, "6");
      await store.write(1, (step) => step.putDraft(CHAT, "five's"));
      expect((await other.load()).drafts.size).toBe(0);
      const user = { user_id: "5", username: "ann", display_name: "Ann", created_at: "" };
      expect(await provider.lastUser(server)).toBeNull();
      await provider.setLastUser(server, user);
      expect(await provider.lastUser(server)).toEqual(user);
      await provider.setLastUser(server, null);
      expect(await provider.lastUser(server)).toBeNull();
      store.close();
      await provider.remove(server, "5");
      expect((await (await provider.open(server, "5")).load()).drafts.size).toBe(0);
    });

    it("carries a client over a reload", async () => {
      const world = new World();
      const chat = world.server.chat([world.ann, world.bob]);
      const provider = make();
      let client = world.client(provider);
      await client.start();
      for (let i = 0; i < 40; i += 1) await world.rest(100);
      for (let i = 0; i < 5; i += 1) world.server.say(chat, world.bob, `m${i}`);
      for (let i = 0; i < 20; i += 1) await world.rest(100);
      await client.stop();
      world.server.online = false;
      client = world.client(provider);
      await client.start();
      const window = follow(client.messages.of(chat.chatId));
      for (let i = 0; i < 20; i += 1) await world.rest(10);
      expect(client.session.get()).toMatchObject({ state: "signed_in", me: { username: "ann" } });
      expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
      await client.stop();
    });
  });
}

describe("a long chat", () => {
  it("is cached up to a bound, and the rest comes from the server without a hole", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const first = await world.live(store);
    for (let i = 0; i < CACHE.positions + 350; i += 1) world.server.say(chat, world.bob, `m${i}`);
    await world.rest(2_000);
    await first.stop();
    const opened = await store.open("https://chat.example", world.ann);
    expect((await opened.load()).chats[0]?.fromSeq).toBeLessThan(10);
    const client = await world.live(store);
    expect((await opened.load()).chats[0]?.fromSeq).toBe(chat.log.length - CACHE.positions + 1);
    expect((await opened.entriesBefore(chat.chatId, chat.log.length + 1, 10_000)).length).toBe(
      CACHE.positions,
    );
    const window = follow(client.messages.of(chat.chatId));
    await world.rest();
    for (let i = 0; i < 100 && client.messages.of(chat.chatId).get().hasOlder; i += 1) {
      await client.messages.loadOlder(chat.chatId);
    }
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
    await client.stop();
  });

  it("that is cut by one window is loaded anew by the other", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const store = memoryStore();
    const one = await world.live(store);
    for (let i = 0; i < CACHE.positions + 350; i += 1) world.server.say(chat, world.bob, `m${i}`);
    await world.rest(2_000);
    const window = follow(one.messages.of(chat.chatId));
    const two = await world.live(store);
    world.server.say(chat, world.bob, "news");
    await world.rest(2_000);
    for (const client of [one, two]) {
      for (let i = 0; i < 100 && client.messages.of(chat.chatId).get().hasOlder; i += 1) {
        await client.messages.loadOlder(chat.chatId);
      }
      expect(shown(client.messages.of(chat.chatId).get().entries)).toEqual(truth(chat));
    }
    window.stop();
    await one.stop();
    await two.stop();
  });
});

describe("a store that fails", () => {
  it("is replaced by memory, and sending goes on", async () => {
    const world = new World();
    const chat = world.server.chat([world.ann, world.bob]);
    const inner = memoryStore();
    let broken = false;
    const provider: StoreProvider = {
      ...inner,
      persistent: true,
      open: async (server, userId) => {
        const store = await inner.open(server, userId);
        const write = store.write.bind(store);
        store.write = (generation, run, durable) => {
          if (!broken) return write(generation, run, durable);
          return Promise.reject(Object.assign(new Error("no room"), { name: "QuotaExceededError" }));
        };
        return store;
      },
    };
    const client = await world.live(provider);
    const window = follow(client.messages.of(chat.chatId));
    world.server.say(chat, world.bob, "before");
    await world.rest();
    expect(client.storage.get()).toEqual({ persistent: true, problem: null });
    broken = true;
    world.server.say(chat, world.bob, "after");
    await client.messages.send(chat.chatId, { text: "mine" });
    await world.rest();
    expect(client.storage.get()).toEqual({ persistent: false, problem: "full" });
    expect(shown(window.values.at(-1)?.entries ?? [])).toEqual(truth(chat));
  });

  it("that cannot be opened at all is replaced too", async () => {
    const world = new World();
    const provider: StoreProvider = {
      ...memoryStore(),
      persistent: true,
      open: () => Promise.reject(new Error("refused by the browser")),
      lastUser: () => Promise.reject(new Error("refused by the browser")),
    };
    const client = await world.live(provider);
    expect(client.storage.get()).toEqual({ persistent: false, problem: "unavailable" });
    expect(client.connection.get().state).toBe("live");
  });
});
