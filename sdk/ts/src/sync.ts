// Keeps each chat equal to the server's log: applies events by `seq` without a gap, and fills what is missing.
//
// One queue: every change of the replica is one step (`mutate`), stored whole before anybody sees it.
// Here: duplicates, holes, gaps, heads, resets, folding of edits, deletes and reactions, and which chats exist.
// Not here: the socket (connection.ts), own unsent messages (outbox.ts), what a view shows (messages.ts, chats.ts).

import type { ClientFrame, Connection } from "./connection";
import { type Http, mayRetry, ProblemError, path } from "./http";
import type { Runtime, Timer } from "./runtime";
import {
  type ChatRecord,
  EMPTY_META,
  type EntryRecord,
  type Meta,
  memoryStore,
  type OutboxRecord,
  type Snapshot,
  StaleStoreError,
  type Step,
  type Store,
} from "./store";
import {
  isFields,
  isId,
  isSeq,
  type Page,
  readAll,
  readChat,
  readMessage,
  type ServerFrame,
  type WireChat,
  type WireEvent,
  type WireHead,
  type WireHistory,
  type WireMessage,
  type WireUser,
} from "./wire";

/** Frames applied in one step at most: bounds the time that one transaction holds the store. */
const FRAMES_A_STEP = 500;
/** Events of one chat kept while the ones before them are fetched; beyond it they are paged again. */
const PENDING_EVENTS = 256;
/** Pages asked for at once, over all chats. */
const REQUESTS = 4;
const PAGE = 200;
const LIST_PAGE = 100;
/** After `welcome` the server replays what was missed by itself; what has not come by then is asked for. */
const REPLAY_GRACE_MS = 1_500;
const REQUEST_TIMEOUT_MS = 20_000;
const RETRY_BASE_MS = 1_000;
const RETRY_CAP_MS = 60_000;
/** Recent edits, deletions and reactions of one chat, for history pages that were read before them. */
const RECENT_CHANGES = 500;
/** Entries of each chat carried over when the store fails. */
const HISTORY_KEPT = 100;
/** Entries looked at to count what is unread exactly; beyond it the count is kept by subtraction. */
const UNREAD_COUNTED = 1_000;

/** What one step changed; given to the listeners after it was stored. */
export class Change {
  readonly chats = new Map<string, ChatRecord>();
  readonly removed = new Set<string>();
  /** Entries that are new or in a new state, in no order. */
  readonly entries: EntryRecord[] = [];
  /** Events applied for the first time, in order for each chat. */
  readonly events: WireEvent[] = [];
  /** Own messages that stand in the log now: `client_id` and entry. */
  readonly sent = new Map<string, EntryRecord>();
  readonly users = new Map<string, WireUser>();
  /** Chats in which somebody else's message was stored: `delivered` may be said. */
  readonly delivered = new Set<string>();
  /** Chats to fetch the description of; and those that were fetched or are gone. */
  readonly wanted = new Set<string>();
  readonly answered = new Set<string>();
  /** The cache was dropped: all chats and entries of before are gone. */
  reset = false;
  /** Set by an account event: the own profile changed elsewhere. */
  profile = false;
  listed = false;
}

export interface ReplicaOptions {
  runtime: Runtime;
  http: Http;
  connection: Connection;
  store: Store;
  me: string;
  onChange: (change: Change) => void;
  /** Another window started the cache again; this one must load anew. */
  onStale: () => void;
  /** The device refused to keep something: from now on memory is all there is. */
  onStorageProblem: (problem: "full" | "failed") => void;
  /** The user's own words, to carry over when the store fails. */
  ownWords: () => { outbox: Iterable<OutboxRecord>; drafts: Iterable<[string, string]> };
}

interface Request {
  readonly id: string;
  readonly chatId: string;
  readonly timer: Timer;
}

export class Replica {
  readonly chats = new Map<string, ChatRecord>();
  #store: Store;
  #generation = 1;
  #meta: Meta = EMPTY_META;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  readonly #inbox: ServerFrame[] = [];
  #draining = false;
  /** Events that came before those in front of them. */
  readonly #pending = new Map<string, Map<number, WireEvent>>();
  /** Chats to page up to their head. */
  readonly #holes = new Set<string>();
  readonly #requests = new Map<string, Request>();
  #nextRequest = 1;
  #page = PAGE;
  /** Failed tries in a row, and the timer of the next one. */
  readonly #tries = new Map<string, number>();
  readonly #resting = new Map<string, Timer>();
  #graceTimer: Timer | null = null;
  #fetching = false;
  #fetchFailures = 0;
  #fetchTimer: Timer | null = null;
  /** Foldable events since `from` (exclusive), per chat. */
  readonly #recent = new Map<string, { from: number; events: WireEvent[] }>();

  constructor(private readonly options: ReplicaOptions) {
    this.#store = options.store;
  }

  get store(): Store {
    return this.#store;
  }

  get cursor(): string | null {
    return this.#meta.cursor;
  }

  get listed(): boolean {
    return this.#meta.listed;
  }

  /** Takes over what the store kept. Call once, before anything else. */
  open(snapshot: Snapshot): void {
    this.#generation = snapshot.generation;
    this.#meta = snapshot.meta;
    for (const record of snapshot.chats) this.chats.set(record.chatId, record);
  }

  close(): void {
    this.#closed = true;
    this.onDown();
    for (const timer of this.#resting.values()) this.options.runtime.clearTimeout(timer);
    if (this.#fetchTimer !== null) this.options.runtime.clearTimeout(this.#fetchTimer);
    this.#store.close();
  }

  // -------------------------------------------------------------------------------------------------------
  // The queue

  /** Runs after every change queued before it, and before every later one: what it reads is one state. */
  serial<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(run);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** One step: runs on the store as a whole, then becomes visible. `run` may run twice, so it keeps nothing outside `change`. */
  mutate<T>(run: (step: Step, change: Change) => Promise<T>): Promise<T> {
    return this.serial(() => this.#mutate(run));
  }

  /** Stores the user's own words (outbox, drafts): valid whatever became of the cache meanwhile. */
  keep(run: (step: Step) => Promise<void>, durable?: "durable"): Promise<void> {
    return this.serial(() => this.#write(null, run, durable));
  }

  async #mutate<T>(run: (step: Step, change: Change) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Error("the account is closed");
    let change = new Change();
    let generation = this.#generation;
    let meta = this.#meta;
    const whole = async (step: Step) => {
      change = new Change();
      generation = this.#generation;
      meta = this.#meta;
      const watched: Step = {
        putMeta: (part) => {
          meta = { ...meta, ...part };
          return step.putMeta(part);
        },
        clearCache: async () => {
          generation = await step.clearCache();
          meta = EMPTY_META;
          return generation;
        },
        newGeneration: async () => {
          generation = await step.newGeneration();
          return generation;
        },
        putChat: (record) => step.putChat(record),
        removeChat: (chatId) => step.removeChat(chatId),
        entry: (chatId, seq) => step.entry(chatId, seq),
        entryOfMessage: (messageId) => step.entryOfMessage(messageId),
        entriesAfter: (chatId, afterSeq, limit) => step.entriesAfter(chatId, afterSeq, limit),
        putEntry: (record) => step.putEntry(record),
        removeEntriesBefore: (record) => step.removeEntriesBefore(record),
        putOutbox: (record) => step.putOutbox(record),
        removeOutbox: (clientId) => step.removeOutbox(clientId),
        putDraft: (chatId, text) => step.putDraft(chatId, text),
        putUser: (user) => step.putUser(user),
      };
      const result = await run(watched, change);
      for (const chatId of change.removed) await step.removeChat(chatId);
      if (change.wanted.size + change.answered.size > 0) {
        const wanted = meta.wanted.filter((id) => !change.answered.has(id) && !change.wanted.has(id));
        await watched.putMeta({ wanted: [...wanted, ...change.wanted] });
      }
      for (const record of change.chats.values()) await step.putChat(record);
      for (const user of change.users.values()) await step.putUser(user);
      return result;
    };
    const result = await this.#write(this.#generation, whole);
    this.#generation = generation;
    this.#meta = meta;
    this.#publish(change);
    return result;
  }

  async #write<T>(
    generation: number | null,
    run: (step: Step) => Promise<T>,
    durable?: "durable",
  ): Promise<T> {
    try {
      return await this.#store.write(generation, run, durable);
    } catch (first) {
      if (this.#closed) throw first;
      if (first instanceof StaleStoreError) {
        this.options.onStale();
        throw first;
      }
      try {
        // Once more: browsers end connections of pages in the background, and the store opens a new one.
        return await this.#store.write(generation, run, durable);
      } catch (second) {
        if (second instanceof StaleStoreError) {
          this.options.onStale();
          throw second;
        }
        await this.#moveToMemory(second);
        return await this.#store.write(generation === null ? null : this.#generation, run);
      }
    }
  }

  /**
   * The device keeps nothing any more. Chats and own words are in memory already; of the history what can still be
   * read comes along, so that nothing on the screen vanishes, and the rest is fetched again when it is wanted.
   */
  async #moveToMemory(cause: unknown): Promise<void> {
    const memory = await memoryStore().open("", this.options.me);
    const snapshot = await memory.load();
    const words = this.options.ownWords();
    const history = new Map<string, EntryRecord[]>();
    for (const record of this.chats.values()) {
      const before = record.knownSeq + 1;
      const kept = await this.#store.entriesBefore(record.chatId, before, HISTORY_KEPT).catch(() => []);
      history.set(
        record.chatId,
        kept.filter((entry) => entry.seq >= record.fromSeq),
      );
    }
    await memory.write(snapshot.generation, async (step) => {
      await step.putMeta(this.#meta);
      for (const record of this.chats.values()) {
        const kept = history.get(record.chatId) ?? [];
        const whole = kept.length < HISTORY_KEPT ? record.fromSeq : (kept[0]?.seq ?? record.fromSeq);
        const moved = { ...record, fromSeq: kept.length === 0 ? record.knownSeq + 1 : whole };
        this.chats.set(record.chatId, moved);
        await step.putChat(moved);
        for (const entry of kept) await step.putEntry(entry);
      }
      for (const record of words.outbox) await step.putOutbox(record);
      for (const [chatId, text] of words.drafts) await step.putDraft(chatId, text);
    });
    this.#store.close();
    this.#store = memory;
    this.#generation = snapshot.generation;
    const full = isFields(cause) && cause.name === "QuotaExceededError";
    this.options.onStorageProblem(full ? "full" : "failed");
  }

  #publish(change: Change): void {
    if (change.reset) {
      this.chats.clear();
      this.#pending.clear();
      this.#recent.clear();
      this.#holes.clear();
    }
    for (const chatId of change.removed) {
      this.chats.delete(chatId);
      this.#pending.delete(chatId);
      this.#recent.delete(chatId);
      this.#holes.delete(chatId);
    }
    for (const [chatId, record] of change.chats) {
      if (change.removed.has(chatId)) continue;
      this.chats.set(chatId, record);
      const pending = this.#pending.get(chatId);
      for (const seq of [...(pending?.keys() ?? [])]) if (seq <= record.knownSeq) pending?.delete(seq);
      if (pending?.size === 0) this.#pending.delete(chatId);
    }
    for (const event of change.events) this.#remember(event);
    this.options.onChange(change);
  }

  // -------------------------------------------------------------------------------------------------------
  // Frames

  /** Takes frames in the order in which they came. */
  onFrames(frames: readonly ServerFrame[]): void {
    this.#inbox.push(...frames);
    if (this.#draining || this.#inbox.length === 0) return;
    this.#draining = true;
    void this.serial(() => this.#drain());
  }

  /** The socket is gone: what was asked for will not be answered, what was not applied comes again. */
  onDown(): void {
    this.#inbox.length = 0;
    for (const request of this.#requests.values()) this.options.runtime.clearTimeout(request.timer);
    this.#requests.clear();
    this.#pending.clear();
    if (this.#graceTimer !== null) this.options.runtime.clearTimeout(this.#graceTimer);
    this.#graceTimer = null;
  }

  async #drain(): Promise<void> {
    try {
      while (this.#inbox.length > 0) {
        const frames = this.#inbox.splice(0, FRAMES_A_STEP);
        // A page answers a request: done with, whatever becomes of it.
        for (const frame of frames) if (frame.t === "events" || frame.t === "error") this.#answered(frame);
        let welcomed = false;
        for (const frame of frames) {
          if (frame.t !== "welcome") continue;
          welcomed = true;
          this.#page =
            isSeq(frame.limits.page) && frame.limits.page > 0 ? Math.min(PAGE, frame.limits.page) : PAGE;
        }
        const openBefore = welcomed ? this.#openGaps() : [];
        const urgent = new Set<string>();
        let foreignEpoch = false;
        await this.#mutate(async (step, change) => {
          urgent.clear();
          foreignEpoch = false;
          for (const frame of frames) {
            if (frame.t === "events" && this.#isForeign(frame.epoch)) {
              foreignEpoch = true;
              break;
            }
            await this.#apply(step, change, frame, urgent);
          }
        });
        if (foreignEpoch) {
          await this.#startAgain();
          return;
        }
        for (const chatId of [...urgent, ...openBefore]) this.#holes.add(chatId);
        if (welcomed) this.#armGrace();
        this.#afterPages(frames);
        this.#pump();
        this.#fetchWanted();
      }
    } catch {
      // Not stored, so not received: it must come again, from the last cursor.
      this.#inbox.length = 0;
      this.options.connection.restart();
    } finally {
      this.#draining = false;
    }
  }

  async #apply(step: Step, change: Change, frame: ServerFrame, urgent: Set<string>): Promise<void> {
    switch (frame.t) {
      case "welcome":
        if (frame.reset) {
          await step.clearCache();
          change.chats.clear();
          change.wanted.clear();
          change.reset = true;
        }
        for (const head of frame.heads) await this.#applyHead(step, change, head);
        // The position before the replay: the heads, known or wanted, are stored in this very step.
        await step.putMeta({ cursor: frame.cursor });
        return;
      case "event":
        await this.#applyEvent(step, change, frame.event, urgent);
        return;
      case "events":
        await this.#applyPage(step, change, frame);
        return;
      case "head": {
        await this.#applyHead(step, change, frame.head);
        urgent.add(frame.head.chat_id);
        return;
      }
      case "gap": {
        const record = this.#record(change, frame.chat_id);
        if (record === undefined) change.wanted.add(frame.chat_id);
        else
          change.chats.set(record.chatId, { ...record, headSeq: Math.max(record.headSeq, frame.head_seq) });
        urgent.add(frame.chat_id);
        return;
      }
      case "receipt":
        await this.#applyReceipt(step, change, frame);
        return;
      case "account":
        await this.#applyAccount(step, change, frame.kind, frame.fields);
        return;
      case "cursor":
        await step.putMeta({ cursor: frame.cursor });
        return;
      default:
        return;
    }
  }

  async #applyHead(step: Step, change: Change, head: WireHead): Promise<void> {
    const record = this.#record(change, head.chat_id);
    if (record === undefined) {
      change.wanted.add(head.chat_id);
      return;
    }
    // The server's count speaks unless this device has read further than the server knows.
    const counts = head.read_seq >= record.readSeq && head.seq >= record.countedSeq;
    change.chats.set(record.chatId, {
      ...(await this.#read(step, record, head.read_seq)),
      headSeq: Math.max(record.headSeq, head.seq),
      toldReadSeq: Math.max(record.toldReadSeq, head.read_seq),
      toldDeliveredSeq: Math.max(record.toldDeliveredSeq, head.delivered_seq),
      ...(counts ? { unread: head.unread, mentions: head.mentions, countedSeq: head.seq } : {}),
    });
  }

  async #applyEvent(step: Step, change: Change, event: WireEvent, urgent: Set<string>): Promise<void> {
    const record = this.#record(change, event.chat_id);
    if (record === undefined) {
      change.wanted.add(event.chat_id);
      return;
    }
    if (event.seq <= record.knownSeq) return;
    if (event.seq > record.knownSeq + 1) {
      const pending = this.#pending.get(event.chat_id) ?? new Map<number, WireEvent>();
      this.#pending.set(event.chat_id, pending);
      if (pending.size < PENDING_EVENTS) pending.set(event.seq, event);
      change.chats.set(record.chatId, { ...record, headSeq: Math.max(record.headSeq, event.seq) });
      urgent.add(event.chat_id);
      return;
    }
    await this.#applyNext(step, change, record, event);
    await this.#applyPending(step, change, event.chat_id);
  }

  async #applyPage(step: Step, change: Change, page: Extract<ServerFrame, { t: "events" }>): Promise<void> {
    if (page.epoch !== null && this.#meta.epoch === null) await step.putMeta({ epoch: page.epoch });
    const known = this.#record(change, page.chat_id);
    if (known === undefined) return;
    let record: ChatRecord = { ...known, headSeq: Math.max(known.headSeq, page.head_seq) };
    change.chats.set(record.chatId, record);
    const events = [...page.events].sort((a, b) => a.seq - b.seq);
    const first = events[0];
    if (first !== undefined && first.seq > record.knownSeq + 1) {
      // A page has no hole from the first visible event on: what is before it is not for this member
      // (left and came back). The old part is no longer one piece with the new one.
      record = { ...record, knownSeq: first.seq - 1, fromSeq: first.seq };
      change.chats.set(record.chatId, record);
      await step.removeEntriesBefore(record);
    }
    for (const event of events) {
      const now = this.#record(change, page.chat_id);
      if (now === undefined || event.seq > now.knownSeq + 1) break;
      if (event.seq === now.knownSeq + 1) await this.#applyNext(step, change, now, event);
    }
    await this.#applyPending(step, change, page.chat_id);
  }

  async #applyPending(step: Step, change: Change, chatId: string): Promise<void> {
    const pending = this.#pending.get(chatId);
    if (pending === undefined) return;
    for (;;) {
      const record = this.#record(change, chatId);
      const next = record && pending.get(record.knownSeq + 1);
      if (record === undefined || next === undefined) return;
      await this.#applyNext(step, change, record, next);
    }
  }

  /** Applies the event that follows `record.knownSeq`. Here the meaning of each kind is decided. */
  async #applyNext(step: Step, change: Change, record: ChatRecord, event: WireEvent): Promise<void> {
    const { me } = this.options;
    let next: ChatRecord = {
      ...record,
      knownSeq: event.seq,
      headSeq: Math.max(record.headSeq, event.seq),
    };
    const isNews = event.seq > record.countedSeq;
    if (isNews) next = { ...next, countedSeq: event.seq };

    const message = event.kind === "message" ? messageOf(event) : null;
    if (message !== null) {
      const entry = await this.#putMessage(step, change, message);
      const now = entry.message ?? message;
      if (now.sender_id === me) {
        next = { ...next, ownSeq: event.seq };
        if (now.client_id !== null) {
          change.sent.set(now.client_id, entry);
          await step.removeOutbox(now.client_id);
        }
      } else {
        change.delivered.add(record.chatId);
        if (isNews && !now.deleted && event.seq > next.readSeq) next = { ...next, unread: next.unread + 1 };
      }
      if (next.last === null || event.seq >= next.last.seq) next = { ...next, last: entry };
    } else if (isFold(event)) {
      const target = await step.entryOfMessage(event.message_id);
      if (target !== undefined && target.chatId === event.chat_id && event.seq > target.stateSeq) {
        const folded = fold(target, event, me);
        await step.putEntry(folded);
        change.entries.push(folded);
        next = this.#uncount(next, target, folded, isNews);
      } else if (target !== undefined && target.chatId === event.chat_id) {
        // Another writer of the store (a second tab) folded it already: this window shows it now too.
        change.entries.push(target);
        // What was unread when it was deleted cannot be told from here any more: the server counts.
        if (event.kind === "delete") change.wanted.add(event.chat_id);
      }
      if (next.last?.messageId === event.message_id && event.seq > next.last.stateSeq) {
        next = { ...next, last: fold(next.last, event, me) };
      }
    } else if (event.kind !== "hidden") {
      const entry: EntryRecord = {
        chatId: event.chat_id,
        seq: event.seq,
        stateSeq: event.seq,
        message: null,
        event,
        mine: [],
      };
      await step.putEntry(entry);
      change.entries.push(entry);
    }
    // The description may be newer than the event: then it holds the effect already.
    if (event.seq > next.chat.head_seq) next = { ...next, chat: describe(next.chat, event, me) };
    if (event.kind === "join" || event.kind === "leave") next = this.#moveRecipient(next, event);
    change.chats.set(record.chatId, next);
    change.events.push(event);
  }

  /** A newcomer's positions start at the own join; who left no longer holds the ticks back. */
  #moveRecipient(record: ChatRecord, event: WireEvent): ChatRecord {
    const userId = event.user_id;
    if (record.recipients === null || !isId(userId) || userId === this.options.me) return record;
    const others = record.recipients.filter((id) => id !== userId);
    if (event.kind === "leave") return { ...record, recipients: others };
    const cursors = moveCursor(record.cursors, userId, "read", event.seq);
    return { ...record, recipients: [...others, userId], cursors };
  }

  #uncount(record: ChatRecord, before: EntryRecord, after: EntryRecord, isNews: boolean): ChatRecord {
    const vanished = before.message?.deleted === false && after.message?.deleted === true;
    const counted = before.message?.sender_id !== this.options.me && before.seq > record.readSeq;
    return isNews && vanished && counted ? { ...record, unread: Math.max(0, record.unread - 1) } : record;
  }

  /** Stores a message unless a later state of it is there; answers what is there then. */
  async #putMessage(step: Step, change: Change, message: WireMessage): Promise<EntryRecord> {
    const stored = await step.entry(message.chat_id, message.seq);
    if (stored !== undefined && stored.stateSeq >= message.state_seq && stored.message !== null) {
      change.entries.push(stored);
      return stored;
    }
    const entry = entryOf(message, stored?.mine ?? []);
    await step.putEntry(entry);
    change.entries.push(entry);
    return entry;
  }

  async #applyReceipt(
    step: Step,
    change: Change,
    receipt: Extract<ServerFrame, { t: "receipt" }>,
  ): Promise<void> {
    const record = this.#record(change, receipt.chat_id);
    if (record === undefined) return;
    if (receipt.user_id === this.options.me) {
      const read = receipt.status === "read" ? receipt.seq : 0;
      change.chats.set(record.chatId, {
        ...(await this.#read(step, record, read)),
        toldReadSeq: Math.max(record.toldReadSeq, read),
        toldDeliveredSeq: Math.max(record.toldDeliveredSeq, receipt.seq),
      });
      return;
    }
    const cursors = moveCursor(record.cursors, receipt.user_id, receipt.status, receipt.seq);
    if (cursors !== record.cursors) change.chats.set(record.chatId, { ...record, cursors });
  }

  /** Moves the own read position of a chat forward. Answers whether it moved. */
  markRead(chatId: string, seq: number): Promise<boolean> {
    return this.mutate(async (step, change) => {
      const record = this.#record(change, chatId);
      if (record === undefined || !isSeq(seq)) return false;
      const read = await this.#read(step, record, Math.min(seq, record.headSeq));
      if (read === record) return false;
      change.chats.set(chatId, read);
      return true;
    });
  }

  async #read(step: Step, record: ChatRecord, seq: number): Promise<ChatRecord> {
    if (seq <= record.readSeq) return record;
    const next = { ...record, readSeq: seq };
    if (seq >= record.countedSeq) return { ...next, unread: 0, mentions: 0 };
    const entries = await step.entriesAfter(record.chatId, Math.min(seq, record.readSeq), UNREAD_COUNTED);
    const others = entries.filter(
      ({ message }) => message !== null && !message.deleted && message.sender_id !== this.options.me,
    );
    const covered = seq + 1 >= record.fromSeq && record.countedSeq <= record.knownSeq;
    const unread =
      covered && entries.length < UNREAD_COUNTED
        ? others.filter((entry) => entry.seq > seq && entry.seq <= record.countedSeq).length
        : Math.max(
            0,
            record.unread - others.filter((entry) => entry.seq > record.readSeq && entry.seq <= seq).length,
          );
    return { ...next, unread, mentions: Math.min(record.mentions, unread) };
  }

  async #applyAccount(
    step: Step,
    change: Change,
    kind: string,
    fields: Record<string, unknown>,
  ): Promise<void> {
    const chatId = isId(fields.chat_id) ? fields.chat_id : null;
    if (kind === "chat_added" && chatId !== null) {
      change.removed.delete(chatId);
      change.wanted.add(chatId);
    } else if ((kind === "chat_removed" || kind === "cleared") && chatId !== null) {
      change.chats.delete(chatId);
      change.wanted.delete(chatId);
      change.answered.add(chatId);
      change.removed.add(chatId);
      await step.removeChat(chatId);
    } else if (kind === "settings") {
      change.profile = true;
    }
  }

  #record(change: Change, chatId: string): ChatRecord | undefined {
    const changed = change.chats.get(chatId);
    if (changed !== undefined) return changed;
    return change.reset || change.removed.has(chatId) ? undefined : this.chats.get(chatId);
  }

  /** Takes over who receives the own messages of a chat and how far they are; a position of null is hidden. */
  setRecipients(
    chatId: string,
    members: readonly { userId: string; deliveredSeq: number | null; readSeq: number | null }[],
  ): Promise<void> {
    return this.mutate(async (_, change) => {
      const record = this.#record(change, chatId);
      if (record === undefined) return;
      const recipients: string[] = [];
      let { cursors } = record;
      for (const { userId, deliveredSeq, readSeq } of members) {
        if (userId === this.options.me || deliveredSeq === null) continue;
        recipients.push(userId);
        cursors = moveCursor(cursors, userId, "delivered", deliveredSeq);
        if (readSeq !== null) cursors = moveCursor(cursors, userId, "read", readSeq);
      }
      change.chats.set(chatId, { ...record, recipients, cursors });
    });
  }

  /** Notes positions that the server holds for certain. */
  confirmTold(told: ReadonlyMap<string, { deliveredSeq: number; readSeq: number }>): Promise<void> {
    return this.mutate(async (_, change) => {
      for (const [chatId, { deliveredSeq, readSeq }] of told) {
        const record = this.#record(change, chatId);
        if (record === undefined) continue;
        change.chats.set(chatId, {
          ...record,
          toldDeliveredSeq: Math.max(record.toldDeliveredSeq, deliveredSeq),
          toldReadSeq: Math.max(record.toldReadSeq, readSeq),
        });
      }
    });
  }

  /** The log of a chat is known to reach `seq`: its event follows by itself, or is asked for after the usual grace. */
  async expect(chatId: string, seq: number): Promise<void> {
    const record = this.chats.get(chatId);
    if (record === undefined || record.headSeq >= seq) return;
    await this.mutate(async (_, change) => {
      const now = this.#record(change, chatId);
      if (now !== undefined) change.chats.set(chatId, { ...now, headSeq: Math.max(now.headSeq, seq) });
    });
    if (this.#graceTimer === null) this.#armGrace();
  }

  // -------------------------------------------------------------------------------------------------------
  // Holes

  #openGaps(): string[] {
    return [...this.chats.values()].filter((record) => isOpen(record)).map((record) => record.chatId);
  }

  #armGrace(): void {
    const { runtime } = this.options;
    if (this.#graceTimer !== null) runtime.clearTimeout(this.#graceTimer);
    this.#graceTimer = runtime.setTimeout(() => {
      this.#graceTimer = null;
      for (const chatId of this.#openGaps()) this.#holes.add(chatId);
      this.#pump();
    }, REPLAY_GRACE_MS);
    this.#tellCatchingUp();
  }

  /** Asks for the next pages, a few at a time. */
  #pump(): void {
    const { runtime, connection } = this.options;
    for (const chatId of this.#holes) {
      const record = this.chats.get(chatId);
      if (record === undefined || !isOpen(record)) {
        this.#holes.delete(chatId);
        this.#tries.delete(chatId);
        continue;
      }
      if (this.#requests.size >= REQUESTS) break;
      if (this.#requests.has(chatId) || this.#resting.has(chatId)) continue;
      const id = `s${this.#nextRequest++}`;
      const frame: ClientFrame = {
        t: "sync",
        id,
        chat_id: chatId,
        after_seq: record.knownSeq,
        limit: this.#page,
      };
      if (!connection.send(frame)) break;
      const timer = runtime.setTimeout(() => {
        if (this.#requests.get(chatId)?.id !== id) return;
        this.#requests.delete(chatId);
        this.#rest(chatId, null);
      }, REQUEST_TIMEOUT_MS);
      this.#requests.set(chatId, { id, chatId, timer });
    }
    this.#tellCatchingUp();
  }

  #answered(frame: Extract<ServerFrame, { t: "events" | "error" }>): void {
    for (const request of [...this.#requests.values()]) {
      if (request.id !== frame.id) continue;
      this.options.runtime.clearTimeout(request.timer);
      this.#requests.delete(request.chatId);
      if (frame.t === "error") this.#refused(request.chatId, frame);
    }
  }

  #refused(chatId: string, frame: Extract<ServerFrame, { t: "error" }>): void {
    if (frame.code === "reset") {
      void this.serial(() => this.#startAgain());
    } else if (frame.code === "not_found" || frame.code === "forbidden") {
      this.#holes.delete(chatId);
      void this.#forgetIfGone(chatId);
    } else {
      this.#rest(chatId, frame.retry_after_ms);
    }
  }

  /** A page that brought nothing, though more was announced, must not become a loop. */
  #afterPages(frames: readonly ServerFrame[]): void {
    for (const frame of frames) {
      if (frame.t !== "events") continue;
      const record = this.chats.get(frame.chat_id);
      if (record === undefined || !isOpen(record)) continue;
      this.#holes.add(frame.chat_id);
      const brought = frame.events.some((event) => event.seq === record.knownSeq);
      if (brought) this.#tries.delete(frame.chat_id);
      else this.#rest(frame.chat_id, null);
    }
  }

  #rest(chatId: string, named: number | null): void {
    if (this.#closed || this.#resting.has(chatId)) return;
    const { runtime } = this.options;
    const tries = this.#tries.get(chatId) ?? 0;
    this.#tries.set(chatId, tries + 1);
    const ceiling = Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** Math.min(tries, 10));
    const wait = named ?? ceiling / 2 + (runtime.random() * ceiling) / 2;
    this.#resting.set(
      chatId,
      runtime.setTimeout(() => {
        this.#resting.delete(chatId);
        this.#holes.add(chatId);
        this.#pump();
      }, wait),
    );
    this.#tellCatchingUp();
  }

  #tellCatchingUp(): void {
    const replaying = this.#graceTimer !== null && this.#openGaps().length > 0;
    this.options.connection.setCatchingUp(this.#holes.size > 0 || this.#fetching || replaying);
  }

  // -------------------------------------------------------------------------------------------------------
  // Reset

  #isForeign(epoch: string | null): boolean {
    return epoch !== null && this.#meta.epoch !== null && epoch !== this.#meta.epoch;
  }

  /** The server's log is not the one that was cached: drop the cache, come back without a cursor. */
  async #startAgain(): Promise<void> {
    await this.#mutate(async (step, change) => {
      await step.clearCache();
      change.reset = true;
    });
    this.options.connection.restart();
  }

  // -------------------------------------------------------------------------------------------------------
  // Which chats exist

  /** Fetches the list once, and after that each chat that was heard of. Goes on until nothing is wanted. */
  #fetchWanted(): void {
    if (this.#fetching || this.#fetchTimer !== null || this.#closed) return;
    if (this.#meta.listed && this.#meta.wanted.length === 0) return;
    this.#fetching = true;
    this.#tellCatchingUp();
    this.#fetchOnce().then(
      () => {
        this.#fetching = false;
        this.#fetchFailures = 0;
        this.#tellCatchingUp();
        this.#fetchWanted();
      },
      (error: unknown) => {
        this.#fetching = false;
        this.#tellCatchingUp();
        if (this.#closed) return;
        const { runtime } = this.options;
        const ceiling = Math.min(RETRY_CAP_MS, RETRY_BASE_MS * 2 ** Math.min(this.#fetchFailures, 10));
        this.#fetchFailures += 1;
        const named = error instanceof ProblemError ? error.retryAfterMs : null;
        this.#fetchTimer = runtime.setTimeout(
          () => {
            this.#fetchTimer = null;
            this.#fetchWanted();
          },
          named ?? ceiling / 2 + (runtime.random() * ceiling) / 2,
        );
      },
    );
  }

  async #fetchOnce(): Promise<void> {
    const { wanted, listed } = this.#meta;
    if (!listed) {
      await this.#fetchList(wanted);
      return;
    }
    let failure: unknown = null;
    for (const chatId of wanted) {
      // One chat that cannot be read must not keep the others out.
      await this.fetchChat(chatId).catch((error: unknown) => {
        failure = error;
      });
    }
    if (failure !== null) throw failure;
  }

  async #fetchList(wanted: readonly string[]): Promise<void> {
    const missing = new Set([...this.chats.keys(), ...wanted]);
    const generation = this.#generation;
    let cursor: string | null = null;
    do {
      const page: Page<unknown> = await this.options.http.get<Page<unknown>>("/chats", {
        limit: LIST_PAGE,
        cursor,
      });
      if (generation !== this.#generation) return;
      const chats = readAll(page.items, readChat);
      cursor = typeof page.next === "string" ? page.next : null;
      const last = cursor === null;
      for (const chat of chats) missing.delete(chat.chat_id);
      await this.mutate(async (step, change) => {
        for (const chat of chats) {
          await this.#describeChat(step, change, chat);
          change.answered.add(chat.chat_id);
        }
        if (!last) return;
        // A chat that moved up while the list was read stands on no page: each one missing is asked for by itself.
        for (const chatId of missing) change.wanted.add(chatId);
        await step.putMeta({ listed: true });
        change.listed = true;
      });
      for (const chat of chats) this.#holes.add(chat.chat_id);
      this.#pump();
    } while (cursor !== null);
  }

  /** Fetches one chat's description; forgets the chat if the server does not show it. */
  async fetchChat(chatId: string): Promise<ChatRecord | null> {
    const generation = this.#generation;
    let chat: WireChat | null = null;
    try {
      chat = readChat(await this.options.http.get<unknown>(path`/chats/${chatId}`));
    } catch (error) {
      if (!(error instanceof ProblemError && error.status === 404)) throw error;
    }
    if (generation !== this.#generation) return null;
    await this.addChat(chatId, chat);
    return this.chats.get(chatId) ?? null;
  }

  /** Takes a description over (null: there is no such chat), and pages up to its head. */
  async addChat(chatId: string, chat: WireChat | null): Promise<void> {
    await this.mutate(async (step, change) => {
      if (chat === null) {
        change.removed.add(chatId);
        await step.removeChat(chatId);
      } else {
        await this.#describeChat(step, change, chat);
      }
      change.answered.add(chatId);
    });
    this.#holes.add(chatId);
    this.#pump();
  }

  async #forgetIfGone(chatId: string): Promise<void> {
    try {
      await this.fetchChat(chatId);
    } catch (error) {
      if (mayRetry(error)) this.#rest(chatId, null);
    }
  }

  async #describeChat(step: Step, change: Change, chat: WireChat): Promise<void> {
    if (chat.peer !== null) change.users.set(chat.peer.user_id, chat.peer);
    const record = this.#record(change, chat.chat_id);
    const told = chat.last_message === null ? null : entryOf(chat.last_message, []);
    if (record === undefined) {
      // What the caller's other devices stored is history here, fetched when it is looked at; what no device
      // stored yet is paged now, so that "delivered" is true when it is said.
      const knownSeq = Math.max(chat.delivered_seq, chat.joined_seq - 1, 0);
      change.removed.delete(chat.chat_id);
      change.chats.set(chat.chat_id, {
        chatId: chat.chat_id,
        chat,
        headSeq: Math.max(chat.head_seq, knownSeq),
        knownSeq,
        fromSeq: knownSeq + 1,
        readSeq: chat.read_seq,
        toldReadSeq: chat.read_seq,
        toldDeliveredSeq: chat.delivered_seq,
        unread: chat.unread,
        mentions: chat.mentions,
        countedSeq: chat.head_seq,
        last: told,
        ownSeq: told?.message?.sender_id === this.options.me ? told.seq : 0,
        cursors: {},
        recipients: null,
      });
      return;
    }
    const counts = chat.read_seq >= record.readSeq && chat.head_seq >= record.countedSeq;
    const { last } = record;
    const newer =
      told !== null &&
      (last === null || told.seq > last.seq || (told.seq === last.seq && told.stateSeq > last.stateSeq));
    change.chats.set(chat.chat_id, {
      ...(await this.#read(step, record, chat.read_seq)),
      chat: chat.head_seq >= record.chat.head_seq ? chat : record.chat,
      headSeq: Math.max(record.headSeq, chat.head_seq),
      toldReadSeq: Math.max(record.toldReadSeq, chat.read_seq),
      toldDeliveredSeq: Math.max(record.toldDeliveredSeq, chat.delivered_seq),
      last: newer ? told : last,
      ownSeq:
        told?.message?.sender_id === this.options.me ? Math.max(record.ownSeq, told.seq) : record.ownSeq,
      ...(counts ? { unread: chat.unread, mentions: chat.mentions, countedSeq: chat.head_seq } : {}),
    });
  }

  // -------------------------------------------------------------------------------------------------------
  // History

  /**
   * Puts a page of older messages before the cached part. `belowSeq` is where the page ends: the `seq` of its
   * anchor, or infinity for the newest page. False: the page is older than what is cached and must be read again.
   */
  async addHistory(chatId: string, page: WireHistory, belowSeq: number): Promise<boolean> {
    return this.mutate(async (step, change) => {
      const record = this.#record(change, chatId);
      if (record === undefined) return true;
      const entries = this.refresh(chatId, page);
      if (entries === null) return false;
      const top = Math.min(belowSeq, page.head_seq + 1);
      // Not one piece with the cached part: the cache moved while the page was on its way.
      if (top < record.fromSeq) return true;
      for (const entry of entries) {
        if (entry.seq >= record.fromSeq || entry.seq > record.knownSeq) continue;
        await step.putEntry(entry);
        change.entries.push(entry);
      }
      const first = entries[0]?.seq ?? record.fromSeq;
      const fromSeq = Math.min(record.fromSeq, page.has_more ? first : 1);
      change.chats.set(chatId, { ...record, fromSeq });
      return true;
    });
  }

  /** The entries of a page as of now: events that were applied after the page was read are folded in. Null: too old. */
  refresh(chatId: string, page: WireHistory): EntryRecord[] | null {
    const record = this.chats.get(chatId);
    const recent = this.#recent.get(chatId);
    const knownSeq = record?.knownSeq ?? 0;
    if (page.head_seq < knownSeq && page.head_seq < (recent?.from ?? knownSeq)) return null;
    const byId = new Map(
      readAll(page.messages, readMessage).map((message) => [message.message_id, entryOf(message, [])]),
    );
    for (const [id, entry] of byId)
      byId.set(id, { ...entry, stateSeq: Math.max(entry.stateSeq, page.head_seq) });
    for (const event of recent?.events ?? []) {
      const target = isFold(event) ? byId.get(event.message_id) : undefined;
      if (target === undefined || event.seq <= target.stateSeq) continue;
      byId.set(target.messageId ?? "", fold(target, event, this.options.me));
    }
    return [...byId.values()].sort((a, b) => a.seq - b.seq);
  }

  /**
   * Puts entries that were read beside the cache before its first one; they reach from `fromSeq` up to the cached
   * part. False: they do not touch it.
   */
  async adopt(
    chatId: string,
    entries: readonly EntryRecord[],
    fromSeq: number,
    upToSeq: number,
  ): Promise<boolean> {
    return this.mutate(async (step, change) => {
      const record = this.#record(change, chatId);
      if (record === undefined || upToSeq < record.fromSeq - 1) return false;
      for (const entry of entries) {
        if (entry.seq >= record.fromSeq || entry.seq > record.knownSeq) continue;
        await step.putEntry(entry);
        change.entries.push(entry);
      }
      change.chats.set(chatId, { ...record, fromSeq: Math.min(record.fromSeq, fromSeq) });
      return true;
    });
  }

  /** Takes over a message's state from an answer to a call; the event of the same change then has no effect. */
  async applyState(value: unknown): Promise<EntryRecord | null> {
    const message = readMessage(value);
    if (message === null) return null;
    return this.mutate(async (step, change) => {
      const stored = await step.entryOfMessage(message.message_id);
      const fresh = entryOf(message, stored?.mine ?? []);
      const record = this.#record(change, message.chat_id);
      const last = record?.last;
      if (record !== undefined && last?.messageId === message.message_id && fresh.stateSeq > last.stateSeq) {
        change.chats.set(record.chatId, { ...record, last: fresh });
      }
      if (stored === undefined) return fresh;
      if (stored.stateSeq >= fresh.stateSeq) return stored;
      await step.putEntry(fresh);
      change.entries.push(fresh);
      return fresh;
    });
  }

  #remember(event: WireEvent): void {
    const recent = this.#recent.get(event.chat_id) ?? { from: event.seq - 1, events: [] };
    this.#recent.set(event.chat_id, recent);
    if (!isFold(event)) return;
    recent.events.push(event);
    if (recent.events.length > RECENT_CHANGES) recent.from = recent.events.shift()?.seq ?? recent.from;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Pure parts

/** Channels are told by heads and read when they are open; everything else is kept complete. */
function isOpen(record: ChatRecord): boolean {
  return record.headSeq > record.knownSeq && record.chat.type !== "channel";
}

/** Nothing that the member may see stands before the cached part. */
export function isComplete(record: ChatRecord): boolean {
  return record.fromSeq <= Math.max(1, record.chat.joined_seq);
}

export function entryOf(message: WireMessage, mine: readonly string[]): EntryRecord {
  return {
    chatId: message.chat_id,
    seq: message.seq,
    messageId: message.message_id,
    stateSeq: message.state_seq,
    message,
    event: null,
    mine,
  };
}

function messageOf(event: WireEvent): WireMessage | null {
  const message = readMessage(event.message);
  // A message that names another place than its event is no message that could be shown safely.
  return message !== null && message.chat_id === event.chat_id && message.seq === event.seq ? message : null;
}

export type FoldEvent = WireEvent & { message_id: string };

export function isFold(event: WireEvent): event is FoldEvent {
  if (!isId(event.message_id)) return false;
  if (event.kind === "reaction") return isId(event.user_id) && typeof event.emoji === "string";
  return event.kind === "edit" || event.kind === "delete";
}

/** The state of a message after one more event. Pure; the caller has checked `seq > stateSeq`. */
export function fold(entry: EntryRecord, event: WireEvent, me: string): EntryRecord {
  const { message } = entry;
  if (message === null) return entry;
  const stateSeq = event.seq;
  if (event.kind === "edit") {
    const edited_at = typeof event.edited_at === "string" ? event.edited_at : message.edited_at;
    // Without a text the edit was replaced or erased since; a later event brings what holds now.
    const text = typeof event.message === "string" && !message.deleted ? event.message : message.message;
    return { ...entry, stateSeq, message: { ...message, message: text, edited_at, state_seq: stateSeq } };
  }
  if (event.kind === "delete") {
    return {
      ...entry,
      stateSeq,
      mine: [],
      message: {
        ...message,
        message: "",
        attachments: [],
        reactions: [],
        deleted: true,
        state_seq: stateSeq,
      },
    };
  }
  if (event.kind === "reaction" && typeof event.emoji === "string" && isId(event.user_id)) {
    const added = event.added === true;
    const { emoji, user_id } = event;
    const others = entry.mine.filter((own) => own !== emoji);
    return {
      ...entry,
      stateSeq,
      mine: user_id !== me ? entry.mine : added ? [...others, emoji] : others,
      message: {
        ...message,
        reactions: react(message.reactions, emoji, user_id, added),
        state_seq: stateSeq,
      },
    };
  }
  return { ...entry, stateSeq };
}

const REACTION_USERS = 20;

function react(
  reactions: WireMessage["reactions"],
  emoji: string,
  userId: string,
  added: boolean,
): WireMessage["reactions"] {
  const at = reactions.findIndex((reaction) => reaction.emoji === emoji);
  const old = reactions[at];
  if (old === undefined) return added ? [...reactions, { emoji, count: 1, user_ids: [userId] }] : reactions;
  const others = old.user_ids.filter((id) => id !== userId);
  const was = others.length < old.user_ids.length;
  if (added && was) return reactions;
  const count = Math.max(0, old.count + (added ? 1 : -1));
  if (count === 0) return reactions.filter((_, i) => i !== at);
  const user_ids = added && others.length < REACTION_USERS ? [...others, userId] : others;
  return reactions.map((reaction, i) => (i === at ? { emoji, count, user_ids } : reaction));
}

/** What an event changes about the chat itself. */
function describe(chat: WireChat, event: WireEvent, me: string): WireChat {
  const head_seq = event.seq;
  const isMe = event.user_id === me;
  switch (event.kind) {
    case "message":
      return {
        ...chat,
        head_seq,
        updated_at: typeof event.created_at === "string" ? event.created_at : chat.updated_at,
      };
    case "join":
      return { ...chat, head_seq, participants_count: chat.participants_count + 1 };
    case "leave":
      return { ...chat, head_seq, participants_count: Math.max(0, chat.participants_count - 1) };
    case "role":
      return { ...chat, head_seq, role: isMe && typeof event.role === "string" ? event.role : chat.role };
    case "settings": {
      const changes = isFields(event.changes) ? event.changes : {};
      return {
        ...chat,
        head_seq,
        title: typeof changes.title === "string" ? changes.title : chat.title,
        topic: typeof changes.topic === "string" ? changes.topic || null : chat.topic,
        settings: isFields(changes.settings) ? changes.settings : chat.settings,
      };
    }
    default:
      return { ...chat, head_seq };
  }
}

export function moveCursor(
  cursors: ChatRecord["cursors"],
  userId: string,
  status: "delivered" | "read",
  seq: number,
): ChatRecord["cursors"] {
  const [delivered, read] = cursors[userId] ?? [0, 0];
  if (!isSeq(seq)) return cursors;
  const moved: readonly [number, number] = [
    Math.max(delivered, seq),
    status === "read" ? Math.max(read, seq) : read,
  ];
  return moved[0] === delivered && moved[1] === read ? cursors : { ...cursors, [userId]: moved };
}
