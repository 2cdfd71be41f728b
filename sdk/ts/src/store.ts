// What a device keeps of one account on one server: a cache of the logs, the outbox, the drafts.
//
// One interface, two engines: IndexedDB and memory (tests, and browsers that refuse storage). A logical step is
// one `write`, all or nothing; the resume cursor is written in the same step as what came before it.
// History here is a cache and may vanish; the outbox and the drafts are the user's own words and may not.
// It is bounded: each start keeps the newest positions of every chat (`CACHE`, `trimHistory`).
// What the records mean is decided in sync.ts and outbox.ts.

import { type DBSchema, deleteDB, type IDBPDatabase, type IDBPTransaction, openDB } from "idb";
import type { SendFailure } from "./index";
import type { WireChat, WireEvent, WireMessage, WireUser } from "./wire";

/**
 * One chat as a replica of its log. Events `fromSeq … knownSeq` were applied without a hole; events after
 * `knownSeq` up to `headSeq` are an open gap that survives a restart.
 */
export interface ChatRecord {
  readonly chatId: string;
  /** As the server described it last, kept current by events. Positions and counts in it are stale: use those below. */
  readonly chat: WireChat;
  readonly headSeq: number;
  readonly knownSeq: number;
  readonly fromSeq: number;
  /** Own read position, and what of it and of the delivered position the server is known to hold. */
  readonly readSeq: number;
  readonly toldReadSeq: number;
  readonly toldDeliveredSeq: number;
  readonly unread: number;
  readonly mentions: number;
  /** Events up to here are counted in `unread`. */
  readonly countedSeq: number;
  readonly last: EntryRecord | null;
  /** Position of the newest own message. */
  readonly ownSeq: number;
  /** Positions of the others: [delivered, read]. */
  readonly cursors: Readonly<Record<string, readonly [number, number]>>;
  /** Whose positions count for the ticks; null until the members were asked for. */
  readonly recipients: readonly string[] | null;
}

/** A message in its present state, or an event that is shown or kept as it came. */
export interface EntryRecord {
  readonly chatId: string;
  readonly seq: number;
  /** The id of a message; absent for other events, so that the index holds messages only. */
  readonly messageId?: string;
  /** The last event folded in. */
  readonly stateSeq: number;
  readonly message: WireMessage | null;
  readonly event: WireEvent | null;
  /** Own reactions beyond the 20 people that the message lists. */
  readonly mine: readonly string[];
}

export interface OutboxRecord {
  readonly clientId: string;
  readonly chatId: string;
  /** Rises with each send: the order of one's own messages. */
  readonly order: number;
  readonly createdAtMs: number;
  readonly type: string;
  readonly text: string;
  readonly replyTo: string | null;
  /** `acked`: durable on the server; kept until its event was applied. */
  readonly state: "waiting" | "acked" | "failed";
  readonly failure: SendFailure | null;
  readonly acked: { readonly messageId: string; readonly seq: number; readonly createdAt: string } | null;
}

export interface Meta {
  cursor: string | null;
  /** Epoch of the server's store, once an answer named it. */
  epoch: string | null;
  /** Chats that were heard of and whose description is still to be fetched. */
  wanted: readonly string[];
  /** Whether the whole list of chats was fetched since the last reset. */
  listed: boolean;
}

export const EMPTY_META: Meta = { cursor: null, epoch: null, wanted: [], listed: false };

export interface Snapshot {
  generation: number;
  meta: Meta;
  chats: ChatRecord[];
  outbox: OutboxRecord[];
  drafts: Map<string, string>;
  users: WireUser[];
}

/** The inside of one step. Await nothing but these methods, or the transaction of the browser ends early. */
export interface Step {
  putMeta(change: Partial<Meta>): Promise<void>;
  /** Never takes a position back that another window of the same account wrote meanwhile. */
  putChat(record: ChatRecord): Promise<void>;
  /** Removes a chat with its entries. */
  removeChat(chatId: string): Promise<void>;
  entry(chatId: string, seq: number): Promise<EntryRecord | undefined>;
  entryOfMessage(messageId: string): Promise<EntryRecord | undefined>;
  /** The oldest `limit` entries after `afterSeq`, ascending. */
  entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]>;
  /** Ignored if what is stored has a later state. */
  putEntry(record: EntryRecord): Promise<void>;
  /** Removes what stands before `seq` and makes it the chat's `fromSeq`. */
  removeEntriesBefore(record: ChatRecord): Promise<void>;
  putOutbox(record: OutboxRecord): Promise<void>;
  removeOutbox(clientId: string): Promise<void>;
  /** Empty text removes the draft. */
  putDraft(chatId: string, text: string): Promise<void>;
  putUser(user: WireUser): Promise<void>;
  /** Removes everything but outbox and drafts and starts a new generation. Answers its number. */
  clearCache(): Promise<number>;
  /** Other windows of the account must load anew before they write again. Answers the number of the generation. */
  newGeneration(): Promise<number>;
}

export interface Store {
  load(): Promise<Snapshot>;
  /**
   * Runs one step, all or nothing. Rejects with `StaleStoreError` if another window of the account cleared the
   * cache since `generation`; null writes the user's own words, whatever became of the cache. `durable` waits
   * until the disk has it, where the engine can say so.
   */
  write<T>(generation: number | null, run: (step: Step) => Promise<T>, durable?: "durable"): Promise<T>;
  /** The newest `limit` entries before `beforeSeq`, ascending. */
  entriesBefore(chatId: string, beforeSeq: number, limit: number): Promise<EntryRecord[]>;
  /** The oldest `limit` entries after `afterSeq`, ascending. */
  entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]>;
  entryOfMessage(messageId: string): Promise<EntryRecord | undefined>;
  close(): void;
}

/** Opens the stores of accounts and remembers which account was the last one on a server. */
export interface StoreProvider {
  readonly persistent: boolean;
  open(server: string, userId: string): Promise<Store>;
  remove(server: string, userId: string): Promise<void>;
  lastUser(server: string): Promise<WireUser | null>;
  setLastUser(server: string, user: WireUser | null): Promise<void>;
}

/** Another window of the account started the cache again: load anew. */
export class StaleStoreError extends Error {
  override readonly name = "StaleStoreError";
}

// ---------------------------------------------------------------------------------------------------------
// Bounds

/**
 * `positions`: the newest positions of each chat's log that stay cached from one start to the next. `slack`: cut only
 * when so many more are there, since each cut makes other open windows load anew.
 */
export const CACHE = { positions: 1_000, slack: 250 };

/**
 * Cuts the cached history of every long chat down to its newest positions. Called when an account is opened, before
 * anything is on screen; what was cut is fetched again when somebody scrolls up to it.
 */
export async function trimHistory(store: Store, snapshot: Snapshot, bounds = CACHE): Promise<Snapshot> {
  const long = snapshot.chats.filter(
    ({ fromSeq, knownSeq }) => knownSeq - fromSeq + 1 > bounds.positions + bounds.slack,
  );
  if (long.length === 0) return snapshot;
  const cut = new Map(
    long.map((record) => [record.chatId, { ...record, fromSeq: record.knownSeq - bounds.positions + 1 }]),
  );
  const generation = await store.write(snapshot.generation, async (step) => {
    for (const record of cut.values()) await step.removeEntriesBefore(record);
    return step.newGeneration();
  });
  const chats = snapshot.chats.map((record) => cut.get(record.chatId) ?? record);
  return { ...snapshot, generation, chats };
}

// ---------------------------------------------------------------------------------------------------------
// Memory

interface MemoryTables {
  generation: number;
  meta: Meta;
  chats: Map<string, ChatRecord>;
  entries: Map<string, Map<number, EntryRecord>>;
  byMessage: Map<string, EntryRecord>;
  outbox: Map<string, OutboxRecord>;
  drafts: Map<string, string>;
  users: Map<string, WireUser>;
}

function emptyTables(): MemoryTables {
  return {
    generation: 1,
    meta: EMPTY_META,
    chats: new Map(),
    entries: new Map(),
    byMessage: new Map(),
    outbox: new Map(),
    drafts: new Map(),
    users: new Map(),
  };
}

/** Keeps everything in memory. Two clients over one provider see the same stores, as after a reload. */
export function memoryStore(): StoreProvider {
  const stores = new Map<string, MemoryTables>();
  const lastUsers = new Map<string, WireUser>();
  const tablesOf = (name: string) => {
    const tables = stores.get(name) ?? emptyTables();
    stores.set(name, tables);
    return tables;
  };
  return {
    persistent: false,
    open: async (server, userId) => new MemoryStore(tablesOf(storeName(server, userId))),
    remove: async (server, userId) => void stores.delete(storeName(server, userId)),
    lastUser: async (server) => lastUsers.get(server) ?? null,
    setLastUser: async (server, user) => {
      if (user === null) lastUsers.delete(server);
      else lastUsers.set(server, user);
    },
  };
}

class MemoryStore implements Store {
  constructor(private readonly tables: MemoryTables) {}

  async load(): Promise<Snapshot> {
    const { generation, meta, chats, outbox, drafts, users } = this.tables;
    return {
      generation,
      meta,
      chats: [...chats.values()],
      outbox: [...outbox.values()],
      drafts: new Map(drafts),
      users: [...users.values()],
    };
  }

  async write<T>(generation: number | null, run: (step: Step) => Promise<T>): Promise<T> {
    if (generation !== null && generation !== this.tables.generation)
      throw new StaleStoreError("the cache was started again");
    const step = new MemoryStep(this.tables);
    const result = await run(step);
    step.commit();
    return result;
  }

  async entriesBefore(chatId: string, beforeSeq: number, limit: number): Promise<EntryRecord[]> {
    return this.#sorted(chatId)
      .filter((entry) => entry.seq < beforeSeq)
      .slice(-limit);
  }

  async entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]> {
    return this.#sorted(chatId)
      .filter((entry) => entry.seq > afterSeq)
      .slice(0, limit);
  }

  async entryOfMessage(messageId: string): Promise<EntryRecord | undefined> {
    return this.tables.byMessage.get(messageId);
  }

  close(): void {}

  #sorted(chatId: string): EntryRecord[] {
    return [...(this.tables.entries.get(chatId)?.values() ?? [])].sort((a, b) => a.seq - b.seq);
  }
}

/** Collects changes and makes them in one go at the end: a step that throws leaves nothing behind. */
class MemoryStep implements Step {
  readonly #changes: (() => void)[] = [];
  readonly #entries = new Map<string, EntryRecord>();
  readonly #byMessage = new Map<string, EntryRecord>();

  constructor(private readonly tables: MemoryTables) {}

  commit(): void {
    for (const change of this.#changes) change();
  }

  async putMeta(change: Partial<Meta>): Promise<void> {
    this.#changes.push(() => {
      this.tables.meta = { ...this.tables.meta, ...change };
    });
  }

  async putChat(record: ChatRecord): Promise<void> {
    this.#changes.push(() => {
      this.tables.chats.set(record.chatId, mergeChat(this.tables.chats.get(record.chatId), record));
    });
  }

  async removeChat(chatId: string): Promise<void> {
    this.#changes.push(() => {
      this.tables.chats.delete(chatId);
      this.#dropEntries(chatId, Number.POSITIVE_INFINITY);
    });
  }

  async entry(chatId: string, seq: number): Promise<EntryRecord | undefined> {
    return this.#entries.get(`${chatId} ${seq}`) ?? this.tables.entries.get(chatId)?.get(seq);
  }

  async entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]> {
    const all = new Map(this.tables.entries.get(chatId));
    for (const entry of this.#entries.values()) if (entry.chatId === chatId) all.set(entry.seq, entry);
    return [...all.values()]
      .filter((entry) => entry.seq > afterSeq)
      .sort((a, b) => a.seq - b.seq)
      .slice(0, limit);
  }

  async entryOfMessage(messageId: string): Promise<EntryRecord | undefined> {
    return this.#byMessage.get(messageId) ?? this.tables.byMessage.get(messageId);
  }

  async putEntry(record: EntryRecord): Promise<void> {
    const stored = await this.entry(record.chatId, record.seq);
    if (stored !== undefined && stored.stateSeq > record.stateSeq) return;
    this.#entries.set(`${record.chatId} ${record.seq}`, record);
    if (record.messageId !== undefined) this.#byMessage.set(record.messageId, record);
    this.#changes.push(() => {
      const entries = this.tables.entries.get(record.chatId) ?? new Map<number, EntryRecord>();
      this.tables.entries.set(record.chatId, entries);
      entries.set(record.seq, record);
      if (record.messageId !== undefined) this.tables.byMessage.set(record.messageId, record);
    });
  }

  async removeEntriesBefore(record: ChatRecord): Promise<void> {
    this.#changes.push(() => {
      this.#dropEntries(record.chatId, record.fromSeq);
      this.tables.chats.set(record.chatId, record);
    });
  }

  async putOutbox(record: OutboxRecord): Promise<void> {
    this.#changes.push(() => this.tables.outbox.set(record.clientId, record));
  }

  async removeOutbox(clientId: string): Promise<void> {
    this.#changes.push(() => this.tables.outbox.delete(clientId));
  }

  async putDraft(chatId: string, text: string): Promise<void> {
    this.#changes.push(() => {
      if (text === "") this.tables.drafts.delete(chatId);
      else this.tables.drafts.set(chatId, text);
    });
  }

  async putUser(user: WireUser): Promise<void> {
    this.#changes.push(() => this.tables.users.set(user.user_id, user));
  }

  async clearCache(): Promise<number> {
    const generation = this.tables.generation + 1;
    this.#changes.push(() => {
      this.tables.generation = generation;
      this.tables.meta = EMPTY_META;
      this.tables.chats.clear();
      this.tables.entries.clear();
      this.tables.byMessage.clear();
      this.tables.users.clear();
    });
    return generation;
  }

  async newGeneration(): Promise<number> {
    const generation = this.tables.generation + 1;
    this.#changes.push(() => {
      this.tables.generation = generation;
    });
    return generation;
  }

  #dropEntries(chatId: string, beforeSeq: number): void {
    const entries = this.tables.entries.get(chatId);
    for (const entry of [...(entries?.values() ?? [])]) {
      if (entry.seq >= beforeSeq) continue;
      entries?.delete(entry.seq);
      if (entry.messageId !== undefined) this.tables.byMessage.delete(entry.messageId);
    }
  }
}

// ---------------------------------------------------------------------------------------------------------
// IndexedDB

interface Schema extends DBSchema {
  meta: { key: string; value: { key: string; generation: number; meta: Meta } };
  chats: { key: string; value: ChatRecord };
  entries: { key: [string, number]; value: EntryRecord; indexes: { message: string } };
  outbox: { key: string; value: OutboxRecord };
  drafts: { key: string; value: { chatId: string; text: string } };
  users: { key: string; value: WireUser };
}

interface RegistrySchema extends DBSchema {
  lastUsers: { key: string; value: { server: string; user: WireUser } };
}

const TABLES = ["meta", "chats", "entries", "outbox", "drafts", "users"] as const;
type Tables = (typeof TABLES)[number][];
const META_KEY = "account";
const VERSION = 1;

/** Keeps everything in the browser's IndexedDB. `open` rejects where the browser refuses storage. */
export function indexedDbStore(): StoreProvider {
  let registry: Promise<IDBPDatabase<RegistrySchema>> | null = null;
  const openRegistry = () => {
    registry ??= openDB<RegistrySchema>("parlor", VERSION, {
      upgrade: (db) => void db.createObjectStore("lastUsers", { keyPath: "server" }),
      terminated: () => {
        registry = null;
      },
    }).catch((error: unknown) => {
      registry = null;
      throw error;
    });
    return registry;
  };
  return {
    persistent: true,
    open: async (server, userId) => {
      const store = new IndexedDbStore(storeName(server, userId));
      await store.open();
      return store;
    },
    remove: async (server, userId) => deleteDB(storeName(server, userId)),
    lastUser: async (server) => (await (await openRegistry()).get("lastUsers", server))?.user ?? null,
    setLastUser: async (server, user) => {
      const db = await openRegistry();
      if (user === null) await db.delete("lastUsers", server);
      else await db.put("lastUsers", { server, user });
    },
  };
}

class IndexedDbStore implements Store {
  #db: Promise<IDBPDatabase<Schema>> | null = null;

  constructor(private readonly name: string) {}

  /** Opens anew after the browser ended the connection, which some do to pages in the background. */
  open(): Promise<IDBPDatabase<Schema>> {
    this.#db ??= openDB<Schema>(this.name, VERSION, {
      upgrade: (db) => {
        db.createObjectStore("meta", { keyPath: "key" });
        db.createObjectStore("chats", { keyPath: "chatId" });
        db.createObjectStore("entries", { keyPath: ["chatId", "seq"] }).createIndex("message", "messageId");
        db.createObjectStore("outbox", { keyPath: "clientId" });
        db.createObjectStore("drafts", { keyPath: "chatId" });
        db.createObjectStore("users", { keyPath: "user_id" });
      },
      // Another window wants to delete or upgrade: give way, or it would wait for ever.
      blocking: () => this.close(),
      terminated: () => {
        this.#db = null;
      },
    }).catch((error: unknown) => {
      this.#db = null;
      throw error;
    });
    return this.#db;
  }

  async load(): Promise<Snapshot> {
    const db = await this.open();
    const tx = db.transaction(TABLES as unknown as Tables, "readonly");
    const [head, chats, outbox, drafts, users] = await Promise.all([
      tx.objectStore("meta").get(META_KEY),
      tx.objectStore("chats").getAll(),
      tx.objectStore("outbox").getAll(),
      tx.objectStore("drafts").getAll(),
      tx.objectStore("users").getAll(),
    ]);
    await tx.done;
    return {
      generation: head?.generation ?? 1,
      meta: { ...EMPTY_META, ...head?.meta },
      chats,
      outbox,
      drafts: new Map(drafts.map((draft) => [draft.chatId, draft.text])),
      users,
    };
  }

  async write<T>(
    generation: number | null,
    run: (step: Step) => Promise<T>,
    durable?: "durable",
  ): Promise<T> {
    const db = await this.open();
    const tx = db.transaction(TABLES as unknown as Tables, "readwrite", {
      durability: durable === undefined ? "default" : "strict",
    });
    // Without a handler an aborted transaction would also surface as an unhandled rejection.
    const done = tx.done.catch((error: unknown) => {
      throw error ?? new Error("the transaction was aborted");
    });
    done.catch(() => {});
    try {
      const step = new IndexedDbStep(tx, generation);
      await step.check();
      const result = await run(step);
      await done;
      return result;
    } catch (error) {
      try {
        tx.abort();
      } catch {
        // It ended by itself, which is why we are here.
      }
      throw error;
    }
  }

  async entriesBefore(chatId: string, beforeSeq: number, limit: number): Promise<EntryRecord[]> {
    const db = await this.open();
    const range = IDBKeyRange.bound([chatId, 0], [chatId, beforeSeq], false, true);
    const found: EntryRecord[] = [];
    let cursor = await db.transaction("entries").store.openCursor(range, "prev");
    while (cursor !== null && found.length < limit) {
      found.push(cursor.value);
      cursor = await cursor.continue();
    }
    return found.reverse();
  }

  async entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]> {
    const db = await this.open();
    const range = IDBKeyRange.bound([chatId, afterSeq], [chatId, Number.POSITIVE_INFINITY], true, false);
    return db.getAll("entries", range, limit);
  }

  async entryOfMessage(messageId: string): Promise<EntryRecord | undefined> {
    return (await this.open()).getFromIndex("entries", "message", messageId);
  }

  close(): void {
    const db = this.#db;
    this.#db = null;
    db?.then((open) => open.close()).catch(() => {});
  }
}

class IndexedDbStep implements Step {
  #head: { key: string; generation: number; meta: Meta } = { key: META_KEY, generation: 1, meta: EMPTY_META };

  constructor(
    private readonly tx: IDBPTransaction<Schema, Tables, "readwrite">,
    private readonly generation: number | null,
  ) {}

  async check(): Promise<void> {
    const head = await this.tx.objectStore("meta").get(META_KEY);
    this.#head = head ?? this.#head;
    if (this.generation !== null && this.#head.generation !== this.generation)
      throw new StaleStoreError("the cache was started again");
  }

  async putMeta(change: Partial<Meta>): Promise<void> {
    this.#head = { ...this.#head, meta: { ...this.#head.meta, ...change } };
    await this.tx.objectStore("meta").put(this.#head);
  }

  async putChat(record: ChatRecord): Promise<void> {
    const chats = this.tx.objectStore("chats");
    await chats.put(mergeChat(await chats.get(record.chatId), record));
  }

  async removeChat(chatId: string): Promise<void> {
    await this.tx.objectStore("chats").delete(chatId);
    await this.tx.objectStore("entries").delete(entriesOf(chatId, Number.POSITIVE_INFINITY));
  }

  entry(chatId: string, seq: number): Promise<EntryRecord | undefined> {
    return this.tx.objectStore("entries").get([chatId, seq]);
  }

  entryOfMessage(messageId: string): Promise<EntryRecord | undefined> {
    return this.tx.objectStore("entries").index("message").get(messageId);
  }

  entriesAfter(chatId: string, afterSeq: number, limit: number): Promise<EntryRecord[]> {
    const range = IDBKeyRange.bound([chatId, afterSeq], [chatId, Number.POSITIVE_INFINITY], true, false);
    return this.tx.objectStore("entries").getAll(range, limit);
  }

  async putEntry(record: EntryRecord): Promise<void> {
    const stored = await this.entry(record.chatId, record.seq);
    if (stored !== undefined && stored.stateSeq > record.stateSeq) return;
    await this.tx.objectStore("entries").put(record);
  }

  async removeEntriesBefore(record: ChatRecord): Promise<void> {
    await this.tx.objectStore("entries").delete(entriesOf(record.chatId, record.fromSeq));
    await this.tx.objectStore("chats").put(record);
  }

  async putOutbox(record: OutboxRecord): Promise<void> {
    await this.tx.objectStore("outbox").put(record);
  }

  async removeOutbox(clientId: string): Promise<void> {
    await this.tx.objectStore("outbox").delete(clientId);
  }

  async putDraft(chatId: string, text: string): Promise<void> {
    const drafts = this.tx.objectStore("drafts");
    if (text === "") await drafts.delete(chatId);
    else await drafts.put({ chatId, text });
  }

  async putUser(user: WireUser): Promise<void> {
    await this.tx.objectStore("users").put(user);
  }

  async clearCache(): Promise<number> {
    const generation = this.#head.generation + 1;
    for (const table of ["chats", "entries", "users"] as const) await this.tx.objectStore(table).clear();
    this.#head = { key: META_KEY, generation, meta: EMPTY_META };
    await this.tx.objectStore("meta").put(this.#head);
    return generation;
  }

  async newGeneration(): Promise<number> {
    this.#head = { ...this.#head, generation: this.#head.generation + 1 };
    await this.tx.objectStore("meta").put(this.#head);
    return this.#head.generation;
  }
}

function entriesOf(chatId: string, beforeSeq: number): IDBKeyRange {
  return IDBKeyRange.bound([chatId, 0], [chatId, beforeSeq], false, true);
}

function storeName(server: string, userId: string): string {
  return `parlor ${server} ${userId}`;
}

/** Two windows replicate one log into one store: the further one wins, and ranges that touch are joined. */
function mergeChat(stored: ChatRecord | undefined, record: ChatRecord): ChatRecord {
  if (stored === undefined) return record;
  const touch = stored.fromSeq <= record.knownSeq + 1 && record.fromSeq <= stored.knownSeq + 1;
  const ahead = stored.knownSeq > record.knownSeq ? stored : record;
  return {
    ...ahead,
    fromSeq: touch ? Math.min(stored.fromSeq, record.fromSeq) : ahead.fromSeq,
    headSeq: Math.max(stored.headSeq, record.headSeq),
    readSeq: Math.max(stored.readSeq, record.readSeq),
    toldReadSeq: Math.max(stored.toldReadSeq, record.toldReadSeq),
    toldDeliveredSeq: Math.max(stored.toldDeliveredSeq, record.toldDeliveredSeq),
  };
}
