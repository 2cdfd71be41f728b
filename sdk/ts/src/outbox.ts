// Own messages on their way: stored first, shown at once, sent until the server has them, in the order of the calls.
//
// One message of a chat is in flight at a time, so a retry can never overtake (promise P4); the key (`client_id`)
// makes every repeat harmless (P2). A definite refusal ends the tries and keeps the text. What an accepted
// message becomes afterwards is sync.ts; how entries look is messages.ts.

import type { Connection } from "./connection";
import type { KeyMaker } from "./ids";
import type { OutgoingMessage } from "./index";
import type { Runtime, Timer } from "./runtime";
import type { OutboxRecord } from "./store";
import type { Change, Replica } from "./sync";
import type { ServerFrame } from "./wire";

/** Refusals of the moment; every other code means that this message will never be accepted as it is. */
const PASSING = new Set(["rate_limited", "unavailable", "internal"]);
/** On a connection that works, an answer that takes longer was lost. */
const ANSWER_TIMEOUT_MS = 20_000;
const RETRY_BASE_MS = 1_000;
const RETRY_CAP_MS = 60_000;

export interface OutboxOptions {
  runtime: Runtime;
  connection: Connection;
  replica: Replica;
  keys: KeyMaker;
  onUpdate: (chatId: string) => void;
}

interface InFlight {
  readonly frameId: string;
  readonly clientId: string;
  readonly timer: Timer;
}

export class Outbox {
  readonly #records = new Map<string, OutboxRecord>();
  /** Not in the store yet: shown, not sent. */
  readonly #unstored = new Set<string>();
  readonly #inFlight = new Map<string, InFlight>();
  readonly #resting = new Map<string, Timer>();
  readonly #tries = new Map<string, number>();
  #nextFrame = 1;
  #lastOrder = 0;

  constructor(private readonly options: OutboxOptions) {}

  open(records: readonly OutboxRecord[]): void {
    for (const record of records) {
      this.#records.set(record.clientId, record);
      this.#lastOrder = Math.max(this.#lastOrder, record.order);
    }
    for (const chatId of new Set(records.map((record) => record.chatId))) void this.#settle(chatId);
  }

  close(): void {
    this.onDown();
    for (const timer of this.#resting.values()) this.options.runtime.clearTimeout(timer);
    this.#resting.clear();
  }

  all(): Iterable<OutboxRecord> {
    return this.#records.values();
  }

  /** Own messages of a chat that are not in its log yet, in the order of the calls. */
  of(chatId: string): OutboxRecord[] {
    return [...this.#records.values()]
      .filter((record) => record.chatId === chatId)
      .sort((a, b) => a.order - b.order);
  }

  find(clientId: string): OutboxRecord | undefined {
    return this.#records.get(clientId);
  }

  /** Shows a message at once; resolves with its key when the device has stored it, its draft cleared in the same step. */
  async enqueue(chatId: string, message: OutgoingMessage): Promise<string> {
    const record: OutboxRecord = {
      clientId: this.options.keys.next(),
      chatId,
      order: ++this.#lastOrder,
      createdAtMs: this.options.runtime.now(),
      type: message.type ?? "text",
      text: message.text,
      replyTo: message.replyTo ?? null,
      state: "waiting",
      failure: null,
      acked: null,
    };
    await this.#store(record, true);
    return record.clientId;
  }

  /** Tries a refused message again, as the newest one of its chat. */
  async retry(clientId: string): Promise<void> {
    const record = this.#records.get(clientId);
    if (record?.state !== "failed") return;
    // A key that stands for another text will be refused for ever.
    const reuse = record.failure?.code !== "idempotency_conflict";
    if (!reuse) await this.discard(clientId);
    const next: OutboxRecord = {
      ...record,
      clientId: reuse ? clientId : this.options.keys.next(),
      order: ++this.#lastOrder,
      state: "waiting",
      failure: null,
    };
    await this.#store(next, false);
  }

  /** Forgets a message that is not accepted yet. If it is in flight it may still arrive. */
  async discard(clientId: string): Promise<void> {
    const record = this.#records.get(clientId);
    if (record === undefined || record.state === "acked") return;
    this.#remove(record);
    await this.options.replica.keep((step) => step.removeOutbox(clientId), "durable");
  }

  onLive(): void {
    for (const chatId of this.#chats()) this.#pump(chatId);
  }

  onDown(): void {
    for (const { timer } of this.#inFlight.values()) this.options.runtime.clearTimeout(timer);
    this.#inFlight.clear();
  }

  onFrame(frame: Extract<ServerFrame, { t: "ack" | "error" }>): void {
    for (const [chatId, flight] of this.#inFlight) {
      if (flight.frameId !== frame.id) continue;
      this.#land(chatId);
      const record = this.#records.get(flight.clientId);
      if (record !== undefined) {
        if (frame.t === "ack") this.#acked(record, frame);
        else this.#refused(record, frame);
      }
      this.#pump(chatId);
      return;
    }
  }

  /** What stands in the log is no longer on its way, whether or not an answer came. */
  onChange(change: Change): void {
    if (change.reset) {
      // The log of before may be gone, and with it what it had acknowledged: send that again, under its key.
      for (const record of [...this.#records.values()]) {
        if (record.state === "acked") void this.#store({ ...record, state: "waiting", acked: null }, false);
      }
    }
    for (const clientId of change.sent.keys()) {
      const record = this.#records.get(clientId);
      if (record === undefined) continue;
      this.#remove(record);
      if (this.#inFlight.get(record.chatId)?.clientId === clientId) this.#land(record.chatId);
      this.#pump(record.chatId);
    }
    for (const chatId of change.chats.keys()) void this.#settle(chatId);
  }

  async #store(record: OutboxRecord, clearsDraft: boolean): Promise<void> {
    this.#records.set(record.clientId, record);
    this.#unstored.add(record.clientId);
    this.options.onUpdate(record.chatId);
    try {
      await this.options.replica.keep(async (step) => {
        await step.putOutbox(record);
        if (clearsDraft) await step.putDraft(record.chatId, "");
      }, "durable");
    } catch (error) {
      // Not sent: what this device cannot keep, it cannot promise to deliver.
      if (this.#records.get(record.clientId) === record) {
        const failure = { code: "not_stored", detail: "this device could not keep the message" };
        this.#records.set(record.clientId, { ...record, state: "failed", failure });
        this.options.onUpdate(record.chatId);
      }
      throw error;
    } finally {
      this.#unstored.delete(record.clientId);
    }
    this.#pump(record.chatId);
  }

  #pump(chatId: string): void {
    if (this.#inFlight.has(chatId) || this.#resting.has(chatId)) return;
    const record = this.of(chatId).find(({ state }) => state === "waiting");
    if (record === undefined || this.#unstored.has(record.clientId)) return;
    const frameId = `m${this.#nextFrame++}`;
    const sent = this.options.connection.send({
      t: "send",
      id: frameId,
      chat_id: chatId,
      message: record.text,
      type: record.type,
      client_id: record.clientId,
      ...(record.replyTo === null ? {} : { reply_to: record.replyTo }),
    });
    if (!sent) return;
    const timer = this.options.runtime.setTimeout(() => {
      if (this.#inFlight.get(chatId)?.frameId !== frameId) return;
      this.#land(chatId);
      this.#pump(chatId);
    }, ANSWER_TIMEOUT_MS);
    this.#inFlight.set(chatId, { frameId, clientId: record.clientId, timer });
  }

  #land(chatId: string): void {
    const flight = this.#inFlight.get(chatId);
    if (flight === undefined) return;
    this.options.runtime.clearTimeout(flight.timer);
    this.#inFlight.delete(chatId);
  }

  #acked(record: OutboxRecord, ack: Extract<ServerFrame, { t: "ack" }>): void {
    this.#tries.delete(record.chatId);
    const acked = { messageId: ack.message_id, seq: ack.seq, createdAt: ack.created_at };
    const next: OutboxRecord = { ...record, state: "acked", acked };
    this.#records.set(record.clientId, next);
    this.options.onUpdate(record.chatId);
    const { replica } = this.options;
    replica
      .keep(async (step) => {
        if (this.#records.get(record.clientId) === next) await step.putOutbox(next);
      })
      .then(() => this.#settle(record.chatId))
      .catch(() => {});
    // The event follows on this socket; should it not, the log is asked for it.
    replica.expect(record.chatId, ack.seq).catch(() => {});
  }

  #refused(record: OutboxRecord, error: Extract<ServerFrame, { t: "error" }>): void {
    const { runtime, replica } = this.options;
    if (PASSING.has(error.code)) {
      const tries = this.#tries.get(record.chatId) ?? 0;
      this.#tries.set(record.chatId, tries + 1);
      const ceiling = Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** Math.min(tries, 10));
      const wait = error.retry_after_ms ?? ceiling / 2 + (runtime.random() * ceiling) / 2;
      const timer = runtime.setTimeout(() => {
        this.#resting.delete(record.chatId);
        this.#pump(record.chatId);
      }, wait);
      this.#resting.set(record.chatId, timer);
      return;
    }
    const failure = { code: error.code, detail: error.detail };
    const next: OutboxRecord = { ...record, state: "failed", failure };
    this.#records.set(record.clientId, next);
    this.options.onUpdate(record.chatId);
    replica
      .keep(async (step) => {
        if (this.#records.get(record.clientId) === next) await step.putOutbox(next);
      }, "durable")
      .catch(() => {});
  }

  /** Drops acknowledged messages that the cached log has reached. */
  async #settle(chatId: string): Promise<void> {
    const knownSeq = this.options.replica.chats.get(chatId)?.knownSeq ?? 0;
    const done = this.of(chatId).filter(({ acked }) => acked !== null && acked.seq <= knownSeq);
    if (done.length === 0) return;
    for (const record of done) this.#remove(record);
    await this.options.replica
      .keep(async (step) => {
        for (const { clientId } of done) await step.removeOutbox(clientId);
      })
      .catch(() => {});
  }

  #remove(record: OutboxRecord): void {
    this.#records.delete(record.clientId);
    this.options.onUpdate(record.chatId);
  }

  #chats(): Set<string> {
    return new Set([...this.#records.values()].map((record) => record.chatId));
  }
}
