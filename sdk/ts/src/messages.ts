// Messages: the window of a chat that a view shows, and what can be done with messages.
//
// A window is a stretch of the log. Normally it reaches to the end and lives on the cache (`tail`); after a jump
// to an old message it is a stretch of its own that the cache does not hold (`apart`), until it meets the cache.
// Sending is outbox.ts, applying events is sync.ts, ticks are receipts.ts.

import { Cell, type Readable } from "./cell";
import type { Account, Core, Listener } from "./core";
import { accountOf } from "./core";
import { ProblemError, path } from "./http";
import type {
  Entry,
  MessageEntry,
  Messages,
  MessagesWindow,
  NoticeEntry,
  OutgoingMessage,
  Reaction,
} from "./index";
import type { Timer } from "./runtime";
import type { ChatRecord, EntryRecord, OutboxRecord } from "./store";
import { type Change, entryOf, fold, isComplete, isFold, type Replica } from "./sync";
import { isFields, isId, readMessage, type WireEvent, type WireHistory } from "./wire";

const PAGE = 50;
/** A jump inside the cache loads at most so many entries in between; beyond it the window stands apart. */
const JUMP_IN_CACHE = 500;
/** Context above a message that was jumped to. */
const JUMP_CONTEXT = 25;
/** A page that is older than the cache is read again. */
const REREADS = 3;
const DRAFT_DELAY_MS = 300;
/** Windows that nobody looks at, kept for going back to. */
const IDLE_WINDOWS = 8;

export class MessagesState implements Messages, Listener {
  readonly #windows = new Map<string, ChatWindow>();
  readonly #drafts = new Map<string, Cell<string>>();
  readonly #draftTimers = new Map<string, Timer>();
  #onDraft: (chatId: string) => void = () => {};
  #onSend: (chatId: string) => void = () => {};

  constructor(private readonly core: Core) {}

  of(chatId: string): Readable<MessagesWindow> {
    return this.#window(chatId).cell;
  }

  loadOlder(chatId: string): Promise<void> {
    return this.#window(chatId).loadOlder();
  }

  loadNewer(chatId: string): Promise<void> {
    return this.#window(chatId).loadNewer();
  }

  jumpTo(chatId: string, messageId: string): Promise<void> {
    return this.#window(chatId).jumpTo(messageId);
  }

  jumpToNewest(chatId: string): Promise<void> {
    return this.#window(chatId).jumpToNewest();
  }

  async send(chatId: string, message: OutgoingMessage): Promise<string> {
    const { outbox } = accountOf(this.core);
    const draft = this.#drafts.get(chatId)?.get() ?? "";
    const sent = outbox.enqueue(chatId, message);
    // The words are in the window now; should the device fail to store them, they come back into the draft.
    this.#putDraft(chatId, "");
    this.#onSend(chatId);
    try {
      return await sent;
    } catch (error) {
      if (draft !== "" && this.#drafts.get(chatId)?.get() === "") this.#putDraft(chatId, draft);
      throw error;
    }
  }

  retry(clientId: string): Promise<void> {
    return accountOf(this.core).outbox.retry(clientId);
  }

  discard(clientId: string): Promise<void> {
    return accountOf(this.core).outbox.discard(clientId);
  }

  async edit(messageId: string, text: string): Promise<void> {
    const { replica } = accountOf(this.core);
    const body = { message: text };
    await replica.applyState(await this.core.http.call("PATCH", path`/messages/${messageId}`, { body }));
  }

  async delete(messageId: string): Promise<void> {
    await this.core.http.call("DELETE", path`/messages/${messageId}`);
  }

  async react(messageId: string, emoji: string): Promise<void> {
    const { replica } = accountOf(this.core);
    await replica.applyState(
      await this.core.http.call("PUT", path`/messages/${messageId}/reactions/${emoji}`),
    );
  }

  async unreact(messageId: string, emoji: string): Promise<void> {
    const { replica } = accountOf(this.core);
    await replica.applyState(
      await this.core.http.call("DELETE", path`/messages/${messageId}/reactions/${emoji}`),
    );
  }

  async get(messageId: string): Promise<MessageEntry | null> {
    const { replica, userId } = accountOf(this.core);
    const stored = await replica.serial(() => replica.store.entryOfMessage(messageId));
    if (stored?.message != null) return messageEntry(stored, userId);
    try {
      const message = readMessage(await this.core.http.get(path`/messages/${messageId}`));
      return message && messageEntry(entryOf(message, []), userId);
    } catch (error) {
      if (error instanceof ProblemError && error.status === 404) return null;
      throw error;
    }
  }

  draft(chatId: string): Readable<string> {
    return this.#draftCell(chatId);
  }

  setDraft(chatId: string, text: string): void {
    if (this.#draftCell(chatId).get() === text) return;
    this.#putDraft(chatId, text);
    const { runtime } = this.core;
    const { replica } = accountOf(this.core);
    this.#draftTimers.set(
      chatId,
      runtime.setTimeout(() => {
        this.#draftTimers.delete(chatId);
        replica.keep((step) => step.putDraft(chatId, text)).catch(() => {});
      }, DRAFT_DELAY_MS),
    );
  }

  /** All texts being written, for the store that takes over when one fails. */
  *drafts(): Iterable<[string, string]> {
    for (const [chatId, cell] of this.#drafts) if (cell.get() !== "") yield [chatId, cell.get()];
  }

  draftOf(chatId: string): string {
    return this.#drafts.get(chatId)?.get() ?? "";
  }

  /** Told once, by the list of chats. */
  onDraft(run: (chatId: string) => void): void {
    this.#onDraft = run;
  }

  /** Told once, by whoever says who is typing. */
  onSend(run: (chatId: string) => void): void {
    this.#onSend = run;
  }

  openDrafts(drafts: ReadonlyMap<string, string>): void {
    for (const [chatId, text] of drafts) this.#draftCell(chatId).set(text);
  }

  /** Stores what the delay still holds back: the page may be gone the next moment. */
  async flushDrafts(): Promise<void> {
    const { replica } = accountOf(this.core);
    const waiting = [...this.#draftTimers];
    this.#draftTimers.clear();
    for (const [chatId, timer] of waiting) {
      this.core.runtime.clearTimeout(timer);
      await replica.keep((step) => step.putDraft(chatId, this.draftOf(chatId))).catch(() => {});
    }
  }

  onOpen(_account: Account): void {
    for (const window of this.#windows.values()) window.start();
  }

  onChange(change: Change): void {
    for (const window of this.#windows.values()) window.onChange(change);
  }

  onOutbox(chatId: string): void {
    this.#windows.get(chatId)?.publish();
  }

  onLive(): void {
    for (const window of this.#windows.values()) window.onLive();
  }

  onClose(): void {
    for (const timer of this.#draftTimers.values()) this.core.runtime.clearTimeout(timer);
    this.#draftTimers.clear();
    for (const [chatId, cell] of this.#drafts) {
      cell.set("");
      if (!cell.watched) this.#drafts.delete(chatId);
    }
    for (const [chatId, window] of this.#windows) {
      window.clear();
      if (!window.cell.watched) this.#windows.delete(chatId);
    }
  }

  #putDraft(chatId: string, text: string): void {
    const timer = this.#draftTimers.get(chatId);
    if (timer !== undefined) this.core.runtime.clearTimeout(timer);
    this.#draftTimers.delete(chatId);
    const cell = this.#draftCell(chatId);
    if (cell.get() === text) return;
    cell.set(text);
    this.#onDraft(chatId);
  }

  #draftCell(chatId: string): Cell<string> {
    let cell = this.#drafts.get(chatId);
    if (cell === undefined) {
      cell = new Cell("");
      this.#drafts.set(chatId, cell);
    }
    return cell;
  }

  #window(chatId: string): ChatWindow {
    let window = this.#windows.get(chatId);
    if (window === undefined) {
      window = new ChatWindow(this.core, chatId);
      this.#forgetIdle();
    } else {
      this.#windows.delete(chatId);
    }
    // Last in the map is last used.
    this.#windows.set(chatId, window);
    return window;
  }

  #forgetIdle(): void {
    const idle = [...this.#windows].filter(([, window]) => !window.cell.watched);
    for (const [chatId] of idle.slice(0, Math.max(0, idle.length - IDLE_WINDOWS)))
      this.#windows.delete(chatId);
  }
}

// ---------------------------------------------------------------------------------------------------------
// The window

class ChatWindow {
  readonly cell: Cell<MessagesWindow>;
  /** Rises when the window begins anew, so that answers for the old one are dropped. */
  #turn = 0;
  #mode: "tail" | "apart" = "tail";
  #filled = false;
  #filling = false;
  #problem: Error | null = null;
  /** Ascending by `seq`. */
  #records: EntryRecord[] = [];
  /** A tail holds every entry from here on. */
  #fromSeq = Number.POSITIVE_INFINITY;
  /** Of a window apart. */
  #apartOlder = false;
  #apartNewer = false;
  #older: Promise<void> | null = null;
  #newer: Promise<void> | null = null;

  constructor(
    private readonly core: Core,
    private readonly chatId: string,
  ) {
    this.cell = new Cell<MessagesWindow>(
      {
        chatId,
        state: "loading",
        entries: [],
        hasOlder: true,
        hasNewer: false,
        loadingOlder: false,
        loadingNewer: false,
        problem: null,
      },
      { onFirst: () => this.start() },
    );
  }

  /** Fills the window from the cache, and from the server if the cache holds little. */
  start(): void {
    if (this.#filled || this.#filling || this.core.account() === null) return;
    this.#fill().catch(() => {});
  }

  clear(): void {
    this.#turn += 1;
    this.#mode = "tail";
    this.#filled = false;
    this.#filling = false;
    this.#problem = null;
    this.#records = [];
    this.#fromSeq = Number.POSITIVE_INFINITY;
    this.#older = null;
    this.#newer = null;
    this.publish();
  }

  async jumpToNewest(): Promise<void> {
    if (this.#mode === "tail" && this.#filled) return;
    this.clear();
    await this.#fill();
  }

  async #fill(): Promise<void> {
    const account = accountOf(this.core);
    const { replica } = account;
    const turn = ++this.#turn;
    this.#filling = true;
    try {
      await replica.serial(async () => {
        const record = replica.chats.get(this.chatId);
        if (record === undefined || turn !== this.#turn) return;
        const cached = await replica.store.entriesBefore(this.chatId, record.knownSeq + 1, PAGE);
        this.#records = cached.filter((entry) => entry.seq >= record.fromSeq);
        const first = this.#records.length < PAGE ? record.fromSeq : this.#records[0]?.seq;
        this.#fromSeq = first ?? record.fromSeq;
        this.#filled = true;
      });
    } finally {
      if (turn === this.#turn) this.#filling = false;
    }
    if (turn !== this.#turn) return;
    this.publish();
    const record = replica.chats.get(this.chatId);
    if (this.#filled && record !== undefined && this.#records.length < PAGE && !isComplete(record)) {
      await this.loadOlder();
    }
  }

  // -------------------------------------------------------------------------------------------------------
  // More of it

  loadOlder(): Promise<void> {
    if (!this.#filled) {
      this.start();
      return Promise.resolve();
    }
    this.#older ??= this.#loading(
      () => (this.#mode === "tail" ? this.#tailOlder() : this.#apartPage("before")),
      () => {
        this.#older = null;
      },
    );
    this.publish();
    return this.#older;
  }

  loadNewer(): Promise<void> {
    if (this.#mode === "tail") return Promise.resolve();
    this.#newer ??= this.#loading(
      () => this.#apartPage("after"),
      () => {
        this.#newer = null;
      },
    );
    this.publish();
    return this.#newer;
  }

  async #loading(load: () => Promise<void>, done: () => void): Promise<void> {
    const turn = this.#turn;
    try {
      await load();
      if (turn === this.#turn) this.#problem = null;
    } catch (error) {
      if (turn === this.#turn) this.#problem = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      if (turn === this.#turn) {
        done();
        this.publish();
      }
    }
  }

  async #tailOlder(): Promise<void> {
    const { replica } = accountOf(this.core);
    const turn = this.#turn;
    let wanted = PAGE - (await this.#takeCached(replica, turn, PAGE));
    for (let reads = 0; wanted > 0 && turn === this.#turn; reads += 1) {
      const record = replica.chats.get(this.chatId);
      if (record === undefined || isComplete(record)) return;
      const anchor = await replica.serial(() => this.#anchor(replica, record));
      const page = await this.#page(anchor === null ? {} : { before: anchor.messageId ?? "" });
      if (turn !== this.#turn) return;
      const isFresh = await replica.addHistory(this.chatId, page, anchor?.seq ?? Number.POSITIVE_INFINITY);
      if (!isFresh) {
        if (reads >= REREADS) throw new Error("the server's answers stay behind the log");
        continue;
      }
      const taken = await this.#takeCached(replica, turn, wanted);
      wanted -= taken;
      // A page that moved nothing would be asked for again and again.
      if (taken === 0 && replica.chats.get(this.chatId)?.fromSeq === record.fromSeq) return;
      if (taken > 0) return;
    }
  }

  /** The first message at or after the start of the cache: history pages are anchored at messages. */
  async #anchor(replica: Replica, record: ChatRecord): Promise<EntryRecord | null> {
    let after = record.fromSeq - 1;
    for (;;) {
      const entries = await replica.store.entriesAfter(this.chatId, after, PAGE);
      const found = entries.find((entry) => entry.messageId !== undefined && entry.seq <= record.knownSeq);
      if (found !== undefined) return found;
      const last = entries.at(-1);
      if (last === undefined || last.seq > record.knownSeq) return null;
      after = last.seq;
    }
  }

  /** Extends a tail downwards by what the cache holds. */
  #takeCached(replica: Replica, turn: number, limit: number): Promise<number> {
    return replica.serial(async () => {
      const record = replica.chats.get(this.chatId);
      if (record === undefined || turn !== this.#turn || this.#fromSeq <= record.fromSeq) return 0;
      const before = Math.min(this.#fromSeq, record.knownSeq + 1);
      const cached = (await replica.store.entriesBefore(this.chatId, before, limit)).filter(
        (entry) => entry.seq >= record.fromSeq,
      );
      if (turn !== this.#turn) return 0;
      this.#records = [...cached, ...this.#records];
      this.#fromSeq = cached.length < limit ? record.fromSeq : (cached[0]?.seq ?? record.fromSeq);
      return cached.length;
    });
  }

  async jumpTo(messageId: string): Promise<void> {
    if (!this.#filled) await this.#fill();
    if (this.#records.some((entry) => entry.messageId === messageId)) return;
    const { replica } = accountOf(this.core);
    const turn = this.#turn;
    const inCache = await replica.serial(async () => {
      const target = await replica.store.entryOfMessage(messageId);
      const record = replica.chats.get(this.chatId);
      if (target?.chatId !== this.chatId || record === undefined || turn !== this.#turn) return false;
      if (this.#mode !== "tail" || target.seq < record.fromSeq || target.seq >= this.#fromSeq) return false;
      const between = await replica.store.entriesBefore(
        this.chatId,
        this.#fromSeq,
        JUMP_IN_CACHE + JUMP_CONTEXT,
      );
      const at = between.findIndex((entry) => entry.messageId === messageId);
      if (at < 0 || turn !== this.#turn) return false;
      const kept = between
        .slice(Math.max(0, at - JUMP_CONTEXT))
        .filter((entry) => entry.seq >= record.fromSeq);
      this.#records = [...kept, ...this.#records];
      this.#fromSeq = kept[0]?.seq ?? this.#fromSeq;
      return true;
    });
    if (turn !== this.#turn) return;
    if (inCache) {
      this.publish();
      return;
    }
    for (let reads = 0; ; reads += 1) {
      const page = await this.#page({ around: messageId });
      if (turn !== this.#turn) return;
      const records = replica.refresh(this.chatId, page);
      if (records === null && reads < REREADS) continue;
      const first = records?.[0];
      const last = records?.at(-1);
      if (records === null || first === undefined || last === undefined) {
        throw new Error("the server's answers stay behind the log");
      }
      const chat = replica.chats.get(this.chatId);
      this.clear();
      this.#mode = "apart";
      this.#filled = true;
      this.#records = records;
      this.#apartOlder = first.seq > Math.max(1, chat?.chat.joined_seq ?? 1);
      this.#apartNewer = true;
      await this.#meet(replica);
      this.publish();
      return;
    }
  }

  async #apartPage(side: "before" | "after"): Promise<void> {
    const { replica } = accountOf(this.core);
    const turn = this.#turn;
    for (let reads = 0; ; reads += 1) {
      const edge = side === "before" ? this.#records[0] : this.#records.at(-1);
      if (edge?.messageId === undefined) return;
      const page = await this.#page({ [side]: edge.messageId });
      if (turn !== this.#turn || this.#mode !== "apart") return;
      const records = replica.refresh(this.chatId, page);
      if (records === null) {
        if (reads < REREADS) continue;
        throw new Error("the server's answers stay behind the log");
      }
      if (side === "before") {
        this.#records = [...records.filter((entry) => entry.seq < edge.seq), ...this.#records];
        this.#apartOlder = page.has_more;
      } else {
        this.#records = [...this.#records, ...records.filter((entry) => entry.seq > edge.seq)];
        this.#apartNewer = page.has_more;
      }
      await this.#meet(replica);
      return;
    }
  }

  /** A window apart that reached the cached part becomes its older end, and follows the log from then on. */
  async #meet(replica: Replica): Promise<void> {
    const turn = this.#turn;
    const first = this.#records[0];
    const last = this.#records.at(-1);
    const record = replica.chats.get(this.chatId);
    if (first === undefined || last === undefined || record === undefined) return;
    // At the newest message there is nothing between it and the end but events that are no messages.
    const upToSeq = this.#apartNewer ? last.seq : record.knownSeq;
    if (upToSeq < record.fromSeq - 1) return;
    const joined = await replica.adopt(this.chatId, this.#records, first.seq, upToSeq);
    if (!joined || turn !== this.#turn) return;
    await replica.serial(async () => {
      const now = replica.chats.get(this.chatId);
      if (now === undefined || turn !== this.#turn) return;
      const all = await replica.store.entriesAfter(this.chatId, first.seq - 1, Number.MAX_SAFE_INTEGER);
      this.#mode = "tail";
      this.#fromSeq = first.seq;
      this.#records = all.filter((entry) => entry.seq <= now.knownSeq);
    });
  }

  async #page(anchor: { before?: string; after?: string; around?: string }): Promise<WireHistory> {
    const page = await this.core.http.get<WireHistory>(path`/chats/${this.chatId}/messages`, {
      limit: PAGE,
      ...anchor,
    });
    return {
      messages: Array.isArray(page.messages) ? page.messages : [],
      has_more: page.has_more === true,
      head_seq: typeof page.head_seq === "number" ? page.head_seq : 0,
    };
  }

  // -------------------------------------------------------------------------------------------------------
  // Following the log

  onLive(): void {
    if (!this.cell.watched) return;
    if (!this.#filled) this.start();
    else if (this.#problem !== null && this.#records.length === 0) this.loadOlder().catch(() => {});
  }

  onChange(change: Change): void {
    if (change.reset || change.removed.has(this.chatId)) {
      this.clear();
      if (this.cell.watched) this.start();
      return;
    }
    if (!this.#filled) {
      if (this.cell.watched && change.chats.has(this.chatId)) this.start();
      return;
    }
    let touched = false;
    if (this.#mode === "apart") {
      const me = this.core.account()?.userId ?? "";
      for (const event of change.events) {
        if (event.chat_id !== this.chatId || !isFold(event)) continue;
        const at = this.#records.findIndex((entry) => entry.messageId === event.message_id);
        const target = this.#records[at];
        if (target === undefined || event.seq <= target.stateSeq) continue;
        this.#records = this.#records.with(at, fold(target, event, me));
        touched = true;
      }
    }
    const fresh = change.entries.filter((entry) => entry.chatId === this.chatId && this.#holds(entry));
    if (fresh.length > 0) {
      const bySeq = new Map(this.#records.map((entry) => [entry.seq, entry]));
      for (const entry of fresh) bySeq.set(entry.seq, entry);
      this.#records = [...bySeq.values()].sort((a, b) => a.seq - b.seq);
      touched = true;
    }
    const record = change.chats.get(this.chatId);
    if (record !== undefined && this.#mode === "tail" && record.fromSeq > this.#fromSeq) {
      this.#records = this.#records.filter((entry) => entry.seq >= record.fromSeq);
      this.#fromSeq = record.fromSeq;
      touched = true;
    }
    if (touched || record !== undefined) this.publish();
  }

  #holds(entry: EntryRecord): boolean {
    if (this.#mode === "tail") return entry.seq >= this.#fromSeq;
    return this.#records.some(({ seq, stateSeq }) => seq === entry.seq && stateSeq < entry.stateSeq);
  }

  // -------------------------------------------------------------------------------------------------------
  // What the view gets

  publish(): void {
    const account = this.core.account();
    const before = this.cell.get();
    const record = account?.replica.chats.get(this.chatId);
    const entries: Entry[] = [];
    if (account !== null) {
      for (const entry of this.#records) {
        const shown = viewOf(entry, account.userId);
        if (shown !== null) entries.push(shown);
      }
      if (this.#mode === "tail") {
        const inLog = new Set(this.#records.map((entry) => entry.message?.client_id));
        for (const waiting of account.outbox.of(this.chatId)) {
          if (!inLog.has(waiting.clientId)) entries.push(waitingEntry(waiting, account.userId));
        }
      }
    }
    const complete = record !== undefined && isComplete(record);
    const hasOlder =
      this.#mode === "apart"
        ? this.#apartOlder
        : !this.#filled || record === undefined || !complete || this.#fromSeq > record.fromSeq;
    const nothing = entries.length === 0;
    const state = !nothing
      ? "ready"
      : this.#problem !== null
        ? "failed"
        : this.#filled && !hasOlder
          ? "ready"
          : "loading";
    const next: MessagesWindow = {
      chatId: this.chatId,
      state,
      entries: sameEntries(before.entries, entries) ? before.entries : entries,
      hasOlder,
      hasNewer: this.#mode === "apart",
      loadingOlder: this.#older !== null,
      loadingNewer: this.#newer !== null,
      problem: this.#problem,
    };
    if (!sameWindow(before, next)) this.cell.set(next);
  }
}

function sameEntries(a: readonly Entry[], b: readonly Entry[]): boolean {
  return a.length === b.length && a.every((entry, i) => entry === b[i]);
}

function sameWindow(a: MessagesWindow, b: MessagesWindow): boolean {
  return (
    a.state === b.state &&
    a.entries === b.entries &&
    a.hasOlder === b.hasOlder &&
    a.hasNewer === b.hasNewer &&
    a.loadingOlder === b.loadingOlder &&
    a.loadingNewer === b.loadingNewer &&
    a.problem === b.problem
  );
}

// ---------------------------------------------------------------------------------------------------------
// Entries as views see them: one object for one state, so that keyed lists redraw only what changed

const shownEntries = new WeakMap<EntryRecord, { me: string; entry: Entry | null }>();
const shownWaiting = new WeakMap<OutboxRecord, MessageEntry>();

function viewOf(record: EntryRecord, me: string): Entry | null {
  const known = shownEntries.get(record);
  if (known?.me === me) return known.entry;
  const entry = record.message !== null ? messageEntry(record, me) : noticeEntry(record);
  shownEntries.set(record, { me, entry });
  return entry;
}

/** A message of the log. */
export function messageEntry(record: EntryRecord, me: string): MessageEntry | null {
  const { message } = record;
  if (message === null) return null;
  const mine = message.sender_id === me;
  return {
    kind: "message",
    key: mine && message.client_id !== null ? `c${message.client_id}` : `m${message.message_id}`,
    messageId: message.message_id,
    clientId: message.client_id,
    chatId: message.chat_id,
    seq: message.seq,
    senderId: message.sender_id,
    mine,
    type: message.type,
    text: message.message,
    replyTo: message.reply_to,
    attachments: message.attachments,
    createdAt: message.created_at,
    editedAt: message.edited_at,
    deleted: message.deleted,
    reactions: message.reactions.map((reaction) => reactionOf(reaction, record.mine, me)),
    sending: mine ? "accepted" : null,
    failure: null,
  };
}

function reactionOf(
  reaction: { emoji: string; count: number; user_ids: string[] },
  mine: readonly string[],
  me: string,
): Reaction {
  const listed = reaction.user_ids.includes(me);
  const beyond = reaction.count > reaction.user_ids.length && mine.includes(reaction.emoji);
  return {
    emoji: reaction.emoji,
    count: reaction.count,
    userIds: reaction.user_ids,
    mine: listed || beyond,
  };
}

/** A message that is not in the log yet, as the outbox holds it. */
export function waitingEntry(record: OutboxRecord, me: string): MessageEntry {
  const known = shownWaiting.get(record);
  if (known !== undefined) return known;
  const entry: MessageEntry = {
    kind: "message",
    key: `c${record.clientId}`,
    messageId: record.acked?.messageId ?? null,
    clientId: record.clientId,
    chatId: record.chatId,
    seq: record.acked?.seq ?? null,
    senderId: me,
    mine: true,
    type: record.type,
    text: record.text,
    replyTo: record.replyTo,
    attachments: [],
    createdAt: record.acked?.createdAt || new Date(record.createdAtMs).toISOString(),
    editedAt: null,
    deleted: false,
    reactions: [],
    sending: record.state === "acked" ? "accepted" : record.state,
    failure: record.failure,
  };
  shownWaiting.set(record, entry);
  return entry;
}

const KNOWN_NOTICES = new Set(["created", "join", "leave", "role", "settings"]);

/** Null: kept in the store, but nothing to show. */
function noticeEntry(record: EntryRecord): NoticeEntry | null {
  const { event } = record;
  if (event === null) return null;
  const fallback = typeof event.fallback === "string" ? event.fallback : null;
  if (!KNOWN_NOTICES.has(event.kind) && fallback === null) return null;
  return {
    kind: "notice",
    key: `n${record.seq}`,
    chatId: record.chatId,
    seq: record.seq,
    event: event.kind,
    createdAt: typeof event.created_at === "string" ? event.created_at : null,
    byId: isId(event.by) ? event.by : null,
    userId: isId(event.user_id) ? event.user_id : null,
    fields: fieldsOf(event),
    fallback,
  };
}

function fieldsOf(event: WireEvent): Record<string, unknown> {
  const { chat_id: _, seq: __, kind: ___, event_id: ____, created_at: _____, ...fields } = event;
  return isFields(fields) ? fields : {};
}
