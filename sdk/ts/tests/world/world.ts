// One fake server, one fake clock, and clients over them.

import {
  type Client,
  createClient,
  type Entry,
  type MessageEntry,
  memoryStore,
  type StoreProvider,
} from "../../src/index";
import type { WireMessage } from "../../src/wire";
import { Random } from "./random";
import { FakeServer, type LogChat } from "./server";
import { FakeTime, settle } from "./time";

export class World {
  readonly time = new FakeTime();
  readonly random: Random;
  readonly server: FakeServer;
  readonly ann: string;
  readonly bob: string;
  readonly cleo: string;
  /** Decides the jitter of the back-off instead of chance. */
  jitter: (() => number) | null = null;

  constructor(seed = 1) {
    this.random = new Random(seed);
    this.server = new FakeServer(this.time, this.random);
    this.ann = this.server.user("ann");
    this.bob = this.server.user("bob");
    this.cleo = this.server.user("cleo");
    this.server.cookieUser = this.ann;
  }

  /** A client in a page of ann's browser, not started. */
  client(store: StoreProvider = memoryStore(), auth: "cookie" | { token: string | null } = "cookie"): Client {
    return createClient({
      server: "https://chat.example",
      auth,
      store,
      runtime: {
        now: () => this.time.nowMs,
        random: () => this.jitter?.() ?? this.random.next(),
        randomBytes: (count) => this.random.bytes(count),
        fetch: this.server.fetch,
        WebSocket: this.server.WebSocket,
        setTimeout: this.time.setTimeout,
        clearTimeout: this.time.clearTimeout,
      },
    });
  }

  /** A client that is signed in as ann, live, and has the list of chats. */
  async live(store: StoreProvider = memoryStore()): Promise<Client> {
    const client = this.client(store);
    await client.start();
    await this.time.advance(2_000);
    return client;
  }

  /** Lets everything happen, and a little time pass. */
  async rest(ms = 200): Promise<void> {
    await this.time.advance(ms);
    await settle();
  }

  heard(t: string): Record<string, unknown>[] {
    return this.server.heard.filter((frame) => frame.t === t);
  }
}

export function follow<T>(cell: { subscribe(run: (value: T) => void): () => void }): {
  values: T[];
  stop: () => void;
} {
  const values: T[] = [];
  return { values, stop: cell.subscribe((value) => values.push(value)) };
}

export function texts(entries: readonly Entry[]): string[] {
  return entries
    .filter((entry): entry is MessageEntry => entry.kind === "message")
    .map((entry) => entry.text);
}

/** What must be the same on both sides, of one message. */
export function essence(message: MessageEntry | WireMessage): string {
  const wire = "message_id" in message;
  return JSON.stringify([
    wire ? message.message_id : message.messageId,
    message.seq,
    wire ? message.message : message.text,
    message.deleted,
    message.reactions.map((reaction) => [reaction.emoji, reaction.count]),
    (wire ? message.edited_at : message.editedAt) !== null,
  ]);
}

export function truth(chat: LogChat): string[] {
  return [...chat.messages.values()].sort((a, b) => a.seq - b.seq).map(essence);
}

export function shown(entries: readonly Entry[]): string[] {
  return entries.filter((entry): entry is MessageEntry => entry.kind === "message").map(essence);
}
