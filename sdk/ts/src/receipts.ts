// Receipts: how far others have come with the own messages, and telling how far this device has come.
//
// `delivered` is said by the SDK, after the store kept the message; `read` is said only when the view calls
// `markRead`. Positions merge by maximum, so saying one twice is harmless and saying a later one covers the rest.

import { Cell, type Readable } from "./cell";
import type { Account, Core, Listener } from "./core";
import { accountOf } from "./core";
import { path } from "./http";
import type { MessageEntry, MessageStatus, Receipts, RecipientStatus, Ticks } from "./index";
import type { Timer } from "./runtime";
import type { ChatRecord } from "./store";
import type { Change } from "./sync";
import { readAll, type WireMessageStatus } from "./wire";

/** Receipts of a burst are told as one. */
const COALESCE_MS = 100;
/** The server writes positions at most a second after it got them; after this they are safe. */
const CONFIRM_MS = 5_000;
const RETRY_MS = 2_000;

const NO_TICKS: Ticks = { deliveredSeq: 0, readSeq: 0, cursors: new Map() };

/**
 * What a tick shows for a message: the lowest state over its recipients. Null for what others sent.
 * A later message never shows more than an earlier one, since both compare with the same positions.
 */
export function messageStatus(entry: MessageEntry, ticks: Ticks): MessageStatus | null {
  if (entry.sending === null) return null;
  if (entry.sending !== "accepted" || entry.seq === null)
    return entry.sending === "failed" ? "failed" : "waiting";
  if (entry.seq <= ticks.readSeq) return "read";
  return entry.seq <= ticks.deliveredSeq ? "delivered" : "sent";
}

interface Told {
  deliveredSeq: number;
  readSeq: number;
}

export class ReceiptsState implements Receipts, Listener {
  readonly #cells = new Map<string, Cell<Ticks>>();
  /** Told on the present connection; what the server forgets with it is told again on the next. */
  readonly #told = new Map<string, Told>();
  readonly #due = new Set<string>();
  #young = new Map<string, Told>();
  #ripe = new Map<string, Told>();
  /** The frame of each chat's last receipt, to know a refusal by. */
  readonly #frames = new Map<string, string>();
  #timer: Timer | null = null;
  #confirmTimer: Timer | null = null;
  #nextFrame = 1;
  #loadMembers: (chatId: string) => void = () => {};

  constructor(private readonly core: Core) {}

  /** Told once, by whoever can ask for the members' positions. */
  onTicksWanted(run: (chatId: string) => void): void {
    this.#loadMembers = run;
  }

  ticks(chatId: string): Readable<Ticks> {
    let cell = this.#cells.get(chatId);
    if (cell === undefined) {
      const record = this.core.account()?.replica.chats.get(chatId);
      cell = new Cell<Ticks>(record === undefined ? NO_TICKS : ticksOf(record), {
        onFirst: () => this.#refresh(chatId),
      });
      this.#cells.set(chatId, cell);
    }
    return cell;
  }

  async recipients(messageId: string): Promise<readonly RecipientStatus[]> {
    const answer = await this.core.http.get<WireMessageStatus>(path`/messages/${messageId}/status`);
    return readAll(answer.recipients, (item) => item as WireMessageStatus["recipients"][number]).map(
      (one) => ({
        userId: one.user_id,
        status: one.status,
        updatedAt: one.updated_at,
        deliveredAt: one.delivered_at ?? null,
        readAt: one.read_at ?? null,
      }),
    );
  }

  markRead(chatId: string, seq: number): void {
    const { replica } = accountOf(this.core);
    const record = replica.chats.get(chatId);
    if (record === undefined || seq <= record.readSeq) return;
    replica
      .markRead(chatId, seq)
      .then((moved) => {
        if (moved) this.#tell(chatId);
      })
      .catch(() => {});
  }

  onOpen(account: Account): void {
    for (const [chatId, cell] of this.#cells) {
      const record = account.replica.chats.get(chatId);
      if (record !== undefined) cell.set(ticksOf(record));
    }
  }

  onChange(change: Change): void {
    if (change.reset) for (const cell of this.#cells.values()) cell.set(NO_TICKS);
    for (const record of change.chats.values()) {
      const cell = this.#cells.get(record.chatId);
      if (cell !== undefined && !sameTicks(cell.get(), record)) cell.set(ticksOf(record));
    }
    for (const chatId of change.delivered) this.#tell(chatId);
  }

  onLive(): void {
    this.#told.clear();
    const { replica } = accountOf(this.core);
    for (const record of replica.chats.values()) {
      if (record.readSeq > record.toldReadSeq || record.knownSeq > record.toldDeliveredSeq)
        this.#tell(record.chatId);
    }
    for (const [chatId, cell] of this.#cells) if (cell.watched) this.#refresh(chatId);
  }

  onDown(): void {
    if (this.#timer !== null) this.core.runtime.clearTimeout(this.#timer);
    if (this.#confirmTimer !== null) this.core.runtime.clearTimeout(this.#confirmTimer);
    this.#timer = null;
    this.#confirmTimer = null;
    this.#due.clear();
    this.#young.clear();
    this.#ripe.clear();
    this.#frames.clear();
  }

  onClose(): void {
    this.onDown();
    this.#told.clear();
    for (const [chatId, cell] of this.#cells) {
      cell.set(NO_TICKS);
      if (!cell.watched) this.#cells.delete(chatId);
    }
  }

  /** A refusal of a receipt: of the moment, or for good; then it is not repeated. */
  onError(frameId: string, code: string, retryAfterMs: number | null): void {
    for (const [chatId, id] of this.#frames) {
      if (id !== frameId) continue;
      this.#frames.delete(chatId);
      if (code !== "rate_limited" && code !== "unavailable" && code !== "internal") return;
      this.core.runtime.setTimeout(() => {
        this.#told.delete(chatId);
        this.#tell(chatId);
      }, retryAfterMs ?? RETRY_MS);
      return;
    }
  }

  #tell(chatId: string): void {
    if (!this.core.connection.live) return;
    this.#due.add(chatId);
    this.#timer ??= this.core.runtime.setTimeout(() => {
      this.#timer = null;
      this.#flush();
    }, COALESCE_MS);
  }

  #flush(): void {
    const account = this.core.account();
    if (account === null) return;
    const frames = [];
    for (const chatId of this.#due) {
      const record = account.replica.chats.get(chatId);
      if (record === undefined) continue;
      const told = this.#told.get(chatId) ?? { deliveredSeq: 0, readSeq: 0 };
      const readSeq = Math.max(told.readSeq, record.toldReadSeq);
      const deliveredSeq = Math.max(told.deliveredSeq, record.toldDeliveredSeq);
      const id = `r${this.#nextFrame++}`;
      if (record.readSeq > readSeq) {
        frames.push({ t: "receipt", id, chat_id: chatId, status: "read", seq: record.readSeq });
      }
      // `read` implies `delivered` up to the same position.
      if (record.knownSeq > Math.max(deliveredSeq, readSeq, record.readSeq)) {
        frames.push({ t: "receipt", id, chat_id: chatId, status: "delivered", seq: record.knownSeq });
      }
      this.#frames.set(chatId, id);
      this.#told.set(chatId, {
        deliveredSeq: Math.max(record.knownSeq, record.readSeq),
        readSeq: record.readSeq,
      });
    }
    const due = [...this.#due];
    this.#due.clear();
    if (frames.length === 0) return;
    if (!this.core.connection.send(...frames)) {
      this.#told.clear();
      return;
    }
    for (const chatId of due) {
      const told = this.#told.get(chatId);
      if (told !== undefined) this.#young.set(chatId, told);
    }
    this.#confirmSoon(account);
  }

  /** Two ages, so that what is confirmed was told at least one full wait ago. */
  #confirmSoon(account: Account): void {
    this.#confirmTimer ??= this.core.runtime.setTimeout(() => {
      this.#confirmTimer = null;
      const safe = this.#ripe;
      this.#ripe = this.#young;
      this.#young = new Map();
      if (safe.size > 0) account.replica.confirmTold(safe).catch(() => {});
      if (this.#ripe.size > 0) this.#confirmSoon(account);
    }, CONFIRM_MS);
  }

  /** Moves that happened while this device was away are not replayed: ask, where an own message waits for them. */
  #refresh(chatId: string): void {
    const record = this.core.account()?.replica.chats.get(chatId);
    if (record === undefined || !this.core.connection.live) return;
    if (record.recipients === null || record.ownSeq > ticksOf(record).readSeq) this.#loadMembers(chatId);
  }
}

function recipientsOf(record: ChatRecord): readonly string[] {
  if (record.recipients !== null) return record.recipients;
  return record.chat.peer === null ? [] : [record.chat.peer.user_id];
}

function ticksOf(record: ChatRecord): Ticks {
  const recipients = recipientsOf(record);
  const cursors = new Map<string, { deliveredSeq: number; readSeq: number }>();
  for (const userId of recipients) {
    const [deliveredSeq, readSeq] = record.cursors[userId] ?? [0, 0];
    cursors.set(userId, { deliveredSeq, readSeq });
  }
  // Without a recipient a message is `sent` and stays so.
  const lowest = (of: (cursor: { deliveredSeq: number; readSeq: number }) => number) =>
    cursors.size === 0 ? 0 : Math.min(...[...cursors.values()].map(of));
  return {
    deliveredSeq: lowest((cursor) => cursor.deliveredSeq),
    readSeq: lowest((cursor) => cursor.readSeq),
    cursors,
  };
}

function sameTicks(ticks: Ticks, record: ChatRecord): boolean {
  const recipients = recipientsOf(record);
  if (ticks.cursors.size !== recipients.length) return false;
  return recipients.every((userId) => {
    const [deliveredSeq, readSeq] = record.cursors[userId] ?? [0, 0];
    const cursor = ticks.cursors.get(userId);
    return cursor !== undefined && cursor.deliveredSeq === deliveredSeq && cursor.readSeq === readSeq;
  });
}
